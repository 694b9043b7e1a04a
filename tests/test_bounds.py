"""What exact scores promise of a beam search, and what it can promise itself: bounds and certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.run import Run
from benchmark.types import Budget, Cases
from methods.blocks import exact
from methods.blocks.beam_search import RULES, Step, beam_search, certified, rank_by_beam
from methods.blocks.exact import (
    bounds,
    code_ranks,
    overlap,
    rank_exact,
    score_trie,
)
from methods.blocks.semantic_ids import SemanticIds
from tests.beam_world import (
    FOUR,
    TRAP,
    Code,
    Leaky,
    Table,
    by_table,
    coarse,
    drawn,
    hand_made,
    make_cases,
    make_ids,
    random_ids,
)

# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "beam", "lower", "found", "upper"),
    [
        (1, 1, 0, 0, 0),  # the best code starts with the second best first code, also among its siblings
        (2, 1, 0, 0.5, 0.5),  # (0, 0) is second of all codes, but first of its own siblings twice
        (1, 2, 1, 1, 1),
        (2, 2, 1, 1, 1),
        (3, 2, 2 / 3, 2 / 3, 1),  # (0, 1) is third of all, second of its siblings
        (3, 3, 1, 1, 1),
        (9, 4, 1, 1, 1),  # there are but four codes
    ],
)
def test_bounds_by_hand(k, beam, lower, found, upper):
    trie = FOUR.trie()
    scored = score_trie(Table(FOUR, TRAP), FOUR, trie, 2)
    beams = beam_search(Table(FOUR, TRAP), FOUR, trie, 2, beam)
    assert overlap(scored, beams, k).tolist() == pytest.approx([found] * 2)
    below, above = bounds(scored, trie, k, beam)
    assert below.tolist() == pytest.approx([lower] * 2)
    assert above.tolist() == pytest.approx([upper] * 2)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_items=st.integers(1, 60),
    beam=st.integers(1, 12),
    rule=st.sampled_from(RULES),
    ties=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_overlap_lies_between_its_bounds(sizes, n_items, beam, rule, ties, seed):
    ids = random_ids(n_items, sizes, seed, distinct=False)
    trie, chances = ids.trie(), (coarse if ties else drawn)(ids, seed)
    scored = score_trie(Leaky(ids, chances), ids, trie, 4, rule)
    beams = beam_search(Leaky(ids, chances), ids, trie, 4, beam, rule)
    ranks = code_ranks(scored, trie, 15)
    for k in range(1, 16):
        lower, upper = ranks.bounds(k, beam)
        found = overlap(scored, beams, k)
        assert (lower >= 0).all() and (upper <= 1).all()
        assert (lower <= found).all() and (found <= upper).all()
        torch.testing.assert_close(bounds(scored, trie, k, beam), (lower, upper), rtol=0, atol=0)


def test_bounds_say_something():
    ids, n = random_ids(500, (12, 12, 12)), 40
    scored = score_trie(Leaky(ids, drawn(ids, 0)), ids, ids.trie(), n)
    beams = beam_search(Leaky(ids, drawn(ids, 0)), ids, ids.trie(), n, 5)
    lower, upper = (found.mean() for found in bounds(scored, ids.trie(), 5, 5))
    assert 0.1 < lower < overlap(scored, beams, 5).mean() < upper < 0.99


def test_ranks_equal_counting():
    ids, users = random_ids(80, (4, 5, 6), distinct=False), 3
    trie = ids.trie()
    scored = score_trie(Leaky(ids, coarse(ids, 1)), ids, trie, users)
    ranks = code_ranks(scored, trie, 12)
    codes = sorted({tuple(row) for row in ids.codes[1:].tolist()})
    for user in range(users):
        of_depth = [
            dict(zip(sorted({code[:depth] for code in codes}), found[user].tolist(), strict=True))
            for depth, found in enumerate(scored.prefixes, 1)
        ]
        best = sorted(codes, key=lambda code: (-of_depth[-1][code], code))[:12]
        assert [codes[leaf] for leaf in ranks.leaves[user]] == best
        for place, code in enumerate(best):
            for depth, scores in enumerate(of_depth, 1):
                own = scores[code[:depth]]
                siblings = [score for prefix, score in scores.items() if prefix[:-1] == code[: depth - 1]]
                worst = sum(score > own - exact.ROUNDING for score in scores.values())
                assert ranks.among_all[user, place, depth - 1] == worst
                likelier = sum(score > own + exact.ROUNDING for score in siblings)
                assert ranks.among_siblings[user, place, depth - 1] == 1 + likelier


def test_codes_of_no_item_must_not_count_in_the_upper_bound():
    # Code 0 is the likeliest but leads nowhere: code 1 is second of its level and yet found by a beam of one.
    ids = make_ids((1,), (2,), sizes=(3,))
    chances = hand_made({(): [0.6, 0.3, 0.1]})
    scored = score_trie(Table(ids, chances), ids, ids.trie(), 1)
    found = beam_search(Table(ids, chances), ids, ids.trie(), 1, 1)
    assert overlap(scored, found, 1).tolist() == [1.0]
    assert bounds(scored, ids.trie(), 1, 1)[1].tolist() == [1.0]


def test_tied_codes_are_promised_to_nobody():
    ids = make_ids((0,), (1,), (2,), sizes=(3,))
    scored = score_trie(Table(ids, hand_made({(): [0.4, 0.3, 0.3]})), ids, ids.trie(), 1)
    for beam in (2, 3):  # which of the two ends a list of two, rounding decides
        assert [found.tolist() for found in bounds(scored, ids.trie(), 2, beam)] == [[0.5], [1.0]]
    assert [found.tolist() for found in bounds(scored, ids.trie(), 3, 3)] == [[1.0], [1.0]]


def test_impossible_codes_are_in_no_list():
    ids = make_ids((0,), (1,), (2,), sizes=(3,))
    chances = hand_made({(): [0.0, 0.7, 0.3]})
    scored = score_trie(Table(ids, chances), ids, ids.trie(), 1)
    found = beam_search(Table(ids, chances), ids, ids.trie(), 1, 3)
    assert overlap(scored, found, 3).tolist() == [1.0]
    assert [share.tolist() for share in bounds(scored, ids.trie(), 3, 3)] == [[1.0], [1.0]]


# --- certified beams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beam", "pruned", "certain"),
    [
        (1, 0.4, [False, False, False, False]),  # found .33
        (2, 0.27, [True, True, False, False]),  # found .36, .33
        (3, 0.04, [True, True, True, False]),
        (4, 0.0, [True, True, True, True]),
    ],
)
def test_certificate_by_hand(beam, pruned, certain):
    found = beam_search(Table(FOUR, TRAP), FOUR, FOUR.trie(), 2, beam)
    assert found.pruned.exp().tolist() == pytest.approx([pruned] * 2, rel=1e-5)
    assert [certified(found, k).tolist() for k in range(1, 5)] == [[sure] * 2 for sure in certain]
    assert certified(found, 9).tolist() == [beam == 4] * 2  # nothing was cut, so there is no more


def test_a_tie_with_what_was_cut_certifies_nothing():
    ids = make_ids((0,), (1,), sizes=(2,))
    found = beam_search(Table(ids, hand_made({(): [0.5, 0.5]})), ids, ids.trie(), 1, 1)
    assert found.scores[0, 0] == found.pruned[0]
    assert not certified(found, 1)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_items=st.integers(1, 60),
    beam=st.integers(1, 12),
    k=st.integers(1, 12),
    rule=st.sampled_from(RULES),
    ties=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_a_certified_list_is_the_exact_one(sizes, n_items, beam, k, rule, ties, seed):
    ids, cases = random_ids(n_items, sizes, seed, distinct=False), make_cases(6, n_items)
    chances = (coarse if ties else drawn)(ids, seed)
    start, settings = by_table(ids, chances), {"run": Run(), "rule": rule, "batch_size": 6}
    order = np.argsort(cases.histories.lengths, kind="stable")  # the rows of the only batch
    sure = certified(beam_search(start(cases), ids, ids.trie(), 6, beam, rule), k).numpy()
    expected = rank_exact(start, ids, cases, k, **settings)
    found = rank_by_beam(start, ids, cases, k, budget=Budget(beam_size=beam, list_length=k), **settings)
    np.testing.assert_array_equal(found.items[order[sure]], expected.items[order[sure]])
    np.testing.assert_allclose(found.scores[order[sure]], expected.scores[order[sure]], atol=1e-5)


def by_user(ids: SemanticIds, chances: Callable[[int, Code], Sequence[float]]) -> Callable[[Cases], Step]:
    """A start function whose tables go by user id, whoever shares the batch."""
    return lambda some: Leaky(ids, lambda row, prefix: chances(int(some.users[row]), prefix))


def test_widening_asks_the_uncertain_again_and_says_what_it_cost():
    sharp = hand_made({(): [0.9, 0.1], (0,): [0.8, 0.2], (1,): [0.5, 0.5]})
    start = by_user(FOUR, lambda user, prefix: (TRAP if user == 1 else sharp)(user, prefix))
    cases = make_cases(3, 4)
    settings = {"run": Run(), "budget": Budget(beam_size=1, list_length=1)}
    narrow = rank_by_beam(start, FOUR, cases, 1, **settings)
    assert dict(zip(narrow.users, narrow.items[:, 0], strict=True)) == {1: 1, 2: 1, 3: 1}
    wide = rank_by_beam(start, FOUR, cases, 1, widen_to=8, **settings)
    assert dict(zip(wide.users, wide.items[:, 0], strict=True)) == {1: 3, 2: 1, 3: 1}
    # Beam 1 costs 2 tokens for each of three users, beam 2 costs 3 for one of them.
    assert (wide.spend.rule, wide.spend.beam_size) == ("raw", 2)
    assert wide.spend.decoder_tokens == pytest.approx((3 * 2 + 3) / 3)
    assert wide.spend.forward_passes == pytest.approx((3 * 2 + 2) / 3)
    assert wide.spend.items_scored == pytest.approx((3 * 1 + 2) / 3)
    same = rank_by_beam(start, FOUR, cases, 1, widen_to=1, **settings)
    np.testing.assert_array_equal(same.items, narrow.items)
    assert same.spend == narrow.spend


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("widest", [6, 300])
def test_widening_far_enough_is_exact(rule, widest):
    ids, cases = random_ids(300, (8, 8, 8), distinct=False), make_cases(20, 300)
    start, settings = by_user(ids, drawn(ids, 3)), {"run": Run(), "rule": rule}
    expected = rank_exact(start, ids, cases, 5, **settings)
    budget = Budget(beam_size=2, list_length=5)
    found = rank_by_beam(start, ids, cases, 5, budget=budget, widen_to=widest, batch_size=7, **settings)
    alike = (found.items == expected.items).all(1)
    assert alike.all() if widest == 300 else not alike.all()
    assert found.spend.beam_size == widest if widest == 6 else 6 < found.spend.beam_size <= 300


def test_nobody_asked_nothing_spent_by_widening():
    cases = make_cases(3, 4).take(np.arange(0))
    budget = Budget(beam_size=2, list_length=2)
    ranking = rank_by_beam(by_table(FOUR, TRAP), FOUR, cases, 2, run=Run(), budget=budget, widen_to=4)
    assert ranking.items.shape == (0, 2)
    assert ranking.spend.decoder_tokens == 0
