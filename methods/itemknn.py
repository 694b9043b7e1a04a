"""Item-based nearest neighbours: rank items by their cosine similarity to the items of the history.

Presets: ``@drop-seen`` never recommends what the user already had (repeated purchases are not in the data, so
a seen item is never the answer); ``@recency`` weighs each history item less, the longer ago it was;
``@recency-drop-seen`` does both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmark.artifacts import cached
from benchmark.method import Estimate
from benchmark.space import Choices, LogRange, Range
from benchmark.types import Cases, Sequences, TrainingView
from methods.blocks.ranking import Scorer

STAGE_VERSION = 1
"""Raise it when ``similarities`` changes its result."""
RECENCY = 0.6
"""Best of .2 to .9 by validation ndcg@10 on amazon14-beauty and amazon14-toys; .5 to .7 are hardly worse."""
BLOCK_ITEMS = 1024
"""Rows of the item-item matrix that are dense at one time."""


class ItemKNN(Scorer):
    """score(i) = sum over history items j of recency^(steps since j) * cos(i, j), over the neighbours of j.

    Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        neighbours: int = 100
        """Most similar items kept for each item; those that tie with the last one are kept too."""
        recency: float = 1.0
        """Weight of a history item relative to the one after it; 1 weighs all alike."""
        drop_seen: bool = False

    config: Config
    forward_passes = 0

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "drop-seen": {"drop_seen": True},
        "recency": {"recency": RECENCY},
        "recency-drop-seen": {"recency": RECENCY, "drop_seen": True},
    }
    lineup: ClassVar[tuple[str, ...]] = ("", "@drop-seen", "@recency-drop-seen")
    search: ClassVar[Mapping[str, Choices]] = {"neighbours": LogRange(10, 1000), "recency": Range(0.1, 1.0)}

    def fit(self, view: TrainingView) -> Self:
        key = {
            "stage": "itemknn-similarity",
            "version": STAGE_VERSION,
            "sequences": _hash(view.sequences),
            "n_items": view.n_items,
            "neighbours": self.config.neighbours,
        }
        with self.run.stage("train"):
            stored = cached(self.run.artifacts_dir, key, lambda: self._arrays(view))
        size = view.n_items + 1
        self.similar = sparse.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=(size, size))
        return self

    def _arrays(self, view: TrainingView) -> dict[str, np.ndarray]:
        matrix = similarities(view.sequences, view.n_items, self.config.neighbours)
        return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        histories = cases.histories
        steps_ago = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.items))
        weights = np.float32(self.config.recency) ** steps_ago.astype(np.float32)
        asked = sparse.csr_matrix(
            (weights, histories.items, histories.offsets), shape=(len(cases), self.similar.shape[0])
        )
        scores = (asked @ self.similar).toarray()
        if self.config.drop_seen:
            scores[cases.seen.row_of, cases.seen.items] = -np.inf
        return torch.from_numpy(scores).to(self.run.device)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Scores and similarities are dense rows, 1e8 numbers a second."""
        seconds = 1.0 + (n_users + n_items) * n_items / 1e8
        return Estimate(seconds=seconds, memory_bytes=8.0 * config.neighbours * n_items + 3e4 * n_items)


def similarities(sequences: Sequences, n_items: int, neighbours: int) -> sparse.csr_matrix:
    """(N + 1, N + 1): row j holds cos(i, j) of the ``neighbours`` items i most similar to j, itself left out.

    cos(i, j) = users who had both / sqrt(users who had i * users who had j). Ties at the border are all kept,
    so the result does not depend on how the items are numbered.
    """
    ones = np.ones(len(sequences.items), np.float32)
    shape = (len(sequences), n_items + 1)
    # A copy, since the next line sorts in place and the view's sequences must keep their order.
    had = sparse.csr_matrix((ones, sequences.items, sequences.offsets), shape=shape, copy=True)
    had.sum_duplicates()
    had.data[:] = 1
    users_of = had.T.tocsr()  # (N + 1, U)
    counts = np.diff(users_of.indptr)  # (N + 1,)
    blocks = []
    for start in range(0, n_items + 1, BLOCK_ITEMS):
        both = (users_of[start : start + BLOCK_ITEMS] @ had).toarray()  # (R, N + 1)
        rows = np.arange(len(both))
        norm = np.sqrt(counts[start + rows, None] * counts.astype(np.float64))
        cosine = np.divide(both, norm, out=np.zeros_like(norm), where=norm > 0).astype(np.float32)
        cosine[rows, start + rows] = 0
        blocks.append(_strongest(cosine, neighbours))
    return sparse.vstack(blocks, format="csr")


def _strongest(cosine: np.ndarray, neighbours: int) -> sparse.csr_matrix:
    """The largest ``neighbours`` positive entries of every row, and all that tie with the last of them."""
    if neighbours < cosine.shape[1]:
        border = np.partition(cosine, -neighbours, axis=1)[:, -neighbours, None]
        cosine = np.where(cosine >= border, cosine, 0)
    return sparse.csr_matrix(cosine)


def _hash(sequences: Sequences) -> str:
    return hashlib.sha256(sequences.offsets.tobytes() + sequences.items.tobytes()).hexdigest()


METHOD = ItemKNN
