"""What every section is made of: finished cells, the styles of the best two, and the table of metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmark.progress import duration
from benchmark.records import Record
from leaderboards.compare import Comparison
from leaderboards.scores import Interval
from leaderboards.summary import Row, Summary

BETTER, WORSE = "†", "‡"
Place = tuple[int, int]


@dataclass(frozen=True)
class Section:
    """One table: cells are final text; ``best`` and ``second`` say which (row, column) deserve a style."""

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset[Place] = frozenset()
    second: frozenset[Place] = frozenset()
    notes: list[str] = field(default_factory=list)
    groups: list[tuple[str, int]] = field(default_factory=list)
    """Headings above the last columns, each with the number of columns it spans; empty = no such headings."""

    @property
    def ungrouped(self) -> int:
        """Columns before the first group."""
        return len(self.header) - sum(width for _, width in self.groups)

    @property
    def flat_header(self) -> list[str]:
        """One line of names: a group's heading stands before the name of its first column."""
        header, place = list(self.header), self.ungrouped
        for title, width in self.groups:
            header[place] = f"{title}: {header[place]}"
            place += width
        return header


def metric_table(summary: Summary, title: str, names: list[str], notes: list[str]) -> Section:
    """The given metrics of every method, the best two of each column styled."""
    if not names:
        return Section(title, [], [])
    rows = []
    for i, row in enumerate(summary.rows):
        cells = [number(row.metrics.get(name)) for name in names]
        if summary.primary in names:
            cells[names.index(summary.primary)] += mark(row.comparison)
        rows.append([str(i + 1), label(row), *cells])
    best, second = best_two(rows, range(2, 2 + len(names)))
    return Section(title, ["#", "method", *(n.partition("/")[0] for n in names)], rows, best, second, notes)


def best_two(rows: list[list[str]], columns: range) -> tuple[frozenset[Place], frozenset[Place]]:
    """Cells that show the largest and the second largest value of their column; equal text is equal merit."""
    styled: tuple[set[Place], set[Place]] = (set(), set())
    for column in columns:
        shown = [(cell_value(row[column]), i) for i, row in enumerate(rows)]
        ordered = sorted({value for value, _ in shown if value is not None}, reverse=True)
        for places, value in zip(styled, ordered, strict=False):
            places.update((i, column) for one, i in shown if one == value)
    return frozenset(styled[0]), frozenset(styled[1])


def cell_value(cell: str) -> float | None:
    """The number a cell starts with, without its mark."""
    found = re.match(r"[+-]?\d+\.\d+", cell)
    return float(found[0]) if found else None


def label(row: Row) -> str:
    return f"{row.method} (under-trained)" if row.under_trained else row.method


def mark(one: Comparison | None) -> str:
    if one is None or not one.significant:
        return ""
    return f" {BETTER if one.difference > 0 else WORSE}"


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def interval(bounds: Interval | None, form: Callable[[float], str] = number) -> str:
    return "-" if bounds is None else f"[{form(bounds[0])}, {form(bounds[1])}]"


def p_value(p: float | None) -> str:
    return "-" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def seconds(value: float | None) -> str:
    """Below a minute with one decimal, so that fast methods can be told apart."""
    return "-" if value is None else f"{value:.1f}s" if value < 60 else duration(value)


def place_of(record: Record) -> str:
    """The folder of the tables that a run may stand in: runs that differ in this never share a table."""
    fields = record.fields
    limited = f"-{fields['limit_users']}-users" if fields["limit_users"] else ""
    return f"{record.protocol['name']}/{fields['track']}-{fields['profile']}{limited}"
