"""Do the rows of a matrix of item vectors belong to their items? Neighbours in it must agree on their category."""

from __future__ import annotations

import math

import numpy as np

SAMPLE = 2_000
"""Labelled items that are asked; the neighbours are sought among all."""
LEAST = 100
"""Fewer labelled items cannot be judged: true rows of a weak encoder would be refused now and then."""
Z = 5.0
"""Standard errors above chance that the agreement must lie."""
EXCESS = 0.25
"""Least agreement above chance, as a share of what is possible above chance. A threshold on the lift itself would ask
too much where one category holds most items: it cannot pass 1 / chance. True rows reached .69 or more on every
catalogue tried; rows a few places off kept up to .15, because neighbours by id are alike."""


def check_alignment(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Refuse vectors (N + 1, D) whose rows belong to other items than their row number says.

    ``labels`` (N + 1,) int are category codes, 0 = none. A fixed sample of labelled items looks for its nearest
    neighbour (cosine) among all labelled items; the lift is the share of neighbours with the same label divided by
    the share expected by chance. Raises ValueError when the agreement is not clearly above chance, or when the
    labels one row up or down agree better: neighbours by id are alike in real catalogues, so rows that slipped by
    one still beat chance. Returns nan when nothing can be told: fewer than ``LEAST`` labelled items with
    a vector, labels all equal or all different, vectors all equal, or so uneven labels that even perfect
    agreement could be luck.
    """
    if len(vectors) != len(labels):
        raise ValueError(f"there are {len(vectors)} vectors for {len(labels)} rows of labels; encode the texts again")
    rows = np.flatnonzero((labels > 0) & vectors.any(1))
    _, counts = np.unique(labels[rows], return_counts=True)
    if len(rows) < LEAST or (vectors[rows] == vectors[rows[0]]).all():
        return math.nan
    chance = float((counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1)))
    asked = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE])
    luck = math.sqrt(chance * (1 - chance) / len(asked))  # standard error of the share under chance
    if luck == 0 or 1 - chance < Z * luck:
        return math.nan
    nearest = _nearest(vectors, rows, asked)
    share, *slipped = (_agreement(np.roll(labels, shift), asked, nearest) for shift in (0, 1, -1))
    if share - chance < max(Z * luck, EXCESS * (1 - chance)) or max(slipped) > share:
        raise ValueError(
            f"{share:.1%} of the items have a nearest neighbour of their own category, {chance:.1%} would by chance "
            f"and {max(slipped):.1%} if the rows had slipped by one: the text vectors do not belong to their items; "
            "delete the cached text-vectors and encode the texts again, in the order of the item ids"
        )
    return share / chance


def _nearest(vectors: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(A,) the row among ``rows`` (R,), other than itself, with the largest cosine to each of ``asked`` (A,)."""
    unit = vectors[rows] / np.linalg.norm(vectors[rows], axis=1, keepdims=True)  # (R, D)
    place = np.searchsorted(rows, asked)
    nearest = []
    for block in np.array_split(place, math.ceil(len(place) / 256)):
        cosines = unit[block] @ unit.T  # (block, R)
        cosines[np.arange(len(block)), block] = -np.inf
        nearest.append(rows[cosines.argmax(1)])
    return np.concatenate(nearest)


def _agreement(labels: np.ndarray, asked: np.ndarray, nearest: np.ndarray) -> float:
    """Share of equal labels among the pairs in which both have one."""
    known = (labels[asked] > 0) & (labels[nearest] > 0)
    return float((labels[asked] == labels[nearest])[known].mean()) if known.any() else 0.0
