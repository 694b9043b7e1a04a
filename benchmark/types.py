"""The nouns every part of the suite shares: sequences, dataset, cases, view, split, ranking, spend.

Id convention, everywhere: users are 1..U and items 1..N, numbered by sorted raw key; 0 is PAD and never an item.
Letters in shape comments: U users, N items, T interactions, R rows, B batch, S history length, K list length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

PAD = 0
"""Fills the end of a list or a history; never an item."""

INVALID = -1
"""A generated answer that names no item. It may stand anywhere in a ranking and costs its rank."""


@dataclass(frozen=True)
class Sequences:
    """Ragged rows of item ids: row r is ``items[offsets[r]:offsets[r + 1]]``."""

    items: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (R + 1,) int64

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> Sequences:
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        items = np.concatenate([np.asarray(row, np.int32) for row in rows]) if len(rows) else np.empty(0, np.int32)
        return cls(items.astype(np.int32), _offsets(lengths))

    @classmethod
    def from_lengths(cls, items: np.ndarray, lengths: np.ndarray) -> Sequences:
        """Rows that lie one after the other in ``items`` (T,), with the given lengths (R,)."""
        return cls(np.asarray(items, np.int32), _offsets(np.asarray(lengths, np.int64)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @cached_property
    def lengths(self) -> np.ndarray:
        """(R,) items in each row."""
        return np.diff(self.offsets)

    @cached_property
    def row_of(self) -> np.ndarray:
        """(T,) the row each item stands in."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def last_items(self) -> np.ndarray:
        """(R,) the last item of every row, PAD for an empty row."""
        ends = np.full(len(self), PAD, np.int32)
        filled = self.lengths > 0
        ends[filled] = self.items[self.offsets[1:][filled] - 1]
        return ends

    def take(self, rows: np.ndarray) -> Sequences:
        """The given rows (by position or boolean mask), in the given order."""
        rows = np.arange(len(self))[rows]
        lengths = self.lengths[rows]
        starts = np.repeat(self.offsets[:-1][rows], lengths)
        within = np.arange(lengths.sum()) - np.repeat(_offsets(lengths)[:-1], lengths)
        return Sequences(self.items[starts + within], _offsets(lengths))

    def tail(self, n: int) -> Sequences:
        """The last ``n`` items of every row."""
        lengths = np.minimum(self.lengths, n)
        starts = np.repeat(self.offsets[1:] - lengths, lengths)
        within = np.arange(lengths.sum()) - np.repeat(_offsets(lengths)[:-1], lengths)
        return Sequences(self.items[starts + within], _offsets(lengths))

    def apart(self, distance: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Every item and the one ``distance`` places after it in the same row, as two (P,) arrays."""
        same = self.row_of[distance:] == self.row_of[:-distance]
        return self.items[:-distance][same], self.items[distance:][same]

    def padded(self, width: int | None = None) -> np.ndarray:
        """(R, width) right-padded with PAD; ``width`` defaults to the longest row and must hold every row."""
        width = int(self.lengths.max(initial=0)) if width is None else width
        if self.lengths.max(initial=0) > width:
            raise ValueError(f"a row of {self.lengths.max()} items does not fit a width of {width}")
        matrix = np.full((len(self), width), PAD, np.int32)
        matrix[np.arange(width) < self.lengths[:, None]] = self.items
        return matrix


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass(frozen=True)
class Dataset:
    """One dataset as loaded: interactions in file order, text by item id, and where it came from."""

    name: str
    """Full name with its version, e.g. ``amazon14-beauty``."""
    user_keys: np.ndarray  # (U,) raw keys; user id u has key user_keys[u - 1]
    item_keys: np.ndarray  # (N,) raw keys; item id i has key item_keys[i - 1]
    users: np.ndarray  # (T,) int32 user ids in file order
    items: np.ndarray  # (T,) int32 item ids in file order
    timestamps: np.ndarray  # (T,) float64, Unix seconds or positions (see order_only)
    order_only: bool
    """True when timestamps are positions in a user's history and say nothing across users."""
    item_text: Sequence[str]  # (N + 1,) the pinned template; "" for PAD and items without any field
    item_fields: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> (N + 1,) str
    categories: np.ndarray | None = None  # (N + 1,) int32 second-level category, 0 = none; None = no such field
    presplit: np.ndarray | None = None  # (T,) int8: 0 train, 1 valid, 2 test; None = the protocol splits
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)  # further token columns of the .inter, (T,) str
    meta: Mapping[str, object] = field(default_factory=dict)  # dataset.json
    sha256: str = ""
    """Content hash of all of the above that can change a result."""

    @property
    def n_users(self) -> int:
        return len(self.user_keys)

    @property
    def n_items(self) -> int:
        return len(self.item_keys)

    @cached_property
    def chronological(self) -> np.ndarray:
        """(T,) interaction positions sorted by user id, then time, then file order."""
        return np.lexsort((np.arange(len(self.users)), self.timestamps, self.users))

    @cached_property
    def sequences(self) -> Sequences:
        """Every user's whole history in order; row r belongs to user id r + 1."""
        counts = np.bincount(self.users, minlength=self.n_users + 1)[1:]
        return Sequences.from_lengths(self.items[self.chronological], counts)


