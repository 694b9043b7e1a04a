"""What can be wrong with one record: its identity, its files, its means, and what its lists really earn.

Every check returns sentences, none when all is well; of many findings of one kind the first is told and the rest
counted.
"""

from __future__ import annotations

import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import protocols
from benchmark import records
from benchmark.files import sha256_of
from benchmark.job import Job
from benchmark.metrics import PER_RUN
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.scoring import PER_TARGET, PER_USER, Arrays

TOLERANCE = 1e-12
"""Relative and absolute. The hits of one user are added up by a matrix product and the values of all users in blocks,
both as wide as the processor's registers are: another processor may round the last bits of a sum otherwise."""
LARGEST = 2**30
"""Bytes of arrays in one file; a small file that unpacks to more is not a record."""
_FILES = re.compile(r"per_user\.npz|per_target\.npz|ranking(\.[a-z]+)?\.npz")
UNREADABLE = (
    *(ValueError, OSError, EOFError, MemoryError, NotImplementedError, RuntimeError, KeyError),
    *(zipfile.BadZipFile, lzma.LZMAError, zlib.error),
)
"""What reading a hostile archive may raise."""
_PROTOCOL, _SEED = 0, 4
"""Places in the five folders of a record."""


def first(sentences: list[str]) -> list[str]:
    """At most one sentence, which counts the others."""
    more = f" (and {len(sentences) - 1} more like it)" if len(sentences) > 1 else ""
    return [sentences[0] + more] if sentences else []


def protocol_of(record: Record) -> Protocol:
    """The protocol of the suite that the record was made under. Raises ValueError when it is not the present one."""
    said = record.protocol
    protocol = protocols.load(said["name"])
    if (said["version"], said["hash"]) != (protocol.version, protocol.hash):
        raise ValueError(
            f"made under {protocol.name} version {said['version']} ({said['hash']}); this suite asks by version "
            f"{protocol.version} ({protocol.hash})"
        )
    return protocol


def identity(record: Record) -> list[str]:
    """Folders that say what record.json says, and a config hash of all it stands for.

    Raises ValueError for names and numbers that no run has, which may lead anywhere.
    """
    seed, dataset = record.fields["seed"], record.dataset
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"the seed {seed!r} is not a whole number of at least 0")
    if not isinstance(dataset, str) or not re.fullmatch(r"\w[^/\\]*", dataset) or not dataset.isprintable():
        raise ValueError(f"{dataset!r} cannot name a dataset")
    records.escape(record.method)
    limit = record.fields["limit_users"]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ValueError(f"limit_users is {limit!r}, neither null nor a whole number above 0")
    return _misplaced(record) + _config_hash(record)


def _misplaced(record: Record) -> list[str]:
    lies, place = record.folder.resolve().parts[-5:], record.place_below(Path())
    if len(lies) < len(place.parts) or lies[_PROTOCOL] not in protocols.names():
        compared = [_SEED] if lies[-1].startswith("seed=") else []  # copied out of its results folder
    else:
        compared = list(range(len(place.parts)))
    return [
        f"the record lies in a folder '{lies[i - 5]}' but record.json says '{place.parts[i]}'"
        for i in compared
        if lies[i - 5] != place.parts[i]
    ]


def _config_hash(record: Record) -> list[str]:
    fields = record.fields
    job = Job(
        protocol=record.protocol["name"],
        protocol_hash=record.protocol["hash"],
        dataset_spec=record.dataset,
        dataset_name=record.dataset,
        dataset_hash=fields["dataset_hash"],
        method_spec=record.method,
        method_name=record.method,
        seed=record.seed,
        profile=fields["profile"],
        track=fields["track"],
        config=fields["config"],
        method_source=fields["method_source"],
        output_dir=Path(),
        limit_users=fields["limit_users"],
        text_encoder_identity=fields["text_encoder"],
    )
    if job.config_hash == fields["config_hash"]:
        return []
    return [
        f"config_hash is {fields['config_hash']}, but method, config, track, profile, encoder, user limit and the "
        f"hashes of dataset and protocol in record.json give {job.config_hash}: one of them was edited"
    ]


def files(record: Record) -> list[str]:
    """Every file named in record.json is there as it was written, and no other."""
    wrong = []
    for name, digest in record.fields["files"].items():
        path = record.folder / name
        if not _FILES.fullmatch(name):
            wrong.append(f"record.json names a file {name!r} that no run writes")
        elif path.is_symlink():
            wrong.append(f"{name} is a link; a record holds its own files")
        elif not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_of(path) != digest:
            wrong.append(f"{name} is not the file that was written: its SHA-256 differs from the one in record.json")
    known = {*record.fields["files"], "record.json", "log.txt"}
    wrong += [
        f"{path.name!r} is not named in record.json" for path in record.folder.iterdir() if path.name not in known
    ]
    if record.status == "ok" and PER_USER not in record.fields["files"]:
        wrong.append(f"record.json names no {PER_USER}")
    return sorted(wrong)


def arrays_of(record: Record) -> Arrays:
    """All arrays of a record whose files are sound. Raises ValueError when one cannot be read."""
    found: Arrays = {}
    for name in record.fields["files"]:
        try:
            with zipfile.ZipFile(record.folder / name) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > LARGEST:
                raise ValueError(f"it unpacks to {unpacked:,} bytes")
            found[name] = _read(record, name)
            odd = next((key for key, array in found[name].items() if not isinstance(array, np.ndarray)), None)
            if odd is not None:
                raise ValueError(f"it holds {odd!r}, which is no array")
        except UNREADABLE as error:
            raise ValueError(f"{name} cannot be read: {error}") from error
    return found


