"""SETRec's own task: ``warmcold`` with the moments T1 and T2 that SETRec (SIGIR 2025) published.

Its shares are about 69/14/17, not 8:1:1. Data without published moments are cut by SETRec's label where they have it
(Steam), and refused where they do not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmark.protocol import Protocol
from benchmark.types import Dataset
from protocols.warmcold import RULES as SHARED
from protocols.warmcold import given_parts, parts_between, splitter

CUTOFFS = "setrec_cutoffs"

RULES: dict[str, Any] = SHARED | {
    "cut": "T1 and T2 are midnight (UTC) of the days that dataset.json names as setrec_cutoffs; data without them are "
    "cut by the label setrec_split"
}


def cut_as_published(dataset: Dataset) -> np.ndarray:
    """(T,) the part of every interaction. Raises ValueError when SETRec published nothing about these data."""
    cutoffs: Any = dataset.meta.get(CUTOFFS)
    if cutoffs is None or dataset.order_only:
        if "setrec_split" not in dataset.labels:
            raise ValueError(
                f"SETRec published neither moments nor labels for {dataset.name}: dataset.json has no {CUTOFFS} and "
                "the interactions no setrec_split; use protocol warmcold"
            )
        return given_parts(dataset)
    try:
        t1, t2 = (datetime.fromisoformat(cutoffs[name]).replace(tzinfo=UTC).timestamp() for name in ("T1", "T2"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{CUTOFFS} of {dataset.name} must give T1 and T2 as days, e.g. 2014-03-20") from error
    return parts_between(dataset.timestamps, t1, t2)


PROTOCOL = Protocol(name="warmcold-setrec", version=1, rules=RULES, split=splitter(cut_as_published, RULES))
