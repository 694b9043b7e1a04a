"""Believe no record: every check of its files, its hashes, its lists and its numbers, without running a method again.

``verify`` never trains. With the data at hand every list is scored anew; without them the per-user scores are held
against the means, and the verdict says what was left out.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import datasets, records
from benchmark.datasets.catalogue import DEMO
from benchmark.datasets.folders import find
from benchmark.evaluate import check
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.scoring import PER_USER, Arrays, limit, rescore
from benchmark.types import Budget, Cases, Dataset, Ranking, Sequences, Spend, Split
from leaderboards import foreign
from leaderboards.verify_record import (
    TOLERANCE,
    against_lists,
    arrays_of,
    files,
    first,
    identity,
    means,
    protocol_of,
    setting_of,
)

NOT_TOLD = "that these lists come from this method, config and seed: only running it again can tell"
NO_LISTS = "not re-scored: the lists of this seed are not here, only its per-user scores"


@dataclass(frozen=True)
class Verdict:
    """What was found out about one record or one foreign file."""

    place: str
    passed: bool
    reasons: tuple[str, ...]
    """Why it failed: one sentence each."""
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]


@dataclass
class _Notes:
    """A verdict in the making."""

    reasons: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def hold(self, what: str, wrong: list[str]) -> bool:
        """Note ``what`` as checked, and what is ``wrong`` with it as reasons to fail."""
        self.checked.append(what)
        self.reasons += wrong
        return not wrong

    def verdict(self, place: Path) -> Verdict:
        shown = tuple(_printable(reason) for reason in self.reasons)
        return Verdict(_printable(str(place)), not shown, shown, tuple(self.checked), tuple(self.not_checked))


class Worlds:
    """Data and splits, one at a time: records are verified in the order of their folders."""

    def __init__(self, data_dir: str | Path | None) -> None:
        self._data_dir = data_dir
        self._dataset: tuple[str, Dataset | None] = ("", None)
        self._split: tuple[tuple[str, str], Split] | None = None

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

    ``data_dir`` None = $GENREC_DATA and the per-user cache; the demo is always at hand. Raises ValueError when there
    is nothing to verify.
    """
    if path.is_file() and path.name != "record.json":
        return [_foreign(path, data_dir)]
    root = path.parent if path.is_file() else path
    folders = [root] if (root / "record.json").is_file() else sorted(_below(root))
    if not folders:
        raise ValueError(f"there is no record at or below {path}; name a results folder, a record or a run file")
    worlds = Worlds(data_dir)
    return [verify_record(folder, worlds) for folder in folders]


