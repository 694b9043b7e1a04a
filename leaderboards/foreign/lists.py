"""Lines ``user item rank score`` -> lists, line by line: memory is asked users x list length, whatever the file's size.

Nothing but those arrays and the current line is kept, and a line longer than ``LONGEST`` bytes ends the reading.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from benchmark.types import PAD, Dataset

COLUMNS = ("user", "item", "rank", "score")
TREC = 6
"""Columns of ``user Q0 item rank score tag``."""
LONGEST = 4096
"""Bytes of a line."""
Places = tuple[int, int, int, int]
"""Where user, item, rank and score stand in a line."""


@dataclass(frozen=True)
class Lists:
    """The lists of a file; those of users without a line are empty."""

    users: np.ndarray  # (U,) int32, as asked
    items: np.ndarray  # (U, K) int32
    scores: np.ndarray  # (U, K) float32, -inf where PAD
    lines: int
    """With an answer."""
    cut: int
    """Lines beyond the list length, left out."""
    without: int
    """Users that no line answers."""


def read_lists(path: Path, dataset: Dataset, users: np.ndarray, candidates: np.ndarray | None, length: int) -> Lists:
    """The lists of ``users`` (U,) from a run file; ``candidates`` (C,) None = every item.

    Raises ValueError with one sentence, naming file and line, when a line or a list is not what it should be.
    """
    reader = _Reader(path.name, dataset, users, candidates, length)
    for number, cells, places in _rows(path):
        reader.take(number, cells, places)
    return reader.lists()


def _rows(path: Path) -> Iterator[tuple[int, list[str], Places]]:
    """Line number, cells, and which of them are user, item, rank and score."""
    separator, places, width = "", (0, 1, 2, 3), 0
    for number, line in _lines(path):
        if not width:
            separator = next((one for one in ("\t", ",") if one in line), " ")
            cells = _cells(line, separator)
            width, named = len(cells), [cell.strip().lower() for cell in cells]
            if set(COLUMNS) <= set(named):
                places = cast(Places, tuple(named.index(name) for name in COLUMNS))
                continue
            if width not in (len(COLUMNS), TREC):
                raise ValueError(
                    f"{path.name} line {number} has {width} columns; give user, item, rank and score, or name them in "
                    "the first line"
                )
            places = (0, 2, 3, 4) if width == TREC else places
        else:
            cells = _cells(line, separator)
        if len(cells) != width:
            raise ValueError(f"{path.name} line {number} has {len(cells)} columns where the first line has {width}")
        yield number, cells, places
    if not width:
        raise ValueError(f"{path.name} is empty")


def _cells(line: str, separator: str) -> list[str]:
    """Quotes group letters between commas only; in tabbed files, as in atomic files, they are letters."""
    if separator == "," and '"' in line:
        try:
            return next(csv.reader([line]))
        except csv.Error:  # a line end within a line
            return []
    return line.split() if separator == " " else line.split(separator)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank. Raises ValueError for what is no file or no text."""
    number = 0
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path.name} is no file beside its sidecar")
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while line := cast(BinaryIO, file).readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise ValueError(f"{path.name} line {number} is longer than {LONGEST} bytes; this is no run file")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} line {number} is not UTF-8 text; convert the file") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged or cut off after line {number} ({error})") from error


