"""BM25 with the statistics of rank_bm25's BM25Okapi, for all queries at once: texts -> counts -> documents -> top k.

A score is linear in the query's term counts, and a user's document is the sum of the texts of his items. So every
item is scored against every document once, and a query costs one row addition per item instead of one per term.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from benchmark.types import Sequences
from methods.blocks.nearest import Found, Progress, ScoreBlock, search

BLOCK_BYTES = 2**27
"""Memory for the scores of all parts of queries against one block of documents (128 MB)."""
STRIP = 64
"""Documents whose weights by term are dense at one time: few enough for the cache."""
PUNCTUATION = re.compile(r"[^\w\s]|_")


def words(text: str) -> list[str]:
    """Lower case, punctuation removed (not replaced: "2-in-1" -> "2in1"), split at white space."""
    return PUNCTUATION.sub("", text.lower()).split()


def term_counts(texts: Sequence[str]) -> sparse.csr_array:
    """(R, T) float64 how often each of the T words stands in each of the texts; an empty text is an empty row."""
    number_of: dict[str, int] = {}
    terms: list[int] = []
    lengths: list[int] = []
    for text in texts:
        found = words(text)
        terms.extend(number_of.setdefault(word, len(number_of)) for word in found)
        lengths.append(len(found))
    return _counted(np.asarray(terms, np.int32), np.append(0, np.cumsum(lengths, dtype=np.int64)), len(number_of))


def item_counts(windows: Sequences, n_items: int) -> sparse.csr_array:
    """(R, N + 1) float64 how often each item stands in each window."""
    return _counted(windows.items, windows.offsets, n_items + 1)


def pseudo_documents(counts: sparse.csr_array, windows: Sequences) -> sparse.csr_array:
    """(R, T) a user's document: the texts of the window's items, one after the other; ``counts`` (N + 1, T)."""
    return item_counts(windows, counts.shape[0] - 1) @ counts


def _counted(columns: np.ndarray, offsets: np.ndarray, width: int) -> sparse.csr_array:
    """(R, width) how often each column is named in ``columns[offsets[r]:offsets[r + 1]]``."""
    shape = (len(offsets) - 1, width)
    # A copy, since the next line sorts in place and the caller's sequences must keep their order.
    counts = sparse.csr_array((np.ones(len(columns)), columns, offsets), shape=shape, copy=True)
    counts.sum_duplicates()
    return counts


class BM25:
    """Documents that can be searched.

    score(q, d) = sum over the query's terms t, repeated ones each time, of
    idf(t) * f * (k1 + 1) / (f + k1 * (1 - b + b * length(d) / mean length)), f = how often t stands in d.
    idf(t) = ln(D - n + .5) - ln(n + .5) for a term in n of D documents; a negative one becomes epsilon times the mean
    of all idf, the negative ones included (Trotman et al., ADCS 2014; rank_bm25 0.2.2).
    """

    def __init__(self, documents: sparse.csr_array, *, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25):
        """``documents`` (D, T) term counts."""
        lengths = documents.sum(axis=1)  # (D,)
        mean = lengths.mean() if lengths.any() else 1.0
        saturation = np.repeat(k1 * (1 - b + b * lengths / mean), np.diff(documents.indptr))
        counts, idf = documents.data, _idf(documents, epsilon)
        data = idf[documents.indices] * counts * (k1 + 1) / (counts + saturation)
        self.weights = sparse.csr_array((data, documents.indices, documents.indptr), shape=documents.shape)

    def top(
        self,
        queries: sparse.csr_array,
        k: int,
        exclude: np.ndarray,
        progress: Progress | None = None,
        *,
        parts: sparse.csr_array | None = None,
    ) -> Found:
        """The ``k`` best documents for every query, without row ``exclude`` (Q,) of the documents; -1 excludes none.

        ``queries`` (Q, T) are term counts; or, many times faster where queries share their parts, (Q, M) counts of
        the rows of ``parts`` (M, T): items by window and terms by item. Only documents with a score above 0 are
        found. rank_bm25 goes on through the others: one at 0 shares no term that counts, one below 0 exists only
        where most terms are in most documents. Equal scores go to the lower row.
        Memory: ``BLOCK_BYTES`` for the scores of all parts against a block of documents, the lists, and 30 MB.
        """
        height, n_documents = queries.shape[1], self.weights.shape[0]
        width = min(max(1, BLOCK_BYTES // (8 * max(height, 1))), n_documents)
        memory = np.empty(height * width)  # fresh memory for every block costs more than what is computed into it

        def prepare(columns: slice) -> ScoreBlock:
            n = columns.stop - columns.start
            block = memory[: height * n].reshape(height, n)  # (M, C)
            for start in range(0, n, STRIP):
                strip = self.weights[columns][start : start + STRIP].T.tocsr().toarray()  # (T, c)
                block[:, start : start + STRIP] = strip if parts is None else parts @ strip
            return lambda rows: queries[rows] @ block

        return search(prepare, n_documents, k, exclude, progress, above=0.0, block_documents=max(width, 1))


def _idf(documents: sparse.csr_array, epsilon: float) -> np.ndarray:
    """(T,) idf of every term; 0 for a term that no document has."""
    n_documents, n_terms = documents.shape
    containing = np.bincount(documents.indices, minlength=n_terms)  # (T,)
    idf = np.log(n_documents - containing + 0.5) - np.log(containing + 0.5)
    present = containing > 0
    mean = idf[present].mean() if present.any() else 0.0
    return np.where(present, np.where(idf < 0, epsilon * mean, idf), 0.0)
