"""Is the loaded model the one that made the record?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmark.records import Record
from benchmark.types import Cases, Ranking

if TYPE_CHECKING:
    from methods.audits.command import Asked

ROUNDING = 1e-3
"""How far the scores of a list made again on other hardware may lie from the recorded ones: log-probabilities as they
are; scores of items, which may have any size, as a share of the largest."""


def asked_again(asked: Asked, cases: Cases) -> Ranking:
    """The lists of some of the recorded cases, as in the test. Raises ValueError when they are not the recorded ones.

    Whatever a method looks up or computes once, for all users or all items, it has now.
    """
    budget, candidates = asked.protocol.budget, asked.split.candidates
    listed = asked.method.recommend(cases, budget.list_length, candidates=candidates, budget=budget)
    if lists_moved(listed, asked.record) is None:
        raise ValueError(
            f"the saved model of {asked.record.method} answers otherwise than its record says; make the run again with "
            "--overwrite always"
        )
    return listed


def lists_moved(listed: Ranking, record: Record) -> int | None:
    """How many lists made again (some of the recorded users') differ by rounding; None when they differ by more."""
    kept = record.ranking()
    order = np.argsort(kept["users"])
    rows = order[np.searchsorted(kept["users"][order], listed.users).clip(max=len(order) - 1)]
    scores = kept["scores"][rows]
    near = np.isclose(scores, listed.scores, rtol=0, atol=_rounding(listed, scores))  # -inf where both lists have ended
    if not (np.array_equal(kept["users"][rows], listed.users) and near.all()):
        return None
    return int((kept["items"][rows] != listed.items).any(1).sum())


def _rounding(listed: Ranking, scores: np.ndarray) -> float:
    if listed.spend.rule != "scores":
        return ROUNDING
    return ROUNDING * float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0))
