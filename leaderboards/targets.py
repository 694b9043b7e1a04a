"""Records -> every target and who found it, per setting with candidates of its own -> distance from chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.metrics import parse
from benchmark.records import Record
from leaderboards.chance import AgainstChance, against_chance

ALL = "all"
"""The test itself, beside its settings."""
FILE = "per_target.npz"


@dataclass(frozen=True)
class Asked:
    """A setting as it was asked."""

    users: int
    targets: int
    candidates: int
    chance: float
    """Recall@K of a random list: K / candidates."""


def asked_settings(records: Sequence[Record], recall: str) -> dict[str, Asked]:
    """What was asked in the test and in every setting with candidates of its own; empty where there are none."""
    if not records or FILE not in records[0].fields["files"]:
        return {}
    found, facts, (_, k) = _targets(records[0]), records[0].fields["facts"], parse(recall)
    candidates = {name: facts["candidates" if name == ALL else f"candidates_{name}"] for name in found}
    return {
        name: Asked(len(np.unique(users)), len(users), candidates[name], min(1.0, k / candidates[name]))
        for name, (users, _, _) in found.items()
    }


def chances(records: Sequence[Record], recall: str, asked: dict[str, Asked]) -> dict[str, dict[str, AgainstChance]]:
    """method -> setting -> its distance from chance, hits averaged over its seeds.

    Raises ValueError when two records had different targets.
    """
    methods = sorted({record.method for record in records})
    found: dict[str, dict[str, AgainstChance]] = {method: {} for method in methods}
    targets = [_targets(record) for record in records] if asked else []
    k = parse(recall)[1]
    for name, one in asked.items():
        users, items, _ = targets[0][name]
        hits = np.zeros((len(users), len(methods)))
        for record, own in zip(records, targets, strict=True):
            if not (np.array_equal(own[name][0], users) and np.array_equal(own[name][1], items)):
                raise ValueError(
                    f"{record.method} (seed {record.seed}) on {record.dataset} was asked other targets than "
                    f"{records[0].method}; run both again on the same data"
                )
            rank = own[name][2]
            hits[:, methods.index(record.method)] += (rank > 0) & (rank <= k)
        seeds = [sum(record.method == method for record in records) for method in methods]
        for method, result in zip(methods, against_chance(users, items, hits / seeds, one.chance), strict=True):
            found[method][name] = result
    return found


def _targets(record: Record) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Setting -> users, items and ranks (T,) of the targets that are asked there."""
    arrays = record.per_target()
    found = {ALL: (arrays["users"], arrays["items"], arrays["rank"])}
    for name in [key.partition("/")[2] for key in arrays if key.startswith("rank/")]:
        if f"asked/{name}" not in arrays:
            raise ValueError(
                f"{record.folder / FILE} does not say which targets were asked in setting {name}, so no chance level "
                f"can be held against it; delete the folder {record.folder} and run again"
            )
        rows = arrays[f"asked/{name}"]
        found[name] = (arrays["users"][rows], arrays["items"][rows], arrays[f"rank/{name}"][rows])
    return found
