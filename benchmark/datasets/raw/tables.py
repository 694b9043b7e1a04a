"""Rows as they are read -> Tables, held as numbers until the end so that memory stays small."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmark.datasets.atomic import Tables
from benchmark.datasets.raw.lines import Tally, skipped_meta

Row = tuple[str, str, float, float]
"""User, item, Unix seconds, rating; NaN where there is no rating."""

NO_RATING = float("nan")

TYPES: Mapping[str, str] = {
    "user_id": "token",
    "item_id": "token",
    "rating": "float",
    "timestamp": "float",
    "title": "token_seq",
    "release_year": "token",
    "brand": "token",
    "categories": "token_seq",
    "price": "token_seq",
    "description": "token_seq",
}
"""The type every column of the readers declares."""

DAYS = "unix seconds, day resolution"


class Log:
    """Interactions in file order: 24 bytes each, whatever the length of the keys."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._user_codes = array("i")
        self._item_codes = array("i")
        self._times = array("d")
        self._ratings = array("d")

    def add(self, user: str, item: str, seconds: float, rating: float) -> None:
        self._user_codes.append(self._users.setdefault(user, len(self._users)))
        self._item_codes.append(self._items.setdefault(item, len(self._items)))
        self._times.append(seconds)
        self._ratings.append(rating)

    def __len__(self) -> int:
        return len(self._times)

    @property
    def items(self) -> KeysView[str]:
        """The distinct item keys."""
        return self._items.keys()

    def frame(self, admissible: Collection[str] | None = None) -> pd.DataFrame:
        """The interactions (of ``admissible`` items) as text; columns without any value are left out."""
        item_codes = np.asarray(self._item_codes)  # (T,)
        chosen = np.arange(len(self))
        if admissible is not None:
            chosen = np.flatnonzero(np.array([item in admissible for item in self._items], bool)[item_codes])
        columns = {
            "user_id": _named(self._users, np.asarray(self._user_codes)[chosen]),
            "item_id": _named(self._items, item_codes[chosen]),
            "rating": _written(np.asarray(self._ratings)[chosen]),
            "timestamp": _written(np.asarray(self._times)[chosen]),
        }
        return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def _named(keys: Iterable[str], codes: np.ndarray) -> np.ndarray:
    """(T,) the key of every code; equal keys share one str."""
    return np.array(list(keys), object)[codes]


def _written(values: np.ndarray) -> np.ndarray | None:
    """(T,) numbers as short text, "" for NaN; None when all are NaN."""
    distinct, codes = np.unique(values, return_inverse=True)
    if np.isnan(distinct).all():
        return None
    texts = ["" if np.isnan(value) else _short(value) for value in distinct.tolist()]
    return np.array(texts, object)[codes]


def _short(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def collect(lines: Iterator[bytes], tally: Tally, parse: Callable[[str], Row | None], encoding: str = "utf-8") -> Log:
    """The interactions of a file whose every line holds one; lines that ``parse`` gives up are counted.

    Raises ValueError for an empty file and for too many lines given up.
    """
    log = Log()
    for number, text in numbered_texts(lines, tally, encoding):
        row = parse(text)
        if row is None:
            tally.skip(number)
        else:
            log.add(*row)
    tally.close()
    return log


def numbered_texts(lines: Iterator[bytes], tally: Tally, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines that are not blank, by number from 1; one that cannot be decoded is counted as skipped."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        tally.read += 1
        try:
            yield number, line.decode(encoding)
        except UnicodeDecodeError:
            tally.skip(number)


def item_table(described: Mapping[str, tuple[str, ...]], fields: tuple[str, ...]) -> pd.DataFrame:
    """Item key -> its texts, one per field, as a table."""
    rows = [(item, *texts) for item, texts in described.items()]
    return pd.DataFrame(rows, columns=["item_id", *fields], dtype=object)


def tables(name: str, interactions: pd.DataFrame, items: pd.DataFrame | None, *tallies: Tally, **meta: Any) -> Tables:
    """Tables whose meta also tells what was skipped."""
    columns = [*interactions.columns, *([] if items is None else items.columns)]
    types = {column: TYPES[column] for column in columns}
    return Tables(name, interactions, items, types, {"name": name, **meta, **skipped_meta(*tallies)})
