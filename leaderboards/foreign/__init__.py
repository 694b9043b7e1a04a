"""A run made anywhere -> a record: lists in a text file, what they are in a sidecar, scored here.

The file: lines ``user item rank score``, separated by tabs, commas or spaces (the first line decides), plain or
``.gz``; a first line that names these four columns may put them in any order and beside others; TREC's six columns
(``user Q0 item rank score tag``) are read too. Users and items are the keys of the dataset's own ``.inter`` file, as
they stand there; ranks start at 1 and scores never rise with the rank. Whoever has no line has an empty list, which
scores 0. Ranks beyond the protocol's list length are left out and counted.

The sidecar, JSON or TOML, lies beside it as ``FILE.json`` or ``FILE.toml`` (see ``foreign.sidecar``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import protocols
from benchmark import datasets, records
from benchmark.job import Job, base_fields
from benchmark.protocol import Protocol
from benchmark.provenance import now, provenance
from benchmark.records import Record
from benchmark.scoring import rescore
from benchmark.types import Dataset, Ranking, Spend, Split
from leaderboards import form
from leaderboards.foreign.lists import Lists, read_lists
from leaderboards.foreign.sidecar import PREFIX, Sidecar, is_foreign, read_sidecar, sidecar_of

__all__ = ["import_run", "is_foreign", "sidecar_of"]

UNKNOWN = "unknown"


def import_run(path: Path, sidecar: Path, *, output_dir: Path, data_dir: str | Path | None = None) -> Record:
    """Read, check and score a foreign run, and write its record below ``output_dir``.

    The record's method is ``submitted:NAME`` and its provenance says that nothing ran here. Raises ValueError with
    one sentence, with the line where there is one, for anything wrong with file, sidecar or names, or when another
    run of that name and seed lies there; MissingData when the dataset is not at hand.
    """
    said = read_sidecar(sidecar)
    protocol = protocols.load(said.protocol)
    if said.protocol_hash not in (None, protocol.hash):
        raise ValueError(
            f"{sidecar.name} names protocol {protocol.name} with hash {said.protocol_hash}; this suite asks by "
            f"{protocol.hash} (version {protocol.version})"
        )
    for place, what in form.oddities(dict(said.config), "config"):
        raise ValueError(f"{sidecar.name} holds {what} in {place}; remove it")
    dataset = datasets.load(said.dataset, data_dir)
    split = protocol.split(dataset)
    given = _files(path, said, split)
    spend = said.spend or Spend("scores", 0.0)
    lists: dict[str, Lists] = {}
    for name, file in given.items():
        setting = split.settings[name] if name else None
        cases = split.test.cases if setting is None else setting.questions.cases
        candidates = split.candidates if setting is None else setting.candidates
        lists[name] = read_lists(file, dataset, cases.users, candidates, protocol.rules["list_length"])
    again = {name: _ranking(one, spend) for name, one in lists.items()}
    rankings = dict(again)
    fields, arrays = rescore(again.pop(""), again, split, protocol.rules, dataset.n_items)
    arrays |= {records.ranking_file(name): records.ranking_arrays(one) for name, one in rankings.items()}
    checksums = {name or "test": _sha256(file) for name, file in given.items()}
    job = _job(said, protocol, dataset, output_dir)
    told = _told(said, lists, checksums)
    _refuse_another(job, told)
    return records.write(job.folder, base_fields(job, protocol) | fields | told, arrays, None)


def _files(path: Path, said: Sidecar, split: Split) -> dict[str, Path]:
    """Setting -> its file, "" = the test's own. Raises ValueError when a list that is asked for has none."""
    asked = {name for name, one in split.settings.items() if one.candidates is not None}
    if said.lists.keys() != asked:
        wanted = ", ".join(f'"{name}": "FILE"' for name in sorted(asked)) or "none"
        raise ValueError(
            f"protocol {said.protocol} asks for {len(asked)} more files of lists ({wanted}), the sidecar's lists names "
            f"{', '.join(map(repr, sorted(said.lists))) or 'none'}"
        )
    return {"": path, **{name: path.parent / file for name, file in said.lists.items()}}


def _ranking(lists: Lists, spend: Spend) -> Ranking:
    return Ranking(lists.users, lists.items, lists.scores, spend)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _job(said: Sidecar, protocol: Protocol, dataset: Dataset, output_dir: Path) -> Job:
    """The identity of the run; a seed is told apart by its folder, so all seeds of one config share a hash."""
    return Job(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        dataset_spec=said.dataset,
        dataset_name=dataset.name,
        dataset_hash=dataset.sha256,
        method_spec=said.method,
        method_name=PREFIX + said.method,
        seed=said.seed,
        profile=said.profile,
        track=said.track,
        config=said.config,
        method_source=None,
        output_dir=output_dir,
    )


def _told(said: Sidecar, lists: Mapping[str, Lists], checksums: Mapping[str, str]) -> dict[str, Any]:
    """What the record says otherwise than that of a run made here."""
    here = provenance()
    made = {
        "commit": None,
        "dirty": False,
        "python": UNKNOWN,
        "versions": {},
        "hardware": {"cpu": "not run here", "cores": UNKNOWN, "memory_gib": UNKNOWN, "gpu": None},
        "finished": now(),
        "not_run_here": "lists from a file; only their scores were made here",
        "scored_by": {name: here[name] for name in ("commit", "dirty", "python", "versions")},
    }
    foreign = {
        "notes": said.notes,
        "sha256": dict(checksums),
        "lines": {name or "test": one.lines for name, one in lists.items()},
        "beyond_list_length": {name or "test": one.cut for name, one in lists.items()},
        "users_without_list": {name or "test": one.without for name, one in lists.items()},
    }
    spend = None if said.spend is None else asdict(said.spend)
    return {"status": "ok", "provenance": made, "foreign": foreign, "spend": spend, "parameters": said.parameters}


def _refuse_another(job: Job, told: Mapping[str, Any]) -> None:
    """One name, seed and config are one run."""
    if not (job.folder / "record.json").exists():
        return
    there = records.read(job.folder).fields.get("foreign", {})
    if there.get("sha256") != told["foreign"]["sha256"]:
        raise ValueError(
            f"another run called {job.method_name} with seed {job.seed} lies in {job.folder}; choose another method "
            "name or config in the sidecar, or remove that folder"
        )
