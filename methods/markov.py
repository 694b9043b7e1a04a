"""First-order Markov chain: rank items by how often they came right after the user's last one in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmark.method import Estimate
from benchmark.space import LogRange
from benchmark.types import Cases, TrainingView
from methods.blocks.ranking import Scorer


class Markov(Scorer):
    """score(i) = count(last -> i) + popularity_weight * popularity(i) / max popularity."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        popularity_weight: float = 1e-3
        """Below 1: popularity orders equal counts and fills the list, but never outranks one transition."""

    config: Config
    forward_passes = 0
    search = {"popularity_weight": LogRange(1.0, 100.0)}  # below 1 all give the same order

    def fit(self, view: TrainingView) -> Self:
        with self.run.stage("train"):
            self._count(view)
        return self

    def _count(self, view: TrainingView) -> None:
        pairs, n = view.sequences.apart(), view.n_items + 1
        ones = np.ones(len(pairs[0]), np.float32)
        self.follows = sparse.csr_matrix((ones, pairs), shape=(n, n))  # (from, to), equal pairs add up
        self.popularity = (view.item_counts / max(1, view.item_counts.max())).astype(np.float32)  # (N + 1,)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        scores = self.follows[cases.histories.last_items].toarray()
        scores += np.float32(self.config.popularity_weight) * self.popularity
        return torch.from_numpy(scores).to(self.run.device)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Filling and ranking one score per user and item, 1e8 of them a second."""
        return Estimate(seconds=1.0 + n_users * n_items / 1e8, memory_bytes=64.0 * n_interactions + 3e4 * n_items)


METHOD = Markov
