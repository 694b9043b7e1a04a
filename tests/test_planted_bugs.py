"""The classic evaluation bugs, planted one by one into the real code; a suite of checks must catch each.

A check is a law of the path split -> rank -> evaluate that holds for the real code; a bug is a patch of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import benchmark.evaluate as evaluation
import methods.blocks.ranking as ranking_block
import protocols
from benchmark import metrics
from benchmark.evaluate import Scores
from benchmark.run import Run
from benchmark.types import INVALID, PAD, Cases, Questions, Ranking, Sequences, Slice, Spend, Split
from protocols import loo
from tests import toys

N, K = 50, 20
LOO = protocols.load("loo")
SPEND = Spend(rule="scores", items_scored=N)
EVALUATE, FIND_HITS, MEAN_METRIC = evaluation.evaluate, evaluation.find_hits, evaluation.mean_metric
RANK_BY_SCORE, QUESTIONS = ranking_block.rank_by_score, loo._questions


# --- the path under test ------------------------------------------------------------------------------------


def ring_world() -> Split:
    """Users of different lengths on a ring of N items: the answer is always the last item + 1."""
    rng = np.random.default_rng(0)
    histories = [(rng.integers(N) + np.arange(length)) % N + 1 for length in rng.integers(3, 30, 60)]
    return LOO.split(toys.dataset("ring", [*histories, np.arange(1, N + 1)], ["", *["wagon"] * N]))


def rank(split: Split, score: Callable[[Cases], torch.Tensor]) -> Ranking:
    return ranking_block.rank_by_score(score, split.test.cases, K, run=Run(), spend=SPEND, batch_size=16)


def next_on_the_ring(cases: Cases) -> torch.Tensor:
    scores = torch.zeros(len(cases), N + 1)
    scores[torch.arange(len(cases)), torch.from_numpy(cases.histories.last_items % N + 1).long()] = 1.0
    return scores


def evaluate(rows: list[list[int]], targets: list[list[int]], seen: list[list[int]] | None = None) -> Scores:
    """Scores of these lists and answers of users 1, 2, ...; the slices are odd and even users."""
    users = np.arange(1, len(rows) + 1, dtype=np.int32)
    before = Sequences.from_rows([[]] * len(rows) if seen is None else seen)
    questions = Questions(Cases(users, before, before, np.arange(N + 1)), Sequences.from_rows(targets))
    return evaluation.evaluate(lists(rows, users), questions, split_of(questions), LOO.rules, N)


def lists(rows: list[list[int]], users: np.ndarray) -> Ranking:
    items = Sequences.from_rows(rows).padded(K)
    scores = np.where(items == PAD, -np.inf, -np.arange(K)).astype(np.float32)
    return Ranking(users, items, scores, SPEND)


def split_of(questions: Questions) -> Split:
    halves = Slice(("odd", "even"), (1 - questions.cases.users % 2).astype(np.int8))
    return Split(ring_world().train, questions, {"half": halves}, None, {})


def target_at(place: int) -> list[int]:
    """A list of K items with item N at this rank."""
    return [*range(1, place), N, *range(place, K)][:K]


# --- checks -------------------------------------------------------------------------------------------------


def check_hand_case() -> None:
    values = evaluate([target_at(r) for r in (1, 2, 3, 7)], [[N]] * 4).per_user
    np.testing.assert_allclose(values["ndcg@10"], [1, 0.6309297535714575, 0.5, 1 / 3])


def check_arithmetic_bounds() -> None:
    rng = np.random.default_rng(1)
    rows = [rng.permutation(N)[:K] + 1 for _ in range(200)]
    v = evaluate([row.tolist() for row in rows], [[int(t)] for t in rng.integers(1, N + 1, 200)]).metrics
    for k in (1, 5, 10, 20):
        assert v[f"recall@{k}"] / math.log2(k + 1) - 1e-12 <= v[f"ndcg@{k}"] <= v[f"recall@{k}"] + 1e-12
    gained = v["recall@10"] - v["recall@5"]
    assert 0.289 * gained - 1e-3 <= v["ndcg@10"] - v["ndcg@5"] <= 0.357 * gained


def check_cut_at_k() -> None:
    for k in (5, 10):
        values = evaluate([target_at(k), target_at(k + 1)], [[N]] * 2).per_user
        assert values[f"recall@{k}"].tolist() == [1, 0]
        assert (values[f"ndcg@{k}"] > 0).tolist() == [True, False]


def check_ties_follow_the_permutation() -> None:
    split = ring_world()
    ranking = rank(split, lambda cases: torch.zeros(len(cases), N + 1))
    order = split.test.cases.tie_order
    place = order[split.test.targets.items]
    scores = evaluation.evaluate(ranking, split.test, split, LOO.rules, N)
    np.testing.assert_array_equal(scores.per_user["recall@10"], place < 10)
    assert np.argsort(order[1:]).tolist() != list(range(N))


def check_duplicates_never_pay() -> None:
    try:
        values = evaluate([[N, N, 3]], [[N]]).per_user
    except ValueError:
        return
    assert max(value.max() for value in values.values()) <= 1


def check_padding_is_no_answer() -> None:
    scores = evaluate([[], [1], [2, 3]], [[9], [9, 8, 7], [9]])
    assert all(values.max() == 0 for values in scores.per_user.values())
    assert scores.metrics["coverage@10"] == 3 / N
    assert scores.metrics["item_entropy@10"] == pytest.approx(math.log(3))


def check_every_user_counts() -> None:
    rows = [[N]] * 20 + [[]] * 17
    scores = evaluate(rows, [[N]] * 37)
    assert scores.users.tolist() == list(range(1, 38))
    assert scores.metrics["recall@1"] == pytest.approx(20 / 37)
    ranking = lists(rows, scores.users)
    assert evaluation.mean_metric(ranking, Sequences.from_rows([[N]] * 37), "recall@1") == pytest.approx(20 / 37)


def check_missing_users_are_refused() -> None:
    split = ring_world()
    users = split.test.cases.users[1:]
    with pytest.raises(ValueError, match="leaves out 1 users"):
        evaluation.evaluate(lists([[1]] * len(users), users), split.test, split, LOO.rules, N)


def check_the_oracle_scores_one() -> None:
    split = ring_world()
    ranking = rank(split, next_on_the_ring)
    assert evaluation.evaluate(ranking, split.test, split, LOO.rules, N).metrics["recall@1"] == 1


def check_order_of_users_does_not_matter() -> None:
    split = ring_world()
    ranking = rank(split, next_on_the_ring)
    mixed = np.random.default_rng(0).permutation(len(ranking.users))
    other = Ranking(ranking.users[mixed], ranking.items[mixed], ranking.scores[mixed], ranking.spend)
    a, b = (evaluation.evaluate(r, split.test, split, LOO.rules, N) for r in (ranking, other))
    np.testing.assert_array_equal(a.per_user["ndcg@10"], b.per_user["ndcg@10"])
    assert a.metrics == b.metrics


def check_history_then_target_is_the_sequence() -> None:
    split = ring_world()
    for questions in (split.train.valid, split.test):
        for seen, target in zip(questions.cases.seen, questions.targets, strict=True):
            assert target.tolist() == [seen[-1] % N + 1], "the answer is the item right after what the user had"
    for row, seen in zip(split.train.sequences, split.train.valid.cases.seen, strict=True):
        assert row.tolist() == seen.tolist(), "training ends before the validation answer"


def check_invalid_answers_cost_their_rank() -> None:
    values = evaluate([[INVALID, N], [INVALID, 1]], [[N], [N]]).per_user
    np.testing.assert_allclose(values["ndcg@10"], [1 / math.log2(3), 0])
    assert evaluate([[1], [INVALID]], [[N], [2]]).metrics["recall@20"] == 0


def check_dropping_seen_items_closes_gaps() -> None:
    values = evaluate([[1, 2, N]], [[N]], seen=[[1, 2]]).per_user
    assert (values["mrr@20"][0], values["mrr@20/seen-dropped"][0]) == (pytest.approx(1 / 3), 1)


def check_slices_belong_to_their_users() -> None:
    users = np.arange(1, 11, dtype=np.int32)
    nothing = Sequences.from_rows([[]] * 10)
    questions = Questions(Cases(users, nothing, nothing, np.arange(N + 1)), Sequences.from_rows([[N]] * 10))
    even = questions.take(users % 2 == 0)
    scores = evaluation.evaluate(lists([[N]] * 5, even.cases.users), even, split_of(questions), LOO.rules, N)
    assert (scores.by_slice["half"]["odd"]["users"], scores.by_slice["half"]["even"]["users"]) == (0, 5)


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


# --- bugs ---------------------------------------------------------------------------------------------------


def ndcg_with(discount: Callable[[np.ndarray], np.ndarray], hits: np.ndarray, n: np.ndarray, k: int) -> np.ndarray:
    """NDCG whose gains, but not its ideal, use another discount of the ranks 1..k."""
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[np.minimum(n, k) - 1]
    return hits[:, :k] @ discount(np.arange(1.0, k + 1)) / ideal


def with_k_changed(by: int) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(metrics.PER_USER, "recall", lambda hits, n, k: hits[:, : k + by].sum(1) / n)

    return plant


def ties_won_by_the_target(ranking: Ranking, questions: Questions, *rest: Any) -> Scores:
    """The rank that ``(scores > score of the target).sum()`` would give."""
    answer = evaluation.find_hits(ranking.items, questions.targets)
    order = np.lexsort((~answer, -ranking.scores), axis=1)
    return EVALUATE(replace(ranking, items=np.take_along_axis(ranking.items, order, 1)), questions, *rest)


def only_whole_batches(score: Any, cases: Cases, k: int, *, batch_size: int = 16, **rest: Any) -> Ranking:
    whole = np.arange(len(cases) // batch_size * batch_size)
    return RANK_BY_SCORE(score, cases.take(whole), k, batch_size=batch_size, **rest)


def never_sorted_back(score: Any, cases: Cases, k: int, **rest: Any) -> Ranking:
    """Lists in the order of the length buckets, users in the order of the cases."""
    ranking = RANK_BY_SCORE(score, cases, k, **rest)
    order = np.argsort(cases.histories.lengths, kind="stable")
    return replace(ranking, items=ranking.items[order], scores=ranking.scores[order])


def only_whole_batches_scored(ranking: Ranking, questions: Questions, *rest: Any) -> Scores:
    whole = np.arange(len(questions) // 16 * 16)
    part = Ranking(ranking.users[whole], ranking.items[whole], ranking.scores[whole], ranking.spend)
    return EVALUATE(part, questions.take(whole), *rest)


def only_answered_users(ranking: Ranking, questions: Questions, *rest: Any) -> Scores:
    scores = EVALUATE(ranking, questions, *rest)
    answered = (ranking.items > PAD).any(1)
    means = {name: float(values[answered].mean()) for name, values in scores.per_user.items() if answered.any()}
    return replace(scores, metrics=scores.metrics | means)


def only_answered_in_validation(ranking: Ranking, targets: Sequences, metric: str) -> float:
    rows = np.flatnonzero((ranking.items > PAD).any(1))
    part = Ranking(ranking.users[rows], ranking.items[rows], ranking.scores[rows], ranking.spend)
    return MEAN_METRIC(part, targets.take(rows), metric)


def padded_comparison(items: np.ndarray, targets: Sequences) -> np.ndarray:
    return (items[:, :, None] == targets.padded()[:, None, :]).any(-1)


def unmasked_keys(items: np.ndarray, targets: Sequences) -> np.ndarray:
    stride = int(max(items.max(), targets.items.max())) + 1
    rows = np.arange(len(items))[:, None]
    return np.isin(rows * stride + items, targets.row_of * stride + targets.items)


def invalid_skipped(items: np.ndarray, targets: Sequences) -> np.ndarray:
    order = np.argsort(items == INVALID, axis=1, kind="stable")
    return FIND_HITS(np.take_along_axis(items, order, 1), targets)


def history_holds_the_target(sequences: Sequences, asked: np.ndarray, later: int, tie: np.ndarray) -> Questions:
    questions = QUESTIONS(sequences, asked, later, tie)
    seen = loo._head(sequences.take(asked), sequences.lengths[asked] - later)
    return Questions(replace(questions.cases, seen=seen, histories=seen.tail(20)), questions.targets)


def seen_item_as_target(sequences: Sequences, asked: np.ndarray, later: int, tie: np.ndarray) -> Questions:
    cases = QUESTIONS(sequences, asked, later, tie).cases
    return Questions(cases, Sequences.from_lengths(cases.seen.last_items, np.ones(len(cases), np.int64)))


def validation_answers_in_training(patch: pytest.MonkeyPatch) -> None:
    head = loo._head
    patch.setattr(loo, "_head", lambda rows, lengths: head(rows, np.minimum(rows.lengths, lengths + 1)))
    patch.setattr(loo, "_questions", partial(questions_with, head))


def questions_with(head: Callable[..., Sequences], *arguments: Any) -> Questions:
    """The real questions, whatever happened to the training part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loo, "_head", head)
        return QUESTIONS(*arguments)