def _read(record: Record, name: str) -> dict[str, np.ndarray]:
    if name == PER_USER:
        return record.per_user()
    return record.per_target() if name == PER_TARGET else record.ranking(setting_of(name))


def setting_of(name: str) -> str:
    """``ranking.warm.npz`` -> ``warm``; the test's own ``ranking.npz`` -> ``""``."""
    return name.removeprefix("ranking").removesuffix(".npz").removeprefix(".")


def means(record: Record, per_user: Mapping[str, np.ndarray], suffix: str) -> list[str]:
    """Means of all users and of every slice in record.json against per_user.npz.

    ``suffix`` marks the metrics that slices have beside the plain ones.
    """
    users = per_user.get("users", np.empty(0))
    odd = [name for name, values in per_user.items() if values.shape != users.shape or values.dtype.kind not in "iuf"]
    if odd or not len(users):
        return [f"{PER_USER} is not one number per user{f': see {odd[0]!r}' if odd else ''}"]
    scores = {name: v for name, v in per_user.items() if name != "users" and not name.startswith("slice:")}
    said = {name: v for name, v in record.metrics.items() if name.partition("@")[0] not in PER_RUN}
    expected = {name: _mean(values) for name, values in scores.items()}
    found = first(_compared(said, expected, "record.json", f"{PER_USER} on average"))
    sliced = {name: v for name, v in scores.items() if name.partition("/")[2] in ("", suffix)}
    return found + first(_slice_means(record, per_user, sliced))


def _slice_means(record: Record, per_user: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]) -> list[str]:
    labels, slices = record.fields["slice_labels"], record.fields["slices"]
    kept = {name.removeprefix("slice:") for name in per_user if name.startswith("slice:")}
    if not labels.keys() == slices.keys() == kept:
        return [f"slices and slice_labels in record.json are not those of {PER_USER}"]
    wrong = []
    for name, one in labels.items():
        if slices[name].keys() != set(one):
            wrong.append(f"slice {name} in record.json has other parts than its slice_labels")
            continue
        for code, label in enumerate(one):
            rows = per_user[f"slice:{name}"] == code
            here: dict[str, float] = {"users": int(rows.sum())}
            here |= {metric: _mean(values[rows]) for metric, values in scores.items()} if rows.any() else {}
            found = _compared(slices[name][label], here, "record.json", PER_USER)
            wrong += [f"in slice {name}, {label}: {sentence}" for sentence in found]
    return wrong


def _mean(values: np.ndarray) -> float:
    """Of the users who are asked; NaN when nobody is."""
    asked = values[~np.isnan(values)]
    return float(asked.mean()) if asked.size else math.nan


def _compared(said: Mapping[str, Any], expected: Mapping[str, float], where: str, by: str) -> list[str]:
    """Sentences about numbers that differ, or that only one side has."""
    odd = sorted(said.keys() ^ expected.keys())
    wrong = [f"{name} is only in {where if name in said else by}" for name in odd]
    wrong += [f"{n} is {v!r} in {where}, not a number" for n, v in said.items() if not isinstance(v, int | float)]
    return wrong + [
        f"{name} is {said[name]!r} in {where} but {value!r} in {by}"
        for name, value in expected.items()
        if isinstance(said.get(name), int | float) and not _close(said[name], value)
    ]


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def against_data(record: Record, stored: Arrays, fields: Mapping[str, Any], arrays: Arrays) -> tuple[list[str], bool]:
    """Stored arrays against recomputed ones (``scoring.rescore``) -> sentences, and whether all are equal to a bit."""
    wrong, exact = [], True
    for name, expected in arrays.items():
        if name not in stored:
            wrong.append(f"{name} is missing")
            continue
        found, same = _arrays_compared(name, stored[name], expected)
        wrong, exact = wrong + found, exact and same
    wrong += first(_compared(record.fields["facts"], fields["facts"], "facts of record.json", "the data"))
    if record.fields["slice_labels"] != fields["slice_labels"]:
        wrong.append("slice_labels in record.json are not those of the protocol")
    return wrong, exact


def against_lists(record: Record, earned: Mapping[str, float]) -> list[str]:
    """Metrics of a whole run in record.json against those among ``earned``, which its lists give."""
    kinds = {name.partition("@")[0] for name in earned if name.partition("@")[0] in PER_RUN}
    said, given = (
        {name: value for name, value in metrics.items() if name.partition("@")[0] in kinds}
        for metrics in (record.metrics, earned)
    )
    return first(_compared(said, given, "record.json", "the lists"))


def _arrays_compared(
    file: str, stored: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> tuple[list[str], bool]:
    users = expected["users"]
    if not np.array_equal(stored.get("users", np.empty(0)), users):
        return [f"{file} is not of the users that the protocol asks, each once and in its order"], False
    odd = sorted(stored.keys() ^ expected.keys())
    wrong = [f"{name!r} is only in {file if name in stored else 'what the lists earn'}" for name in odd]
    exact = True
    for name in stored.keys() & expected.keys():
        here, there = stored[name], expected[name]
        if here.shape != there.shape:
            wrong.append(f"{name} in {file} is of {here.shape}, not of {len(users)} users")
            continue
        exact = exact and np.array_equal(here, there, equal_nan=here.dtype.kind == "f")
        far = np.flatnonzero(~np.isclose(here, there, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
        if len(far):
            row = far[0]
            numbers = f"{here[row].item()!r} in {file} but {there[row].item()!r} by the lists and the data"
            more = f" (and {len(far) - 1} more users)" if len(far) > 1 else ""
            wrong.append(f"{name} of user {users[row]} is {numbers}{more}")
    return first(sorted(wrong)), exact and not wrong
