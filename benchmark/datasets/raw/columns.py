"""Any CSV, TSV or Parquet file whose columns the user names -> Tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.datasets.atomic import Tables
from benchmark.datasets.raw.cleaning import key, one_line
from benchmark.datasets.raw.lines import Report, Tally, silent
from benchmark.datasets.raw.rows import read_rows
from benchmark.datasets.raw.tables import NO_RATING, Log, item_table, tables
from benchmark.datasets.raw.times import DATES, any_seconds
from benchmark.datasets.text import LEVELS

REQUIRED = ("user_id", "item_id")
TEXTS = ("title", "brand", "categories", "price", "description")
KNOWN = (*REQUIRED, "timestamp", "rating", *TEXTS)


def read_columns(
    path: Path, name: str, *, columns: Mapping[str, str], items: Path | None = None, report: Report = silent
) -> Tables:
    """A table of interactions, and perhaps one of ``items``, as CSV, TSV (both may be gzipped) or Parquet.

    ``columns`` maps user_id and item_id, and as far as there are any timestamp, rating, title, brand, categories,
    price and description to the files' own names. Texts are looked for in ``items``, which has the same name for
    its item_id, else in ``path``; of an item described twice the first description counts. Without a timestamp
    the order of the rows is the time. Times are Unix seconds or finer, or ISO dates (UTC); ``meta["time_note"]``
    tells of a conversion. Rows without user or item, with a rating that is no number, or with too few or too many
    cells are counted and skipped.

    Raises MissingData for a missing file, ValueError for a damaged one, for columns that are not there, and for a
    timestamp that is no time.
    """
    _check(columns, items)
    described = tuple(field for field in TEXTS if field in columns)
    fields = tuple(field for field in KNOWN if field in columns and (items is None or field not in TEXTS))
    log, texts, tally, units = Log(), dict[str, tuple[str, ...]](), Tally(path), Counter[str]()
    for number, row in read_rows(path, {field: columns[field] for field in fields}, tally, report):
        user, item, rating = key(row["user_id"]), key(row["item_id"]), _rating(row.get("rating"))
        if not user or not item or rating is None:
            tally.skip(number)
            continue
        log.add(user, item, _seconds(row, path, number, units), rating)
        if items is None:
            _describe(texts, item, row, described)
    tally.close()
    tallies = [tally]
    if items is not None:
        tallies.append(_items(items, columns, described, log.items, texts, report))
    table = item_table(texts, described) if described else None
    return tables(name, log.frame(), table, *tallies, source=path.name, **_time(columns, units))


def _check(columns: Mapping[str, str], items: Path | None) -> None:
    if unknown := [field for field in columns if field not in KNOWN]:
        raise ValueError(f"{unknown[0]!r} is no field of a dataset; name columns for {', '.join(KNOWN)}")
    if missing := [field for field in REQUIRED if not columns.get(field)]:
        raise ValueError(f"no column is named for {missing[0]}; name one for user_id and one for item_id")
    if items is not None and not any(field in columns for field in TEXTS):
        raise ValueError(f"no column of {items} is named; name one for title, brand or categories")


def _rating(value: object) -> float | None:
    """NaN for an empty cell, None for what is no number."""
    if value is None or value == "":
        return NO_RATING
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _seconds(row: Mapping[str, Any], path: Path, number: int, units: Counter[str]) -> float:
    """The time of a row, whose unit is counted; NaN where the file has no column of times."""
    if "timestamp" not in row:
        return float("nan")
    value = row["timestamp"]
    found = any_seconds(value)
    if found is None:
        said = "has no timestamp" if value in (None, "") else f"has the timestamp {str(value)[:80]!r}"
        raise ValueError(
            f"{path}: row {number} {said}; times are Unix seconds (or finer) from 0 on, or ISO dates such as "
            f"2014-03-01 or 2014-03-01T10:00:00, so correct the row or remove it"
        )
    units[found[1]] += 1
    return found[0]


def _time(columns: Mapping[str, str], units: Mapping[str, int]) -> dict[str, str]:
    """What dataset.json says of the times: what they are, and from what they were converted."""
    if "timestamp" not in columns:
        return {"time": "order only (file order)"}
    notes = [
        f"{count:,} timestamps were {unit} and are Unix seconds{' (UTC)' if unit == DATES else ''} now"
        for unit, count in sorted(units.items())
        if unit
    ]
    return {"time": "unix seconds", **({"time_note": "; ".join(notes)} if notes else {})}


def _items(
    path: Path,
    columns: Mapping[str, str],
    described: Sequence[str],
    wanted: Container[str],
    texts: dict[str, tuple[str, ...]],
    report: Report,
) -> Tally:
    """Add the texts of the ``wanted`` items to ``texts``."""
    tally = Tally(path)
    names = {field: columns[field] for field in ("item_id", *described)}
    for number, row in read_rows(path, names, tally, report):
        item = key(row["item_id"])
        if not item:
            tally.skip(number)
        elif item in wanted:
            _describe(texts, item, row, described)
    tally.close()
    return tally


def _describe(texts: dict[str, tuple[str, ...]], item: str, row: Mapping[str, Any], described: Sequence[str]) -> None:
    """Keep the first description of the item that says anything."""
    if described and not any(texts.get(item, ())):
        texts[item] = tuple(_text(row[field]) for field in described)


def _text(value: object) -> str:
    """A cell as one line; a list, which Parquet knows, is a path of categories."""
    if isinstance(value, list):
        return LEVELS.join(filter(None, map(_text, value)))
    return "" if value is None or value != value else one_line(str(value))  # NaN differs from itself
