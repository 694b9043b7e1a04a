"""Published tables against tables made again from the records that lie beside them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

from leaderboards import publish

PICTURES = (".png", ".svg")
DIGITS = 9
"""Decimals of raw numbers that are compared; the last bits of sums differ between processors."""
CHECKED = f"tables from the records: Markdown, LaTeX and BibTeX byte for byte, JSON and CSV to {DIGITS} decimals"
NOT_CHECKED = "what pictures show: other versions of matplotlib draw other bytes"
_ACTIVE = re.compile(rb"""<script|<foreignobject|<!entity|javascript:|\son\w+\s*=\s*["']""", re.IGNORECASE)
"""What makes an SVG more than a picture, for whoever opens it by itself."""


def differences(published: Path) -> list[str]:
    """One sentence about each file below ``published/tables`` that is not what the records make, by its path.

    Raises ValueError when no tables can be made of the records.
    """
    tables = published / "tables"
    with tempfile.TemporaryDirectory() as scratch:
        publish.make_again(published, Path(scratch))
        made = _texts(Path(scratch))
        kept = _texts(tables)
        wrong = {name: f"tables/{name} is missing: the records make it" for name in made.keys() - kept.keys()}
        wrong |= {name: f"tables/{name} is not made from the records" for name in kept.keys() - made.keys()}
        for name in made.keys() & kept.keys():
            if not _same(made[name], kept[name]):
                wrong[name] = f"tables/{name} differs from what the records make"
    wrong |= _harmful(tables)
    return [wrong[name] for name in sorted(wrong)]


def _harmful(tables: Path) -> dict[str, str]:
    """Path -> sentence of what would do more than be shown: whoever makes the page copies these files."""
    found = {}
    for path in tables.rglob("*"):
        name = path.relative_to(tables).as_posix()
        if path.is_symlink():
            found[name] = f"tables/{name} is a link; a published folder holds its own files"
        elif path.suffix == ".svg" and path.is_file() and _ACTIVE.search(path.read_bytes()):
            found[name] = f"tables/{name} is a picture that holds code"
    return found


def _texts(folder: Path) -> dict[str, Path]:
    """Every file but pictures, by its path below ``folder``."""
    found = (path for path in folder.rglob("*") if not path.is_dir() and path.suffix not in PICTURES)
    return {path.relative_to(folder).as_posix(): path for path in found}


def _same(made: Path, kept: Path) -> bool:
    if not kept.is_file():
        return False
    one, other = made.read_bytes(), kept.read_bytes()
    if one == other:
        return True
    try:
        if made.suffix == ".json":
            return _alike(json.loads(one), json.loads(other))
        return made.suffix == ".csv" and _alike(_cells(one), _cells(other))
    except (ValueError, RecursionError, csv.Error):
        return False


def _alike(one: Any, other: Any) -> bool:
    """The same JSON but for the last digits of fractions; rounded ones would differ where a number lies at an edge."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0.0, abs_tol=10.0**-DIGITS)
    return bool(one == other)


def _cells(text: bytes) -> list[list[Any]]:
    """Rows of a CSV file, its fractions as numbers."""
    return [[_number(cell) for cell in row] for row in csv.reader(io.StringIO(text.decode()))]


def _number(cell: str) -> Any:
    try:
        number = float(cell)
        return cell if cell.lstrip("-").isdigit() or not math.isfinite(number) else number
    except ValueError:
        return cell
