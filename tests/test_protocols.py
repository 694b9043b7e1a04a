"""Leave-one-out by hand, by laws, and on the real data whose counts are known."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols
from benchmark.types import Dataset, Split
from tests import toys

LOO = protocols.load("loo")
HISTORIES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1, max_size=12)

real = pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="real data: set $GENREC_DATA to their folder")


def dataset_of(histories: list[list[int]]) -> Dataset:
    return toys.dataset("toy", histories, [""] + ["thing"] * max(map(max, histories)))


def dense(histories: list[list[int]]) -> list[list[int]]:
    """The same histories with items renumbered 1..N, so that every item occurs."""
    number = {item: place + 1 for place, item in enumerate(sorted({i for row in histories for i in row}))}
    return [[number[item] for item in row] for row in histories]


# --- finding protocols --------------------------------------------------------------------------------------


def test_every_file_of_the_folder_is_a_protocol() -> None:
    assert "loo" in protocols.names()
    for name in protocols.names():
        assert protocols.load(name).name == name


@pytest.mark.parametrize(("typed", "hint"), [("looo", "did you mean 'loo'"), ("xyzzy", "known protocols: .*loo")])
def test_an_unknown_protocol_is_refused_with_the_nearest_name(typed: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"unknown protocol '{typed}'; {hint}"):
        protocols.load(typed)


# --- pinned rules -------------------------------------------------------------------------------------------


def test_rules_are_json_and_version_1_never_changes() -> None:
    assert json.loads(json.dumps(LOO.rules)) == LOO.rules
    assert (LOO.version, LOO.hash) == (1, "29537af76624"), "a changed rule is a new version"


def test_any_rule_changes_the_hash() -> None:
    other = replace(LOO, rules={**LOO.rules, "history_length": 50})
    assert other.hash != LOO.hash


def test_the_tie_order_is_the_pinned_seed() -> None:
    split = LOO.split(toys.conveyor())
    order = split.test.cases.tie_order
    np.testing.assert_array_equal(order, split.train.valid.cases.tie_order)
    assert not np.array_equal(order[1:], np.arange(len(order) - 1)), "ties would follow the item id"


# --- the split by hand --------------------------------------------------------------------------------------


def test_split_by_hand() -> None:
    split = LOO.split(dataset_of([[1, 2, 3, 4, 5], [3, 1], [2, 5, 1]]))
    assert [row.tolist() for row in split.train.sequences] == [[1, 2, 3], [3, 1], [2]]
    assert split.train.users.tolist() == [1, 2, 3]
    valid, test = split.train.valid, split.test
    assert valid.cases.users.tolist() == test.cases.users.tolist() == [1, 3]
    assert [row.tolist() for row in valid.cases.histories] == [[1, 2, 3], [2]]
    assert [row.tolist() for row in valid.targets] == [[4], [5]]
    assert [row.tolist() for row in test.cases.histories] == [[1, 2, 3, 4], [2, 5]]
    assert [row.tolist() for row in test.targets] == [[5], [1]]
    wanted = {"users": 3, "items": 5, "interactions": 10, "users_asked": 2, "training_pairs": 3}
    assert wanted.items() <= split.facts.items()


def test_histories_are_cut_to_20_and_seen_is_not() -> None:
    history = list(range(1, 31))
    split = LOO.split(dataset_of([history]))
    assert split.test.cases.histories[0].tolist() == history[9:29]
    assert split.test.cases.seen[0].tolist() == history[:29]
    assert split.train.valid.cases.histories[0].tolist() == history[8:28]
    assert split.train.sequences[0].tolist() == history[:28]


@given(HISTORIES)
def test_train_then_validation_then_test_is_the_history(histories: list[list[int]]) -> None:
    histories = [[1, 1, 1], *dense(histories)]
    split = LOO.split(dataset_of(histories))
    answers = {
        user: (valid.tolist(), test.tolist())
        for user, valid, test in zip(
            split.test.cases.users.tolist(), split.train.valid.targets, split.test.targets, strict=True
        )
    }
    for user, row, history in zip(split.train.users.tolist(), split.train.sequences, histories, strict=True):
        valid, test = answers.get(user, ([], []))
        assert row.tolist() + valid + test == history
        assert (user in answers) == (len(history) >= 3)
    for case, history in zip(split.test.cases.seen, split.test.cases.users.tolist(), strict=True):
        assert case.tolist() == histories[history - 1][:-1]


def test_users_are_asked_in_order_of_id_whatever_the_file_says() -> None:
    dataset = toys.conveyor(n_users=40)
    mixed = np.random.default_rng(0).permutation(len(dataset.users))
    shuffled = replace(
        dataset, users=dataset.users[mixed], items=dataset.items[mixed], timestamps=dataset.timestamps[mixed]
    )
    split = LOO.split(shuffled)
    assert split.test.cases.users.tolist() == list(range(1, 41))
    np.testing.assert_array_equal(split.test.targets.items, LOO.split(dataset).test.targets.items)


def test_data_that_cannot_be_asked_are_refused() -> None:
    with pytest.raises(ValueError, match="no user of toy has the 3 interactions"):
        LOO.split(dataset_of([[1, 2], [2]]))
    with pytest.raises(ValueError, match="toy numbers 2 items that nobody interacted with"):
        LOO.split(toys.dataset("toy", [[1, 2, 3]], [""] * 6))


# --- data that come with their own split --------------------------------------------------------------------


def presplit(histories: list[list[int]], labels: list[list[int]]) -> Dataset:
    flat = np.array([label for row in labels for label in row], np.int8)
    return replace(dataset_of(histories), presplit=flat)


def test_a_given_leave_one_out_split_is_accepted() -> None:
    histories = [[1, 2, 3, 4], [4, 3, 2], [1, 2, 3, 1]]
    split = LOO.split(presplit(histories, [[0, 0, 1, 2], [0, 1, 2], [0, 0, 0, 0]]))
    assert split.test.cases.users.tolist() == [1, 2], "a user without given answers only trains"
    assert [row.tolist() for row in split.train.sequences] == [[1, 2], [4], [1, 2, 3, 1]]
    assert split.test.targets.items.tolist() == [4, 2]


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 2], [0, 1, 2, 0], [0, 0, 0, 2], [0, 0, 1, 0], [1, 0, 0, 2]],
)
def test_any_other_given_split_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="given split of toy is not leave-one-out: user 'u00002'"):
        LOO.split(presplit([[1, 2, 3, 4], [1, 2, 3, 4]], [[0, 0, 1, 2], labels]))


def test_a_given_split_needs_something_to_learn_from() -> None:
    with pytest.raises(ValueError, match="not leave-one-out: user 'u00002'"):
        LOO.split(presplit([[1, 2, 3, 4], [1, 2]], [[0, 0, 1, 2], [1, 2]]))


# --- slices -------------------------------------------------------------------------------------------------


def labels_of(split: Split, name: str) -> list[str]:
    one = split.slices[name]
    return [one.labels[code] for code in one.codes]


def test_slices_by_hand() -> None:
    # training rows: [1 2 1 2 3], [2 3 4], [5], [6 7 8 9 1] -> counts 1:3 2:3 3:2, others 1, item 10 cold
    histories = [[1, 2, 1, 2, 3, 4, 1], [2, 3, 4, 2, 3], [5, 6, 10], [6, 7, 8, 9, 1, 2, 9]]
    split = LOO.split(dataset_of(histories))
    assert labels_of(split, "target popularity") == [
        "head",
        "tail",
        "tail",
        "tail",
    ]  # floor(.2 * 10) = 2: items 1, 2
    assert labels_of(split, "target") == ["warm", "warm", "cold", "warm"]
    assert labels_of(split, "history length") == ["6-10", "<=5", "<=5", "6-10"]
    # 4 -> 1 never, 2 -> 3 in training, 6 -> 10 never, 2 -> 9 never
    assert labels_of(split, "last-to-target transition") == [
        "not seen",
        "seen in training",
        "not seen",
        "not seen",
    ]
    # warm items by count, ties by first appearance: 1 2 | 3 4 | 5 6 | 7 8 | 9
    groups = ["1 (most popular)", "2", "cold", "5 (least popular)"]
    assert labels_of(split, "popularity group") == groups
    assert split.facts["cold_targets"] == split.facts["cold_items"] == 1


def test_popularity_over_all_interactions_counts_the_answers_too() -> None:
    # head = floor(.2 * 5) = 1 item: 5 by training (5 5 1 4), 1 by all (four times against three)
    split = LOO.split(dataset_of([[5, 2, 1], [5, 3, 1], [1, 4, 5], [4, 1, 2]]))
    assert labels_of(split, "target popularity") == ["tail", "tail", "head", "tail"]
    assert labels_of(split, "target popularity (all interactions)") == ["head", "head", "tail", "tail"]


def test_equal_popularity_goes_to_the_first_appearance_in_the_file_not_to_the_lower_id() -> None:
    # each of 1, 2, 5, 3 trains once; the file starts with user 3, so the one head item (floor of .2 * 5) is 5
    dataset = dataset_of([[1, 2, 3], [2, 3, 4], [5, 1, 2], [3, 4, 5]])
    rows = np.array([7, 6, 8, *range(6), 9, 10, 11])  # within a user time decides, not the file
    from_user_3 = replace(
        dataset, users=dataset.users[rows], items=dataset.items[rows], timestamps=dataset.timestamps[rows]
    )
    assert labels_of(LOO.split(from_user_3), "target popularity") == ["tail", "tail", "tail", "head"]
    assert labels_of(LOO.split(dataset), "target popularity") == ["tail"] * 4, "head item 1 is nobody's answer"


@pytest.mark.parametrize(
    ("earlier", "label"), [(5, "<=5"), (6, "6-10"), (10, "6-10"), (11, "11-20"), (20, "11-20"), (21, ">20")]
)
def test_history_length_counts_all_earlier_interactions(earlier: int, label: str) -> None:
    assert labels_of(LOO.split(dataset_of([list(range(1, earlier + 2))])), "history length") == [label]


@given(HISTORIES)
def test_slices_agree_with_counting_one_by_one(histories: list[list[int]]) -> None:
    histories = [[1, 1, 1, 1], *dense(histories)]
    split = LOO.split(dataset_of(histories))
    asked = [row for row in histories if len(row) >= 3]
    training = [row[:-2] if len(row) >= 3 else row for row in histories]
    for name, sequences in (
        ("target popularity", training),
        ("target popularity (all interactions)", histories),
    ):
        counts = Counter(item for row in sequences for item in row)  # insertion order = first appearance
        head = [item for item, _ in counts.most_common(int(0.2 * split.train.n_items))]
        assert labels_of(split, name) == ["head" if row[-1] in head else "tail" for row in asked]
    pairs = {pair for row in training for pair in pairwise(row)}
    seen = ["seen in training" if (row[-2], row[-1]) in pairs else "not seen" for row in asked]
    assert labels_of(split, "last-to-target transition") == seen


# --- the real data ------------------------------------------------------------------------------------------


@cache
def real_split(name: str) -> Split:
    from benchmark.datasets import load

    return LOO.split(load(name))


@real
@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "pairs", "cold"),
    [
        ("amazon14-beauty", 22_363, 12_101, 198_502, 131_413, 138),
        ("amazon14-sports", 35_598, 18_357, 296_337, 189_543, 317),
        ("amazon14-toys", 19_412, 11_924, 167_597, 109_361, 279),
    ],
)
def test_counts_of_the_real_data(name: str, users: int, items: int, interactions: int, pairs: int, cold: int) -> None:
    facts = real_split(name).facts
    wanted = {"users": users, "users_asked": users, "items": items, "interactions": interactions}
    assert (wanted | {"training_pairs": pairs, "cold_targets": cold}).items() <= facts.items()


@real
def test_head_and_tail_of_beauty_are_the_published_ones() -> None:
    facts = real_split("amazon14-beauty").facts
    assert (facts["head_items"], facts["head_users_all_interactions"], facts["head_users"]) == (
        2_420,
        11_439,
        9_696,
    )
