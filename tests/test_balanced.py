"""Balanced k-means: limits always hold, the assignment is the cheapest there is, and free limits change nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, kmeans_plusplus

from methods.blocks.balanced import balanced_assignment, balanced_codebooks, balanced_kmeans
from methods.blocks.kmeans import nearest


def total(costs: np.ndarray, labels: np.ndarray) -> float:
    return float(costs[np.arange(len(costs)), labels].sum())


def cheapest(costs: np.ndarray, size_min: int, size_max: int) -> float:
    """The optimum as one-to-one assignment: ``size_max`` slots a cluster, of which rows of no cost may not take the
    first ``size_min``."""
    n_rows, n_clusters = costs.shape
    slots = np.repeat(costs, size_max, axis=1)
    spare = np.zeros((n_clusters * size_max - n_rows, slots.shape[1]))
    spare[:, np.arange(slots.shape[1]) % size_max < size_min] = 1e6
    square = np.concatenate([slots, spare])
    return float(square[linear_sum_assignment(square)].sum())


def blobs(n_blobs: int = 6, size: int = 30, seed: int = 0) -> np.ndarray:
    """(n_blobs * size, 5) in clear groups of one size."""
    rng = np.random.default_rng(seed)
    centres = 4 * rng.standard_normal((n_blobs, 5))
    return np.repeat(centres, size, axis=0) + rng.standard_normal((n_blobs * size, 5))


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Costs with many ties, and limits that some assignment keeps."""
    n_rows, n_clusters = draw(st.integers(1, 16)), draw(st.integers(1, 5))
    size_min = draw(st.integers(0, n_rows // n_clusters))
    size_max = draw(st.integers(-(-n_rows // n_clusters), n_rows))
    entries = st.integers(-9, 9) | st.floats(-3, 3)
    rows = st.lists(entries, min_size=n_clusters, max_size=n_clusters)
    return np.array(draw(st.lists(rows, min_size=n_rows, max_size=n_rows)), float), size_min, size_max


# The assignment


@settings(deadline=None, max_examples=200)
@given(problem=problems())
def test_no_assignment_within_the_limits_is_cheaper(problem: tuple[np.ndarray, int, int]) -> None:
    costs, size_min, size_max = problem
    labels, _ = balanced_assignment(costs, size_min, size_max)
    counts = np.bincount(labels, minlength=costs.shape[1])
    assert counts.min() >= size_min and counts.max() <= size_max
    assert total(costs, labels) == pytest.approx(cheapest(costs, size_min, size_max), abs=1e-8)


def test_the_assignment_equals_trying_all() -> None:
    rng = np.random.default_rng(0)
    for size_min, size_max in [(1, 4), (2, 3), (0, 3), (0, 7)]:
        costs = rng.random((7, 3)) * [0.2, 1, 2]
        tried = [
            total(costs, np.array(labels))
            for labels in product(range(3), repeat=7)
            if all(size_min <= labels.count(k) <= size_max for k in range(3))
        ]
        assert total(costs, balanced_assignment(costs, size_min, size_max)[0]) == pytest.approx(min(tried), abs=1e-9)


@pytest.mark.parametrize(("size_min", "size_max"), [(16, 60), (20, 30), (25, 26), (0, 40)])
def test_prices_prove_a_larger_assignment(size_min: int, size_max: int) -> None:
    """Complementary slackness: nobody would rather be elsewhere at these prices, and only bounds have one."""
    costs = np.random.default_rng(1).random((256, 10)) ** 3 * np.linspace(0.1, 2, 10)
    labels, prices = balanced_assignment(costs, size_min, size_max)
    counts = np.bincount(labels, minlength=10)
    paid = costs + prices
    np.testing.assert_allclose(total(paid, labels), paid.min(1).sum(), atol=1e-9)
    assert (counts[prices > 0] == size_max).all() and (counts[prices < 0] == size_min).all()
    assert counts.min() >= size_min and counts.max() <= size_max and np.abs(prices).max() > 0


def test_prices_of_other_costs_are_a_start_and_no_more() -> None:
    rng = np.random.default_rng(2)
    costs = rng.random((80, 6)) * np.linspace(0.2, 2, 6)
    expected, right = balanced_assignment(costs, 10, 16)
    for prices in (right, right + 0.1 * rng.standard_normal(6), 100 * rng.standard_normal(6)):
        np.testing.assert_array_equal(balanced_assignment(costs, 10, 16, prices)[0], expected)


def test_rows_of_equal_cost_are_shared_out() -> None:
    assert sorted(np.bincount(balanced_assignment(np.zeros((11, 4)), 2, 3)[0])) == [2, 3, 3, 3]


# k-means


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 40), n_codes=st.integers(1, 8), duplicates=st.booleans())
def test_cluster_sizes_keep_to_their_limits(data: st.DataObject, n: int, n_codes: int, duplicates: bool) -> None:
    n_codes = min(n, n_codes)
    size_min = data.draw(st.integers(0, n // n_codes))
    size_max = data.draw(st.integers(-(-n // n_codes), n))
    vectors = np.random.default_rng(n).standard_normal((n, 3)) ** 3
    if duplicates:
        vectors[: n // 2] = vectors[0]
    centres, labels = balanced_kmeans(vectors, n_codes, size_min, size_max, seed=n, n_init=2)
    counts = np.bincount(labels, minlength=n_codes)
    assert counts.min() >= size_min and counts.max() <= size_max
    assert centres.shape == (n_codes, 3) and centres.dtype == np.float32 and np.isfinite(centres).all()


def test_limits_that_do_not_bind_give_plain_kmeans() -> None:
    vectors = blobs()
    centres, labels = balanced_kmeans(vectors, 6, 0, len(vectors), seed=3, rounds=100)
    start, _ = kmeans_plusplus(vectors, 6, random_state=np.random.RandomState(3))
    plain = KMeans(6, init=start, n_init=1, max_iter=100, tol=0).fit(vectors)
    np.testing.assert_array_equal(labels, plain.labels_)
    np.testing.assert_allclose(centres, plain.cluster_centers_, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_equal_groups_cost_nothing_to_balance(seed: int) -> None:
    """On groups of one size the right clustering is balanced, so limits around that size do no harm."""
    vectors = blobs(seed=seed)
    centres, labels = balanced_kmeans(vectors, 6, 28, 32, seed, n_init=5, rounds=50)
    inertia = ((vectors - centres[labels]) ** 2).sum()
    assert inertia <= 1.02 * KMeans(6, n_init=5, random_state=seed).fit(vectors).inertia_


def test_centres_are_the_means_of_their_clusters_and_every_round_helps() -> None:
    vectors = np.random.default_rng(0).standard_normal((120, 4)) ** 3
    inertia = []
    for rounds in (1, 2, 4, 60):
        centres, labels = balanced_kmeans(vectors, 7, 10, 25, seed=0, rounds=rounds)
        np.testing.assert_allclose(centres, [vectors[labels == k].mean(0) for k in range(7)], rtol=1e-5)
        inertia.append(((vectors - centres[labels]) ** 2).sum())
    assert inertia == sorted(inertia, reverse=True) and inertia[0] > inertia[-1]


def test_the_best_of_several_starts_is_kept_and_seeds_repeat() -> None:
    vectors = blobs(8, 12, seed=2)

    def inertia(n_init: int) -> float:
        centres, labels = balanced_kmeans(vectors, 8, 6, 20, seed=1, n_init=n_init)
        return float(((vectors - centres[labels]) ** 2).sum())

    assert inertia(10) < inertia(1)
    first, again = (balanced_kmeans(vectors, 8, 6, 20, seed=1) for _ in range(2))
    assert first[0].tobytes() == again[0].tobytes() and (first[1] == again[1]).all()


def test_going_on_from_where_it_ended_changes_nothing() -> None:
    vectors = blobs(seed=4)
    centres, labels = balanced_kmeans(vectors, 6, 20, 40, seed=0, rounds=99)
    on, after = balanced_kmeans(vectors, 6, 20, 40, seed=9, start=centres)
    np.testing.assert_array_equal(after, labels)
    np.testing.assert_allclose(on, centres, rtol=1e-6)
    moved, relabelled = balanced_kmeans(vectors[:, ::-1], 6, 20, 40, seed=9, start=centres[:, ::-1])
    np.testing.assert_array_equal(relabelled, labels)
    np.testing.assert_allclose(moved[:, ::-1], centres, rtol=1e-6)


@pytest.mark.parametrize("limits", [(5, 9), (0, 2)])
def test_limits_nobody_can_keep_are_refused(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"12 vectors cannot be put into 4 clusters of \d to \d"):
        balanced_kmeans(np.zeros((12, 2)), 4, *limits, seed=0)


# Codebooks


def test_codebooks_quantise_what_the_level_before_left() -> None:
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32) ** 3)
    books = balanced_codebooks(latents, 3, 16, seed=5)
    assert books.shape == (3, 16, 4) and torch.equal(books, balanced_codebooks(latents, 3, 16, seed=5))
    left = latents
    for level, book in enumerate(books):
        distinct = np.unique(left.numpy(), axis=0)
        expected, labels = balanced_kmeans(distinct, 16, 12, 48, seed=5 + level)  # 400 // (2 * 16), four times that
        np.testing.assert_array_equal(book.numpy(), expected)
        assert np.bincount(labels).min() >= 12 and np.bincount(labels).max() <= 48
        before = float(left.square().sum())
        left = left - book[nearest(left, book)]
        assert float(left.square().sum()) < before


def test_a_group_too_large_is_cut_and_the_small_are_filled_up() -> None:
    """Half of all vectors in one tight group: plain k-means gives it few codes, balance at least its share."""
    rng = np.random.default_rng(0)
    crowd = 0.01 * rng.standard_normal((300, 3))
    others = 10 * rng.standard_normal((300, 3))
    vectors = np.concatenate([crowd, others]).astype(np.float32)
    book = balanced_codebooks(torch.from_numpy(vectors), 1, 20, seed=0)[0].numpy()
    plain = KMeans(20, n_init=3, random_state=0).fit(vectors).cluster_centers_
    near = [(cdist(centres, np.zeros((1, 3))) < 1).sum() for centres in (book, plain)]
    assert near[0] >= 300 // (4 * (600 // 40)) > near[1]  # size_max = 4 * 15


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 17, 33])
def test_few_or_equal_latents_still_make_codebooks(n: int) -> None:
    latents = torch.from_numpy(np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32))
    books = balanced_codebooks(torch.cat([latents, latents]), 2, 8, seed=0)
    assert books.shape == (2, 8, 3) and books.isfinite().all()
    if n <= 8:  # everybody is met by the first level
        assert (latents[:, None] == books[0]).all(-1).any(1).all()
