"""Whose histories help a user: windows of the people, then two lists of candidates a query -> one list of neighbours.

The retrieval of GenPlugin's second stage (METHODS 3.5): BM25 finds by content, cosine of user vectors by behaviour,
and the ID semantics re-rank. Plain functions over rows of the corpus: row r is user ``view.users[r]``, -1 is nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmark.types import Cases, Sequences, TrainingView
from methods.blocks.nearest import NOBODY, unit_vectors

PAPER_WINDOW = 20
"""Last items of a whole history, of which the released code takes its documents."""
BLOCK_QUERIES = 1024
"""Queries merged at one time; the vectors of their 100 candidates, of width 64, take 26 MB."""

Similarity = Callable[[slice, np.ndarray], np.ndarray]
"""Some queries and their candidate rows (B, C) -> similarities (B, C)."""


class Asked(NamedTuple):
    windows: Sequences  # (Q rows) what each query is made of
    own: np.ndarray  # (Q,) int64 row of the query's own user in the corpus, -1 = not there


class PaperCorpora(NamedTuple):
    """The people who can be found, as the released code cuts them, by who asks."""

    train: Sequences
    valid: Sequences
    test: Sequences


def corpus_windows(view: TrainingView) -> Sequences:
    """The last training items of every user, as many as a case shows: all that speaks for anybody."""
    return view.sequences.tail(view.max_history)


def paper_corpora(view: TrainingView) -> PaperCorpora:
    """items[-20:-3], [-20:-2] and [-20:-1] of whole histories: the test corpus holds everybody's validation item.

    For leave-one-out. The released code excludes nobody either: its queries have -1 as their own row.
    """
    training = view.sequences.tail(PAPER_WINDOW - 2)  # the last two of a whole history are not among them
    return PaperCorpora(_without_last(training), training, _with_validation(view).tail(PAPER_WINDOW - 1))


def _without_last(sequences: Sequences) -> Sequences:
    lengths = np.maximum(sequences.lengths - 1, 0)
    kept = np.arange(len(sequences.items)) < (sequences.offsets[:-1] + lengths)[sequences.row_of]
    return Sequences.from_lengths(sequences.items[kept], lengths)


def _with_validation(view: TrainingView) -> Sequences:
    """Every user's training items and then his validation items."""
    targets = view.valid.targets
    rows = _rows_of(view, view.valid.cases.users)[targets.row_of]
    order = np.argsort(rows, kind="stable")
    items = np.insert(view.sequences.items, view.sequences.offsets[1:][rows[order]], targets.items[order])
    return Sequences.from_lengths(items, view.sequences.lengths + np.bincount(rows, minlength=len(view.sequences)))


def _rows_of(view: TrainingView, users: np.ndarray) -> np.ndarray:
    """(Q,) the row of each user in the corpus, -1 for one who has no training items."""
    row = np.full(view.n_users + 1, NOBODY, np.int64)
    row[view.users] = np.arange(len(view.users))
    return row[users]


def case_queries(view: TrainingView, cases: Cases) -> Asked:
    """Every case asks with its own history."""
    return Asked(cases.histories.tail(view.max_history), _rows_of(view, cases.users))


def training_queries(view: TrainingView) -> Asked:
    """Every training pair asks with the items before its target, as many as a case shows; NextItemPairs' order."""
    sequences = view.sequences
    within = np.arange(len(sequences.items)) - sequences.offsets[:-1][sequences.row_of]  # (T,)
    targets = np.flatnonzero(within > 0)  # (P,) places in the flat items
    lengths = np.minimum(within[targets], view.max_history)
    places = np.arange(lengths.sum()) + np.repeat(targets - np.cumsum(lengths), lengths)
    return Asked(Sequences.from_lengths(sequences.items[places], lengths), sequences.row_of[targets])


def cosines(queries: np.ndarray, documents: np.ndarray) -> Similarity:
    """Cosine of ``queries`` (Q, W) to their candidates among ``documents`` (D, W), a block at a time; 0 for zeros."""
    asked, units = unit_vectors(queries).astype(np.float32), unit_vectors(documents).astype(np.float32)
    return lambda some, candidates: np.einsum("bw,bcw->bc", asked[some], units[candidates])


def merge(content: np.ndarray, collaborative: np.ndarray, similarity: np.ndarray | Similarity, n: int) -> np.ndarray:
    """Two lists a query, (Q, k1) and (Q, k2) of distinct rows -> (Q, n) re-ranked, -1 at the end where they are short.

    Rows in both lists first, so that none is lost while n >= min(k1, k2), then the others; both by falling similarity,
    the lower row first among equals. ``similarity`` is (Q, k1 + k2), aligned with content and then collaborative, or
    a function called block by block.
    """

    def order(some: slice, candidates: np.ndarray) -> np.ndarray:
        values = similarity(some, candidates) if callable(similarity) else similarity[some]
        return _by_similarity(candidates, values)

    return _in_blocks(np.concatenate([content, collaborative], axis=1), order, n)


def alternate(content: np.ndarray, collaborative: np.ndarray, n: int) -> np.ndarray:
    """Both lists without re-ranking: best by content, best by behaviour, second by content, ... -> (Q, n).

    A row in both stands at its first place; when one list ends, the other goes on.
    """
    turns = np.argsort(np.r_[2 * np.arange(content.shape[1]), 2 * np.arange(collaborative.shape[1]) + 1])
    candidates = np.concatenate([content, collaborative], axis=1)
    return _in_blocks(candidates, lambda _, block: np.broadcast_to(turns, block.shape), n)


def _in_blocks(candidates: np.ndarray, order: Callable[[slice, np.ndarray], np.ndarray], n: int) -> np.ndarray:
    """(Q, n) int32: the first ``n`` distinct rows of every line of candidates (Q, C), once put in order."""
    merged = np.full((len(candidates), n), NOBODY, np.int32)
    for start in range(0, len(candidates), BLOCK_QUERIES):
        some = slice(start, start + BLOCK_QUERIES)
        block = candidates[some]
        best = _distinct(np.take_along_axis(block, order(some, block), axis=1))[:, :n]
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
