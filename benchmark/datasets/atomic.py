"""RecBole atomic files in and out: a folder of typed, tab-separated tables <-> Tables.

``NAME.inter`` (or ``NAME.train.inter``, ``NAME.valid.inter``, ``NAME.test.inter``), ``NAME.item``, ``dataset.json``.
Every value stays the text it was in the file; quotes are ordinary characters and ``NA`` is an ordinary key.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PARTS = ("train", "valid", "test")
META = "dataset.json"
TYPES = ("token", "token_seq", "float", "float_seq")
EXPECTED = {
    ".inter": {"user_id": "token", "item_id": "token", "timestamp": "float"},
    ".item": {"item_id": "token"},
}
OPTIONAL = ("timestamp",)


class MissingData(FileNotFoundError, ValueError):
    """A file that is not where it was looked for; the message says which file to put where."""


@dataclass(frozen=True)
class Tables:
    """A dataset as its files tell it: str columns under plain names, and the type each column declares."""

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame | None = None
    types: Mapping[str, str] = field(default_factory=dict)  # column name -> token | token_seq | float | float_seq
    meta: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Tables:
    """Read the folder ``path``, or the one ``.inter`` file ``path`` with its siblings.

    Raises MissingData when there is nothing to read, ValueError with one sentence for a damaged file.
    """
    folder, name = _locate(path)
    if name.startswith("."):  # a file name holds no separator, so this is all that could lead elsewhere
        raise ValueError(f"{name!r} cannot name a dataset; rename its files to begin with a letter or a digit")
    meta = _read_meta(folder / META)
    types: dict[str, str] = {}
    if (folder / f"{name}.inter").exists():
        interactions = read_table(folder / f"{name}.inter", types, meta)
    else:
        interactions = _read_parts(folder, name, types, meta)
    described = folder / f"{name}.item"
    items = read_table(described, types, meta) if described.exists() else None
    return Tables(name, interactions, items, types, meta)


def _locate(path: Path) -> tuple[Path, str]:
    """Folder and dataset name that ``path`` means."""
    if path.is_file():
        name = path.name.removesuffix(".inter")
        if name == path.name:
            raise ValueError(f"{path} is not an atomic file; give a folder or a file that ends in .inter")
        return path.parent, _whole(name)
    if not path.is_dir():
        raise MissingData(f"{path} does not exist; give a folder that holds NAME.inter, or that file itself")
    found = sorted({_whole(file.name.removesuffix(".inter")) for file in path.glob("*.inter")})
    name = path.resolve().name
    if name not in found:
        if len(found) != 1:
            raise MissingData(
                f"{path} holds {len(found)} datasets ({', '.join(found) or 'no .inter file'}); "
                f"put one there as {name}.inter, or give the path of the .inter file"
            )
        name = found[0]
    if (path / f"{name}.inter").exists() and (path / f"{name}.train.inter").exists():
        raise ValueError(f"{path} holds {name}.inter and {name}.train.inter; give the path of the one that is meant")
    return path, name


def _whole(stem: str) -> str:
    """Dataset name of a file stem, which may name one part of a split."""
    return next((stem.removesuffix(f".{part}") for part in PARTS if stem.endswith(f".{part}")), stem)


def _read_parts(folder: Path, name: str, types: dict[str, str], meta: Mapping[str, Any]) -> pd.DataFrame:
    frames = []
    for part in PARTS:
        frame = read_table(folder / f"{name}.{part}.inter", types, meta)
        frames.append(frame.assign(split=part))
    if any(list(frame.columns) != list(frames[0].columns) for frame in frames):
        raise ValueError(f"the train, valid and test files of {name} in {folder} have different columns; align them")
    types["split"] = "token"
    return pd.concat(frames, ignore_index=True)


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("sha256", {}), dict):
        raise ValueError(f"{path} must hold a JSON object whose sha256 maps file names to hashes; fetch it again")
    _check_meta(path, meta)
    return meta


def _check_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Raises ValueError for an entry of the wrong type."""
    for names, kind, word in (
        (("users", "items", "interactions", "k_core"), int, "a whole number"),
        (("extra_text", "name"), str, "a string"),
    ):
        for name in names:
            if name in meta and (not isinstance(meta[name], kind) or isinstance(meta[name], bool)):
                raise ValueError(f"{path}: {name} must be {word}, not {meta[name]!r}; correct it")


