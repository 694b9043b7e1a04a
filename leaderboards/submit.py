"""Verified runs -> a folder for a pull request, laid out as ``leaderboards/published``: small, and nothing unchecked.

Per-user scores of every seed go in, lists of one seed of each method (seed 0, or the lowest there is).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark import records
from benchmark.records import Record
from leaderboards import foreign
from leaderboards.publish import copy_records, method_of, newest
from leaderboards.verify import is_run_file, verify

ADVICE = (
    "put the folder records/ into leaderboards/published/ of a branch and open a pull request that says:",
    "- what is new about each method, its paper and its code;",
    "- how the runs were made: hardware, time, and who made them;",
    "- that `python run_all.py verify leaderboards/published/records` passes with the data at hand.",
)


def submit(path: Path, to: Path, *, data_dir: str | Path | None = None) -> list[str]:
    """Pack the runs at or below ``path``, or one foreign file, into ``to`` -> what to print.

    Raises ValueError, before anything is written, when a run does not pass ``verify``, when none is finished, or when
    a run of that name is in ``to`` already with other content, or its other seeds with another configuration.
    """
    if is_run_file(path):
        with tempfile.TemporaryDirectory() as scratch:
            foreign.import_run(path, foreign.sidecar_of(path), output_dir=Path(scratch), data_dir=data_dir)
            return submit(Path(scratch), to, data_dir=data_dir)
    root = path.parent if path.is_file() else path
    if to.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{to} lies in {root}, whose runs would stand there twice; name a folder beside it")
    verdicts = verify(path, data_dir=data_dir)
    failed = [one for one in verdicts if not one.passed]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(verdicts)} runs do not pass verify, e.g. {failed[0].place}: {failed[0].reasons[0]}"
        )
    everything = [one for one in records.read_all(root) if "audit" not in one.fields]
    found = newest([one for one in everything if one.status == "ok"])
    if not found:
        raise ValueError(f"none of the {len(everything)} runs in {path} is finished; there is nothing to submit")
    there = records.read_all(to / "records") if (to / "records").is_dir() else []
    new = _not_there_yet(found, there, to)
    copy_records(new, to / "records", there)
    left_out = len(everything) - len(found)
    return _told(found, new, to, left_out, sorted({what for one in verdicts for what in one.not_checked}))


def _name(record: Record) -> tuple[str, str, str, int]:
    """What stands in one cell of a table; two runs that share it must be one."""
    return *method_of(record), record.seed


def _not_there_yet(found: Sequence[Record], there: Sequence[Record], to: Path) -> list[Record]:
    """The runs that ``to`` has not. Raises ValueError when it has other content under the same name or row."""
    by_name = {_name(one): one for one in there}
    by_row = {method_of(one): one for one in there}
    new = []
    for record in found:
        old, beside = by_name.get(_name(record)), by_row.get(method_of(record))
        if old is None and beside is not None and not _share_a_row(record, beside):
            raise ValueError(
                f"{record.method} on {record.dataset} is in {to} already with another configuration or other data "
                f"({beside.folder}), and seeds of one method share both; give yours another name, or remove those that "
                "are there"
            )
        if old is None:
            new.append(record)
        elif not _same(record, old):
            raise ValueError(
                f"{record.method} with seed {record.seed} on {record.dataset} is in {to} already with other content "
                f"({old.folder}); give yours another name, or remove the one that is there"
            )
    return new


def _share_a_row(one: Record, other: Record) -> bool:
    return all(one.fields[name] == other.fields[name] for name in ("config_hash", "dataset_hash"))


def _same(one: Record, other: Record) -> bool:
    if (one.fields["config_hash"], one.metrics) != (other.fields["config_hash"], other.metrics):
        return False
    here, there = one.per_user(), other.per_user()
    return here.keys() == there.keys() and all(
        np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f") for name in here
    )


def _told(
    found: Sequence[Record], new: Sequence[Record], to: Path, left_out: int, not_checked: Sequence[str]
) -> list[str]:
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    lines = [f"packed {len(new)} verified runs into {to} ({size / 2**20:.1f} MiB)"]
    if len(new) < len(found):
        lines.append(f"the other {len(found) - len(new)} are there already")
    lines += [f"  {place} {dataset} {method} seed {seed}" for place, dataset, method, seed in map(_name, new)]
    if left_out:
        lines.append(f"left out: {left_out} unfinished, skipped or older runs")
    lines += [f"not checked: {what}" for what in not_checked]
    return [*lines, *ADVICE]
