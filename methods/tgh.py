"""The transition-graph heuristic: what is a few steps from the user's last item, ordered by how alike the texts are.

Nothing is trained. Han et al., An Embarrassingly Simple Graph Heuristic Reveals Shortcut-Solvable Benchmarks for
Sequential Recommendation, arXiv 2605.07125: rings, places and edge weight as in its published code. Different here:
the suite's text encoder instead of FLAN-T5-XL; after the places come the rest of every ring and then the most similar
of all other items, so that lists may be of any length (the paper's hold ten and are filled up at random).

Presets: ``@two`` is the paper's TGH-2, which starts from the last item and from the one before it (the default is its
TGH-1); ``@drop-seen`` never recommends what the user already had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmark.method import Estimate
from benchmark.types import PAD, Cases, TrainingView
from methods.blocks.ranking import Scorer, top_k
from methods.blocks.text_encoder import encode_texts, has_text

LEVEL = 4.0
"""One level is above another by more than similarity (-1 to 1) and edge weight together can make up for."""


class TGH(Scorer):
    """Ring h of an item: the items that training sequences lead to in h steps and in no fewer.

    In ring 1 the score is cos(text of the source, text of i) + edge_weight * log(1 + count(source -> i)) relative to
    the source's largest; in the others it is the cosine.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        last: tuple[int, ...] = (7, 2, 1)
        """Places for rings 1, 2, ... of the user's last item, at the head of the list."""
        before: tuple[int, ...] = ()
        """Places, after those, for the rings of the item before it."""
        edge_weight: float = 0.5
        drop_seen: bool = False

        def __post_init__(self) -> None:
            object.__setattr__(self, "last", tuple(self.last))
            object.__setattr__(self, "before", tuple(self.before))

    config: Config
    forward_passes = 0
    presets = {"two": {"last": (5, 1), "before": (3, 1)}, "drop-seen": {"drop_seen": True}}
    lineup = ("", "@drop-seen")
    reads_text = True

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        return None if has_text(view.item_text) else "no item has any text to compare items by"

    def fit(self, view: TrainingView) -> Self:
        vectors = encode_texts(view.item_text, self.run.text_encoder, self.run)  # (N + 1, D), of length 1 or 0
        with self.run.stage("train"):
            # In 64 bits, so that items with like texts tie whatever else is in the batch.
            self.vectors = torch.from_numpy(vectors).double().to(self.run.device)
            self.edges = transition_weights(view)
            self.follows = self.edges.astype(bool).astype(np.float32)
        return self

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1): the level of a place or ring, and between two levels the score within it."""
        free = self._may_be_named(cases)  # (B, N + 1) and not ranked yet
        ties = torch.from_numpy(cases.tie_order).to(self.run.device)
        rings = list(self._rings(cases))
        scores = self._cosines(cases.histories.last_items).masked_fill(~free, -torch.inf)
        for turn, (ring, within, places) in enumerate(rings):
            best, found = top_k(within.masked_fill(~(ring & free), -torch.inf), places, ties)  # (B, places)
            rows, columns = torch.nonzero(~found.isneginf(), as_tuple=True)
            items = best[rows, columns]
            scores[rows, items] = LEVEL * (2 * len(rings) - turn) + found[rows, columns]
            free[rows, items] = False
        for turn, (ring, within, _) in enumerate(rings):
            rest = ring & free
            scores[rest] = LEVEL * (len(rings) - turn) + within[rest]
            free &= ~rest
        return scores

    def _may_be_named(self, cases: Cases) -> Tensor:
        """(B, N + 1) bool"""
        named = np.ones((len(cases), len(cases.tie_order)), bool)
        named[:, PAD] = False
        if self.config.drop_seen:
            named[cases.seen.row_of, cases.seen.items] = False
        return torch.from_numpy(named).to(self.run.device)

    def _rings(self, cases: Cases) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Ring (B, N + 1) bool, scores within it (B, N + 1) and its places, source by source."""
        histories = cases.histories
        earlier = np.where(histories.lengths > 1, histories.items[np.maximum(histories.offsets[1:] - 2, 0)], PAD)
        for sources, all_places in ((histories.last_items, self.config.last), (earlier, self.config.before)):
            if not all_places:
                continue
            cosines = self._cosines(sources)
            bonus = torch.from_numpy(self.edges[sources].toarray()).to(self.run.device)
            reached = np.zeros(bonus.shape, bool)
            reached[np.arange(len(sources)), sources] = True
            front = self.follows[sources]
            for hop, places in enumerate(all_places):
                if hop:
                    front = (front @ self.follows).astype(bool).astype(np.float32)
                ring = front.toarray().astype(bool) & ~reached
                reached |= ring
                front = sparse.csr_matrix(ring, dtype=np.float32)
                within = cosines + self.config.edge_weight * bonus if hop == 0 else cosines
                yield torch.from_numpy(ring).to(self.run.device), within, places

    def _cosines(self, items: np.ndarray) -> Tensor:
        """(B, N + 1) of items (B,) to every item."""
        return (self.vectors[torch.from_numpy(items).long().to(self.run.device)] @ self.vectors.T).float()

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A row of similarities and a few passes over it for every user."""
        return Estimate(seconds=1.0 + n_users * n_items / 1e7, memory_bytes=4e3 * n_items + 4e4 * n_items)


def transition_weights(view: TrainingView) -> sparse.csr_matrix:
    """(N + 1, N + 1): log(1 + how often i came right after j), divided by the largest of row j."""
    pairs, size = view.sequences.apart(), view.n_items + 1
    counts = sparse.csr_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape=(size, size))
    weights = counts.log1p()
    largest = weights.max(axis=1).toarray().ravel()
    return (sparse.diags(1 / np.where(largest > 0, largest, 1)) @ weights).astype(np.float32).tocsr()


METHOD = TGH
