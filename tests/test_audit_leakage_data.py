"""Leakage in data and protocols: every static check has data that fail it; and worlds that differ in answers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import protocols
from benchmark.protocol import Protocol
from benchmark.types import Dataset, Sequences, Split
from methods.audits import leakage_static as static
from methods.audits.leakage_checks import FAIL, NOT_APPLICABLE, PASS, one_way
from methods.audits.leakage_static import NUMBERING, Subject
from methods.audits.leakage_world import as_tables, handed_round, permuted, view_hash
from tests import leaky, toys
from tests.leaky import LOO, scattered

WARMCOLD = protocols.load("warmcold")


def test_honest_data_pass_every_static_check() -> None:
    found = {check.name: check.verdict for check in static.checks(Subject.of(scattered(), LOO))}
    assert FAIL not in found.values() and len(found) == 11
    assert found["training after the cut in time"] == found["cold items in training"] == NOT_APPLICABLE
    cut = {check.name: check.verdict for check in static.checks(Subject.of(toys.arrivals(), WARMCOLD))}
    assert set(cut.values()) == {PASS}


def _subject(data: Dataset, tamper: Callable[[Split], Split] = lambda split: split) -> Subject:
    return Subject(data, LOO, tamper(LOO.split(data)))


def _trains_on_test(split: Split) -> Split:
    rows = [[*row, *answer] for row, answer in zip(split.train.sequences, split.test.targets, strict=True)]
    return replace(split, train=replace(split.train, sequences=Sequences.from_rows(rows)))


def _trains_on_validation_of_others(split: Split) -> Split:
    """Nothing of a user's own answers, but one window goes on after the validation answer."""
    rows = [list(row) for row in split.train.sequences]
    rows[4].append(int(split.test.targets[4][0]))
    return replace(split, train=replace(split.train, sequences=Sequences.from_rows(rows)))


def _shows_the_answer(split: Split) -> Split:
    seen = Sequences.from_rows(
        [[*row, *answer] for row, answer in zip(split.test.cases.seen, split.test.targets, strict=True)]
    )
    return replace(split, test=replace(split.test, cases=replace(split.test.cases, seen=seen)))


def _validates_on_test(split: Split) -> Split:
    return replace(split, train=replace(split.train, valid=split.test))


def _repeated() -> Dataset:
    rows = [list(row) for row in scattered().sequences]
    rows[0][-1] = rows[0][0]
    return toys.dataset("repeats", rows, scattered().item_text)


def _one_day() -> Dataset:
    """The last two purchases of everybody are of one day, and stand in the order of their ids."""
    rows = [[*row[:-2], *sorted(row[-2:])] for row in scattered().sequences]
    world = toys.dataset("one day", rows, scattered().item_text)
    return replace(world, timestamps=np.where(world.timestamps == 6 * toys.DAY, 5 * toys.DAY, world.timestamps))


def _one_after_the_other() -> Dataset:
    """Everybody starts when the one before has been asked."""
    data = scattered()
    return replace(data, timestamps=data.timestamps + 100 * toys.DAY * data.users)


def _texts(tell: Callable[[Dataset, int, int, int], str]) -> Dataset:
    """Every text gets a word; ``tell`` sees the data, a user and the last two items."""
    data = scattered()
    text = list(data.item_text)
    for user, row in enumerate(data.sequences, start=1):
        text[row[-1]] += tell(data, user, row[-2], row[-1])[: 40 if tell is _names_user else 0]
        text[row[-2]] += tell(data, user, row[-2], row[-1]) if tell is not _names_user else ""
    return replace(data, item_text=tuple(text))


def _names_user(data: Dataset, user: int, last: int, answer: int) -> str:
    return f" as {data.user_keys[user - 1]} likes it"


def _names_next(data: Dataset, user: int, last: int, answer: int) -> str:
    return f" goes with {data.item_keys[answer - 1]}"


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (lambda: _subject(_repeated()), {"repeated interactions", "answers in histories"}),
        (lambda: _subject(scattered(), _shows_the_answer), {"answers in histories"}),
        (lambda: _subject(scattered(), _trains_on_test), {"answers in training sequences", "windows across the split"}),
        (
            lambda: _subject(scattered(), _trains_on_validation_of_others),
            {"answers in training sequences", "windows across the split"},
        ),
        (lambda: Subject(_one_after_the_other(), WARMCOLD, LOO.split(scattered())), {"training after the cut in time"}),
        (lambda: _subject(toys.conveyor()), {NUMBERING}),
        (lambda: _subject(_one_day()), {"order of equal times"}),
        (lambda: _subject(_texts(_names_user)), {"item texts that name users"}),
        (lambda: _subject(_texts(_names_next)), {"item texts that name the next item"}),
        (lambda: _subject(scattered(), _validates_on_test), {"selection on test"}),
    ],
)
def test_a_static_leak_fails_the_check_of_its_name(subject: Callable[[], Subject], names: set[str]) -> None:
    found = {check.name for check in static.checks(subject()) if check.verdict == FAIL}
    assert found >= names
    follows = {"windows across the split", "answers in training sequences", "answers in histories"}
    assert found - names <= follows | ({"order of equal times"} if "answers in histories" in names else set())


