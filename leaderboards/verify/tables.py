"""Published tables against tables made again from the records that lie beside them."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from leaderboards import publish

PICTURES = (".png", ".svg")
DIGITS = 9
"""Decimals of raw numbers that are compared; the last bits of sums differ between processors."""
CHECKED = f"tables from the records: Markdown, LaTeX and BibTeX byte for byte, JSON and CSV to {DIGITS} decimals"
NOT_CHECKED = "pictures: other versions of matplotlib draw other bytes"


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
    return [wrong[name] for name in sorted(wrong)]


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
            return bool(_rounded(json.loads(one)) == _rounded(json.loads(other)))
        return made.suffix == ".csv" and _cells(one) == _cells(other)
    except (ValueError, RecursionError, csv.Error):
        return False


def _rounded(value: Any) -> Any:
    """The same JSON, its fractions rounded."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _cells(text: bytes) -> list[list[Any]]:
    """Rows of a CSV file, its fractions rounded."""
    return [[_number(cell) for cell in row] for row in csv.reader(io.StringIO(text.decode()))]


def _number(cell: str) -> Any:
    try:
        return cell if cell.lstrip("-").isdigit() else round(float(cell), DIGITS)
    except ValueError:
        return cell
