"""Partitions that more than one protocol shows its metrics in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from benchmark.types import Dataset, Slice


def binary(labels: tuple[str, str], first: np.ndarray) -> Slice:
    """The cases where ``first`` (U,) bool holds, and the others."""
    return Slice(labels, np.where(first, 0, 1).astype(np.int8))


def by_length(lengths: np.ndarray, bounds: list[int]) -> Slice:
    """Cases by the number of items (U,) they had before: up to the first bound, the next, ..., more than the last."""
    labels = (f"<={bounds[0]}", *(f"{a + 1}-{b}" for a, b in pairwise(bounds)), f">{bounds[-1]}")
    return Slice(labels, np.searchsorted(bounds, lengths).astype(np.int8))


def scan_order(dataset: Dataset) -> np.ndarray:
    """(T,) interaction positions: users by first appearance in the file, each user's own in time order."""
    first = np.zeros(dataset.n_users + 1, np.int64)
    users, first_rows = np.unique(dataset.users, return_index=True)
    first[users] = first_rows
    order = dataset.chronological
    return order[np.argsort(first[dataset.users[order]], kind="stable")]


def by_popularity(scanned: np.ndarray, n_items: int) -> np.ndarray:
    """Items that occur in ``scanned``, most frequent first, ties by first appearance there."""
    counts = np.bincount(scanned, minlength=n_items + 1)
    items, first = np.unique(scanned, return_index=True)
    return items[np.lexsort((first, -counts[items]))]


def popularity_groups(ordered: np.ndarray, n_items: int, n_groups: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Groups of equally many of the ``ordered`` items, the first ones first; all other items in a group of their own.

    Returns the labels, ``cold`` last, and (N + 1,) int8 the group of every item.
    """
    group = np.full(n_items + 1, n_groups, np.int8)
    for place, items in enumerate(np.array_split(ordered, n_groups)):
        group[items] = place
    labels = [str(place + 1) for place in range(n_groups)]
    labels[0], labels[-1] = f"{labels[0]} (most popular)", f"{labels[-1]} (least popular)"
    return (*labels, "cold"), group