def duplicates_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evaluation, "_check_items", lambda *_: None)


def counts_with_padding(values: np.ndarray) -> np.ndarray:
    counts = np.bincount(np.maximum(values, PAD).ravel())
    return counts[counts > 0]


def gaps_left(items: np.ndarray, seen: Sequences) -> np.ndarray:
    known = (items[:, :, None] == seen.padded()[:, None, :]).any(-1)
    return np.where(known, PAD, items)


def first_codes(users: np.ndarray, split: Split) -> dict[str, Slice]:
    return {name: Slice(one.labels, one.codes[: len(users)]) for name, one in split.slices.items()}


def attribute(module: object, name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, value)


def metric(name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(metrics.PER_USER, name, value)


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "discount log2(rank)": (
        metric("ndcg", partial(ndcg_with, lambda r: 1 / np.log2(np.maximum(r, 2)))),
        check_hand_case,
    ),
    "discount in natural logarithm": (
        metric("ndcg", partial(ndcg_with, lambda r: 1 / np.log(r + 1))),
        check_arithmetic_bounds,
    ),
    "discount 1 / rank": (metric("ndcg", partial(ndcg_with, lambda r: 1 / r)), check_hand_case),
    "K one too small": (with_k_changed(-1), check_cut_at_k),
    "K one too large": (with_k_changed(+1), check_cut_at_k),
    "ties won by the target": (
        attribute(evaluation, "evaluate", ties_won_by_the_target),
        check_ties_follow_the_permutation,
    ),
    "ties follow the item id": (
        attribute(loo, "tie_order", lambda n, seed: np.r_[n, np.arange(n)]),
        check_ties_follow_the_permutation,
    ),
    "duplicate hits counted": (duplicates_accepted, check_duplicates_never_pay),
    "padding counted as a hit": (
        attribute(evaluation, "find_hits", padded_comparison),
        check_padding_is_no_answer,
    ),
    "padding counted as an item": (
        attribute(metrics, "_counts", counts_with_padding),
        check_padding_is_no_answer,
    ),
    "last batch not ranked": (
        attribute(ranking_block, "rank_by_score", only_whole_batches),
        check_the_oracle_scores_one,
    ),
    "last batch not scored": (
        attribute(evaluation, "evaluate", only_whole_batches_scored),
        check_every_user_counts,
    ),
    "missing users accepted": (
        attribute(evaluation, "_check_users", lambda *_: None),
        check_missing_users_are_refused,
    ),
    "lists in bucket order": (
        attribute(ranking_block, "rank_by_score", never_sorted_back),
        check_the_oracle_scores_one,
    ),
    "user order ignored": (
        attribute(evaluation, "align", lambda ranking, users: ranking),
        check_order_of_users_does_not_matter,
    ),
    "history holds the target": (
        attribute(loo, "_questions", history_holds_the_target),
        check_history_then_target_is_the_sequence,
    ),
    "seen item as target": (
        attribute(loo, "_questions", seen_item_as_target),
        check_history_then_target_is_the_sequence,
    ),
    "validation answers in training": (
        validation_answers_in_training,
        check_history_then_target_is_the_sequence,
    ),
    "mean over answered users only": (
        attribute(evaluation, "evaluate", only_answered_users),
        check_every_user_counts,
    ),
    "validation over answered users only": (
        attribute(evaluation, "mean_metric", only_answered_in_validation),
        check_every_user_counts,
    ),
    "invalid answers skipped": (
        attribute(evaluation, "find_hits", invalid_skipped),
        check_invalid_answers_cost_their_rank,
    ),
    "invalid answer hits another user's target": (
        attribute(evaluation, "find_hits", unmasked_keys),
        check_invalid_answers_cost_their_rank,
    ),
    "seen items leave gaps": (
        attribute(evaluation, "_without_seen", gaps_left),
        check_dropping_seen_items_closes_gaps,
    ),
    "slices of the first users": (
        attribute(evaluation, "_slices_of", first_codes),
        check_slices_belong_to_their_users,
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_real_code_passes(check: str) -> None:
    CHECKS[check]()


@pytest.mark.parametrize("bug", BUGS)
def test_the_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, catcher = BUGS[bug]
    plant(monkeypatch)
    caught = []
    for check in CHECKS.values():
        try:
            check()
        except (AssertionError, ValueError, pytest.fail.Exception):
            caught.append(check)
    assert catcher in caught, f"'{bug}' slips through {catcher.__name__}; caught by {[c.__name__ for c in caught]}"


def test_every_check_is_needed_by_some_bug() -> None:
    assert {catcher for _, catcher in BUGS.values()} == set(CHECKS.values())