def read_table(path: Path, types: dict[str, str], meta: Mapping[str, Any]) -> pd.DataFrame:
    """One atomic file as str columns; the declared types are added to ``types``."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingData(f"{path} is missing; put it there") from error
    if not content.strip():
        raise ValueError(f"{path} is empty; fetch it again")
    if b"\0" in content:
        raise ValueError(f"{path} is damaged: it holds zero bytes; fetch it again")
    head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n")
    try:
        columns = _header(path, head.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; convert it, or fetch it again") from error
    _check_sha256(path, content, meta)
    if not body.strip():
        raise ValueError(f"{path} has a header but no rows; fetch it again")
    frame = _parse(path, body, list(columns))
    for key in [name for name in ("user_id", "item_id") if name in columns]:
        if (frame[key] == "").any():
            raise ValueError(f"{path} has a row with an empty {key}; remove that row")
    types.update(columns)
    return frame


def _header(path: Path, line: str) -> dict[str, str]:
    """Column name -> declared type. Raises ValueError when the header is not the expected one."""
    expected = EXPECTED[path.suffix]
    cells = [cell.partition(":") for cell in line.split("\t")]
    columns = {name: kind for name, _, kind in cells}
    missing = [name for name in expected if name not in columns and name not in OPTIONAL]
    mistyped = [name for name, kind in columns.items() if kind not in TYPES or expected.get(name, kind) != kind]
    if missing or mistyped or len(columns) < len(cells):
        wanted = "\t".join(f"{name}:{kind}" for name, kind in expected.items())
        raise ValueError(
            f"{path} has the header {line[:200]!r}; expected typed, tab-separated column names such as {wanted!r}"
        )
    return columns


def _check_sha256(path: Path, content: bytes, meta: Mapping[str, Any]) -> None:
    wanted = meta.get("sha256", {}).get(path.name)
    if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
        raise ValueError(f"{path} is damaged or was changed (its sha256 is not the one in {META}); fetch it again")


def _parse(path: Path, body: bytes, columns: list[str]) -> pd.DataFrame:
    body = body.removesuffix(b"\n")
    _refuse_ragged(path, body, len(columns))
    try:
        return pd.read_csv(
            io.BytesIO(body),
            sep="\t",
            names=columns,
            header=None,
            dtype=str,
            index_col=False,
            quoting=csv.QUOTE_NONE,
            na_filter=False,
            skip_blank_lines=False,
            lineterminator="\n",
            encoding="utf-8",
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; convert it, or fetch it again") from error


def _refuse_ragged(path: Path, body: bytes, width: int) -> None:
    """Say which row has the wrong number of columns; a short last row means a cut-off file."""
    content = np.frombuffer(body, np.uint8)
    ends = np.append(np.flatnonzero(content == ord("\n")), len(content))
    tabs_before = np.searchsorted(np.flatnonzero(content == ord("\t")), ends)
    found = np.diff(tabs_before, prepend=0) + 1  # (rows,) columns of each row
    if (found == width).all():
        return
    place = int((found != width).argmax())
    cut = "is cut off: its last row" if place == len(found) - 1 and found[place] < width else None
    where = cut or f"is damaged: line {place + 2}"
    raise ValueError(f"{path} {where} has {found[place]} of {width} columns; fetch it again")


def write(tables: Tables, folder: Path) -> None:
    """Write ``tables`` into the existing ``folder``; ``dataset.json`` gets the sha256 of the files beside it.

    Raises ValueError when a value holds a tab, a line break or a zero byte, which the format cannot say.
    """
    frames = {f"{tables.name}.inter": tables.interactions, f"{tables.name}.item": tables.items}
    sha256 = {}
    for file_name, frame in frames.items():
        if frame is not None:
            content = _encode(file_name, frame, tables.types)
            (folder / file_name).write_bytes(content)
            sha256[file_name] = hashlib.sha256(content).hexdigest()
    meta = {**tables.meta, "name": tables.name, "sha256": sha256}
    (folder / META).write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _encode(file_name: str, frame: pd.DataFrame, types: Mapping[str, str]) -> bytes:
    for name in frame.columns:
        if frame[name].str.contains(r"[\t\n\r\0]").any():
            raise ValueError(
                f"column {name} of {file_name} holds a tab, a line break or a zero byte; replace it by a space"
            )
    header = "\t".join(f"{name}:{types[name]}" for name in frame.columns)
    rows = map("\t".join, zip(*(frame[name] for name in frame.columns), strict=True))
    return ("\n".join([header, *rows]) + "\n").encode()
