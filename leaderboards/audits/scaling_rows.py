"""What tables, findings and pictures of the scaling audit share: who is compared with whom, and what is published.

The published figures lie in ``scaling_published.csv``, each line with its source.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.records import Record

REFERENCE = "tiger"
"""The room whose models the others' times are divided by: what SETRec's Tables 1 and 2 and the FLOPs are told of."""
SECONDS, CLAIM, GFLOP = "seconds for all users", "times as fast as token sequences", "GFLOP a user"
"""Quantities of the published figures."""


def audit(record: Record) -> Mapping[str, Any]:
    return record.fields["audit"]


def searches(record: Record) -> bool:
    """Whether the method generates token by token with a beam, or scores all items in one pass."""
    return audit(record)["spend"]["beam_size"] > 0


def room(record: Record) -> str:
    return record.method.partition("@")[0]


def line_of(record: Record) -> str:
    """The method without the preset that only names its size: what one line over sizes is called."""
    name, _, preset = record.method.partition("@")
    return name if preset == audit(record)["size"] else record.method


def reference_of(record: Record, group: Sequence[Record]) -> Record | None:
    """The model of the reference that was timed together with this one: of the same size where there is one, and
    rather one without presets. None when it was not timed with any."""
    names = {one["method"] for one in audit(record)["timed_with"]}
    there = [one for one in group if one.seed == record.seed and one.method in names and room(one) == REFERENCE]
    size = audit(record)["size"]
    return min(there, key=lambda one: (audit(one)["size"] != size, one.method != REFERENCE, one.method), default=None)


def speed(record: Record, when: str) -> float:
    """Users a second, ``alone`` or in the ``best`` batch."""
    return 1000 / audit(record)["milliseconds"][when]


@dataclass(frozen=True)
class Published:
    """Times of one of SETRec's tables for one data set and backbone."""

    source: str
    dataset: str
    backbone: str
    seconds: Mapping[str, float]
    """By method, in lower case."""
    subject: str
    """The method whose speed the paper tells, in lower case."""
    sequences: tuple[str, ...]
    """The methods with token sequences, whose mean the paper compares with."""
    claim: float | None
    """What the paper says in words: so many times as fast as these on average."""

    @property
    def against_reference(self) -> float:
        return self.seconds[REFERENCE] / self.seconds[self.subject]

    @property
    def mean_of_sequences(self) -> float:
        return sum(self.seconds[name] for name in self.sequences) / len(self.sequences)

    @property
    def against_sequences(self) -> float:
        return self.mean_of_sequences / self.seconds[self.subject]


@cache
def published() -> tuple[Published, ...]:
    """One per data set and backbone, in the order of the file."""
    facts = _facts()
    found = []
    for source, dataset, backbone in dict.fromkeys(_place(f) for f in facts if f["quantity"] == SECONDS):
        here = [f for f in facts if (f["dataset"], f["backbone"]) == (dataset, backbone)]
        times = [f for f in here if f["quantity"] == SECONDS]
        (subject,) = (f["method"].lower() for f in times if f["identifier"] == "set")
        found.append(
            Published(
                source,
                dataset,
                backbone,
                {f["method"].lower(): float(f["value"]) for f in times},
                subject,
                tuple(f["method"].lower() for f in times if f["identifier"] == "token sequence"),
                next((float(f["value"]) for f in here if f["quantity"] == CLAIM), None),
            )
        )
    return tuple(found)


def predicted() -> tuple[str, float]:
    """Backbone, and how many times the arithmetic of a user the reference needs, derived beforehand from shapes."""
    work = {f["method"].lower(): float(f["value"]) for f in _facts() if f["quantity"] == GFLOP}
    (subject,) = work.keys() - {REFERENCE}
    return next(f["backbone"] for f in _facts() if f["quantity"] == GFLOP), work[REFERENCE] / work[subject]


def published_ratio(record: Record) -> str:
    """How many times as fast as the reference a method was in the tables, for this data set; "-" = not in them."""
    dataset = record.dataset.rpartition("-")[2]
    ratios = [
        f"{one.seconds[REFERENCE] / one.seconds[room(record)]:.2f} ({one.backbone})"
        for one in published()
        if one.dataset == dataset and room(record) in one.seconds
    ]
    return ", ".join(ratios) or "-"


def _place(fact: Mapping[str, str]) -> tuple[str, str, str]:
    return fact["source"], fact["dataset"], fact["backbone"]


@cache
def _facts() -> tuple[dict[str, str], ...]:
    with Path(__file__).with_name("scaling_published.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))
