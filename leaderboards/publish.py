"""From finished runs to tables on screen and on disk, and to the compact copies that are published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import protocols
from benchmark import records
from benchmark.records import Record
from leaderboards.picture import draw
from leaderboards.summary import summarise
from leaderboards.tables import terminal, write


def tables(found: Sequence[Record], folder: Path) -> list[str]:
    """Write every table below ``folder`` and return what to print. Runs that differ in anything but dataset,
    method and seed (protocol hash, track, profile, users limited) never share a table."""
    groups: dict[Path, list[Record]] = defaultdict(list)
    for record in found:
        groups[folder / _place(record)].append(record)
    texts = []
    for place, group in sorted(groups.items()):
        rules = protocols.load(group[0].protocol["name"]).rules
        summaries = summarise(group, reference=rules["reference"], primary=rules["primary"])
        write(summaries, place)
        notes = draw(summaries, place)
        texts.append("\n".join([terminal(summaries), *notes, f"tables: {place}"]))
    return texts


def newest(found: Sequence[Record]) -> list[Record]:
    """Of several configurations of one method (say, before and after an edit) the runs of the one run last."""
    last: dict[tuple[str, ...], Record] = {}
    for record in sorted(found, key=lambda r: r.fields["provenance"]["finished"]):
        last[_row(record)] = record
    return [r for r in found if r.fields["config_hash"] == last[_row(r)].fields["config_hash"]]


def _row(record: Record) -> tuple[str, ...]:
    return _place(record), record.protocol["hash"], record.dataset, record.method


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
