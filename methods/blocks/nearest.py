"""The k best documents for every query, in blocks of both: exact, and equal scores go to the lower row.

Scores are computed in float64 and compared as float32 (a cosine, which may cancel to nearly 0, to 1e-10): neither the
order of a sum nor the shape of a block then decides between documents that are equally good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NOBODY = -1
"""Stands for a document where a query finds fewer than k, and for "none" in ``exclude``."""
BLOCK_QUERIES = 512
"""Queries scored at one time."""
BLOCK_DOCUMENTS = 4096
"""Documents scored at one time; with 512 queries one block of float64 takes 17 MB."""
GRAIN = 2.0**20
"""Added to a float64 and taken away again, this leaves a multiple of 1.2e-10."""
CROWD = 4
"""A block in which more than this many times k documents beat a list is sorted out by top-k.

Below, their own sort is faster (measured).
"""

Progress = Callable[[float, float], None]
"""Called as (done, total)."""
ScoreBlock = Callable[[slice], np.ndarray]
"""Queries -> (B, C) float64 scores of one block of documents."""


class Found(NamedTuple):
    rows: np.ndarray  # (Q, k) int32 rows of the documents, best first, NOBODY at the end
    scores: np.ndarray  # (Q, k) float32, -inf where NOBODY


def top_cosine(
    documents: np.ndarray, queries: np.ndarray, k: int, exclude: np.ndarray, progress: Progress | None = None
) -> Found:
    """The ``k`` documents (D, W) of the highest cosine to every query (Q, W), without row ``exclude`` (Q,).

    A zero vector has cosine 0 to all. Memory: unit vectors of all in float64, and 30 MB.
    """
    units, asked = unit_vectors(documents), unit_vectors(queries)

    def prepare(columns: slice) -> ScoreBlock:
        block = units[columns].T  # (W, C)
        return lambda rows: (asked[rows] @ block + GRAIN) - GRAIN

    return search(prepare, len(units), k, exclude, progress)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """(R, W) float64 of length 1, zero vectors as they are."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def search(
    prepare: Callable[[slice], ScoreBlock],
    n_documents: int,
    k: int,
    exclude: np.ndarray,
    progress: Progress | None = None,
    *,
    above: float = -np.inf,
    block_documents: int = BLOCK_DOCUMENTS,
) -> Found:
    """The ``k`` best of the documents that score more than ``above``, without row ``exclude[q]`` for query q.

    ``prepare(documents)`` does what a block of documents needs once; what it returns scores queries against it.
    """
    total = len(exclude) * n_documents
    excluded = np.asarray(exclude, np.int64)
    rows = torch.full((len(exclude), k), NOBODY, dtype=torch.int64)
    scores = torch.full((len(exclude), k), above)  # to be beaten
    for first in range(0, n_documents, block_documents):
        columns = slice(first, min(first + block_documents, n_documents))
        score = prepare(columns)
        for start in range(0, len(exclude), BLOCK_QUERIES):
            some = slice(start, start + BLOCK_QUERIES)
            block = score(some)  # (B, C)
            _leave_out(block, excluded[some] - first)
            better, values = _beating(block, scores[some, -1].numpy(), k)
            rows[some], scores[some] = _merged(rows[some], scores[some], better + first, values)
            if progress is not None:
                progress(first * len(exclude) + (start + len(block)) * (columns.stop - first), total)
    return Found(rows.int().numpy(), scores.masked_fill(rows == NOBODY, -torch.inf).numpy())


def _leave_out(block: np.ndarray, columns: np.ndarray) -> None:
    """Set ``block[b, columns[b]]`` to -inf where that is a column of the block."""
    inside = np.flatnonzero((columns >= 0) & (columns < block.shape[1]))
    block[inside, columns[inside]] = -np.inf


def _beating(scores: np.ndarray, worst: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """Columns of ``scores`` (B, C) above ``worst`` (B,), at least the ``k`` best of them -> columns, float32 (B, W).

    After the first blocks few documents still enter a list: to find those is many times faster than a top-k. What
    only rounding makes equal to ``worst`` is among them and loses the tie later.
    """
    row, column = np.divmod(np.flatnonzero(scores > worst[:, None]), scores.shape[1])
    counts = np.bincount(row, minlength=len(scores))
    width = int(counts.max())
    if width > CROWD * k:
        return best_columns(torch.from_numpy(scores).float() + 0.0, k)  # -0.0 ties with 0.0
    place = np.arange(len(row)) - (counts.cumsum() - counts)[row]  # within the row, columns ascending
    columns = np.full((len(scores), width), NOBODY)
    values = np.full((len(scores), width), -np.inf, np.float32)
    columns[row, place], values[row, place] = column, scores[row, column] + 0.0
    return torch.from_numpy(columns), torch.from_numpy(values)


def _merged(rows: Tensor, scores: Tensor, later: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The k best of a list (B, k) and of higher rows (B, W), ascending where equal: a stable sort keeps the rule."""
    scores, order = torch.cat([scores, values], 1).sort(dim=1, descending=True, stable=True)
    k = rows.shape[1]
    return torch.cat([rows, later], 1).gather(1, order[:, :k]), scores[:, :k]


def best_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best columns of ``scores`` (B, C) -> columns, scores (B, k), the lower column first among equal scores.

    Where there are fewer than ``k`` columns, -inf fills the end; the columns named beside -inf mean nothing.
    """
    width = min(k, scores.shape[1])
    wider = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    best = wider.indices[:, :width]
    if wider.values.shape[1] > width:
        border = wider.values[:, -1]
        tied = ((wider.values[:, -2] == border) & ~border.isneginf()).nonzero()[:, 0]
        best[tied] = _lowest_of_ties(scores[tied], border[tied, None], width)
    best = best.sort(dim=1).values
    values, order = scores.gather(1, best).sort(dim=1, descending=True, stable=True)
    missing = (0, k - width)
    return F.pad(best.gather(1, order), missing, value=NOBODY), F.pad(values, missing, value=-torch.inf)


def _lowest_of_ties(scores: Tensor, border: Tensor, width: int) -> Tensor:
    """(B, width) columns above ``border`` (B, 1), and then the lowest of those that equal it."""
    above, equal = scores > border, scores == border
    needed = width - above.sum(1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(1) <= needed))
    return chosen.nonzero()[:, 1].view(-1, width)
