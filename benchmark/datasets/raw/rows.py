"""CSV, TSV and Parquet files as streams of rows of named cells."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.datasets.raw.lines import Report, Tally, read_lines, silent, size_of

SEPARATORS = ("\t", ",", ";")
BATCH = 65_536  # rows of a Parquet file in memory at a time

_PARQUET = b"PAR1"

Rows = Iterator[tuple[int, dict[str, Any]]]
"""Row number (the line of a text file, whose header is line 1; else counted from 1) and the cells by field."""


def read_rows(path: Path, names: Mapping[str, str], tally: Tally, report: Report = silent) -> Rows:
    """The rows of ``path``; ``names`` maps the fields wanted to the file's columns.

    The separator is the first of tab, comma and semicolon that gives those columns. Cells between tabs are never
    quoted, others as in any CSV. Rows with too few or too many cells are counted in ``tally``. Raises MissingData,
    and ValueError for a damaged file and for columns that are not there.
    """
    size_of(path)
    with path.open("rb") as raw:
        is_parquet = raw.read(len(_PARQUET)) == _PARQUET
    found = _parquet_rows(path, names, report) if is_parquet else _text_rows(path, names, tally, report)
    for number, cells in found:
        tally.read += 1
        yield number, cells


def _text_rows(path: Path, names: Mapping[str, str], tally: Tally, report: Report) -> Rows:
    lines = _decoded(path, read_lines(path, report))
    separator, header = _header(path, next(lines, ""), names)
    places = {field: header.index(column) for field, column in names.items()}
    rows = _cells(lines, separator)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}: the row that ends in line {rows.line_num + 1} is damaged ({error})") from error
        if cells is None:
            return
        if len(cells) == len(header):
            yield rows.line_num + 1, {field: cells[place] for field, place in places.items()}
        elif cells:
            tally.read += 1
            tally.skip(rows.line_num + 1)


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text (line {number}); convert it") from error


def _cells(lines: Iterable[str], separator: str) -> Any:
    """The csv reader of a separator."""
    if separator == "\t":
        return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, strict=True)


def _header(path: Path, line: str, names: Mapping[str, str]) -> tuple[str, list[str]]:
    """Separator and column names of a text file."""
    headers: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        try:
            headers[separator] = next(_cells([line], separator), [])
        except csv.Error:  # a quote that only another separator explains
            headers[separator] = [line.strip()]
        if set(names.values()) <= set(headers[separator]):
            return separator, headers[separator]
    raise _absent(path, names, max(headers.values(), key=len))


def _absent(path: Path, names: Mapping[str, str], there: Sequence[str]) -> ValueError:
    missing = ", ".join(repr(column) for column in names.values() if column not in there)
    return ValueError(f"{path} has no column {missing}; its columns are {', '.join(map(repr, there))}")


def _parquet_rows(path: Path, names: Mapping[str, str], report: Report) -> Rows:
    try:
        arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise ValueError(f"{path} is a Parquet file; install pyarrow to read it, or convert it to CSV") from error
    size, read = size_of(path), 0
    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if not set(names.values()) <= set(there):
                raise _absent(path, names, there)
            for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(names.values()))):
                cells = (batch.column(column).to_pylist() for column in names.values())
                for place, values in enumerate(zip(*cells, strict=True), 1):
                    yield read + place, dict(zip(names, values, strict=True))
                read += batch.num_rows
                report(size * read // file.metadata.num_rows, size)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or cut short ({_brief(error)}); fetch it again") from error


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
