"""Popularity: everybody gets the items that were bought most often in training."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from benchmark.lists import top_k
from benchmark.method import Estimate, Method
from benchmark.types import Budget, Cases, Ranking, Spend, TrainingView


class Popularity(Method):
    """The floor that every method must beat: it knows nothing of the user."""

    def fit(self, view: TrainingView) -> Self:
        with self.run.stage("train"):
            self.counts = view.item_counts.astype(np.float32)  # (N + 1,)
        return self

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        with self.run.stage("decode"):
            if candidates is None:
                candidates = np.arange(1, len(self.counts))
            scores = np.full((1, len(self.counts)), -np.inf, np.float32)  # -inf: not a candidate
            scores[0, candidates] = self.counts[candidates]
            items, values = top_k(scores, k, cases.tie_order)  # (1, k)
        spend = Spend(rule="scores", items_scored=len(candidates), forward_passes=0)
        return Ranking(cases.users, np.repeat(items, len(cases), 0), np.repeat(values, len(cases), 0), spend)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """One list for everybody: starting the process is most of the cost."""
        return Estimate(seconds=1.0, memory_bytes=8.0 * (n_interactions + n_items))


METHOD = Popularity
