"""Sequences: the laws of ragged rows, checked against lists of lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.types import PAD, Cases, Questions, Sequences
from tests import toys

ROWS = st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=8)


def as_lists(sequences: Sequences) -> list[list[int]]:
    return [row.tolist() for row in sequences]


@given(ROWS)
def test_rows_come_back(rows: list[list[int]]) -> None:
    sequences = Sequences.from_rows(rows)
    assert as_lists(sequences) == rows
    assert len(sequences) == len(rows)
    assert sequences.lengths.tolist() == [len(row) for row in rows]
    assert sequences.items.dtype == np.int32


@given(ROWS)
def test_two_ways_to_build_agree(rows: list[list[int]]) -> None:
    flat = np.array([item for row in rows for item in row], np.int64)
    built = Sequences.from_lengths(flat, np.array([len(row) for row in rows], np.int64))
    assert as_lists(built) == rows


@given(ROWS)
def test_row_of_and_last_items(rows: list[list[int]]) -> None:
    sequences = Sequences.from_rows(rows)
    assert sequences.row_of.tolist() == [r for r, row in enumerate(rows) for _ in row]
    assert sequences.last_items.tolist() == [row[-1] if row else PAD for row in rows]


@given(ROWS, st.data())
def test_take_by_position_in_any_order_with_repeats(rows: list[list[int]], data: st.DataObject) -> None:
    size = len(rows)
    wanted = data.draw(st.lists(st.integers(-size, size - 1), max_size=10)) if rows else []
    taken = Sequences.from_rows(rows).take(np.array(wanted, np.int64))
    assert as_lists(taken) == [rows[r] for r in wanted]


@given(ROWS, st.data())
def test_take_by_mask(rows: list[list[int]], data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    taken = Sequences.from_rows(rows).take(np.array(mask, bool))
    assert as_lists(taken) == [row for row, keep in zip(rows, mask, strict=True) if keep]


@given(ROWS, st.integers(1, 8))
def test_tail_keeps_the_latest(rows: list[list[int]], n: int) -> None:
    assert as_lists(Sequences.from_rows(rows).tail(n)) == [row[-n:] for row in rows]


@given(ROWS, st.integers(0, 3))
def test_padded_is_right_padded_and_loses_nothing(rows: list[list[int]], spare: int) -> None:
    longest = max(map(len, rows), default=0)
    width = longest + spare
    matrix = Sequences.from_rows(rows).padded(width)
    assert matrix.tolist() == [row + [PAD] * (width - len(row)) for row in rows]
    assert Sequences.from_rows(rows).padded().shape == (len(rows), longest)


def test_padded_refuses_a_width_that_would_cut() -> None:
    with pytest.raises(ValueError, match="3 items does not fit a width of 2"):
        Sequences.from_rows([[1], [1, 2, 3]]).padded(2)


def test_negative_rows_count_from_the_end_and_others_are_refused() -> None:
    sequences = Sequences.from_rows([[1], [2, 3]])
    assert sequences[-1].tolist() == [2, 3]
    with pytest.raises(IndexError):
        sequences[2]


def test_sequences_of_a_dataset_are_in_time_order_and_ties_keep_file_order() -> None:
    dataset = toys.dataset("shuffled", [[1, 2, 3], [3, 1]], ["", "a", "b", "c"])
    days = {"users": [2, 1, 1, 2, 1], "items": [3, 2, 3, 1, 1], "timestamps": [5.0, 7.0, 7.0, 5.0, 1.0]}
    arrays = {name: np.array(values, getattr(dataset, name).dtype) for name, values in days.items()}
    shuffled = replace(dataset, **arrays)
    assert as_lists(shuffled.sequences) == [[1, 2, 3], [3, 1]]


def test_taking_questions_keeps_every_part_together() -> None:
    rows = Sequences.from_rows([[1], [1, 2], [1, 2, 3]])
    cases = Cases(np.array([4, 7, 9], np.int32), rows.tail(2), rows, np.array([3, 0, 1, 2]))
    part = Questions(cases, Sequences.from_rows([[2], [3], [1]])).take(np.array([2, 0]))
    assert part.cases.users.tolist() == [9, 4]
    assert as_lists(part.cases.histories) == [[2, 3], [1]]
    assert as_lists(part.cases.seen) == [[1, 2, 3], [1]]
    assert as_lists(part.targets) == [[1], [2]]
