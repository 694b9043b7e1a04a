"""What records show only beside each other: runs that stand twice, lists that nobody kept, users asked otherwise."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.files import content_hash
from benchmark.records import Record
from benchmark.scoring import PER_TARGET, PER_USER, Arrays
from leaderboards.publish import method_of


@dataclass(frozen=True)
class Seen:
    """What is kept of a finished run to hold it against the others."""

    folder: Path
    method: tuple[str, ...]
    config_hash: str
    seed: int
    question: tuple[Any, ...]
    """What decides who is asked what."""
    asked: dict[str, str]
    """Digest of every part of the question: users, slices, who is asked in a setting, targets, facts."""
    has_lists: bool


def seen(record: Record, stored: Arrays) -> Seen:
    """The marks of one record."""
    fields = record.fields
    told = {name: content_hash(fields[name]) for name in ("facts", "slice_labels")}
    arrays = {f"{name!r} in {file}": _digest(a) for file, part in asked(stored).items() for name, a in part.items()}
    return Seen(
        record.folder,
        method_of(record),
        fields["config_hash"],
        record.seed,
        (record.protocol["hash"], record.dataset, fields["dataset_hash"], fields["limit_users"]),
        told | arrays,
        any(name.startswith("ranking") for name in stored),
    )


def asked(stored: Arrays) -> Arrays:
    """The part of a record's arrays that is the same for every method: who is asked what."""
    per_user = stored[PER_USER]
    same = {name: a for name, a in per_user.items() if name == "users" or name.startswith("slice:")}
    found = {PER_USER: same | {f"asked:{n}": ~np.isnan(a) for n, a in per_user.items() if "/" in n and n not in same}}
    if PER_TARGET in stored:
        targets = stored[PER_TARGET]
        found[PER_TARGET] = {n: a for n, a in targets.items() if n.partition("/")[0] in ("users", "items", "asked")}
    return found


def _digest(array: np.ndarray) -> str:
    same = array if array.dtype == bool else array.astype(np.int64)
    return hashlib.sha256(np.ascontiguousarray(same).tobytes()).hexdigest()


def contradictions(runs: Sequence[Seen]) -> dict[Path, list[str]]:
    """Folder -> sentences about a run that does not go with the others."""
    wrong: dict[Path, list[str]] = defaultdict(list)
    for folder, sentence in (*_twice(runs), *_without_lists(runs), *_asked_otherwise(runs)):
        wrong[folder].append(sentence)
    return wrong


def _twice(runs: Sequence[Seen]) -> Iterable[tuple[Path, str]]:
    first: dict[tuple[Any, ...], Path] = {}
    for run in runs:
        other = first.setdefault((run.method, run.config_hash, run.seed, run.question), run.folder)
        if other != run.folder:
            yield run.folder, f"the same run stands in {other}, too; keep one of them"


def _without_lists(runs: Sequence[Seen]) -> Iterable[tuple[Path, str]]:
    """Of the seeds of one method the lowest keeps its lists."""
    lowest: dict[tuple[str, ...], Seen] = {}
    for run in runs:
        lowest[run.method] = min(run, lowest.get(run.method, run), key=lambda one: one.seed)
    for run in lowest.values():
        if not run.has_lists and run.seed:  # of seed 0 every record by itself is asked for them
            yield run.folder, f"no seed below {run.seed} is here, so it must keep its lists, and ranking.npz is missing"


def _asked_otherwise(runs: Sequence[Seen]) -> Iterable[tuple[Path, str]]:
    """Runs under one protocol on the same data are asked the same; what most of them say is held to be so."""
    groups: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for run in runs:
        groups[run.question].append(run)
    for group in groups.values():
        usual = {part: Counter(one.asked.get(part) for one in group).most_common(1)[0] for part in _parts(group)}
        for run in group:
            odd = [part for part, (digest, _) in usual.items() if run.asked.get(part) != digest]
            if odd:
                count = usual[odd[0]][1]
                yield run.folder, f"it was asked otherwise than {count} runs beside it on the same data: see {odd[0]}"


def _parts(group: Sequence[Seen]) -> list[str]:
    return sorted({part for one in group for part in one.asked})
