"""Graph recency: edges counted by hand, scores against plain loops over a random world, ties, candidates."""

from __future__ import annotations

import numpy as np
import pytest

import protocols
from benchmark.lists import tie_order
from benchmark.method import replace_nested
from benchmark.types import PAD, Sequences, Split
from methods.graph import Graph, transitions
from tests import toys

PLAIN = Graph.Config(window=1, backward=0.0, source_norm=0.0, target_norm=0.0, recency=0.5)


@pytest.fixture(scope="module")
def split() -> Split:
    """60 users with 4 to 30 of 40 items, some longer than the 20 shown."""
    random = np.random.default_rng(2)
    histories = [random.choice(np.arange(1, 41), n, replace=False) for n in random.integers(4, 31, 60)]
    return protocols.load("loo").split(toys.dataset("world", histories, ["", *map(str, range(1, 41))]))


def test_edges_by_hand() -> None:
    config = replace_nested(PLAIN, {"window": 2, "nearness": 0.5, "backward": 0.25})
    edges = transitions(toys.four_users().sequences, 5, config).toarray()  # 1 2 3, 1 2, 2 1, 1 3 4
    expected = np.zeros((6, 6))
    expected[1, 2] = 1 + 1 + 0.25 * 1
    expected[2, 1] = 1 + 0.25 * 2
    expected[2, 3], expected[3, 2] = 1, 0.25
    expected[1, 3], expected[3, 1] = 0.5 + 1, 0.25 * 1.5
    expected[3, 4], expected[4, 3] = 1, 0.25
    expected[1, 4], expected[4, 1] = 0.5, 0.125
    np.testing.assert_allclose(edges, expected)


def test_scores_by_hand() -> None:
    cases = toys.cases([[2, 1], [5]], tie_order(5, seed=1))
    lists = Graph(PLAIN).fit(toys.four_users()).recommend(cases, 5)
    # After 1 came 2 twice and 3 once; after 2, which is one step older, 1 and 3 once each. After 5 came nothing.
    np.testing.assert_array_equal(lists.items[0, :3], [2, 3, 1])
    np.testing.assert_allclose(lists.scores[0], [2, 1.5, 0.5, 0, 0])
    in_tie_order = np.argsort(cases.tie_order[1:]) + 1
    np.testing.assert_array_equal(lists.items[1], in_tie_order)
    assert (lists.items[0, 3:] == [item for item in in_tie_order if item in (4, 5)]).all()


def test_norms_and_second_hop_by_hand() -> None:
    cases = toys.cases([[2]], tie_order(5, seed=1))
    halved = replace_nested(PLAIN, {"source_norm": 1.0, "target_norm": 0.5})
    lists = Graph(halved).fit(toys.four_users()).recommend(cases, 2)
    # 2 leads to 1 and 3 once each; 1 has one edge in all coming in, 3 has two.
    np.testing.assert_array_equal(lists.items[0], [1, 3])
    np.testing.assert_allclose(lists.scores[0], [1 / 2, 1 / 2 / np.sqrt(2)], rtol=1e-6)
    far = Graph(replace_nested(PLAIN, {"two_hop": 0.1})).fit(toys.four_users()).recommend(cases, 4)
    # On from 1: two thirds to 2, one third to 3. On from 3: to 4.
    np.testing.assert_array_equal(far.items[0], [3, 1, 4, 2])
    np.testing.assert_allclose(far.scores[0], [1 + 0.1 / 3, 1, 0.1, 0.1 * 2 / 3], rtol=1e-6)


def brute_force(split: Split, config: Graph.Config) -> np.ndarray:
    """(U, N + 1) scores of the test cases, by the formula and nothing else."""
    size = split.train.n_items + 1
    edges = np.zeros((size, size))
    for row in split.train.sequences:
        for at, source in enumerate(row):
            for step in range(1, config.window + 1):
                if at + step < len(row):
                    edges[source, row[at + step]] += config.nearness ** (step - 1)
                    edges[row[at + step], source] += config.backward * config.nearness ** (step - 1)
    out, into = edges.sum(1), edges.sum(0)
    weights, steps = np.zeros_like(edges), np.zeros_like(edges)
    for j, i in zip(*np.nonzero(edges), strict=True):
        weights[j, i] = edges[j, i] / (out[j] ** config.source_norm * into[i] ** config.target_norm)
        steps[j, i] = edges[j, i] / out[j]
    weights = weights + config.two_hop * weights @ steps
    scores = np.zeros((len(split.test.cases), size))
    for row, history in enumerate(split.test.cases.histories):
        for ago, item in enumerate(history[::-1]):
            scores[row] += config.recency**ago * weights[item]
    return scores


@pytest.mark.parametrize(
    "changes", [{}, {"two_hop": 0.3}, {"window": 60, "backward": 1.0}, {"window": 1, "source_norm": 1.0}]
)
def test_equals_the_formula_in_plain_loops(split: Split, changes: dict[str, float]) -> None:
    config = replace_nested(Graph.Config(), changes)
    found = Graph(config).fit(split.train)._score(split.test.cases).numpy()
    np.testing.assert_allclose(found, brute_force(split, config), rtol=1e-4, atol=1e-5)


def test_an_edge_never_leads_from_one_user_to_the_next() -> None:
    rows = Sequences.from_rows([[1, 2], [3, 4], [5]])
    edges = transitions(rows, 5, replace_nested(PLAIN, {"window": 4})).toarray()
    assert set(zip(*np.nonzero(edges), strict=True)) == {(1, 2), (3, 4)}


def test_candidates_and_seen_items_are_respected(split: Split) -> None:
    candidates = np.arange(1, 40, 3)
    cases = split.test.cases
    lists = Graph(Graph.Config(drop_seen=True)).fit(split.train).recommend(cases, 20, candidates=candidates)
    for items, seen in zip(lists.items, cases.seen, strict=True):
        wanted = np.setdiff1d(candidates, seen)
        assert set(items[items != PAD]) == set(wanted[:20]) if len(wanted) <= 20 else (items != PAD).all()


def test_scores_do_not_depend_on_how_items_are_numbered(split: Split) -> None:
    to = np.concatenate([[0], 1 + np.random.default_rng(3).permutation(40)])
    rows = split.train.sequences
    one = transitions(rows, 40, Graph.Config()).toarray()
    other = transitions(Sequences(to[rows.items].astype(np.int32), rows.offsets), 40, Graph.Config()).toarray()
    np.testing.assert_allclose(other[np.ix_(to, to)], one)
