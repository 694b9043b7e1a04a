"""Warm and cold items under one cut in time: by hand, by laws, and against what SETRec published."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols
from benchmark import records
from benchmark.evaluate import evaluate_setting, target_ranks
from benchmark.job import plan_grid
from benchmark.lists import top_k
from benchmark.method import Entrant
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.scoring import limit, score
from benchmark.types import PAD, Cases, Dataset, Questions, Ranking, Sequences, Setting, Spend, Split
from protocols.warmcold import TEST, TRAIN, VALID
from tests import toys
from tests.grid_world import LOADERS, Counting

WARMCOLD, SETREC = protocols.load("warmcold"), protocols.load("warmcold-setrec")
real = pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="real data: set $GENREC_DATA to their folder")
DAY = toys.DAY


def timed(purchases: list[tuple[int, int, float]], n_items: int | None = None) -> Dataset:
    """Purchases (user, item, day) in file order."""
    users, items, days = (np.array(column) for column in zip(*purchases, strict=True))
    n_items = n_items or int(items.max())
    return Dataset(
        name="shop",
        user_keys=np.array([f"u{u}" for u in range(1, users.max() + 1)]),
        item_keys=np.array([f"i{i}" for i in range(1, n_items + 1)]),
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        timestamps=days * DAY,
        order_only=False,
        item_text=("", *["thing"] * n_items),
        sha256="shop",
    )


SHOP = timed(
    [
        # ten purchases: T1 is the day of the ninth (place 8 of 0..9), T2 that of the tenth
        (1, 1, 0), (1, 2, 1), (2, 3, 1), (2, 1, 2), (1, 3, 3), (3, 2, 4), (2, 4, 5), (1, 4, 6),
        (1, 5, 7), (2, 6, 8),
    ]
)  # fmt: skip


def rows(sequences: Sequences) -> list[list[int]]:
    return [row.tolist() for row in sequences]


# --- pinned rules -------------------------------------------------------------------------------------------


def test_versions_never_change() -> None:
    assert (WARMCOLD.version, WARMCOLD.hash) == (1, "42c0ba38ead9"), "a changed rule is a new version"
    assert (SETREC.version, SETREC.hash) == (1, "31a8c62f1f1a"), "a changed rule is a new version"


# --- the split by hand --------------------------------------------------------------------------------------


def test_split_by_hand() -> None:
    split = WARMCOLD.split(SHOP)
    assert split.train.users.tolist() == [1, 2], "user 3 has one training interaction"
    assert rows(split.train.sequences) == [[1, 2, 3, 4], [3, 1, 4]]
    valid, test = split.train.valid, split.test
    assert valid.cases.users.tolist() == [1] and rows(valid.targets) == [[5]]
    assert test.cases.users.tolist() == [2] and rows(test.targets) == [[6]]
    assert rows(test.cases.histories) == [[3, 1, 4]]
    assert split.candidates is not None and split.candidates.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(split.train.candidates, split.candidates)
    wanted = {"users": 2, "interactions": 9, "training_interactions": 7, "cold_targets": 1, "left_out_interactions": 1}
    assert wanted.items() <= split.facts.items()


def test_the_test_history_holds_the_validation_items_and_is_cut_to_50() -> None:
    early = [(1, i, i * 0.1) for i in range(1, 81)]
    split = WARMCOLD.split(timed([*early, *((1, i, i) for i in range(81, 101))]))
    (history,), (seen,) = rows(split.test.cases.histories), rows(split.test.cases.seen)
    assert seen == list(range(1, 91)) and history == list(range(41, 91))
    assert rows(split.test.targets) == [list(range(91, 101))]
    assert rows(split.train.valid.cases.histories) == [list(range(31, 81))]


def test_equal_times_never_lie_on_two_sides_of_a_cut() -> None:
    same_day = timed([(1, 1, 0), (1, 2, 1), (1, 3, 2), *((1, i, 3) for i in range(4, 9)), (1, 9, 4), (1, 10, 5)])
    split = WARMCOLD.split(same_day)  # place 8 of 10 is day 4; day 3 as a whole trains
    assert rows(split.train.sequences) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert rows(split.train.valid.targets) == [[9]] and rows(split.test.targets) == [[10]]


def test_a_day_that_holds_both_cuts_leaves_nothing_to_validate() -> None:
    one_late_day = timed([(1, i, 0) for i in range(1, 4)] + [(1, i, 9) for i in range(4, 20)])
    with pytest.raises(ValueError, match="shop leaves no interaction for valid"):
        WARMCOLD.split(one_late_day)


def test_users_without_test_items_are_not_asked_and_still_train() -> None:
    split = WARMCOLD.split(SHOP)
    assert 1 in split.train.users and 1 not in split.test.cases.users


def test_items_of_left_out_users_are_no_candidates() -> None:
    lone = timed([*zip(SHOP.users, SHOP.items, SHOP.timestamps / DAY, strict=True), (4, 7, 4.5)])
    split = WARMCOLD.split(lone)
    assert split.candidates is not None and 7 not in split.candidates and lone.n_items == 7


# --- settings -----------------------------------------------------------------------------------------------


def test_warm_and_cold_restrict_candidates_and_targets() -> None:
    late = [(1, 5, 7), (2, 6, 7), (1, 6, 8), (2, 1, 8), (3, 3, 8)]
    base = [(u, i, d) for u in (1, 2, 3) for d, i in enumerate([2, 3, 4, 2 + u])]
    spread = timed(dict.fromkeys(base + [(u, i, d / 10) for u in (1, 2, 3) for d, i in enumerate([7, 8, 9])] + late))
    split = WARMCOLD.split(spread)
    warm_items = set(split.train.sequences.items.tolist())
    warm, cold = split.settings["warm"], split.settings["cold"]
    assert set(warm.candidates.tolist()) == warm_items
    assert set(cold.candidates.tolist()) == set(split.candidates.tolist()) - warm_items
    for setting, of in ((warm, True), (cold, False)):
        for row, targets in zip(setting.rows, setting.questions.targets, strict=True):
            assert targets.tolist() == [i for i in split.test.targets[row].tolist() if (i in warm_items) == of]
            assert len(targets), "a user without a target in the setting is not asked"
    groups = [one for name, one in split.settings.items() if name.startswith("group")]
    assert sum(len(g.questions.targets.items) for g in groups) == len(warm.questions.targets.items)
    assert all(g.candidates is None for g in groups)


PURCHASES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 25), st.integers(0, 30)), min_size=30, max_size=120)


@given(PURCHASES)
def test_laws_of_the_split(purchases: list[tuple[int, int, float]]) -> None:
    distinct = {(u, i): (u, i, d) for u, i, d in reversed(purchases)}
    dataset = timed(sorted(distinct.values(), key=lambda row: row[2]))
    try:
        split = WARMCOLD.split(dataset)
    except ValueError as error:
        assert "leaves no interaction for" in str(error)
        return
    when = {(u, i): t for u, i, t in zip(dataset.users, dataset.items, dataset.timestamps, strict=True)}
    trained = [when[u, i] for u, row in zip(split.train.users, split.train.sequences, strict=True) for i in row]
    answers = {}
    for name, questions in (("valid", split.train.valid), ("test", split.test)):
        answers[name] = [
            when[u, i] for u, row in zip(questions.cases.users, questions.targets, strict=True) for i in row
        ]
    assert max(trained) < min(answers["valid"]) and max(answers["valid"]) < min(answers["test"])
    for user, history, seen, targets in zip(
        split.test.cases.users, split.test.cases.histories, split.test.cases.seen, split.test.targets, strict=True
    ):
        assert seen.tolist()[-50:] == history.tolist()
        assert not set(seen) & set(targets)
        times = [when[user, i] for i in seen]
        assert times == sorted(times)
    assert (split.train.sequences.lengths >= 2).all()
    counted = [split.facts[f"{name}_interactions"] for name in ("training", "validation", "test")]
    assert counted == [len(trained), len(answers["valid"]), len(answers["test"])]
    assert sum(counted) + split.facts["left_out_interactions"] == len(dataset.items)


# --- data that come cut already -----------------------------------------------------------------------------


def labelled(parts: list[str], order_only: bool) -> Dataset:
    return replace(SHOP, order_only=order_only, labels={"setrec_split": np.array(parts)})


GIVEN = ["train", "train", "train", "train", "valid", "none", "valid", "test", "test", "test"]


@pytest.mark.parametrize("protocol", [WARMCOLD, SETREC])
def test_order_only_data_are_cut_by_their_label(protocol: Protocol) -> None:
    split = protocol.split(labelled(GIVEN, order_only=True))
    assert rows(split.train.sequences) == [[1, 2], [3, 1]]
    assert rows(split.test.targets) == [[4, 5], [6]] and rows(split.test.cases.histories) == [[1, 2, 3], [3, 1, 4]]


def test_order_only_data_without_a_label_are_refused() -> None:
    for protocol, why in ((WARMCOLD, "only the order of each user's items"), (SETREC, "neither moments nor labels")):
        with pytest.raises(ValueError, match=why) as error:
            protocol.split(replace(SHOP, order_only=True))
        assert "\n" not in str(error.value) and "use " in str(error.value)


@pytest.mark.parametrize("protocol", [WARMCOLD, SETREC])
def test_a_label_that_goes_back_in_time_is_refused(protocol: Protocol) -> None:
    back = ["train", "train", "train", "train", "valid", "none", "test", "train", "test", "test"]
    with pytest.raises(ValueError, match="not in time order: user 'u1'"):
        protocol.split(labelled(back, order_only=True))


def test_a_leave_one_out_split_without_times_is_no_cut_in_time() -> None:
    loo = ["train", "train", "train", "train", "train", "none", "valid", "valid", "test", "test"]
    assert Counter(zip(SHOP.users.tolist(), loo, strict=True))[2, "valid"] == 1
    with pytest.raises(ValueError, match="is leave-one-out, not a cut in time"):
        WARMCOLD.split(labelled(loo, order_only=True))


def test_a_given_split_must_be_one_cut_for_all_users() -> None:
    codes = {"train": TRAIN, "valid": VALID, "test": TEST}
    per_user = ["train", "train", "train", "train", "train", "train", "test", "valid", "test", "test"]
    with pytest.raises(ValueError, match="not one cut in time for all users"):
        WARMCOLD.split(replace(SHOP, presplit=np.array([codes[p] for p in per_user], np.int8)))
    in_time = ["train"] * 7 + ["valid", "test", "test"]
    split = WARMCOLD.split(replace(SHOP, presplit=np.array([codes[p] for p in in_time], np.int8)))
    assert rows(split.test.targets) == [[5], [6]]


@pytest.mark.parametrize(
    "cutoffs", [{"T1": "2013-12-07"}, {"T1": "soon", "T2": "2014-01-01"}, "2014", {"T1": 5, "T2": 6}]
)
def test_broken_moments_are_refused(cutoffs: object) -> None:
    with pytest.raises(ValueError, match="must give T1 and T2 as days"):
        SETREC.split(replace(SHOP, meta={"setrec_cutoffs": cutoffs}))


def test_published_moments_are_midnights_in_utc() -> None:
    cutoffs = {"T1": "1970-01-08", "T2": "1970-01-09"}  # days 7 and 8
    split = SETREC.split(replace(SHOP, meta={"setrec_cutoffs": cutoffs}))
    assert rows(split.train.valid.targets) == [[5]] and rows(split.test.targets) == [[6]]


# --- scores by setting --------------------------------------------------------------------------------------


def two_users() -> Questions:
    """Items 1 to 4 are warm, 5 and 6 cold; user 1 wants 2 and 5, user 2 wants 6."""
    cases = Cases(np.array([1, 2], np.int32), *[Sequences.from_rows([[1], [3]])] * 2, np.array([6, 0, 1, 2, 3, 4, 5]))
    return Questions(cases, Sequences.from_rows([[2, 5], [6]]))


def ranked(users: list[int], lists: list[list[int]]) -> Ranking:
    items = np.array([row + [PAD] * (20 - len(row)) for row in lists], np.int32)
    scores = np.where(items > PAD, -np.arange(20.0), -np.inf).astype(np.float32)
    return Ranking(np.array(users, np.int32), items, scores, Spend("scores", 6))


def test_a_setting_scores_its_users_and_says_nothing_of_the_others() -> None:
    questions = two_users()
    warm = Setting(
        np.array([0]), Questions(questions.cases.take(np.array([0])), Sequences.from_rows([[2]])), np.arange(1, 5)
    )
    scores = evaluate_setting(ranked([1], [[4, 2]]), "warm", warm, WARMCOLD.rules, 6, 2)
    assert scores["recall@5/warm"][0] == 1 and np.isnan(scores["recall@5/warm"][1])
    assert scores["ndcg@10/warm"][0] == pytest.approx(1 / np.log2(3))
    with pytest.raises(ValueError, match="outside the candidates"):
        evaluate_setting(ranked([1], [[4, 5]]), "warm", warm, WARMCOLD.rules, 6, 2)


def test_a_setting_without_candidates_reads_the_list_again() -> None:
    questions = two_users()
    only_cold = Setting(np.array([0, 1]), Questions(questions.cases, Sequences.from_rows([[5], [6]])))
    scores = evaluate_setting(ranked([1, 2], [[2, 5], [1, 6]]), "group 1", only_cold, WARMCOLD.rules, 6, 2)
    assert scores["recall@5/group 1"].tolist() == [1, 1]


def test_ranks_of_targets_by_hand() -> None:
    found = target_ranks(ranked([2, 1], [[1, 6], [4, 3, 5]]), two_users())  # users in any order
    assert found.tolist() == [0, 3, 2] and found.dtype == np.uint8


def test_a_limited_split_keeps_its_settings_in_step() -> None:
    split = _shop_of(40)
    small = limit(split, 7)
    assert len(small.test) == 7 == small.facts["users_asked"]
    asked = {name: len(one.rows) for name, one in small.settings.items()}
    assert small.facts.get("users_asked_cold", 0) == asked.get("cold", 0) < split.facts["users_asked_cold"]
    assert "cold_targets" not in small.facts, "counted in all test users"
    for setting in small.settings.values():
        np.testing.assert_array_equal(setting.questions.cases.users, small.test.cases.users[setting.rows])
        for row, targets in zip(setting.rows, setting.questions.targets, strict=True):
            assert set(targets) <= set(small.test.targets[row])


def _shop_of(n_users: int) -> Split:
    return WARMCOLD.split(_random_shop(n_users))


def _random_shop(n_users: int) -> Dataset:
    random = np.random.default_rng(4)
    purchases = []
    for user in range(1, n_users + 1):
        days = np.sort(random.integers(0, 100, 12))
        # items above 30 exist from day 80 on
        items = [random.integers(1, 31 if day < 80 else 41) for day in days]
        purchases += {item: (user, int(item), int(day)) for item, day in zip(items, days, strict=True)}.values()
    return timed(purchases, 40) if {p[1] for p in purchases} == set(range(1, 41)) else timed(purchases)


class Floor(Counting):
    """Most frequent first, among the candidates."""

    def recommend(self, cases, k, *, candidates=None, budget=None):
        scores = np.full((1, len(self.counts)), -np.inf, np.float32)
        scores[0, candidates] = self.counts[candidates]
        items, values = top_k(scores, k, cases.tie_order)
        return Ranking(cases.users, items.repeat(len(cases), 0), values.repeat(len(cases), 0), Spend("scores", 9))


def test_a_record_tells_every_setting(tmp_path: Path) -> None:
    shop = _random_shop(60)
    loaders = replace(LOADERS, dataset=lambda name, folder: shop, method=lambda name: Entrant(name, Floor))
    (item,) = plan_grid(
        ["shop"], ["floor"], [0], WARMCOLD, loaders, profile="smoke", track="unified", output_dir=tmp_path
    )
    fields, arrays = score(item.job, loaders, Run())
    split = WARMCOLD.split(shop)
    assert {"per_user.npz", "per_target.npz", "ranking.npz", "ranking.warm.npz", "ranking.cold.npz"} == set(arrays)
    written = records.write(item.job.folder, fields, arrays, None)
    per_user, per_target = written.per_user(), written.per_target()
    assert np.isnan(per_user["recall@10/cold"]).sum() == len(split.test) - len(split.settings["cold"].rows)
    assert fields["metrics"]["recall@10/cold"] == pytest.approx(np.nanmean(per_user["recall@10/cold"]))
    # the same numbers again, from the ranks of the targets alone
    cold = ~np.isin(per_target["items"], split.train.sequences.items)
    hit = (per_target["rank/cold"] > 0) & (per_target["rank/cold"] <= 10)
    users = per_target["users"][cold]
    by_hand = [hit[cold][users == user].mean() for user in np.unique(users)]
    assert fields["metrics"]["recall@10/cold"] == pytest.approx(np.mean(by_hand))
    assert not (per_target["rank/cold"][~cold]).any()
    assert set(written.ranking("cold")["items"].ravel().tolist()) - {PAD} <= set(split.settings["cold"].candidates)
    assert fields["metrics"]["coverage@10"] == pytest.approx(10 / len(split.candidates))


# --- the real data ------------------------------------------------------------------------------------------


@cache
def real_dataset(name: str) -> Dataset:
    from benchmark.datasets import load

    return load(name)


@real
@pytest.mark.parametrize(
    ("name", "mismatches", "users", "parts", "warm", "cold", "asked", "warm_items", "items"),
    [
        ("beauty", 1, 18_136, (132_990, 16_642, 17_579), 11_356, 6_223, (6_424, 5_086, 2_239), 11_407, 12_024),
        ("toys", 0, 15_635, (114_983, 12_740, 14_776), 10_541, 4_235, (5_559, 4_489, 2_053), 11_285, 11_908),
        ("sports", 0, 27_591, (176_605, 30_901, 31_989), 27_277, 4_712, (11_544, 10_487, 2_817), 17_370, 18_340),
    ],
)
def test_setrec_published_labels_and_counts(name, mismatches, users, parts, warm, cold, asked, warm_items, items):
    dataset = real_dataset(name)
    from protocols.warmcold_setrec import cut_as_published

    split = SETREC.split(dataset)
    kept = np.isin(dataset.users, split.train.users)
    ours = np.where(kept, np.array(["train", "valid", "test"])[cut_as_published(dataset)], "none")
    assert (ours != dataset.labels["setrec_split"]).sum() == mismatches
    facts = split.facts
    # SETRec's data lack one validation interaction of Beauty, which its own rule would keep.
    assert (facts["training_interactions"], facts["validation_interactions"], facts["test_interactions"]) == parts
    assert (facts["users"], facts["warm_targets"], facts["cold_targets"]) == (users, warm, cold)
    assert (facts["users_asked"], facts["users_asked_warm"], facts["users_asked_cold"]) == asked
    assert (facts["candidates_warm"], facts["candidates"]) == (warm_items, items)


@real
def test_steam_is_cut_by_its_own_labels() -> None:
    facts = SETREC.split(real_dataset("steam")).facts
    parts = [facts[f"{name}_interactions"] for name in ("training", "validation", "test")]
    assert parts == [1_147_583, 145_700, 142_947]
    assert (facts["candidates_warm"], facts["candidates_cold"]) == (11_073, 3_257)
    assert (facts["users_asked"], facts["users_asked_warm"], facts["users_asked_cold"]) == (24_845, 21_759, 17_427)


@real
def test_the_suites_own_cut_of_beauty_is_at_eight_and_nine_tenths() -> None:
    dataset = real_dataset("beauty")
    split = WARMCOLD.split(dataset)
    day = {(u, i): t for u, i, t in zip(dataset.users, dataset.items, dataset.timestamps, strict=True)}
    starts = [
        min(day[u, i] for u, row in zip(q.cases.users, q.targets, strict=True) for i in row)
        for q in (split.train.valid, split.test)
    ]
    assert [np.datetime64(int(s), "s").astype("datetime64[D]").item().isoformat() for s in starts] == [
        "2014-03-07",
        "2014-05-13",
    ]
