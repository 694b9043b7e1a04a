"""Believe no record: every check of its files, its hashes, its lists and its numbers, without running a method again.

``verify`` never trains. With the data at hand every list is scored anew; without them the per-user scores are held
against the means, and the verdict says what was left out. Where tables lie beside the records, they are made again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmark import datasets, records
from benchmark.audits import KINDS
from benchmark.datasets.catalogue import DEMO
from benchmark.datasets.folders import find
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.scoring import PER_USER, limit
from benchmark.types import Dataset, Split
from leaderboards import foreign, form
from leaderboards.publish import is_published
from leaderboards.verify import tables
from leaderboards.verify.lists import NO_LISTS, by_themselves, rescored, without_lists
from leaderboards.verify.record import TOLERANCE, arrays_of, files, first, identity, means, protocol_of, setting_of
from leaderboards.verify.together import Seen, contradictions, seen
from leaderboards.verify.verdicts import Notes, Verdict, printable, report

__all__ = ["NO_LISTS", "Verdict", "report", "verify", "verify_record"]

NOT_TOLD = (
    "that the lists come from this method, config and seed, and at what cost (spend, seconds, parameters, machine, "
    "versions): only running it again can tell"
)
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, MemoryError, RecursionError)
"""What reading fields of any other form may raise."""
LARGEST = 2**26
"""Bytes of a record.json."""
FORM = "form of record.json"
NO_DATA = "category entropy, slices and facts: they need the data"


class Worlds:
    """Data and splits, one at a time: records are verified in the order of their folders."""

    def __init__(self, data_dir: str | Path | None) -> None:
        self._data_dir = data_dir
        self._dataset: tuple[str, Dataset | None] = ("", None)
        self._split: tuple[tuple[str, str], Split] | None = None
        self.seen: list[Seen] = []
        """Of every run whose scores could be read."""

    def dataset(self, name: str) -> Dataset | None:
        """The data of a record, None when they are not at hand. Raises ValueError when they are damaged."""
        if self._dataset[0] != name:
            there = name == DEMO or find(name, self._data_dir) is not None
            self._dataset = name, datasets.load(name, self._data_dir) if there else None
        return self._dataset[1]

    def split(self, protocol: Protocol, dataset: Dataset) -> Split:
        """Raises ValueError when the data cannot be asked this way."""
        asked = protocol.hash, dataset.sha256
        if self._split is None or self._split[0] != asked:
            self._split = asked, protocol.split(dataset)
        return self._split[1]


def verify(path: Path, *, data_dir: str | Path | None = None) -> list[Verdict]:
    """A verdict on every record at or below ``path``, or on the one foreign file ``path`` with a sidecar beside it.

    Of a folder that holds ``records`` and ``tables`` side by side the last verdict is on the tables. ``data_dir``
    None = $GENREC_DATA and the per-user cache; the demo is always at hand. Raises ValueError when there is nothing
    to verify.
    """
    if is_run_file(path):
        return [_foreign(path, data_dir)]
    root = path.parent if path.is_file() else path
    folders = [root] if (root / "record.json").is_file() else records.folders_below(root)
    if not folders:
        raise ValueError(f"there is no record at or below {path}; name a results folder, a record or a run file")
    worlds = Worlds(data_dir)
    verdicts = {folder: verify_record(folder, worlds) for folder in folders}
    for folder, reasons in contradictions(worlds.seen if folders != [root] else []).items():
        more = tuple(printable(reason) for reason in reasons)
        verdicts[folder] = replace(verdicts[folder], passed=False, reasons=verdicts[folder].reasons + more)
    found = list(verdicts.values())
    return [*found, _tables(root, found)] if is_published(root) else found


def is_run_file(path: Path) -> bool:
    """Whether ``path`` is a file of lists from elsewhere, not a part of a record."""
    return path.is_file() and path.name != "record.json" and path.suffix != ".npz"


def _tables(published: Path, found: Sequence[Verdict]) -> Verdict:
    """Made again only of records that pass: others may hold anything."""
    notes, failed = Notes(), [one.place for one in found if not one.passed]
    if failed:
        notes.reasons.append(f"not compared with the records, as {len(failed)} of them fail, e.g. {failed[0]}")
        return notes.verdict(published / "tables")
    try:
        notes.hold(tables.CHECKED, first(tables.differences(published)))
    except (ValueError, OSError) as error:
        notes.reasons.append(f"the records make no tables: {error}")
    except MALFORMED as error:
        notes.reasons.append(f"the records make no tables ({type(error).__name__}: {error})")
    notes.not_checked.append(tables.NOT_CHECKED)
    return notes.verdict(published / "tables")


def _foreign(path: Path, data_dir: str | Path | None) -> Verdict:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            record = foreign.import_run(path, foreign.sidecar_of(path), output_dir=Path(scratch), data_dir=data_dir)
        except (ValueError, OSError) as error:
            return Verdict(printable(str(path)), False, (printable(str(error)),), ("the form of the file",), ())
        return replace(verify_record(record.folder, Worlds(data_dir)), place=printable(str(path)))


def verify_record(folder: Path, worlds: Worlds) -> Verdict:
    """All that can be checked about one record."""
    notes = Notes()
    try:
        record = _read(folder)
        _inspect(record, worlds, notes)
    except (ValueError, OSError) as error:
        notes.reasons.append(str(error))
    except MALFORMED as error:
        notes.reasons.append(f"record.json is not of the form that this suite writes ({type(error).__name__}: {error})")
    return notes.verdict(folder)


def _read(folder: Path) -> Record:
    """Raises ValueError for what is no file, or one of another folder, beside what ``records.read`` refuses."""
    path = folder / "record.json"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
        raise ValueError(f"record.json is not a file of at most {LARGEST:,} bytes in this folder")
    return records.read(folder)


def _inspect(record: Record, worlds: Worlds, notes: Notes) -> None:
    protocol = protocol_of(record)
    if "audit" in record.fields:
        _inspect_audit(record, notes)
        return
    notes.checked.append("protocol and its hash")
    wrong = identity(record)  # before its names are looked for anywhere
    dataset = worlds.dataset(record.dataset)
    if dataset is not None and dataset.sha256 != record.fields["dataset_hash"]:
        wrong, dataset = [_other_data(record, dataset), *wrong], None
    notes.hold("names, folders and config hash", wrong)
    notes.hold(FORM, first(form.told(record)))
    if not notes.hold("checksums of all files", files(record)):
        return
    notes.not_checked.append(NOT_TOLD)
    if record.status == "ok":
        _inspect_numbers(record, protocol, dataset, worlds, notes)
    else:
        there = [f"it has {name} all the same" for name in ("metrics", "files") if record.fields[name]]
        notes.hold(f"status {record.status}: no numbers", there)


def _inspect_audit(record: Record, notes: Notes) -> None:
    """What a saved model was asked: there is nothing to score."""
    notes.hold("place of an audit", _place_of_audit(record))
    notes.hold(FORM, first(form.told(record)))
    more = [name for name in record.fields["files"] if name != PER_USER]
    notes.hold("an audit has no metrics or lists", ["it has some all the same"] if more or record.metrics else [])
    notes.hold("checksums", files(record))
    notes.not_checked.append("the answers of an audit: they need the saved model")


def _inspect_numbers(record: Record, protocol: Protocol, dataset: Dataset | None, worlds: Worlds, notes: Notes) -> None:
    """Scores and lists of a finished run; ``dataset`` None = the data it was made from are not at hand."""
    stored, suffix = arrays_of(record), protocol.rules["second_column"]["suffix"]
    notes.hold("form of the arrays", first(form.arrays(record, stored, protocol.rules, suffix)))
    notes.hold(f"means and slices within {TOLERANCE:g}", means(record, stored[PER_USER], suffix))
    worlds.seen.append(seen(record, stored))
    split = None if dataset is None else limit(worlds.split(protocol, dataset), record.fields["limit_users"])
    if split is None:
        notes.not_checked.append(NO_DATA)
    else:
        notes.checked.append("data and their hash")
    lists = {setting_of(name): content for name, content in stored.items() if name.startswith("ranking")}
    if not lists:
        without_lists(record, stored, split, protocol, notes)
    elif split is not None:
        rescored(record, stored, lists, split, protocol, notes)
    else:
        notes.not_checked.append(f"not re-scored: the data of {record.dataset} are not at hand")
        by_themselves(record, stored, lists, protocol, notes)


def _place_of_audit(record: Record) -> list[str]:
    """Only among audits is a record with an audit none of a run."""
    lies, places = record.folder.resolve().parts, record.place_below(Path()).parts
    tops = [(top, kind) for top in ("audits", ".audits") for kind in KINDS]
    if lies[-8:-6] in tops and lies[-6:-1] == places:
        return []
    return ["record.json tells of an audit, but its folder is not audits/<question>/<protocol>/.../seed=<s>/<settings>"]


def _other_data(record: Record, dataset: Dataset) -> str:
    return (
        f"made from other data than the {record.dataset} at hand: dataset_hash is {record.fields['dataset_hash']}, "
        f"theirs is {dataset.sha256}"
    )
