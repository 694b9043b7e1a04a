"""Beam search finds what it must: numbers by hand, a search in plain Python, exhaustive scoring, transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.lists import tie_order
from benchmark.run import Interrupted, Run
from benchmark.types import PAD, Budget, Cases, Ranking
from methods.blocks.beam_search import RULES, Step, beam_search, rank_by_beam, spend_of
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5_weights import from_transformers
from tests.beam_world import (
    SHAPE,
    TRAP,
    Code,
    Leaky,
    by_model,
    by_table,
    drawn,
    every_score,
    followers,
    hand_made,
    make_cases,
    make_ids,
    random_ids,
    small_model,
)
from tests.reference_t5 import transformers_t5


def plain_search(
    ids: SemanticIds, items: Sequence[int], chances: Callable[[Code], Sequence[float]], beam: int, rule: str
) -> list[tuple[float, Code]]:
    """Beam search as a textbook has it, one prefix at a time."""
    next_codes = followers(ids, items)
    beams: list[tuple[float, Code]] = [(0.0, ())]
    for _ in range(ids.levels):
        grown = []
        for score, prefix in beams:
            chance = chances(prefix)
            mass = sum(chance[code] for code in next_codes[prefix]) if rule == "renorm" else 1.0
            grown += [(score + math.log(chance[code] / mass), (*prefix, code)) for code in next_codes[prefix]]
        beams = sorted(grown, reverse=True)[:beam]
    return beams


def ask(start: Callable[[Cases], Step], ids: SemanticIds, cases: Cases, k: int, beam: int, **settings) -> Ranking:
    run = settings.pop("run", Run())
    ranking = rank_by_beam(start, ids, cases, k, run=run, budget=Budget(beam_size=beam, list_length=k), **settings)
    assert ranking.items.shape == ranking.scores.shape == (len(cases), k)
    assert (ranking.scores[:, :-1] >= ranking.scores[:, 1:]).all()
    assert ((ranking.items == PAD) == np.isneginf(ranking.scores)).all()
    for row in ranking.items:
        assert len(np.unique(row[row != PAD])) == (row != PAD).sum()
    return ranking


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beam", "items", "chances"),
    [
        (1, [1, 0, 0, 0], [0.33]),
        (2, [3, 1, 0, 0], [0.36, 0.33]),
        (3, [3, 1, 2, 0], [0.36, 0.33, 0.27]),
        (4, [3, 1, 2, 4], [0.36, 0.33, 0.27, 0.04]),
        (9, [3, 1, 2, 4], [0.36, 0.33, 0.27, 0.04]),
    ],
)
def test_a_narrow_beam_misses_the_best(beam, items, chances):
    ids = make_ids((0, 0), (0, 1), (1, 0), (1, 1), sizes=(2, 2))
    ranking = ask(by_table(ids, TRAP), ids, make_cases(2, 4), 4, beam)
    assert ranking.items.tolist() == [items, items]
    assert np.exp(ranking.scores).tolist() == [pytest.approx(chances + [0.0] * (4 - len(chances)), rel=1e-5)] * 2


def test_both_rules_by_hand():
    # Without an item (0, 1), renorm gives all of the .6 to (0, 0): it overtakes (1, 0), which has .36.
    ids = make_ids((0, 0), (1, 0), (1, 1), sizes=(2, 2))
    raw, renorm = (ask(by_table(ids, TRAP), ids, make_cases(1, 3), 3, 4, rule=rule) for rule in RULES)
    assert raw.items.tolist() == [[2, 1, 3]]
    assert np.exp(raw.scores[0]).tolist() == pytest.approx([0.36, 0.33, 0.04], rel=1e-5)
    assert renorm.items.tolist() == [[1, 2, 3]]
    assert np.exp(renorm.scores[0]).tolist() == pytest.approx([0.6, 0.36, 0.04], rel=1e-5)
    assert (raw.spend.rule, renorm.spend.rule) == RULES


def test_only_raw_pays_for_what_lies_outside_the_level():
    ids = make_ids((0,), (1,), sizes=(2,))
    chances = hand_made({(): [0.3, 0.1]})  # .6 on the end token
    raw, renorm = (ask(by_table(ids, chances), ids, make_cases(1, 2), 2, 2, rule=rule) for rule in RULES)
    assert np.exp(raw.scores[0]).tolist() == pytest.approx([0.3, 0.1], rel=1e-5)
    assert np.exp(renorm.scores[0]).tolist() == pytest.approx([0.75, 0.25], rel=1e-5)


def test_an_id_of_several_items_stands_for_all_of_them_in_tie_order():
    ids = make_ids((0, 0), (1, 0), (0, 0), (1, 1), (1, 0), (0, 0), sizes=(2, 2))
    cases = make_cases(1, 6)
    cases = Cases(cases.users, cases.histories, cases.seen, np.array([0, 6, 2, 4, 3, 1, 5]))
    ranking = ask(by_table(ids, TRAP), ids, cases, 7, 4)
    assert ranking.items.tolist() == [[5, 2, 3, 6, 1, 4, 0]]  # (1, 0) .36, then (0, 0) .33, then (1, 1) .04
    assert np.exp(ranking.scores[0]).tolist() == pytest.approx([0.36] * 2 + [0.33] * 3 + [0.04, 0.0], rel=1e-5)
    assert ask(by_table(ids, TRAP), ids, cases, 4, 4).items.tolist() == [[5, 2, 3, 6]]
    without = ask(by_table(ids, TRAP), ids, cases, 4, 4, candidates=np.array([1, 2, 6]))
    assert without.items.tolist() == [[2, 6, 1, 0]]


def test_two_ids_of_one_score_share_a_tie():
    ids = make_ids((0, 0), (0, 1), (0, 0), sizes=(2, 2))
    cases = make_cases(1, 3)
    cases = Cases(cases.users, cases.histories, cases.seen, np.array([0, 1, 2, 3]))
    chances = hand_made({(): [1.0, 0.0], (0,): [0.5, 0.5]})
    assert ask(by_table(ids, chances), ids, cases, 3, 2).items.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("rule", RULES)
def test_a_beam_that_finds_nothing_is_no_item(rule):
    # Nothing starts with code 1, so two of the three beams die; they must not answer with anybody's items.
    ids = make_ids((0, 0), (1, 0), (1, 1), (0, 0), sizes=(2, 2))
    chances = hand_made({(): [1.0, 0.0], (0,): [0.25, 0.75], (1,): [0.5, 0.5]})
    ranking = ask(by_table(ids, chances), ids, make_cases(1, 4), 5, 4, rule=rule)
    assert set(ranking.items[0, :2].tolist()) == {1, 4}
    assert ranking.items[0, 2:].tolist() == [0, 0, 0]
    assert np.exp(ranking.scores[0, :2]).tolist() == pytest.approx([0.25 if rule == "raw" else 1.0] * 2, rel=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_one_candidate_and_a_beam_wider_than_the_catalogue(rule):
    ids = make_ids((0, 0), (0, 1), (1, 0), (1, 1), sizes=(2, 2))
    ranking = ask(by_table(ids, TRAP), ids, make_cases(3, 4), 5, 1000, rule=rule, candidates=np.array([4]))
    assert ranking.items.tolist() == [[4, 0, 0, 0, 0]] * 3
    assert np.exp(ranking.scores[:, 0]).tolist() == pytest.approx([0.04 if rule == "raw" else 1.0] * 3, rel=1e-5)
    assert ranking.spend.items_scored == 1


def test_an_unknown_rule_is_refused():
    ids = make_ids((0,), sizes=(1,))
    with pytest.raises(ValueError, match="unknown scoring rule 'soft'; use raw or renorm"):
        ask(by_table(ids, TRAP), ids, make_cases(1, 1), 1, 1, rule="soft")


# --- plain Python and exhaustive scoring -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    n_items=st.integers(1, 25),
    beam=st.integers(1, 30),
    rule=st.sampled_from(RULES),
    dense=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_equals_a_search_in_plain_python(sizes, n_items, beam, rule, dense, seed):
    ids = random_ids(n_items, sizes, seed, distinct=False)
    random = np.random.default_rng(seed)
    items = np.unique(random.integers(1, n_items + 1, n_items))
    chances = drawn(ids, seed)
    trie = ids.trie(items, dense_up_to=10**6 if dense else 0)
    found = beam_search(Leaky(ids, chances), ids, trie, 3, beam, rule)
    leaf_items = trie.leaf_table(tie_order(n_items, 0), n_items)
    for user in range(3):
        expected = plain_search(ids, items.tolist(), partial(chances, user), beam, rule)
        alive = [place for place, score in enumerate(found.scores[user].tolist()) if score > -math.inf]
        assert alive == list(range(len(expected)))
        codes = [tuple(ids.codes[leaf_items[leaf, 0]].tolist()) for leaf in found.leaves[user, alive]]
        assert codes == [code for _, code in expected]
        assert found.scores[user, alive].tolist() == pytest.approx([score for score, _ in expected], abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("subset", [False, True])
def test_a_beam_as_wide_as_the_catalogue_scores_every_item(rule, subset):
    ids, cases = random_ids(150, (8, 8, 8), distinct=False), make_cases(4, 150)
    items = np.random.default_rng(0).permutation(150)[: 40 if subset else 150] + 1
    model = small_model(ids)
    ranking = ask(by_model(model, ids), ids, cases, 160, 150, rule=rule, candidates=items if subset else None)
    items = np.sort(items)
    expected = every_score(model, ids, cases, items, rule)
    for row in range(len(cases)):
        order = np.argsort(ranking.items[row, : len(items)])
        np.testing.assert_array_equal(ranking.items[row, order], items)
        np.testing.assert_allclose(ranking.scores[row, order], expected[row], atol=1e-4)
    assert not ranking.items[:, len(items) :].any()
    assert expected.std(1).min() > 0.1  # not all alike, so that the order means something


@pytest.mark.parametrize("candidates", [None, np.arange(1, 60, 3)])
def test_probabilities_over_all_ids_sum_to_one_under_renorm_only(candidates):
    ids, cases = random_ids(80, (6, 6, 6), distinct=False), make_cases(5, 80)
    trie = ids.trie(candidates)
    with torch.inference_mode():
        raw, renorm = (beam_search(by_model(small_model(ids), ids)(cases), ids, trie, 5, 99, rule) for rule in RULES)
    torch.testing.assert_close(renorm.scores.exp().sum(1), torch.ones(5), rtol=0, atol=1e-5)
    assert (raw.scores.exp().sum(1) < 0.9).all()
    assert renorm.leaves.sort(1).values.tolist() == [list(range(trie.n_leaves))] * 5


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 5, 20])
def test_lists_equal_those_of_transformers(beam):
    pytest.importorskip("transformers", reason="needs transformers, the reference")
    ids, cases = random_ids(300, (16, 16, 16, 16)), make_cases(96, 300)
    torch.manual_seed(0)
    theirs, ours = transformers_t5(ids.vocab_size, SHAPE).eval(), small_model(ids)
    ours.load_state_dict(from_transformers(theirs.state_dict(), SHAPE))
    items, scores = generated(theirs, ids, cases, beam)
    ranking = ask(by_model(ours, ids), ids, cases, beam, beam)
    assert (ranking.items == items).mean() >= 0.9999
    np.testing.assert_allclose(ranking.scores, scores, atol=1e-4)


@torch.inference_mode()
def generated(model, ids: SemanticIds, cases: Cases, beam: int) -> tuple[np.ndarray, np.ndarray]:
    """Items and scores (U, beam) by ``generate`` with a prefix function, all users in one padded batch."""
    items_of = {tuple(tokens): item for item, tokens in enumerate(ids.token_table("cpu").tolist())}
    allowed = {
        tuple(code + int(ids.offsets[depth]) for depth, code in enumerate(prefix)): [
            code + int(ids.offsets[len(prefix)]) for code in codes
        ]
        for prefix, codes in followers(ids, range(1, ids.n_items + 1)).items()
    }
    tokens = ids.tokens(torch.from_numpy(cases.histories.padded().astype(np.int64))).flatten(1)
    found = model.generate(
        input_ids=tokens,
        attention_mask=(tokens != PAD_TOKEN).long(),
        max_new_tokens=ids.levels,
        num_beams=beam,
        num_return_sequences=beam,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=lambda _, prefix: allowed[tuple(prefix.tolist()[1:])],
        output_logits=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    items = np.array([items_of[tuple(row)] for row in found.sequences[:, 1:].tolist()])
    if beam > 1:
        scores = found.sequences_scores
    else:  # greedy search keeps no sum
        log_p = torch.stack(found.logits, 1).log_softmax(-1)  # (U, L, V)
        scores = log_p.gather(2, found.sequences[:, 1:, None]).sum((1, 2))
    return items.reshape(-1, beam), scores.numpy().reshape(-1, beam)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_neither_batch_nor_order_nor_company_changes_a_list():
    ids, cases = random_ids(120, (8, 8, 8)), make_cases(23, 120)
    start = by_model(small_model(ids), ids)
    expected = ask(start, ids, cases, 10, 12)
    np.testing.assert_array_equal(expected.users, cases.users)
    order = np.random.default_rng(1).permutation(23)
    for rows, batch_size in [(order, None), (order, 4), (np.arange(23), 1), (order[:7], 3)]:
        found = ask(start, ids, cases.take(rows), 10, 12, batch_size=batch_size)
        np.testing.assert_array_equal(found.users, cases.users[rows])
        np.testing.assert_array_equal(found.items, expected.items[rows])
        np.testing.assert_allclose(found.scores, expected.scores[rows], atol=1e-5)


def test_batches_hold_histories_of_like_length():
    ids, cases = random_ids(40, (4, 4, 4)), make_cases(11, 40)
    asked = []

    def start(some: Cases) -> Step:
        asked.append(some.histories.lengths.tolist())
        return Leaky(ids, drawn(ids, 0))

    ask(start, ids, cases, 3, 3, batch_size=4)
    assert [len(lengths) for lengths in asked] == [4, 4, 3]
    assert [n for lengths in asked for n in lengths] == sorted(cases.histories.lengths.tolist())


def test_nobody_asked_nothing_answered():
    ids = random_ids(10, (4, 4))
    assert ask(by_table(ids, drawn(ids, 0)), ids, make_cases(3, 10).take(np.arange(0)), 5, 5).items.shape == (0, 5)


def test_dense_and_compressed_tries_rank_alike():
    ids, cases = random_ids(200, (16, 16, 16), distinct=False), make_cases(9, 200)
    model = small_model(ids)
    for rule in RULES:
        with torch.inference_mode():
            dense, compressed = (
                beam_search(by_model(model, ids)(cases), ids, ids.trie(dense_up_to=n), 9, 20, rule) for n in (10**6, 0)
            )
        assert torch.equal(dense.leaves, compressed.leaves)
        assert torch.equal(dense.scores, compressed.scores)


# --- spend, progress, memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "beam", "tokens", "scored"),
    [
        ([(i, 0, 0, 0) for i in range(25)], 20, 1 + 20 * 3, 20),
        ([(i, 0, 0, 0) for i in range(25)], 50, 1 + 25 * 3, 25),
        ([(0, i, 0, 0) for i in range(25)], 20, 1 + 1 + 20 * 2, 20),
        ([(0, 0), (0, 1), (1, 0)], 20, 1 + 2, 3),
        ([(0, 0), (0, 1), (1, 0), (1, 0)], 20, 1 + 2, 3),  # twins are one ID
        ([(0, 0), (0, 1), (1, 0)], 1, 1 + 1, 1),
        ([(5,)], 20, 1, 1),
    ],
)
def test_spend_by_hand_is_what_the_model_was_asked(codes, beam, tokens, scored):
    ids = make_ids(*codes, sizes=[25] * len(codes[0]))
    spend = spend_of(ids.trie(), beam, "raw")
    assert (spend.rule, spend.beam_size, spend.forward_passes) == ("raw", beam, len(codes[0]))
    assert (spend.decoder_tokens, spend.items_scored) == (tokens, scored)
    table = Leaky(ids, drawn(ids, 0))
    found = beam_search(table, ids, ids.trie(), 2, beam)
    assert (sum(table.widths), len(table.widths)) == (tokens, spend.forward_passes)
    assert found.leaves.shape == (2, scored)
    assert ask(by_table(ids, drawn(ids, 0)), ids, make_cases(2, ids.n_items), 5, beam).spend == spend


def test_spend_is_that_of_the_candidates():
    ids = make_ids(*[(i % 5, i // 5) for i in range(25)], sizes=(5, 5))
    start = by_table(ids, drawn(ids, 0))
    assert ask(start, ids, make_cases(2, 25), 5, 20).spend.decoder_tokens == 1 + 5
    few = ask(start, ids, make_cases(2, 25), 5, 20, candidates=np.array([1, 2, 6])).spend  # codes 00, 10, 01
    assert (few.decoder_tokens, few.items_scored) == (1 + 2, 3)


def failing(message: str) -> Callable[[Cases], Step]:
    def start(_: Cases) -> Step:
        raise RuntimeError(message)

    return start


def test_out_of_memory_says_what_to_lower():
    ids = random_ids(10, (4, 4))
    said = "out of memory while decoding 2 users with beam 7; lower decode_batch in the method's Config"
    with pytest.raises(MemoryError, match=said) as caught:
        planted = failing("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        ask(planted, ids, make_cases(3, 10), 5, 7, batch_size=2)
    assert isinstance(caught.value.__cause__, RuntimeError)

    def step(tokens: Tensor, parents: Tensor | None) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(MemoryError, match="decoding 3 users with beam 4"):
        ask(lambda _: step, ids, make_cases(3, 10), 5, 4)


def test_other_errors_pass_as_they_are():
    ids = random_ids(10, (4, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ask(failing("mat1 and mat2 shapes cannot be multiplied"), ids, make_cases(3, 10), 5, 5)


def test_progress_counts_users_and_can_stop_the_search():
    ids, said = random_ids(10, (4, 4)), []
    run = Run(report=lambda stage, done, total, _: said.append((stage, done, total)))
    start = by_table(ids, drawn(ids, 0))
    ask(start, ids, make_cases(5, 10), 3, 3, batch_size=2, run=run, stage="validate")
    assert said == [("validate", 2, 5), ("validate", 4, 5), ("validate", 5, 5)]
    said.clear()
    run.should_stop = lambda: len(said) == 2
    with pytest.raises(Interrupted):
        ask(start, ids, make_cases(5, 10), 3, 3, batch_size=2, run=run)
    assert said == [("decode", 2, 5), ("decode", 4, 5)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rule", RULES)
def test_lists_on_cuda_equal_those_on_the_cpu(rule, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    ids, cases = random_ids(300, (16, 16, 16, 16)), make_cases(96, 300)
    model = small_model(ids)
    expected = ask(by_model(model, ids), ids, cases, 20, 20, rule=rule)
    found = ask(by_model(model.to("cuda"), ids), ids, cases, 20, 20, rule=rule, run=Run(device="cuda"))
    assert (found.items == expected.items).mean() >= 0.999
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
