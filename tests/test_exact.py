"""Exact scores equal naive ones, cost what they must and rank by the tie order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.run import Interrupted, Run
from benchmark.types import Budget, Cases
from methods.blocks import exact
from methods.blocks.beam_search import RULES, Step, rank_by_beam
from methods.blocks.exact import (
    exact_spend,
    fed_nodes,
    item_scores,
    rank_exact,
    score_trie,
    users_per_batch,
)
from tests.beam_world import (
    FOUR,
    TRAP,
    Code,
    Leaky,
    by_model,
    by_table,
    drawn,
    every_score,
    followers,
    hand_made,
    letter_ids,
    make_cases,
    make_ids,
    random_ids,
    small_model,
)

# --- scores ----------------------------------------------------------------------------------------------------------


def test_every_prefix_by_hand():
    ids = make_ids((0, 0), (1, 0), (1, 1), sizes=(2, 2))
    raw, renorm = (score_trie(Leaky(ids, TRAP), ids, ids.trie(), 2, rule) for rule in RULES)
    expected = {"raw": [[0.6, 0.4], [0.33, 0.36, 0.04]], "renorm": [[0.6, 0.4], [0.6, 0.36, 0.04]]}
    for scored, by_hand in zip((raw, renorm), expected.values(), strict=True):
        for found, row in zip(scored.prefixes, by_hand, strict=True):
            assert found.exp().tolist() == [pytest.approx(row, rel=1e-5)] * 2


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    n_items=st.integers(1, 25),
    rule=st.sampled_from(RULES),
    dense=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_every_prefix_equals_the_product_of_its_codes(sizes, n_items, rule, dense, seed):
    ids, chances = random_ids(n_items, sizes, seed, distinct=False), drawn(random_ids(1, sizes), seed)
    items = np.unique(np.random.default_rng(seed).integers(1, n_items + 1, n_items))
    next_codes = followers(ids, items.tolist())
    trie = ids.trie(items, dense_up_to=10**6 if dense else 0)
    scored = score_trie(Leaky(ids, chances), ids, trie, 3, rule)
    for user in range(3):
        of_depth: dict[Code, float] = {(): 0.0}
        for found in scored.prefixes:
            grown: dict[Code, float] = {}
            for prefix, score in of_depth.items():
                chance = chances(user, prefix)
                mass = sum(chance[code] for code in next_codes[prefix]) if rule == "renorm" else 1.0
                grown |= {(*prefix, code): score + math.log(chance[code] / mass) for code in next_codes[prefix]}
            of_depth = dict(sorted(grown.items()))
            assert found[user].tolist() == pytest.approx(list(of_depth.values()), abs=1e-4)
    if rule == "renorm":
        assert scored.prefixes[-1].exp().sum(1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("subset", [False, True])
def test_scores_equal_teacher_forcing_of_every_item(rule, subset):
    ids, cases = random_ids(150, (8, 8, 8, 8), distinct=False), make_cases(4, 150)
    items = np.sort(np.random.default_rng(0).permutation(150)[: 40 if subset else 150] + 1)
    model, trie = small_model(ids), ids.trie(items)
    with torch.inference_mode():
        scored = score_trie(by_model(model, ids)(cases), ids, trie, 4, rule)
        found = item_scores(scored, trie, ids.n_items)
    np.testing.assert_allclose(found[:, items], every_score(model, ids, cases, items, rule), atol=1e-5)
    others = np.setdiff1d(np.arange(151), items)
    assert found[:, others].isneginf().all()


@pytest.mark.parametrize("rule", RULES)
def test_a_step_of_another_make_scores_alike(rule):
    ids, cases = random_ids(150, (8, 8, 8)), make_cases(4, 150)
    start = by_model(small_model(ids), ids)
    with torch.inference_mode():
        ours = score_trie(start(cases), ids, ids.trie(), 4, rule)
        step = start(cases)
        theirs = score_trie(lambda tokens, parents: step(tokens, parents), ids, ids.trie(), 4, rule)
    for one, other in zip(ours.prefixes, theirs.prefixes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_probabilities_of_real_shapes_sum_to_one_under_renorm_only(rule):
    ids, cases = random_ids(400, (6, 9, 12)), make_cases(5, 400)
    with torch.inference_mode():
        scored = score_trie(by_model(small_model(ids), ids)(cases), ids, ids.trie(), 5, rule)
    for scores in scored.prefixes:
        total = scores.double().exp().sum(1)
        assert (total < 0.9).all() if rule == "raw" else (total - 1).abs().max() < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_logits_read_in_parts_are_the_same(rule, monkeypatch):
    ids, cases = random_ids(120, (8, 8, 8)), make_cases(3, 120)
    start = by_model(small_model(ids), ids)
    with torch.inference_mode():
        whole = score_trie(start(cases), ids, ids.trie(), 3, rule)
        monkeypatch.setitem(exact.LOGITS, "cpu", 3 * ids.vocab_size * 7)  # seven prefixes at a time
        parts = score_trie(start(cases), ids, ids.trie(), 3, rule)
    for one, other in zip(whole.prefixes, parts.prefixes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


# --- what is decoded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "raw", "renorm"),
    [
        # (0, 0) has a choice, so 0 is decoded as its ancestor; 1 leads to one item and is not; nor are (1, 0), (2, *).
        ([(0, 0, 0), (0, 0, 1), (1, 0, 0), (2, 0, 0), (2, 1, 0)], [1, 3, 4], [1, 2, 1]),
        ([(0, 0, 0), (1, 0, 0)], [1, 2, 2], [1]),
        ([(1, 0, 0), (1, 0, 2)], [1, 1, 1], [1, 1, 1]),
        ([(1, 0, 2), (1, 0, 2)], [1, 1, 1], []),  # twins are one code
    ],
)
def test_only_prefixes_with_a_choice_below_are_decoded_under_renorm(codes, raw, renorm):
    ids = make_ids(*codes, sizes=(3, 3, 3))
    for rule, widths in zip(RULES, (raw, renorm), strict=True):
        table = Leaky(ids, drawn(ids, 0))
        score_trie(table, ids, ids.trie(), 2, rule)
        assert table.widths == widths
        spend = exact_spend(ids.trie(), rule)
        assert (spend.rule, spend.beam_size, spend.items_scored) == ("exact", 0, len(set(codes)))
        assert (spend.decoder_tokens, spend.forward_passes) == (sum(widths), len(widths))
        assert (
            rank_exact(by_table(ids, drawn(ids, 0)), ids, make_cases(2, len(codes)), 3, run=Run(), rule=rule).spend
            == spend
        )


def test_the_only_code_has_probability_one():
    ids = make_ids((2, 1), (2, 1), sizes=(3, 3))
    ranking = rank_exact(by_table(ids, drawn(ids, 0)), ids, make_cases(3, 2), 2, run=Run(), rule="renorm")
    assert ranking.scores.tolist() == [[0.0, 0.0]] * 3


def test_published_ids_of_beauty_need_few_tokens_under_renorm():
    ids = letter_ids()
    if ids is None:
        pytest.skip("$GENREC_DATA holds no published semantic ids")
    trie = ids.trie()
    assert exact_spend(trie, "raw").decoder_tokens == 19_825
    assert [len(nodes) for nodes in fed_nodes(trie, "renorm")] == [1, 181, 2236, 262]
    assert exact_spend(trie, "renorm").decoder_tokens == 2_680
    branching = sum(int((nodes.parents.bincount() > 1).sum()) for nodes in trie.nodes)
    assert branching == 2_624  # the others are their ancestors


def test_users_share_a_batch_up_to_a_number_of_prefixes(monkeypatch):
    ids = make_ids((0, 0, 0), (0, 0, 1), (1, 0, 0), (2, 0, 0), (2, 1, 0), sizes=(3, 3, 3))
    monkeypatch.setitem(exact.PREFIXES, "cpu", 9)
    assert [users_per_batch(ids.trie(), rule, torch.device("cpu")) for rule in RULES] == [9 // 4, 9 // 2]
    monkeypatch.setitem(exact.PREFIXES, "cpu", 3)
    assert users_per_batch(ids.trie(), "raw", torch.device("cpu")) == 1
    asked = []

    def start(some: Cases) -> Step:
        asked.append(len(some))
        return Leaky(ids, drawn(ids, 0))

    monkeypatch.setitem(exact.PREFIXES, "cpu", 9)
    rank_exact(start, ids, make_cases(5, 5), 3, run=Run())
    assert asked == [2, 2, 1]
    rank_exact(start, ids, make_cases(5, 5), 3, run=Run(), batch_size=4)
    assert asked[3:] == [4, 1]


# --- rankings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("candidates", [None, np.arange(1, 150, 3)])
@pytest.mark.parametrize("k", [10, 170])
def test_a_beam_as_wide_as_the_catalogue_ranks_alike(rule, candidates, k):
    ids, cases = random_ids(150, (8, 8, 8), distinct=False), make_cases(7, 150)
    start = by_model(small_model(ids), ids)
    settings = {"run": Run(), "rule": rule, "candidates": candidates}
    beam = rank_by_beam(start, ids, cases, k, budget=Budget(beam_size=150, list_length=k), **settings)
    ranking = rank_exact(start, ids, cases, k, **settings)
    np.testing.assert_array_equal(ranking.users, cases.users)
    np.testing.assert_array_equal(ranking.items, beam.items)
    np.testing.assert_allclose(ranking.scores, beam.scores, atol=1e-5)


def test_equal_scores_follow_the_tie_order():
    ids = make_ids((0, 0), (1, 0), (0, 0), (1, 1), (1, 0), (0, 0), sizes=(2, 2))
    chances = hand_made({(): [0.5, 0.5], (0,): [0.5, 0.5], (1,): [0.5, 0.25]})
    cases = make_cases(1, 6)
    cases = Cases(cases.users, cases.histories, cases.seen, np.array([0, 6, 2, 4, 3, 1, 5]))
    ranking = rank_exact(by_table(ids, chances), ids, cases, 8, run=Run())
    assert ranking.items.tolist() == [[5, 2, 3, 6, 1, 4, 0, 0]]  # both first codes .25, then (1, 1) .125
    assert np.exp(ranking.scores[0]).tolist() == pytest.approx([0.25] * 5 + [0.125, 0, 0], rel=1e-5)
    assert rank_exact(by_table(ids, chances), ids, cases, 3, run=Run()).items.tolist() == [[5, 2, 3]]
    few = rank_exact(by_table(ids, chances), ids, cases, 3, run=Run(), candidates=np.array([1, 2, 4]))
    assert few.items.tolist() == [[2, 1, 4]]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown scoring rule 'soft'; use raw or renorm"):
        rank_exact(by_table(FOUR, TRAP), FOUR, make_cases(1, 4), 1, run=Run(), rule="soft")


def test_out_of_memory_says_what_to_lower():
    def start(_: Cases) -> Step:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    said = "out of memory while scoring the whole catalogue for 3 users; give rank_exact a batch_size below 3"
    with pytest.raises(MemoryError, match=said):
        rank_exact(start, FOUR, make_cases(3, 4), 2, run=Run())


def test_progress_counts_users_and_can_stop():
    said = []
    run = Run(report=lambda stage, done, total, _: said.append((stage, done, total)))
    run.should_stop = lambda: len(said) == 2
    with pytest.raises(Interrupted):
        rank_exact(by_table(FOUR, TRAP), FOUR, make_cases(5, 4), 2, run=run, batch_size=2, stage="audit")
    assert said == [("audit", 2, 5), ("audit", 4, 5)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rule", RULES)
def test_lists_on_cuda_equal_those_on_the_cpu(rule, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    ids, cases = random_ids(300, (16, 16, 16, 16)), make_cases(96, 300)
    model = small_model(ids)
    expected = rank_exact(by_model(model, ids), ids, cases, 20, run=Run(), rule=rule)
    found = rank_exact(by_model(model.to("cuda"), ids), ids, cases, 20, run=Run(device="cuda"), rule=rule)
    assert (found.items == expected.items).mean() >= 0.999
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
