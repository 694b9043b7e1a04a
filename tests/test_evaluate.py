"""Evaluation by hand, by laws, by brute force and against ir_measures; every broken ranking refused."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols
from benchmark import metrics
from benchmark.evaluate import _without_seen, align, check, evaluate, find_hits, mean_metric
from benchmark.types import INVALID, PAD, Budget, Cases, Questions, Ranking, Sequences, Slice, Spend, Split
from tests import toys

K, N = 20, 40
SPEND = Spend(rule="scores", items_scored=N)
BUDGET = Budget(beam_size=20, list_length=K)
RULES = protocols.load("loo").rules

LISTS = st.lists(st.permutations(range(1, N + 1)), min_size=1, max_size=6)


def ranking_of(rows: list[list[int]], users: list[int] | None = None, width: int = K) -> Ranking:
    """A well-formed ranking with these lists, padded to ``width``; users 1, 2, ... unless told."""
    items = Sequences.from_rows([row[:width] for row in rows]).padded(width)
    scores = np.where(items == PAD, -np.inf, -np.arange(width)).astype(np.float32)
    named = range(1, len(rows) + 1) if users is None else users
    return Ranking(np.array(named, np.int32), items, scores, SPEND)


def cases_of(users: list[int]) -> Cases:
    nothing = Sequences.from_rows([[]] * len(users))
    return Cases(np.array(users, np.int32), nothing, nothing, np.arange(N + 1))


def questions_of(targets: list[list[int]], seen: list[list[int]] | None = None) -> Questions:
    cases = cases_of(list(range(1, len(targets) + 1)))
    if seen is not None:
        cases = replace(cases, seen=Sequences.from_rows(seen), histories=Sequences.from_rows(seen))
    return Questions(cases, Sequences.from_rows(targets))


def split_of(questions: Questions, codes: list[int] | None = None, categories: np.ndarray | None = None) -> Split:
    view = protocols.load("loo").split(toys.conveyor(N)).train
    slices = {} if codes is None else {"half": Slice(("first", "second", "empty"), np.array(codes, np.int8))}
    return Split(view, questions, slices, categories, {})


def scores_of(rows: list[list[int]], targets: list[list[int]]) -> dict[str, np.ndarray]:
    questions = questions_of(targets)
    return evaluate(ranking_of(rows), questions, split_of(questions), RULES, N).per_user


# --- by hand ------------------------------------------------------------------------------------------------


def test_one_target_by_hand() -> None:
    rows = [[7, 1, 2], [1, 7, 2], [1, 2, 3, 4, 5, 7], [1, 2], []]
    values = scores_of(rows, [[7]] * 5)
    assert values["recall@1"].tolist() == [1, 0, 0, 0, 0]
    assert values["recall@5"].tolist() == [1, 1, 0, 0, 0]
    assert values["recall@10"].tolist() == [1, 1, 1, 0, 0]
    log2_of_3, log2_of_7 = 1.584962500721156, 2.807354922057604
    np.testing.assert_allclose(values["ndcg@10"], [1, 1 / log2_of_3, 1 / log2_of_7, 0, 0], rtol=1e-15)
    assert values["ndcg@5"][2] == 0
    np.testing.assert_allclose(values["mrr@20"], [1, 1 / 2, 1 / 6, 0, 0])


def test_several_targets_by_hand() -> None:
    hits = np.array([[True, False, True, False], [False, False, False, True]])
    n_targets = np.array([3, 1])
    np.testing.assert_allclose(metrics.recall(hits, n_targets, 4), [2 / 3, 1])
    np.testing.assert_allclose(metrics.recall(hits, n_targets, 2), [1 / 3, 0])
    ideal_2, ideal_3 = 1.6309297535714575, 2.1309297535714575  # 1 + 1/log2(3), then + 1/log2(4)
    np.testing.assert_allclose(metrics.ndcg(hits, n_targets, 4), [1.5 / ideal_3, 1 / math.log2(5)])
    np.testing.assert_allclose(metrics.ndcg(hits, n_targets, 2), [1 / ideal_2, 0])
    np.testing.assert_allclose(metrics.mrr(hits, n_targets, 3), [1, 0])


def test_an_invalid_answer_costs_its_rank_and_never_hits() -> None:
    values = scores_of([[INVALID, INVALID, 7], [7, INVALID]], [[7], [7]])
    np.testing.assert_allclose(values["ndcg@10"], [1 / 2, 1])
    assert values["recall@1"].tolist() == [0, 1]


def test_hits_of_one_user_are_not_hits_of_another() -> None:
    items = np.array([[1, 2], [INVALID, N], [PAD, PAD]], np.int32)
    hits = find_hits(items, Sequences.from_rows([[N, 2], [1], [3]]))
    assert hits.tolist() == [[False, True], [False, False], [False, False]]


def test_users_without_a_list_score_zero_and_are_counted() -> None:
    questions = questions_of([[7], [7], [7], [7]])
    scores = evaluate(ranking_of([[7], [], [], []]), questions, split_of(questions), RULES, N)
    assert scores.metrics["recall@10"] == 1 / 4


def test_seen_items_are_dropped_in_the_second_column_only() -> None:
    questions = questions_of([[7], [7]], seen=[[1, 2], [7]])
    scores = evaluate(ranking_of([[1, 3, 2, 7], [5, 7]]), questions, split_of(questions), RULES, N)
    np.testing.assert_allclose(scores.per_user["ndcg@10"], [1 / math.log2(5), 1 / math.log2(3)])
    np.testing.assert_allclose(scores.per_user["ndcg@10/seen-dropped"], [1 / math.log2(3), 0])


def test_items_seen_before_the_history_window_are_dropped_too() -> None:
    questions = questions_of([[7]], seen=[[1, 2]])
    questions = replace(questions, cases=replace(questions.cases, histories=Sequences.from_rows([[2]])))
    scores = evaluate(ranking_of([[1, 2, 7]]), questions, split_of(questions), RULES, N)
    assert scores.per_user["recall@1/seen-dropped"].tolist() == [1]


@given(LISTS, st.data(), st.integers(1, 4))
def test_seen_items_are_dropped_block_by_block(rows: list[list[int]], data: st.DataObject, block: int) -> None:
    seen = [data.draw(st.lists(st.integers(1, N), max_size=9)) for _ in rows]
    fresh = _without_seen(ranking_of(rows).items, Sequences.from_rows(seen), block)
    wanted = [[i for i in row[:K] if i not in had] for row, had in zip(rows, seen, strict=True)]
    np.testing.assert_array_equal(fresh, Sequences.from_rows(wanted).padded(K))


def test_beyond_accuracy_by_hand() -> None:
    rows = [[1, 2, 3, *range(11, 18), 4], [1, 2, 5, INVALID]]
    categories = np.zeros(N + 1, np.int32)
    categories[[1, 2]], categories[3] = 8, 9
    questions = questions_of([[7], [7]])
    values = evaluate(ranking_of(rows), questions, split_of(questions, categories=categories), RULES, N).metrics
    assert values["coverage@10"] == 11 / N  # 1 2 3 5 and 11..17
    assert values["coverage@20"] == 12 / N
    shares = [2 / 13, 2 / 13, *[1 / 13] * 9]
    assert values["item_entropy@10"] == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert values["category_entropy@10"] == pytest.approx(-(4 / 5 * math.log(4 / 5) + 1 / 5 * math.log(1 / 5)))


def test_without_categories_there_is_no_category_entropy_and_empty_lists_have_none() -> None:
    questions = questions_of([[7]])
    values = evaluate(ranking_of([[]]), questions, split_of(questions), RULES, N).metrics
    assert "category_entropy@10" not in values
    assert values["coverage@10"] == values["item_entropy@20"] == 0


def test_slices_by_hand() -> None:
    questions = questions_of([[7]] * 4)
    split = split_of(questions, codes=[0, 1, 0, -1])
    ranking = ranking_of([[7], [1, 7], [1], [7]])
    half = evaluate(ranking, questions, split, RULES, N).by_slice["half"]
    assert (half["first"]["users"], half["first"]["recall@1"]) == (2, 1 / 2)
    assert (half["second"]["users"], half["second"]["recall@5"]) == (1, 1)
    assert half["empty"] == {"users": 0}


def test_part_of_the_questions_gets_its_own_slices() -> None:
    questions = questions_of([[7]] * 4)
    split = split_of(questions, codes=[0, 1, 1, 0])
    part = questions.take(np.array([1, 3]))
    scores = evaluate(ranking_of([[7], []], users=[2, 4]), part, split, RULES, N)
    assert scores.users.tolist() == [2, 4]
    assert scores.slices["half"].codes.tolist() == [1, 0]
    assert scores.by_slice["half"]["second"]["recall@10"] == 1


def test_a_ranking_in_another_order_of_users_is_aligned() -> None:
    questions = questions_of([[1], [2], [3]])
    scores = evaluate(ranking_of([[3], [1], [9]], users=[3, 1, 2]), questions, split_of(questions), RULES, N)
    assert scores.users.tolist() == [1, 2, 3]
    assert scores.per_user["recall@1"].tolist() == [1, 0, 1]
    again = align(ranking_of([[3], [1], [9]], users=[3, 1, 2]), np.array([2, 3, 1]))
    assert again.items[:, 0].tolist() == [9, 3, 1]


def test_mean_metric_is_the_mean_of_the_evaluation() -> None:
    rows, targets = [[7, 1], [1, 7], [2]], [[7], [7], [7]]
    scores = scores_of(rows, targets)
    for metric in ("ndcg@10", "recall@1", "mrr@20"):
        value = mean_metric(ranking_of(rows), Sequences.from_rows(targets), metric)
        assert value == scores[metric].mean()


def test_mean_metric_refuses_lists_that_are_too_short() -> None:
    with pytest.raises(ValueError, match="ndcg@10 needs lists of 10 items, these have 5"):
        mean_metric(ranking_of([[1]], width=5), Sequences.from_rows([[1]]), "ndcg@10")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("ndgc@10", "unknown metric 'ndgc@10'; did you mean 'ndcg'"),
        ("zzz", "there are: recall, ndcg"),
        ("ndcg", "needs a positive list length, e.g. 'ndcg@10'"),
        ("ndcg@0", "needs a positive list length"),
        ("ndcg@-1", "needs a positive list length"),
        ("ndcg@ten", "needs a positive list length"),
    ],
)
def test_parse_refuses_what_it_does_not_know(metric: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.parse(metric)


def test_parse() -> None:
    assert metrics.parse("ndcg@10") == ("ndcg", 10)
    assert metrics.parse("category_entropy@20") == ("category_entropy", 20)


# --- laws ---------------------------------------------------------------------------------------------------


def between(low: np.ndarray, value: np.ndarray, high: np.ndarray) -> bool:
    return bool((low <= value + 1e-12).all() and (value <= high + 1e-12).all())


@given(LISTS, st.data())
def test_arithmetic_bounds_of_one_target(rows: list[list[int]], data: st.DataObject) -> None:
    targets = [[data.draw(st.integers(1, N))] for _ in rows]
    v = scores_of(rows, targets)
    assert between(v["recall@1"], v["ndcg@5"], v["ndcg@10"])
    assert (v["recall@1"] == v["ndcg@1"]).all()
    for k in (1, 5, 10, 20):
        assert between(v[f"recall@{k}"] / math.log2(k + 1), v[f"ndcg@{k}"], v[f"recall@{k}"])
    for low, high, least, most in (
        (1, 5, 1 / math.log2(6), 1 / math.log2(3)),
        (5, 10, 1 / math.log2(11), 1 / math.log2(7)),
    ):
        gained = v[f"recall@{high}"] - v[f"recall@{low}"]
        assert between(gained * least, v[f"ndcg@{high}"] - v[f"ndcg@{low}"], gained * most)


def test_published_form_of_the_bounds() -> None:
    assert [round(1 / math.log2(r), 3) for r in (11, 7, 6, 3)] == [0.289, 0.356, 0.387, 0.631]


@given(LISTS, st.data())
def test_several_targets_stay_in_range_and_a_perfect_list_scores_one(
    rows: list[list[int]], data: st.DataObject
) -> None:
    targets = [data.draw(st.lists(st.integers(1, N), min_size=1, max_size=8, unique=True)) for _ in rows]
    values = scores_of(rows, targets)
    assert all(((v >= 0) & (v <= 1 + 1e-12)).all() for v in values.values())
    assert (values["recall@5"] <= values["recall@10"]).all() and (values["recall@10"] <= values["recall@20"]).all()
    perfect = scores_of([[*t, *(i for i in row if i not in t)] for row, t in zip(rows, targets, strict=True)], targets)
    for metric in ("ndcg@1", "ndcg@5", "ndcg@10", "ndcg@20", "recall@10", "mrr@20"):
        np.testing.assert_allclose(perfect[metric], 1)


@given(LISTS, st.integers(1, N))
def test_what_stands_after_k_does_not_matter(rows: list[list[int]], target: int) -> None:
    changed = [[*row[:10], *reversed(row[10:])] for row in rows]
    before, after = scores_of(rows, [[target]] * len(rows)), scores_of(changed, [[target]] * len(rows))
    for metric in ("recall@1", "recall@10", "ndcg@5", "ndcg@10"):
        np.testing.assert_array_equal(before[metric], after[metric])


@given(LISTS, st.permutations(range(1, N + 1)), st.integers(1, N))
def test_renaming_the_items_changes_nothing(rows: list[list[int]], name: list[int], target: int) -> None:
    before = scores_of(rows, [[target]] * len(rows))
    after = scores_of([[name[i - 1] for i in row] for row in rows], [[name[target - 1]]] * len(rows))
    for metric, values in before.items():
        np.testing.assert_array_equal(values, after[metric])


@given(LISTS, st.data())
def test_a_hit_one_rank_earlier_never_scores_less(rows: list[list[int]], data: st.DataObject) -> None:
    place = data.draw(st.integers(1, K - 1))
    targets = [[row[place]] for row in rows]
    earlier = [[*row[: place - 1], row[place], row[place - 1], *row[place + 1 :]] for row in rows]
    before, after = scores_of(rows, targets), scores_of(earlier, targets)
    assert all((after[metric] >= before[metric]).all() for metric in before)
    assert (after["ndcg@20"] > before["ndcg@20"]).all() and (after["mrr@20"] > before["mrr@20"]).all()


# --- other routes -------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, N), max_size=K, unique=True), min_size=1, max_size=5), st.data())
def test_metrics_agree_with_loops(rows: list[list[int]], data: st.DataObject) -> None:
    targets = [data.draw(st.lists(st.integers(1, N), min_size=1, max_size=25, unique=True)) for _ in rows]
    values = scores_of(rows, targets)
    for user, (row, wanted) in enumerate(zip(rows, targets, strict=True)):
        for k in (1, 5, 10, 20):
            ranks = [rank for rank, item in enumerate(row[:k], 1) if item in wanted]
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), k) + 1))
            assert values[f"recall@{k}"][user] == pytest.approx(len(ranks) / len(wanted))
            assert values[f"ndcg@{k}"][user] == pytest.approx(sum(1 / math.log2(r + 1) for r in ranks) / ideal)
            if k == 20:
                assert values["mrr@20"][user] == pytest.approx(1 / ranks[0] if ranks else 0)


@given(st.lists(st.lists(st.integers(1, N), max_size=K, unique=True), min_size=1, max_size=5))
def test_beyond_accuracy_agrees_with_counting(rows: list[list[int]]) -> None:
    items = ranking_of(rows).items
    counts = Counter(item for row in rows for item in row[:10])
    total = sum(counts.values())
    assert metrics.coverage(items, N, 10) == pytest.approx(len(counts) / N)
    expected = -sum(c / total * math.log(c / total) for c in counts.values())
    assert metrics.entropy(items, 10) == pytest.approx(expected)


def test_metrics_agree_with_ir_measures() -> None:
    ir_measures = pytest.importorskip(
        "ir_measures", reason="reference implementation not installed: pip install ir_measures"
    )
    rng = np.random.default_rng(0)
    n_users = 300
    rows = [rng.permutation(np.arange(1, N + 1))[: rng.integers(1, K + 1)].tolist() for _ in range(n_users)]
    targets = [rng.choice(N, size=1 if user % 2 else rng.integers(1, 26), replace=False) + 1 for user in range(n_users)]
    ours = scores_of(rows, [t.tolist() for t in targets])
    qrels = [ir_measures.Qrel(str(u), str(item), 1) for u, t in enumerate(targets) for item in t]
    run = [ir_measures.ScoredDoc(str(u), str(i), -float(r)) for u, row in enumerate(rows) for r, i in enumerate(row)]
    names = {
        f"{ours}@{k}": f"{theirs}@{k}" for ours, theirs in (("recall", "R"), ("ndcg", "nDCG")) for k in (1, 5, 10, 20)
    }
    names["mrr@20"] = "RR@20"
    measures = {theirs: ir_measures.parse_measure(theirs) for theirs in names.values()}
    found = {(str(m.measure), int(m.query_id)): m.value for m in ir_measures.iter_calc(measures.values(), qrels, run)}
    for metric, name in names.items():
        theirs = [found[str(measures[name]), user] for user in range(n_users)]
        np.testing.assert_allclose(ours[metric], theirs, atol=1e-12, err_msg=metric)


# --- refused ------------------------------------------------------------------------------------------------


def good() -> Ranking:
    return ranking_of([[1, 2, 3], [4, INVALID, 5], []])


def with_items(row: int, values: list[int]) -> Ranking:
    ranking = good()
    items, scores = ranking.items.copy(), ranking.scores.copy()
    items[row, : len(values)] = values
    scores[items != PAD] = 0
    return replace(ranking, items=items, scores=scores)


def with_scores(row: int, values: list[float]) -> Ranking:
    scores = good().scores.copy()
    scores[row, : len(values)] = values
    return replace(good(), scores=scores)


BROKEN = {
    "list too short": (ranking_of([[1], [2], [3]], width=19), r"shape \(3, 20\), not \(3, 19\)"),
    "list too long": (ranking_of([[1], [2], [3]], width=21), r"shape \(3, 20\), not \(3, 21\)"),
    "a row missing": (replace(good(), items=good().items[:2]), r"shape \(3, 20\), not \(2, 20\)"),
    "scores of another shape": (replace(good(), scores=good().scores[:, :5]), r"and \(3, 5\)"),
    "users not a vector": (replace(good(), users=good().users[:, None]), r"users \(3, 1\)"),
    "items as floats": (replace(good(), items=good().items.astype(float)), "items must be a numpy array"),
    "items as a list": (replace(good(), items=good().items.tolist()), "signed integers, not list"),
    "unsigned items": (replace(good(), items=good().items.astype(np.uint32)), "not uint32"),
    "users as text": (replace(good(), users=good().users.astype(str)), "users must be"),
    "scores as integers": (replace(good(), scores=np.zeros((3, K), int)), "scores must be .* floating point"),
    "user missing": (ranking_of([[1], [2]], users=[1, 3]), "leaves out 1 users that were asked, e.g. user 2"),
    "user repeated": (ranking_of([[1], [2], [3], [4]], users=[1, 2, 2, 3]), "answers user 2 more than once"),
    "user unknown": (ranking_of([[1]] * 4, users=[1, 2, 3, 9]), "1 users that were not asked, e.g. user 9"),
    "item above N": (with_items(1, [N + 1]), r"user 2 names an unknown item \(ids are 1..40"),
    "item below -1": (with_items(1, [-2]), "user 2 names an unknown item"),
    "item twice": (with_items(0, [1, 2, 3, 1]), "user 1 names an item twice"),
    "PAD before an item": (with_items(0, [1, PAD, 3]), "user 1 has PAD before an item"),
    "PAD before an invalid answer": (with_items(2, [PAD, INVALID]), "user 3 has PAD before an item"),
    "scores increasing": (with_scores(0, [1, 2, 0]), "user 1 has scores that increase"),
    "NaN score": (with_scores(1, [math.nan]), "user 2 has a score that is not a number"),
    "score at PAD": (with_scores(2, [5.0]), "user 3 has a score other than -inf where the list is padded"),
    "no spend": (replace(good(), spend=None), "does not say what it spent"),
    "unknown rule": (replace(good(), spend=replace(SPEND, rule="guess")), "unknown scoring rule 'guess'"),
    "negative spend": (replace(good(), spend=replace(SPEND, items_scored=-1)), "finite number of at least 0"),
    "spend not a number": (replace(good(), spend=replace(SPEND, decoder_tokens=math.nan)), "finite number"),
    "beam above the budget": (
        replace(good(), spend=replace(SPEND, beam_size=21)),
        "beam of 21; the protocol",
    ),
}


def test_a_good_ranking_passes() -> None:
    check(good(), cases_of([1, 2, 3]), N, K, BUDGET)
    check(good(), cases_of([1, 2, 3]), N, K, BUDGET, candidates=np.array([1, 2, 3, 4, 5]))
    check(replace(good(), spend=replace(SPEND, beam_size=20)), cases_of([3, 2, 1]), N, K, BUDGET)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_ranking_is_refused_in_one_sentence(fault: str) -> None:
    ranking, message = BROKEN[fault]
    with pytest.raises(ValueError, match=message) as refusal:
        check(ranking, cases_of([1, 2, 3]), N, K, BUDGET)
    assert "\n" not in str(refusal.value)


def test_a_list_above_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="lists have 20 items; the protocol allows 10"):
        check(good(), cases_of([1, 2, 3]), N, K, Budget(beam_size=20, list_length=10))


def test_items_outside_the_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="user 2 names an item outside the candidates"):
        check(good(), cases_of([1, 2, 3]), N, K, BUDGET, candidates=np.array([1, 2, 3, 4]))


def test_a_refusal_says_how_many_users_are_affected() -> None:
    items = good().items.copy()
    items[:, 0] = N + 5
    scores = np.where(items == PAD, -np.inf, 0).astype(np.float32)
    with pytest.raises(ValueError, match=r"the list of user 1 \(and 2 more\) names an unknown item"):
        check(replace(good(), items=items, scores=scores), cases_of([1, 2, 3]), N, K, BUDGET)


def test_evaluate_refuses_what_check_refuses() -> None:
    questions = questions_of([[7], [7], [7]])
    with pytest.raises(ValueError, match="user 1 names an item twice"):
        evaluate(with_items(0, [1, 1]), questions, split_of(questions), RULES, N)
