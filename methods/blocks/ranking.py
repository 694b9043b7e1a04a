"""From a score per item to a Ranking: batches, candidates, and the protocol's tie order, on any device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.evaluate import mean_metric
from benchmark.method import Method
from benchmark.run import Run
from benchmark.types import PAD, Budget, Cases, Ranking, Spend, TrainingView


class Scorer(Method):
    """A method that gives every item a score; its rooms say how in ``_score``."""

    forward_passes: ClassVar[float] = 1.0
    """Of a model, per user; 0 for a method that only counts."""

    @abstractmethod
    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        with self.run.stage("decode"):
            return self._rank(cases, k, "decode", candidates)

    def _rank(self, cases: Cases, k: int, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        scored = len(cases.tie_order) - 1 if candidates is None else len(candidates)
        spend = Spend(rule="scores", items_scored=scored, forward_passes=self.forward_passes)
        return rank_by_score(self._score, cases, k, run=self.run, spend=spend, candidates=candidates, stage=stage)

    def _validate(self, view: TrainingView) -> float:
        """The selection metric on the validation questions."""
        ranking = self._rank(view.valid.cases, 10, "validate", view.candidates)
        return mean_metric(ranking, view.valid.targets, view.selection)


def top_k(scores: Tensor, k: int, tie_order: Tensor) -> tuple[Tensor, Tensor]:
    """The ``k`` best columns of ``scores`` (B, N + 1) -> items (B, k) int64, scores (B, k) float32.

    Same law as ``benchmark.lists.top_k``: -inf and column 0 are no candidates, ties go to the lower ``tie_order``
    (N + 1,), PAD fills the end. The plain float top-k decides wherever no tie crosses the end of the list; only
    rows where one does pay for exact 64-bit keys over the whole catalogue (30 times slower on a CPU).
    """
    scores = scores.float() + 0.0  # -0.0 ties with 0.0
    width = min(k, scores.shape[1])
    wider = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    best = wider.indices[:, :width]  # (B, width), equal scores in any order
    tied = wider.values[:, width - 1] == wider.values[:, -1]  # the list may end in the middle of a tie
    if wider.values.shape[1] > width and bool(tied.any()):
        best[tied] = _keys(scores[tied], tie_order).topk(width, dim=1).indices
    best, values = order_ties(best, scores.gather(1, best), tie_order)
    items = best.masked_fill(values.isneginf(), PAD)
    missing = (0, k - width)
    return F.pad(items, missing, value=PAD), F.pad(values, missing, value=-torch.inf)


def order_ties(items: Tensor, scores: Tensor, tie_order: Tensor) -> tuple[Tensor, Tensor]:
    """items, scores (B, W), best first; equal scores go to the lower ``tie_order`` (N + 1,)."""
    order = _keys(scores + 0.0, tie_order[items]).argsort(dim=1, descending=True)
    return items.gather(1, order), scores.gather(1, order)


def _keys(scores: Tensor, tie_order: Tensor) -> Tensor:
    """int64 that sort as (score, then falling tie order): the order of float bits, made monotone, then the tie."""
    bits = scores.view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) | (0xFFFFFFFF - tie_order)


def rank_by_score(
    score: Callable[[Cases], Tensor],
    cases: Cases,
    k: int,
    *,
    run: Run,
    spend: Spend,
    candidates: np.ndarray | None = None,
    batch_size: int = 1024,
    stage: str = "decode",
) -> Ranking:
    """Rank every case by ``score(cases) -> (B, N + 1)``; histories of like length share a batch."""
    device = torch.device(run.device)
    n_columns = len(cases.tie_order)
    banned = torch.zeros(n_columns, dtype=torch.bool, device=device)
    if candidates is not None:
        banned[:] = True
        banned[torch.as_tensor(candidates, dtype=torch.long, device=device)] = False
    banned[PAD] = True
    ties = torch.as_tensor(cases.tie_order, device=device)

    def answer(some: Cases) -> tuple[Tensor, Tensor]:
        return top_k(score(some).float().masked_fill(banned, -torch.inf), k, ties)

    return rank_in_batches(answer, cases, k, run=run, spend=spend, batch_size=batch_size, stage=stage)


def rank_in_batches(
    answer: Callable[[Cases], tuple[Tensor, Tensor]],
    cases: Cases,
    k: int,
    *,
    run: Run,
    spend: Spend,
    batch_size: int,
    stage: str,
) -> Ranking:
    """``answer(cases) -> items (B, k), scores (B, k)`` for all cases; histories of like length share a batch."""
    items = np.empty((len(cases), k), np.int32)
    scores = np.empty((len(cases), k), np.float32)
    order = np.argsort(cases.histories.lengths, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            best, best_scores = answer(cases.take(rows))
            items[rows], scores[rows] = best.cpu().numpy(), best_scores.cpu().numpy()
            run.progress(stage, start + len(rows), len(order))
    return Ranking(cases.users, items, scores, spend)
