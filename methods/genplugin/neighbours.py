"""Whose histories help a user: windows of the people, then two lists of candidates a query -> one list of neighbours.

The retrieval of GenPlugin's second stage (METHODS 3.5): BM25 finds by content, cosine of user vectors by behaviour,
and the ID semantics re-rank. Plain functions over rows of the corpus: row r is user ``view.users[r]``, -1 is nobody.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmark.types import Sequences, TrainingView
from methods.blocks.nearest import NOBODY, unit_vectors

PAPER_WINDOW = 20
"""Last items of a whole history, of which the released code takes its documents."""
BLOCK_QUERIES = 1024
"""Queries merged at one time; the vectors of their 100 candidates, of width 64, take 26 MB."""

Similarity = Callable[[slice, np.ndarray], np.ndarray]
"""Some queries and their candidate rows (B, C) -> similarities (B, C)."""


def corpus_windows(view: TrainingView, corpus: str = "training", asked: str = "train") -> Sequences:
    """The items that speak for every user, in the order of ``view.users``.

    ``training``: the last training items, as many as a case shows, whoever is asked. ``paper``, for leave-one-out:
    what the released code takes of a whole history, items[-20:-3] when training pairs ask, [-20:-2] for validation
    (both training items alone) and [-20:-1] for the test, with the validation item of everybody.
    """
    if corpus == "training":
        return view.sequences.tail(view.max_history)
    assert corpus == "paper" and asked in ("train", "valid", "test")
    if asked == "test":
        return _with_validation(view).tail(PAPER_WINDOW - 1)
    training = view.sequences.tail(PAPER_WINDOW - 2)  # the last two of a whole history are not among them
    return training if asked == "valid" else _without_last(training)


def _without_last(sequences: Sequences) -> Sequences:
    lengths = np.maximum(sequences.lengths - 1, 0)
    kept = np.arange(len(sequences.items)) < (sequences.offsets[:-1] + lengths)[sequences.row_of]
    return Sequences.from_lengths(sequences.items[kept], lengths)


def _with_validation(view: TrainingView) -> Sequences:
    """Every user's training items and then his validation items."""
    targets = view.valid.targets
    rows = rows_of(view, view.valid.cases.users)[targets.row_of]
    order = np.argsort(rows, kind="stable")
    items = np.insert(view.sequences.items, view.sequences.offsets[1:][rows[order]], targets.items[order])
    return Sequences.from_lengths(items, view.sequences.lengths + np.bincount(rows, minlength=len(view.sequences)))


def rows_of(view: TrainingView, users: np.ndarray) -> np.ndarray:
    """(Q,) the row of each user in the corpus, -1 for one who has no training items: the row a query excludes."""
    row = np.full(view.n_users + 1, NOBODY, np.int64)
    row[view.users] = np.arange(len(view.users))
    return row[users]


def training_queries(view: TrainingView) -> tuple[Sequences, np.ndarray]:
    """What training pairs ask with -> windows (P rows), own row of each (P,); in the order of NextItemPairs.

    A window is the items before the target, as many as a case shows.
    """
    sequences = view.sequences
    within = np.arange(len(sequences.items)) - sequences.offsets[:-1][sequences.row_of]  # (T,)
    targets = np.flatnonzero(within > 0)  # (P,) places in the flat items
    lengths = np.minimum(within[targets], view.max_history)
    places = np.arange(lengths.sum()) + np.repeat(targets - np.cumsum(lengths), lengths)
    return Sequences.from_lengths(sequences.items[places], lengths), sequences.row_of[targets]


def cosine_of(queries: np.ndarray, documents: np.ndarray) -> Similarity:
    """Cosine of ``queries`` (Q, W) to their candidates among ``documents`` (D, W), a block at a time; 0 for zeros."""
    asked, units = unit_vectors(queries).astype(np.float32), unit_vectors(documents).astype(np.float32)
    return lambda some, candidates: np.einsum("bw,bcw->bc", asked[some], units[candidates])


def merge(
    content: np.ndarray, collaborative: np.ndarray, n: int, similarity: np.ndarray | Similarity | None = None
) -> np.ndarray:
    """Two lists a query, (Q, k1) and (Q, k2) of distinct rows -> (Q, n) int32, -1 at the end where they are short.

    Re-ranked: rows in both lists first, so that none is lost while n >= min(k1, k2), then the others; both by falling
    similarity, the lower row first among equals. ``similarity`` is (Q, k1 + k2), aligned with content and then
    collaborative, or a function called block by block. Without it the lists take turns, content first: a row in both
    stands at its first place, and when one list ends, the other goes on.
    """
    candidates = np.concatenate([content, collaborative], axis=1)  # (Q, C)
    turns = np.argsort(np.r_[2 * np.arange(content.shape[1]), 2 * np.arange(collaborative.shape[1]) + 1])
    merged = np.full((len(candidates), n), NOBODY, np.int32)
    for start in range(0, len(candidates), BLOCK_QUERIES):
        some = slice(start, start + BLOCK_QUERIES)
        block = candidates[some]
        if similarity is None:
            ordered = block[:, turns]
        else:
            values = similarity(some, block) if callable(similarity) else similarity[some]
            ordered = np.take_along_axis(block, _by_similarity(block, values), axis=1)
        best = _distinct(ordered)[:, :n]
        merged[some, : best.shape[1]] = best
    return merged


def _by_similarity(candidates: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(B, C) the order of the candidates: those that stand twice, the others."""
    once = ~(_repeated(candidates) | _repeated(candidates[:, ::-1])[:, ::-1])
    return np.lexsort((candidates, -values, once), axis=-1)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """(B, C) every line's rows at their first places, NOBODY moved to the end."""
    gone = _repeated(rows) | (rows == NOBODY)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, NOBODY, rows), order, axis=1)


def _repeated(rows: np.ndarray) -> np.ndarray:
    """(B, C) True where the same row stands further left in the same line."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated
