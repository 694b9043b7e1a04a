"""Recall against chance: by hand, against plain loops, and calibrated where items are luck and users are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmark import records
from benchmark.evaluate import evaluate_setting
from benchmark.lists import top_k
from benchmark.records import Record
from benchmark.scoring import per_target
from benchmark.types import Cases, Ranking, Spend, Split
from leaderboards import chance
from leaderboards.chance import ENOUGH_ITEMS, against_chance, verdict
from leaderboards.compare import bootstrap_interval
from leaderboards.targets import Asked, asked_settings, chances
from protocols.warmcold import PROTOCOL
from tests import toys

# user 7 wants items 1 and 2, user 9 wants items 1, 3, 4 and 5; method 0 finds item 1, method 1 items 2 and 3
USERS = np.array([7, 7, 9, 9, 9, 9])
ITEMS = np.array([1, 2, 1, 3, 4, 5])
HITS = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 0], [0, 0]], float)


def test_the_point_is_the_mean_over_users_of_recall_less_chance():
    first, second = against_chance(USERS, ITEMS, HITS, 0.25, resamples=50)
    assert first.recall == second.recall == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert first.difference == second.difference == pytest.approx(0.375 - 0.25)
    assert (first.items_hit, second.items_hit) == (1, 2)


def by_plain_loops(resamples: int, seed: int) -> np.ndarray:
    """Low and high (2, M) of recall - 0.25, target by target."""
    ours = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(2)]
    found = []
    for _ in range(resamples):
        users = [[7, 9][i] for i in ours[0].integers(0, 2, 2)]
        items = [[1, 2, 3, 4, 5][i] for i in ours[1].integers(0, 5, 5)]
        above, below = np.zeros(2), 0.0
        for user, item, hit in zip(USERS, ITEMS, HITS, strict=True):
            weight = users.count(user) * items.count(item) / {7: 2, 9: 4}[user]
            above += weight * (hit - 0.25)
            below += weight
        found.append(above / below if below else np.full(2, -0.25))
    return np.quantile(found, [0.025, 0.975], axis=0)


@pytest.mark.parametrize("numbers", [6, 100, 2_000_000])
def test_blocks_of_any_size_agree_with_plain_loops(numbers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chance, "BLOCK_NUMBERS", numbers)
    made = np.array([one.interval for one in against_chance(USERS, ITEMS, HITS, 0.25, resamples=157, seed=3)])
    np.testing.assert_allclose(made.T, by_plain_loops(157, 3), atol=1e-12)


def test_an_interval_does_not_move_when_another_method_joins():
    (alone,) = against_chance(USERS, ITEMS, HITS[:, 1:], 0.25)
    assert against_chance(USERS, ITEMS, HITS, 0.25)[1].interval == pytest.approx(alone.interval)


def test_a_verdict_needs_an_interval_without_zero_and_below_also_many_items():
    assert verdict(0.001, 0.2, 1) == "above chance"
    assert verdict(-0.001, 0.2, 1_000) == verdict(0.0, 0.2, 1_000) == ""
    assert verdict(-0.2, -0.1, ENOUGH_ITEMS) == "below chance"
    assert verdict(-0.2, -0.1, ENOUGH_ITEMS - 1) == ""


# --- calibration: worlds in which a method knows nothing but item ids ---

CANDIDATES, K, WORLDS = 600, 10, 200


def wanted(rng: np.random.Generator, users: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Users and items (T,): several targets a user, a few items wanted by many and many by few."""
    popularity = rng.permutation(1 / np.arange(1, CANDIDATES + 1))
    n = 1 + rng.geometric(0.5, users)
    items = [rng.choice(CANDIDATES, size, replace=False, p=popularity / popularity.sum()) for size in n]
    return np.repeat(np.arange(users), n), np.concatenate(items)


def by_users_alone(users: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    recall = np.bincount(users, hits) / np.bincount(users)
    low, high = bootstrap_interval(recall[:, None] - K / CANDIDATES, 300)
    return float(low[0]), float(high[0])


def test_the_luck_of_ten_items_is_not_called_significant():
    """Everybody is given the same ten items, drawn at random: at chance by construction."""
    ours = {"above chance": 0, "below chance": 0, "": 0}
    users_alone = 0
    for world in range(WORLDS):
        rng = np.random.default_rng(world)
        users, items = wanted(rng)
        hits = np.isin(items, rng.choice(CANDIDATES, K, replace=False)).astype(float)
        (one,) = against_chance(users, items, hits[:, None], K / CANDIDATES, resamples=300)
        ours[one.verdict] += 1
        users_alone += by_users_alone(users, hits)[0] > 0
    bound = stats.binom.ppf(0.999, WORLDS, 0.05)
    assert ours["above chance"] <= bound < users_alone
    assert ours["below chance"] == 0


def test_lists_that_know_something_are_told_from_chance_in_both_directions():
    rng = np.random.default_rng(0)
    users, items = wanted(rng, 3_000)
    hits = (rng.random((len(users), 3)) < np.array([3, 1, 0.4]) * K / CANDIDATES).astype(float)
    found = against_chance(users, items, hits, K / CANDIDATES, resamples=500)
    assert [one.verdict for one in found] == ["above chance", "", "below chance"]


# --- from records ---


def shop() -> Split:
    """Six days of training, one of validation, and a last day on which every third user buys something new."""
    rng = np.random.default_rng(1)
    histories = [[*(rng.permutation(20)[:7] + 1), 21 + u % 7 if u % 3 == 0 else 20 - u % 4] for u in range(90)]
    histories = [[*dict.fromkeys(history)] for history in histories]
    whole = [history for history in histories if len(history) == 8]
    return PROTOCOL.split(toys.dataset("shop", whole, [""] * 28))


def answer(cases: Cases, candidates: np.ndarray, seed: int) -> Ranking:
    scores = np.random.default_rng(seed).random((len(cases), 28)).astype(np.float32)
    outside = np.setdiff1d(np.arange(28), candidates)
    scores[:, outside] = -np.inf
    items, kept = top_k(scores, 20, cases.tie_order)
    return Ranking(cases.users, items, kept, Spend("scores", 28))


def record_of(root: Path, split: Split, method: str, seed: int) -> tuple[Record, dict[str, float]]:
    """A record of random lists, and its recall@10 in each setting as the evaluation has it."""
    ranking = answer(split.test.cases, split.candidates, seed)
    again = {
        name: answer(split.settings[name].questions.cases, split.settings[name].candidates, seed + 1)
        for name in ("warm", "cold")
    }
    recall = {}
    for name, one in again.items():
        scores = evaluate_setting(one, name, split.settings[name], PROTOCOL.rules, 27, len(split.test))
        recall[name] = float(np.nanmean(scores[f"recall@10/{name}"]))
    needed = dict.fromkeys(records.REQUIRED) | {"status": "ok", "method": method, "dataset": "shop", "seed": seed}
    fields = needed | {"facts": dict(split.facts)}
    arrays = {"per_target.npz": per_target(ranking, again, split)}
    return records.write(root / method / f"seed={seed}", fields, arrays, None), recall


def test_recall_per_target_is_the_recall_of_the_evaluation_in_every_setting(tmp_path: Path):
    split = shop()
    made = [record_of(tmp_path, split, "a", 0), record_of(tmp_path, split, "a", 10), record_of(tmp_path, split, "b", 0)]
    found = [record for record, _ in made]
    asked = asked_settings(found, "recall@10")
    assert asked["cold"] == Asked(len(split.settings["cold"].rows), split.facts["cold_targets"], 7, 1.0)
    assert asked["all"].chance == pytest.approx(10 / 27) and asked["warm"].chance == pytest.approx(10 / 20)
    told = chances(found, "recall@10", asked)
    for name in ("warm", "cold"):
        assert told["b"][name].recall == pytest.approx(made[2][1][name])
        assert told["a"][name].recall == pytest.approx((made[0][1][name] + made[1][1][name]) / 2)  # mean over seeds
    assert 0 < told["b"]["warm"].recall < 1


def test_protocols_without_settings_say_nothing_about_chance(tmp_path: Path):
    fields = dict.fromkeys(records.REQUIRED) | {"status": "ok", "method": "a"}
    found = [records.write(tmp_path / "r", fields, {"per_user.npz": {"users": USERS}}, None)]
    assert asked_settings(found, "recall@10") == asked_settings([], "recall@10") == {}
    assert chances(found, "recall@10", {}) == {"a": {}}


@pytest.mark.parametrize(("change", "words"), [("items", "other targets"), ("asked/cold", "which targets were asked")])
def test_targets_that_cannot_be_compared_are_refused(tmp_path: Path, change: str, words: str):
    split = shop()
    one, other = (record_of(tmp_path, split, method, 0)[0] for method in "ab")
    arrays = other.per_target()
    arrays = (
        arrays | {"items": arrays["items"][::-1]}
        if change == "items"
        else {k: arrays[k] for k in arrays if k != change}
    )
    other = records.write(other.folder, other.fields, {"per_target.npz": arrays}, None)
    with pytest.raises(ValueError, match=words):
        chances([one, other], "recall@10", asked_settings([one], "recall@10"))
