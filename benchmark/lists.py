"""From scores to lists: the k best items with the protocol's tie order, exactly and without a full sort."""

from __future__ import annotations

import numpy as np

from benchmark.types import PAD


def top_k(scores: np.ndarray, k: int, tie_order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best columns of ``scores`` (B, N + 1) -> items (B, k), scores (B, k).

    Column i is item i; column 0 and every -inf are not candidates. Equal scores go to the lower
    ``tie_order`` (N + 1,). Where fewer than ``k`` candidates exist, PAD with score -inf fills the end.
    """
    keys = _sortable(scores) << np.uint64(32) | (np.uint64(0xFFFFFFFF) - tie_order.astype(np.uint64))
    width = min(k, scores.shape[1])
    best = np.argpartition(keys, scores.shape[1] - width, axis=1)[:, -width:]  # (B, width) unordered
    order = np.argsort(np.take_along_axis(keys, best, 1), axis=1)[:, ::-1]
    items = np.take_along_axis(best, order, 1).astype(np.int32)
    values = np.take_along_axis(scores, items.astype(np.int64), 1).astype(np.float32)
    values[items == PAD] = -np.inf
    items = np.where(np.isneginf(values), PAD, items)
    return _pad_last(items, values, k)


def _sortable(scores: np.ndarray) -> np.ndarray:
    """(B, N + 1) uint64 that sort as the float32 scores do (sign-magnitude bits made monotone)."""
    scores = scores.astype(np.float32) + np.float32(0)  # -0.0 ties with 0.0
    bits = scores.view(np.int32)
    ordered = np.where(bits < 0, ~bits.view(np.uint32), bits.view(np.uint32) | np.uint32(0x80000000))
    ordered[:, PAD] = 0
    return ordered.astype(np.uint64)


def _pad_last(items: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Widen (B, width) to (B, k) with PAD, and move PAD in the middle to the end."""
    order = np.argsort(items == PAD, axis=1, kind="stable")
    items, values = np.take_along_axis(items, order, 1), np.take_along_axis(values, order, 1)
    missing = ((0, 0), (0, k - items.shape[1]))
    return np.pad(items, missing, constant_values=PAD), np.pad(values, missing, constant_values=-np.inf)


def tie_order(n_items: int, seed: int) -> np.ndarray:
    """(N + 1,) int64: each item's place in a seeded permutation; PAD comes last."""
    order = np.empty(n_items + 1, np.int64)
    order[1:] = np.random.Generator(np.random.PCG64(seed)).permutation(n_items)
    order[PAD] = n_items
    return order


def drop_seen(items: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Remove from each list (B, K) the items the user had (``seen`` (B, W), PAD-filled), closing the gaps."""
    known = (items[:, :, None] == seen[:, None, :]).any(-1) & (items > PAD)  # (B, K)
    order = np.argsort(known, axis=1, kind="stable")
    kept = np.take_along_axis(np.where(known, PAD, items), order, 1)
    return kept