def test_a_cold_setting_with_a_known_item_fails() -> None:
    subject = Subject.of(toys.arrivals(), WARMCOLD)
    cold = replace(subject.split.settings["cold"], candidates=subject.split.candidates)
    wrong = replace(subject, split=replace(subject.split, settings={**subject.split.settings, "cold": cold}))
    assert static.cold_items(subject).verdict == PASS
    assert static.cold_items(wrong).verdict == FAIL and static.cold_items(wrong).numbers["wrong"] == 18


def test_numbering_by_hand() -> None:
    """Of three answers one has the next number and none the number before; exchanging pairs gives that half of 2."""
    kept = toys.dataset("three", [[1, 9, 2, 3], [4, 8, 6, 1], [5, 1, 7, 2]], [""] * 10)
    check = static.numbering(Subject.of(kept, LOO), np.arange(10))
    assert (check.numbers["next"], check.numbers["previous"], check.numbers["p"]) == (1, 0, 0.5)
    backwards = static.numbering(Subject.of(kept, LOO), np.arange(10)[::-1].copy())
    assert (backwards.numbers["next"], backwards.numbers["previous"]) == (0, 1)


def test_the_null_by_brute_force() -> None:
    """The closed form is the share of all exchanges with at least as many pairs forward."""
    for forward, backward in ((3, 1), (0, 4), (5, 0), (2, 2)):
        n = forward + backward
        ways = [bin(way).count("1") for way in range(2**n)]
        assert one_way(forward, backward) == pytest.approx(np.mean([way >= forward for way in ways]))
    assert one_way(0, 0) == 1.0


# --- two worlds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "protocol"), [(scattered(), LOO), (toys.arrivals(), WARMCOLD), (toys.arrivals(), LOO)]
)
def test_only_the_answers_move(data: Dataset, protocol: Protocol) -> None:
    split = protocol.split(data)
    moved = protocol.split(permuted(data, split))
    assert view_hash(moved.train) == view_hash(split.train)
    before, after = split.test, moved.test
    for name in ("users", "tie_order"):
        np.testing.assert_array_equal(getattr(before.cases, name), getattr(after.cases, name))
    np.testing.assert_array_equal(before.cases.seen.items, after.cases.seen.items)
    np.testing.assert_array_equal(before.targets.offsets, after.targets.offsets)
    asked = [np.bincount(one.targets.items, minlength=data.n_items + 1) for one in (before, after)]
    assert (asked[0] >= (asked[1] > 0)).all() and (asked[0] != asked[1]).any(), "the same items, but not each as often"
    for own, new, seen in zip(before.targets, after.targets, before.cases.seen, strict=True):
        assert len(set(new)) == len(new) and not set(new) & {*own, *seen}
    ours = permuted(data, split)
    assert (ours.items != data.items).sum() == len(before.targets.items)
    later = ours.timestamps - data.timestamps
    assert set(np.flatnonzero(later)) <= set(np.flatnonzero(ours.items != data.items)) and (later >= 0).all()


def test_another_seed_is_another_permutation_and_a_lone_user_has_none() -> None:
    test = LOO.split(scattered()).test
    answers = test.targets.items
    assert (handed_round(test, answers, leaky.N_ITEMS, 1) != handed_round(test, answers, leaky.N_ITEMS, 2)).any()
    with pytest.raises(ValueError, match="cannot be handed round"):
        handed_round(test.take(np.array([0])), answers[:1], leaky.N_ITEMS, 1)


def test_a_view_that_differs_in_anything_has_another_hash() -> None:
    view = LOO.split(scattered()).train
    others = [
        replace(view, max_history=3),
        replace(view, valid=view.valid.take(np.arange(9))),
        replace(view, users=view.users + 1),
    ]
    others.append(replace(view, item_text=("", *reversed(view.item_text[1:]))))
    assert len({view_hash(one) for one in [view, *others]}) == 5


def test_the_files_of_a_world_are_its_dataset(tmp_path: Path) -> None:
    from benchmark import datasets
    from benchmark.datasets import atomic

    data = replace(scattered(), item_text=(), labels={"shop": np.array(["a"] * len(scattered().items))})
    (tmp_path / data.name).mkdir()
    atomic.write(as_tables(data), tmp_path / data.name)
    read = datasets.load(data.name, tmp_path)
    for name in ("users", "items", "timestamps", "user_keys", "item_keys"):
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name))
    assert list(read.labels) == ["shop"] and read.item_fields["title"][5] == data.item_fields["title"][5]
