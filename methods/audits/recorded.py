"""Is the loaded model the one that made the record?"""

from __future__ import annotations

import numpy as np

from benchmark.records import Record
from benchmark.types import Ranking

ROUNDING = 1e-3
"""How far the scores of a list made again on other hardware may lie from the recorded ones."""


def lists_moved(listed: Ranking, record: Record) -> int | None:
    """How many lists made again (some of the recorded users') differ by rounding; None when they differ by more."""
    kept = record.ranking()
    order = np.argsort(kept["users"])
    rows = order[np.searchsorted(kept["users"][order], listed.users).clip(max=len(order) - 1)]
    near = np.isclose(kept["scores"][rows], listed.scores, rtol=0, atol=ROUNDING)  # -inf where both lists have ended
    if not (np.array_equal(kept["users"][rows], listed.users) and near.all()):
        return None
    return int((kept["items"][rows] != listed.items).any(1).sum())