def report(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines to print: one per record, the reasons of those that failed, and what nobody could check."""
    lines = []
    for one in verdicts:
        lines.append(f"{'PASS' if one.passed else 'FAIL'} {one.place}")
        lines += [f"     {reason}" for reason in one.reasons]
    for word, told in (("checked", "checked"), ("not checked", "not_checked")):
        counts = Counter(what for one in verdicts for what in getattr(one, told))
        lines += [f"{word} ({count} of {len(verdicts)}): {what}" for what, count in counts.items()]
    passed = sum(one.passed for one in verdicts)
    return [*lines, f"{passed} passed, {len(verdicts) - passed} failed"]


def _below(root: Path) -> list[Path]:
    found = (path.parent for path in root.rglob("record.json"))
    return [folder for folder in found if not any(part.startswith(".") for part in folder.relative_to(root).parts)]


def _foreign(path: Path, data_dir: str | Path | None) -> Verdict:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            record = foreign.import_run(path, foreign.sidecar_of(path), output_dir=Path(scratch), data_dir=data_dir)
        except (ValueError, OSError) as error:
            return Verdict(_printable(str(path)), False, (_printable(str(error)),), ("the form of the file",), ())
        return replace(verify_record(record.folder, Worlds(data_dir)), place=_printable(str(path)))


def verify_record(folder: Path, worlds: Worlds) -> Verdict:
    """All that can be checked about one record."""
    notes = _Notes()
    try:
        record = records.read(folder)
        _inspect(record, worlds, notes)
    except (ValueError, OSError) as error:
        notes.reasons.append(str(error))
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        notes.reasons.append(f"record.json is not of the form that this suite writes ({type(error).__name__}: {error})")
    return notes.verdict(folder)


def _inspect(record: Record, worlds: Worlds, notes: _Notes) -> None:
    if "audit" in record.fields:  # what a saved model was asked: there is nothing to score
        notes.hold("checksums", [s for s in files(record) if "no run writes" not in s])
        notes.not_checked.append("the answers of an audit: they need the saved model")
        return
    protocol = protocol_of(record)
    notes.checked.append("protocol and its hash")
    wrong = identity(record)
    dataset = worlds.dataset(record.dataset)
    if dataset is not None and dataset.sha256 != record.fields["dataset_hash"]:
        wrong = [_other_data(record, dataset), *wrong]
    notes.hold("names, folders and config hash", wrong)
    if not notes.hold("checksums of all files", files(record)):
        return
    notes.not_checked.append(NOT_TOLD)
    if record.status != "ok":
        notes.hold(f"status {record.status}: no numbers", ["it has metrics all the same"] if record.metrics else [])
        return
    stored, suffix = arrays_of(record), protocol.rules["second_column"]["suffix"]
    notes.hold(f"means and slices within {TOLERANCE:g}", means(record, stored[PER_USER], suffix))
    lists = {setting_of(name): content for name, content in stored.items() if name.startswith("ranking")}
    if not lists:
        _without_lists(record, notes)
    elif dataset is None:
        notes.not_checked.append(f"not re-scored: the data of {record.dataset} are not at hand")
        notes.hold("form of the lists", _form(record, lists, stored[PER_USER], protocol))
    elif dataset.sha256 == record.fields["dataset_hash"]:
        split = limit(worlds.split(protocol, dataset), record.fields["limit_users"])
        notes.checked.append("data and their hash")
        _rescore(record, stored, lists, split, protocol, dataset.n_items, notes)


def _other_data(record: Record, dataset: Dataset) -> str:
    return (
        f"made from other data than the {record.dataset} at hand: dataset_hash is {record.fields['dataset_hash']}, "
        f"theirs is {dataset.sha256}"
    )


def _without_lists(record: Record, notes: _Notes) -> None:
    """Published runs keep their lists for one seed; seed 0 must have them."""
    if record.seed == 0:
        notes.reasons.append("the lists are missing: record.json names no ranking.npz, which a run of seed 0 keeps")
    notes.not_checked.append(NO_LISTS)


def _rescore(
    record: Record,
    stored: Arrays,
    lists: dict[str, dict[str, np.ndarray]],
    split: Split,
    protocol: Protocol,
    n_items: int,
    notes: _Notes,
) -> None:
    again = {name: _ranking(record, content, notes) for name, content in lists.items()}
    notes.checked.append("every user's list: asked once, known items, none twice, order, candidates, spend in budget")
    if "" not in again:
        notes.reasons.append("the lists of the test are missing: record.json names no ranking.npz")
        return
    fields, arrays = rescore(again.pop(""), again, split, protocol.rules, n_items)
    wrong, exact = against_lists(record, stored, fields, arrays)
    how = "to the bit" if exact else f"within {TOLERANCE:g}"
    notes.hold(f"per-user scores from the lists, {how}", wrong)


def _form(
    record: Record, lists: dict[str, dict[str, np.ndarray]], per_user: dict[str, np.ndarray], protocol: Protocol
) -> list[str]:
    """What lists show without the data: users, distinct items, order, spend. Item ids are only known to be > 0."""
    budget, length = Budget(**protocol.rules["budget"]), protocol.rules["list_length"]
    nothing, wrong, notes = Sequences.from_rows([]), [], _Notes()
    for name, content in lists.items():
        asked = per_user["users"]
        if name:
            asked = asked[~np.isnan(per_user[f"{protocol.rules['primary']}/{name}"])]
        ranking = _ranking(record, content, notes)
        cases = Cases(asked, nothing, nothing, np.zeros(0, np.int64))
        try:
            check(ranking, cases, int(ranking.items.max(initial=0)), length, budget)
        except ValueError as error:
            wrong.append(f"among {name} items only, {error}" if name else str(error))
    return first(wrong)


def _ranking(record: Record, content: dict[str, np.ndarray], notes: _Notes) -> Ranking:
    """Lists as stored, ids widened again; half-precision scores are scores like others."""
    items = content["items"]
    items = items.astype(np.int64) if items.dtype.kind in "iu" else items
    spend: Any = record.fields["spend"]
    if spend is None and foreign.is_foreign(record.method):
        notes.not_checked += [told for told in ["spend: not stated"] if told not in notes.not_checked]
        spend = {"rule": "scores", "items_scored": 0.0}
    return Ranking(content["users"], items, content["scores"], None if spend is None else Spend(**spend))  # type: ignore[arg-type]


def _printable(text: str) -> str:
    """Without control characters, which could rewrite a terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
