"""One run = one folder that exists whole or not at all: what was scored, by whom, from what, on what."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.files import explained, json_bytes, sha256_of
from benchmark.types import PAD, Ranking

SCHEMA = 1
STATUSES = ("ok", "failed", "skipped", "timeout", "oom")
SETTLED = ("ok", "skipped")
"""Running the same job again would change nothing."""
REQUIRED = frozenset(
    [
        "method",
        "dataset",
        "dataset_hash",
        "seed",
        "protocol",
        "track",
        "profile",
        "config_hash",
        "metrics",
        "limit_users",
        "provenance",
        "files",
    ]
)
"""What no record may lack."""
_WORD = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(f"{_WORD}(:{_WORD})?(@{_WORD})?")


@dataclass(frozen=True)
class Record:
    """A finished run: ``fields`` is record.json; the arrays beside it are read on demand and checked."""

    folder: Path
    fields: dict[str, Any]

    @property
    def method(self) -> str:
        return self.fields["method"]

    @property
    def dataset(self) -> str:
        return self.fields["dataset"]

    @property
    def seed(self) -> int:
        return self.fields["seed"]

    @property
    def status(self) -> str:
        return self.fields["status"]

    @property
    def metrics(self) -> dict[str, float]:
        return self.fields["metrics"]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.fields["protocol"]

    def place_below(self, root: Path) -> Path:
        """Where the record belongs below ``root``, see ``folder_of``."""
        return folder_of(root, self.protocol["name"], self.dataset, self.method, self.fields["config_hash"], self.seed)

    @property
    def text_encoder(self) -> str | None:
        """What read the item texts, as a short label; None for a method that reads none."""
        identity = self.fields["text_encoder"]
        return None if identity is None else encoder_label(identity)

    @cached_property
    def _files(self) -> dict[str, str]:
        return self.fields["files"]

    def per_user(self) -> dict[str, np.ndarray]:
        """``users`` (U,), one (U,) array per metric and one int8 ``slice:<name>`` per slice."""
        return self._arrays("per_user.npz")

    def ranking(self, setting: str = "") -> dict[str, np.ndarray]:
        """``users`` (U,), ``items`` (U, K) and ``scores`` (U, K) of the test or of one of its settings."""
        return self._arrays(ranking_file(setting))

    def per_target(self) -> dict[str, np.ndarray]:
        """``users``, ``items``, ``rank``, ``rank/<setting>`` and ``asked/<setting>`` (T,) of every target.

        See ``scoring.per_target``.
        """
        return self._arrays("per_target.npz")

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        path = self.folder / name
        if not path.exists():
            raise ValueError(f"{path} is missing from its record; delete the folder {self.folder} and run again")
        if sha256_of(path) != self._files.get(name):
            raise ValueError(f"{path} is damaged (checksum differs); delete the folder {self.folder} and run again")
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}


def encoder_label(identity: Mapping[str, Any]) -> str:
    """``name (first 12 digits of the SHA-256)``, without the digits where there is nothing to hash."""
    return identity["name"] + (f" ({identity['sha256'][:12]})" if identity["sha256"] else "")


def encoder_key(identity: Mapping[str, Any]) -> str:
    """An encoder in a run's identity: a folder's content, whatever it is called, but the name of a hub model.

    A hub model's content is known only once it lies on this disk, and a download must not make a run another one.
    """
    return identity["name"] if "/" in identity["name"] else identity["sha256"] or identity["name"]


def same_encoder(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two encoders have the same content, or the same name where a content is not known."""
    known = one["sha256"] and other["sha256"]
    return bool(one["sha256"] == other["sha256"] if known else one["name"] == other["name"])


def folder_of(root: Path, protocol: str, dataset: str, method: str, config_hash: str, seed: int) -> Path:
    """``<root>/<protocol>/<dataset>/<method>/<config-hash>/seed=<s>``, with ``:`` written as ``~``."""
    return root / protocol / dataset / escape(method) / config_hash / f"seed={seed}"


def escape(method: str) -> str:
    """A method's name as one folder name on every file system; reversible because ``~`` is in no name."""
    if not _NAME.fullmatch(method):
        raise ValueError(f"'{method}' is not a method name of the form room[:argument][@preset]")
    return method.replace(":", "~")


def write(
    folder: Path, fields: Mapping[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]], log: Path | None
) -> Record:
    """Write a record as a whole. ``arrays`` maps file names to their arrays; an older record is replaced.

    Everything is written beside ``folder`` and renamed, so a crash at any moment leaves the old record or the new.
    Raises OSError with one clear sentence when the disk will not have it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            complete = dict(fields) | {"schema": SCHEMA, "files": _write_arrays(temporary, arrays)}
            if log is not None and log.exists():
                shutil.copyfile(log, temporary / "log.txt")
            (temporary / "record.json").write_bytes(json_bytes(complete))
            _replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise explained(error, folder) from error
    return Record(folder, complete)


def _write_arrays(folder: Path, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, str]:
    """npz files without pickle -> their checksums."""
    for name, content in arrays.items():
        (folder / name).write_bytes(_npz(content))
    return {name: sha256_of(folder / name) for name in arrays}


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """What ``np.load`` reads, packed with LZMA: rankings become a fifth smaller than with numpy's own deflate.

    The same arrays give the same bytes, as entries carry no date.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


def _replace(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; the only moment without either is between two renames."""
    os.chmod(new, 0o755)
    if folder.exists():
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".old-{folder.name}."))
        os.replace(folder, aside / folder.name)
        os.replace(new, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(new, folder)


def read(folder: Path) -> Record:
    """Raises ValueError naming the file when the record is damaged or of another schema."""
    path = folder / "record.json"
    advice = f"delete the folder {folder} and run again"
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; {advice}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the record {path} is damaged (not JSON); {advice}") from error
    whole = isinstance(fields, dict) and fields.get("schema") == SCHEMA and fields.get("status") in STATUSES
    if not whole or not fields.keys() >= REQUIRED:
        raise ValueError(f"the record {path} is damaged or of another schema than {SCHEMA}; {advice}")
    return Record(folder, fields)


def read_all(root: Path) -> list[Record]:
    """Every record below ``root``, sorted by folder."""
    return [read(folder) for folder in folders_below(root)]


def folders_below(root: Path) -> list[Path]:
    """The folders of all records below ``root``, sorted. Half-written ones (dot folders) are not records."""
    found = (path.parent for path in root.rglob("record.json"))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(root).parts))


def ranking_file(setting: str = "") -> str:
    """Where the lists of a setting are kept; "" = those of the test itself."""
    return f"ranking.{setting}.npz" if setting else "ranking.npz"


def ranking_arrays(ranking: Ranking) -> dict[str, np.ndarray]:
    """The arrays of a ranking, item ids in the smallest type that holds them."""
    narrow = np.uint16 if ranking.items.max(initial=0) < 2**16 and ranking.items.min(initial=PAD) >= 0 else np.int32
    return {"users": ranking.users, "items": ranking.items.astype(narrow), "scores": ranking.scores}
