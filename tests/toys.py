"""Small worlds with known answers, as datasets any protocol can split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmark.types import Cases, Dataset, Questions, Sequences, TrainingView

DAY = 86_400.0


def dataset(name: str, histories: Sequence[Sequence[int]], text: Sequence[str]) -> Dataset:
    """Users 1..U with these histories (item ids, oldest first), one interaction a day; ``text`` (N + 1,)."""
    lengths = [len(history) for history in histories]
    n_items = len(text) - 1
    return Dataset(
        name=name,
        user_keys=np.array([f"u{u:05d}" for u in range(1, len(histories) + 1)]),
        item_keys=np.array([f"i{i:05d}" for i in range(1, n_items + 1)]),
        users=np.repeat(np.arange(1, len(histories) + 1), lengths).astype(np.int32),
        items=np.concatenate([np.asarray(history, np.int32) for history in histories]),
        timestamps=np.concatenate([np.arange(length) * DAY for length in lengths]),
        order_only=False,
        item_text=tuple(text),
        item_fields={"title": np.array(text)},
        sha256=name,
    )


def conveyor(n_items: int = 30, n_users: int = 150, length: int = 8, seed: int = 0) -> Dataset:
    """Items on a ring, each user boards anywhere, and the next item is always the last one + 1.

    Who learns order puts the answer first; who counts popularity cannot.
    """
    boards = np.random.default_rng(seed).integers(0, n_items, n_users)
    histories = [(board + np.arange(length)) % n_items + 1 for board in boards]
    return dataset("conveyor", histories, ["", *(f"wagon number {i}" for i in range(1, n_items + 1))])


def arrivals(n_items: int = 24, n_users: int = 60, seed: int = 0) -> Dataset:
    """A conveyor that grows: eight purchases of wagons 1 to 18 by day 40, then one validates and one tests.

    The last two are of any wagon, and nobody had those from 19 on before.
    """
    random = np.random.default_rng(seed)
    old = 18
    histories, days = [], []
    for _ in range(n_users):
        early = (random.integers(0, old) + np.arange(8)) % old + 1
        late = random.choice(np.setdiff1d(np.arange(1, n_items + 1), early), 2, replace=False)
        histories.append([*early, *late])
        days += [*np.sort(random.integers(0, 40, 8)), random.integers(40, 45), random.integers(45, 50)]
    world = dataset("arrivals", histories, ["", *(f"wagon number {i}" for i in range(1, n_items + 1))])
    return replace(world, timestamps=np.array(days) * DAY)


def twins(n_items: int = 12, n_users: int = 40, seed: int = 0) -> Dataset:
    """A conveyor whose items 1 and 2 have the same text, so that codes made from text must collide."""
    ring = conveyor(n_items, n_users, length=6, seed=seed)
    text = list(ring.item_text)
    text[2] = text[1]
    return dataset("twins", list(ring.sequences), text)


def lonely(n_items: int = 25, n_users: int = 60, seed: int = 0) -> Dataset:
    """A conveyor with the cases that break careless code at its end.

    The last users are: one whose history is a single item when asked for validation, one with more than 20
    items, one whose target nobody bought in training. That item (the last id) has no text.
    """
    ring = conveyor(n_items - 1, n_users, length=7, seed=seed)
    short = [3, 4, 5]
    long = [1 + step * 7 % (n_items - 1) for step in range(n_items - 1)]
    cold = [8, 9, 10, 11, n_items]
    return dataset("lonely", [*ring.sequences, short, long, cold], [*ring.item_text, ""])


def four_users() -> TrainingView:
    """Training sequences 1 2 3, 1 2, 2 1, 1 3 4, to count by hand; nobody bought item 5."""
    sequences = Sequences.from_rows([[1, 2, 3], [1, 2], [2, 1], [1, 3, 4]])
    nobody = Questions(cases([], np.arange(6)), Sequences.from_rows([]))
    return TrainingView(4, 5, np.arange(1, 5), sequences, nobody, 20, ("", "a", "b", "c", "d", "e"), {})


def cases(histories: Sequence[Sequence[int]], tie_order: np.ndarray) -> Cases:
    """Users 1.. with these histories, all of which they have seen."""
    rows = Sequences.from_rows(histories)
    return Cases(np.arange(1, len(rows) + 1, dtype=np.int32), rows, rows, tie_order)
