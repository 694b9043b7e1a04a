"""benchmark.lists against a stable sort, and by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmark.lists import drop_seen, tie_order, top_k
from benchmark.types import PAD

SCORE = st.one_of(
    st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 1.0, 1e-30, -1e-30]),  # ties and edges are the point
    st.floats(-1e6, 1e6, width=32),
)
MATRIX = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=SCORE)
)


def by_stable_sort(scores: np.ndarray, k: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The law of ``top_k``, one item at a time."""
    items = np.full((len(scores), k), PAD)
    values = np.full((len(scores), k), -np.inf, np.float32)
    for row, of_row in enumerate(scores):
        candidates = sorted((i for i in range(1, len(of_row)) if of_row[i] > -np.inf), key=lambda i: order[i])
        best = sorted(candidates, key=lambda i: -of_row[i])[:k]
        items[row, : len(best)] = best
        values[row, : len(best)] = of_row[best]
    return items, values


@given(MATRIX, st.integers(1, 15), st.integers(0, 5))
@example(np.zeros((2, 6), np.float32), 3, 0)
@example(np.array([[9, -0.0, 0.0, -0.0, 0.0]], np.float32), 4, 1)
@example(np.full((1, 4), -np.inf, np.float32), 2, 0)
def test_top_k_is_a_stable_sort(scores: np.ndarray, k: int, seed: int) -> None:
    order = tie_order(scores.shape[1] - 1, seed)
    items, values = top_k(scores, k, order)
    wanted, wanted_values = by_stable_sort(scores, k, order)
    np.testing.assert_array_equal(items, wanted)
    np.testing.assert_array_equal(values, wanted_values)
    assert items.dtype == np.int32 and values.dtype == np.float32


def test_top_k_never_names_padding_even_with_the_best_score() -> None:
    items, _ = top_k(np.array([[99.0, 1.0, 2.0]], np.float32), 3, tie_order(2, 0))
    assert items.tolist() == [[2, 1, PAD]]


def test_top_k_does_not_change_its_input() -> None:
    scores = np.array([[5.0, -0.0, 2.0, 1.0]], np.float32)
    before = scores.copy()
    top_k(scores, 2, tie_order(3, 0))
    np.testing.assert_array_equal(scores, before)


def test_equal_scores_follow_the_permutation_not_the_item_id() -> None:
    order = np.array([4, 3, 0, 2, 1])  # PAD last; item 2 first, then 4, 3, 1
    items, _ = top_k(np.zeros((1, 5), np.float32), 4, order)
    assert items.tolist() == [[2, 4, 3, 1]]


@given(st.integers(1, 200), st.integers(0, 2**31))
def test_tie_order_is_a_seeded_permutation_with_padding_last(n_items: int, seed: int) -> None:
    order = tie_order(n_items, seed)
    assert sorted(order[1:]) == list(range(n_items))
    assert order[PAD] == n_items
    np.testing.assert_array_equal(order, tie_order(n_items, seed))


def test_tie_order_depends_on_the_seed() -> None:
    assert not np.array_equal(tie_order(50, 0), tie_order(50, 1))


def test_drop_seen_closes_the_gaps() -> None:
    items = np.array([[3, 1, 4, 2], [5, 6, PAD, PAD], [1, -1, 2, 3]], np.int32)
    seen = np.array([[1, 2, PAD], [PAD, PAD, PAD], [3, 1, 1]], np.int32)
    assert drop_seen(items, seen).tolist() == [[3, 4, PAD, PAD], [5, 6, PAD, PAD], [-1, 2, PAD, PAD]]


def test_drop_seen_of_a_user_without_history_changes_nothing() -> None:
    items = np.array([[2, 7, 1]], np.int32)
    assert drop_seen(items, np.empty((1, 0), np.int32)).tolist() == [[2, 7, 1]]