class _Reader:
    """Puts lines in their places and refuses those that have none."""

    def __init__(
        self, name: str, dataset: Dataset, users: np.ndarray, candidates: np.ndarray | None, length: int
    ) -> None:
        self._name, self._dataset, self._users, self._length = name, dataset, users, length
        self._row_of = {dataset.user_keys[user - 1]: row for row, user in enumerate(users.tolist())}
        ids = range(1, dataset.n_items + 1) if candidates is None else candidates.tolist()
        self._id_of = {dataset.item_keys[item - 1]: item for item in ids}
        self._items = np.full((len(users), length), PAD, np.int32)
        self._scores = np.full((len(users), length), -np.inf)
        self._line_of = np.zeros((len(users), length), np.int64)
        self._answered = np.zeros(len(users), bool)
        self._lines = self._cut = 0

    def take(self, number: int, cells: list[str], places: Places) -> None:
        user, item, rank, score = (cells[place] for place in places)
        row, identity = self._row_of.get(user), self._id_of.get(item)
        if row is None or identity is None:
            raise self._wrong(number, self._unknown_user(user) if row is None else self._unknown_item(item))
        if not (rank.isascii() and rank.isdigit() and int(rank[:19]) > 0):
            raise self._wrong(number, f"rank {rank[:40]!r} is not a whole number from 1 on")
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._wrong(number, f"score {score[:40]!r} is not a finite number")
        self._lines += 1
        self._answered[row] = True
        place = int(rank[:19]) - 1
        if place >= self._length:
            self._cut += 1
            return
        if self._items[row, place] != PAD:
            raise self._wrong(number, f"user {user!r} has rank {rank} already in line {self._line_of[row, place]}")
        self._items[row, place], self._scores[row, place] = identity, value
        self._line_of[row, place] = number

    def lists(self) -> Lists:
        """The lists, after looking for gaps, items named twice and rising scores."""
        if not self._lines:
            raise ValueError(f"{self._name} holds a header but no line with an answer")
        empty = self._items == PAD
        gap = np.pad(empty[:, :-1] & ~empty[:, 1:], ((0, 0), (1, 0)))
        self._refuse(gap, "has rank {rank} but no rank {before}")
        self._refuse_gap_at_the_top()
        order = np.argsort(self._items, axis=1, kind="stable")
        ordered = np.take_along_axis(self._items, order, 1)
        again = np.pad((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD), ((0, 0), (1, 0)))
        twice = np.zeros_like(again)
        np.put_along_axis(twice, order, again, 1)
        self._refuse(twice, "names the item of rank {rank} twice")
        rising = np.pad(self._scores[:, 1:] > self._scores[:, :-1], ((0, 0), (1, 0)))
        self._refuse(rising, "has a higher score at rank {rank} than at rank {before}; the best item has rank 1")
        largest = float(np.finfo(np.float32).max)
        scores = np.where(empty, -np.inf, np.clip(self._scores, -largest, largest)).astype(np.float32)
        return Lists(self._users, self._items, scores, self._lines, self._cut, int((~self._answered).sum()))

    def _refuse_gap_at_the_top(self) -> None:
        """A user with lines, all of them beyond the list length."""
        lost = np.flatnonzero(self._answered & (self._items[:, 0] == PAD))
        if len(lost):
            raise ValueError(f"{self._name}: user {self._key(lost[0])!r} has lines but no rank 1")

    def _refuse(self, wrong: np.ndarray, what: str) -> None:
        """Raise for the entry of ``wrong`` (U, K) that stands first in the file."""
        if wrong.any():
            lines = np.where(wrong, self._line_of, np.iinfo(np.int64).max)
            row, place = divmod(int(lines.argmin()), self._length)
            told = what.format(rank=place + 1, before=place)
            raise self._wrong(self._line_of[row, place], f"user {self._key(row)!r} {told}")

    def _key(self, row: int) -> str:
        return str(self._dataset.user_keys[self._users[row] - 1])

    def _wrong(self, number: int, what: str) -> ValueError:
        return ValueError(f"{self._name} line {number}: {what}")

    def _unknown_user(self, key: str) -> str:
        if key in self._dataset.user_keys:
            return f"user {key[:80]!r} is not asked here; answer only the users of the test"
        return f"user {key[:80]!r} is not in {self._dataset.name}; use the keys of its .inter file"

    def _unknown_item(self, key: str) -> str:
        if key in self._dataset.item_keys:
            return f"item {key[:80]!r} is not among the candidates here"
        return f"item {key[:80]!r} is not in {self._dataset.name}; use the keys of its .inter file"
