"""From finished runs to tables on screen and on disk, and to the compact copies that are published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import protocols
from benchmark import records
from benchmark.records import Record
from leaderboards.picture import draw
from leaderboards.summary import summarise
from leaderboards.tables import terminal, write


def tables(found: Sequence[Record], folder: Path, shown: Sequence[Record] | None = None) -> list[str]:
    """Write every table below ``folder`` and return what to print: the tables that ``shown`` stand in, or all.

    Runs that differ in anything but dataset, method and seed (protocol hash, track, profile, users limited) never
    share a table.
    """
    asked = {(_place(record), record.dataset) for record in (found if shown is None else shown)}
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        groups[_place(record)].append(record)
    texts = []
    for place, group in sorted(groups.items()):
        rules = protocols.load(group[0].protocol["name"]).rules
        summaries = summarise(group, reference=rules["reference"], primary=rules["primary"])
        write(summaries, folder / place)
        notes = draw(summaries, folder / place)
        told = [summary for summary in summaries if (place, summary.dataset) in asked]
        if told:
            texts.append("\n".join([terminal(told), *notes, f"tables: {folder / place}"]))
    return texts


def newest(found: Sequence[Record]) -> list[Record]:
    """Of several versions of one dataset, and then of several configurations of one method (say, before and after
    an edit), the runs of the one that was run last."""

    def table(record: Record) -> tuple[str, ...]:
        return _place(record), record.protocol["hash"], record.dataset

    data = _of_the_last(found, table, "dataset_hash")
    return _of_the_last(data, lambda record: (*table(record), record.method), "config_hash")


def _of_the_last(found: Sequence[Record], group: Callable[[Record], Any], key: str) -> list[Record]:
    """In each group, the records that agree in ``key`` with the one that finished last."""
    last: dict[Any, str] = {}
    for record in sorted(found, key=lambda r: r.fields["provenance"]["finished"]):
        last[group(record)] = record.fields[key]
    return [record for record in found if record.fields[key] == last[group(record)]]


def copy(found: Sequence[Record], folder: Path) -> None:
    """Write ``records/`` and the tables made from them below ``folder``, small enough for a repository.

    Rankings keep their items exactly; their scores are rounded to half precision, which keeps the order (a rounded
    score never exceeds the one before it). Logs stay behind: they hold paths of the machine.
    """
    copies = []
    for record in found:
        place = records.folder_of(
            folder / "records",
            record.protocol["name"],
            record.dataset,
            record.method,
            record.fields["config_hash"],
            record.seed,
        )
        arrays = {}
        if record.status == "ok":
            ranking = record.ranking()
            arrays = {
                "per_user.npz": record.per_user(),
                "ranking.npz": ranking | {"scores": ranking["scores"].astype(np.float16)},
            }
        copies.append(records.write(place, record.fields, arrays, None))
    tables(copies, folder / "tables")


def _place(record: Record) -> str:
    fields = record.fields
    limited = f"-{fields['limit_users']}-users" if fields["limit_users"] else ""
    return f"{record.protocol['name']}/{fields['track']}-{fields['profile']}{limited}"