@dataclass(frozen=True)
class Cases:
    """The people asked: what a method may know of them when it recommends."""

    users: np.ndarray  # (U,) int32 user ids
    histories: Sequences  # (U rows) cut to the protocol's history length, oldest first
    seen: Sequences  # (U rows) everything the user had before the question, uncut
    tie_order: np.ndarray  # (N + 1,) int64: place of each item in the protocol's seeded permutation; lower wins

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> Cases:
        return Cases(self.users[rows], self.histories.take(rows), self.seen.take(rows), self.tie_order)


@dataclass(frozen=True)
class Questions:
    """Cases with their answers. Methods see this for validation only."""

    cases: Cases
    targets: Sequences  # (U rows) at least one item each

    def __len__(self) -> int:
        return len(self.cases)

    def take(self, rows: np.ndarray) -> Questions:
        return Questions(self.cases.take(rows), self.targets.take(rows))


@dataclass(frozen=True)
class TrainingView:
    """All that ``fit`` may see. Test answers are not in it, so leaking them is a type error."""

    n_users: int
    n_items: int
    users: np.ndarray  # (U,) user id of each row of ``sequences``
    sequences: Sequences  # training items of every user, oldest first, uncut
    valid: Questions
    max_history: int
    """Items of history the protocol shows in a case."""
    item_text: Sequence[str]  # (N + 1,)
    item_fields: Mapping[str, np.ndarray]  # name -> (N + 1,) str
    selection: str = "ndcg@10"
    """The validation metric that chooses checkpoints and hyper-parameters, the same for every method."""
    candidates: np.ndarray | None = None  # (C,) items that validation ranks; None = every item

    @cached_property
    def item_counts(self) -> np.ndarray:
        """(N + 1,) training interactions of every item."""
        return np.bincount(self.sequences.items, minlength=self.n_items + 1)


@dataclass(frozen=True)
class Slice:
    """A partition of the cases: ``codes`` index ``labels``; -1 leaves a case out."""

    labels: tuple[str, ...]
    codes: np.ndarray  # (U,) int8


@dataclass(frozen=True)
class Setting:
    """The test users asked once more: among fewer candidates, or for some of their answers only."""

    rows: np.ndarray  # (Q,) ascending rows of the test questions that have an answer in this setting
    questions: Questions  # (Q rows) with the answers that count here
    candidates: np.ndarray | None = None  # (C,) items to be ranked anew; None = the lists of the test are read again


@dataclass(frozen=True)
class Split:
    """A protocol's reading of a dataset."""

    train: TrainingView
    test: Questions
    slices: Mapping[str, Slice]
    categories: np.ndarray | None  # (N + 1,) int32, see Dataset.categories
    facts: Mapping[str, int]
    """Counts to print and to assert: training pairs, users asked, cold targets."""
    candidates: np.ndarray | None = None  # (C,) items that may be recommended; None = every item
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Its users' metrics are told apart by the name: ``recall@10/cold``."""


@dataclass(frozen=True)
class Budget:
    """What a protocol lets a method spend on one user."""

    beam_size: int
    list_length: int


@dataclass(frozen=True)
class Spend:
    """What a method spent per user to make its lists. Mandatory: an unstated budget is not comparable."""

    rule: str
    """``scores`` (every candidate scored directly), ``raw``, ``renorm`` or ``exact`` (METHODS: decoding rules)."""
    items_scored: float
    forward_passes: float = 1.0
    beam_size: int = 0
    """0 for methods that do not search."""
    decoder_tokens: float = 0.0


@dataclass(frozen=True)
class Ranking:
    """A method's answer: best first, distinct items, PAD at the end, with scores that never increase."""

    users: np.ndarray  # (U,) int32, the users asked, each once
    items: np.ndarray  # (U, K) int32
    scores: np.ndarray  # (U, K) float32, -inf where PAD
    spend: Spend
