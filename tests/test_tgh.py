"""The transition-graph heuristic: rings and edge weights by hand, and the list assembled by plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import protocols
from benchmark.lists import tie_order
from benchmark.method import build_config
from benchmark.types import PAD, Split
from methods.tgh import TGH, transition_weights
from tests import toys


@pytest.fixture(scope="module")
def split() -> Split:
    """60 users with 4 to 30 of 60 items; 1 or 2 items come after most."""
    random = np.random.default_rng(2)
    histories = [random.choice(np.arange(1, 61), n, replace=False) for n in random.integers(3, 9, 60)]
    return protocols.load("loo").split(toys.dataset("world", histories, ["", *map(str, range(1, 61))]))


def fitted(split: Split, **changes: object) -> TGH:
    """With random vectors of length 1 in place of the texts'."""
    method = TGH(TGH.Config(**changes)).fit(split.train)  # type: ignore[arg-type]
    vectors = np.random.default_rng(4).normal(size=(61, 5))
    vectors[PAD] = 0
    method.vectors = torch.from_numpy(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))
    return method


def test_edge_weights_by_hand() -> None:
    weights = transition_weights(toys.four_users()).toarray()  # 1 2 3, 1 2, 2 1, 1 3 4
    expected = np.zeros((6, 6))
    expected[1, 2], expected[1, 3] = 1, np.log(2) / np.log(3)
    expected[2, 1] = expected[2, 3] = expected[3, 4] = 1
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_rings_by_hand() -> None:
    method = TGH(TGH.Config(last=(1, 1, 1), before=(1,))).fit(toys.four_users())
    cases = toys.cases([[3, 2], [4]], tie_order(5, seed=1))
    rings = [[set(np.flatnonzero(row)) for row in ring.numpy()] for ring, _, _ in method._rings(cases)]
    # From 2 to 1 and 3, from these on to 4 (and back to 2), from 4 nowhere. Before 2 came 3; before 4 nothing.
    assert rings == [[{1, 3}, set()], [{4}, set()], [set(), set()], [{4}, set()]]


def distances(split: Split) -> np.ndarray:
    """(N + 1, N + 1) steps from item to item, 99 where no path leads."""
    steps = np.full((61, 61), 99)
    for row in split.train.sequences:
        steps[row[:-1], row[1:]] = 1
    for middle in range(61):
        steps = np.minimum(steps, steps[:, middle, None] + steps[None, middle])
    np.fill_diagonal(steps, 0)
    return steps


def by_hand(method: TGH, split: Split, row: int) -> list[int]:
    """The list of one test case: places, then what is left of the rings, then everything by likeness."""
    history = split.test.cases.histories[row].tolist()
    vectors, edges, steps = method.vectors.numpy(), method.edges.toarray(), distances(split)
    banned = {PAD, *(split.test.cases.seen[row].tolist() if method.config.drop_seen else [])}
    sources = [(history[-1], method.config.last)]
    if len(history) > 1:
        sources.append((history[-2], method.config.before))
    rings = []
    for source, all_places in sources:
        for hop, places in enumerate(all_places, start=1):
            score = vectors @ vectors[source] + (method.config.edge_weight * edges[source] if hop == 1 else 0)
            ring = [item for item in np.argsort(-score) if steps[source, item] == hop and item not in banned]
            rings.append((ring, places))
    answer: list[int] = []
    for ring, places in rings:
        answer += [item for item in ring if item not in answer][:places]
    for ring, _ in rings:
        answer += [item for item in ring if item not in answer]
    likeness = np.argsort(-(vectors @ vectors[history[-1]]))
    return answer + [item for item in likeness if item not in banned and item not in answer]


@pytest.mark.parametrize(
    "changes",
    [{}, {"drop_seen": True}, {"last": (5, 1), "before": (3, 1)}, {"last": (1, 2), "before": (2,), "edge_weight": 0.0}],
)
def test_lists_are_those_of_plain_loops(split: Split, changes: dict[str, object]) -> None:
    method = fitted(split, **changes)
    lists = method.recommend(split.test.cases, 60)
    for row in range(len(split.test.cases)):
        named = lists.items[row][lists.items[row] != PAD].tolist()
        assert named == by_hand(method, split, row)


def test_presets_are_the_papers() -> None:
    one, two = build_config(TGH, None, "full"), build_config(TGH, "two", "full")
    assert (one.last, one.before, one.edge_weight) == ((7, 2, 1), (), 0.5)
    assert (two.last, two.before, two.edge_weight) == ((5, 1), (3, 1), 0.5)


def test_items_without_text_are_no_likeness() -> None:
    assert TGH.unsuited(toys.four_users()) is None
    mute = protocols.load("loo").split(toys.dataset("mute", [[1, 2, 3], [2, 3, 1]], ["", "", " ", ""])).train
    assert TGH.unsuited(mute) == "no item has any text to compare items by"
