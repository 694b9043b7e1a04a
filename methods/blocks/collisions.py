"""What to do when items share a code: spread them by Sinkhorn, move them to the nearest free code, or add a digit.

Codes are (N + 1, L) int64 with row 0 (PAD) = -1. The repairs change the last level only, and only of colliding items;
they read what the last level quantised, ``residuals`` (N + 1, D), and its ``codebook`` (K, D).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist

from methods.blocks.kmeans import sinkhorn
from methods.blocks.semantic_ids import number_prefixes, rank_within


def repair_sinkhorn(
    codes: np.ndarray, residuals: np.ndarray, codebook: np.ndarray, *, rounds: int = 20, epsilon: float = 0.003
) -> np.ndarray:
    """Re-assign the items of every colliding group together, by Sinkhorn on the last level (LC-Rec, METHODS 0.4-2).

    At most ``rounds`` times, since an item may land on a code that is taken. What still collides is left in; items
    with identical residuals always do. Returns new codes of the same shape.
    """
    repaired = codes.copy()
    for _ in range(rounds):
        before = repaired[:, -1].copy()
        for items in _colliding_groups(repaired):
            rows = residuals[items]
            if (rows == rows[0]).all():  # their plan is uniform, so its argmax would be rounding noise
                continue
            plan = sinkhorn(torch.from_numpy(_distances(rows, codebook)), epsilon)
            repaired[items, -1] = plan.argmax(1).numpy()
        if (repaired[:, -1] == before).all():
            break
    return repaired


def repair_nearest_free(codes: np.ndarray, residuals: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Keep of every colliding group the item nearest to the code; the others move (MQL4GRec, METHODS 0.4-3).

    Each goes to the nearest last-level code that no item with the same prefix has: nearer items choose first, equally
    near ones by item id. Where all codes of a prefix are taken, the item stays. Returns new codes of the same shape.
    """
    repaired = codes.copy()
    numbers = number_prefixes(codes[1:])
    prefixes, groups = numbers[:, -2], numbers[:, -1]
    own = ((residuals[1:].astype(np.float64) - codebook[codes[1:, -1]]) ** 2).sum(1)  # (N,) distance to the own code
    taken = np.zeros((prefixes.max() + 1, len(codebook)), bool)  # (prefixes, K)
    taken[prefixes, codes[1:, -1]] = True
    moving = np.flatnonzero(rank_within(groups, own))  # all but the nearest of each group
    for row in moving[np.argsort(own[moving], kind="stable")]:
        busy = taken[prefixes[row]]
        if not busy.all():
            distances = _distances(residuals[1 + row : 2 + row], codebook)[0]  # (K,)
            nearest = np.where(busy, np.inf, distances).argmin()
            repaired[1 + row, -1] = nearest
            busy[nearest] = True
    return repaired


def dedup_digit(codes: np.ndarray) -> np.ndarray:
    """Codes (N + 1, L) -> (N + 1, L + 1): a last digit 0, 1, 2, ... tells items of one code apart (TIGER).

    Digits follow the item id, which is the order of the raw keys and says nothing of anybody's history. The new
    level needs as many codes as the largest group has items.
    """
    groups = number_prefixes(codes[1:])[:, -1]
    digits = np.full(len(codes), -1, np.int64)
    digits[1:] = rank_within(groups, np.arange(len(groups)))
    return np.column_stack([codes, digits])


def _colliding_groups(codes: np.ndarray) -> list[np.ndarray]:
    """The item ids of every code that several items share, codes in lexicographic order, ids ascending."""
    groups = number_prefixes(codes[1:])[:, -1]
    counts = np.bincount(groups)
    shared = np.flatnonzero(counts[groups] > 1)
    by_group = shared[np.argsort(groups[shared], kind="stable")] + 1
    return np.split(by_group, np.cumsum(counts[counts > 1])[:-1]) if len(by_group) else []


def _distances(rows: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Squared distances (B, K) float64, every pair computed alike, so that equal rows have equal distances."""
    return cdist(rows.astype(np.float64), codebook.astype(np.float64), "sqeuclidean")
