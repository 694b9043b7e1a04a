"""Several tables together: hand-computed ranks and pooled differences, who is left out, and which orders change."""

from __future__ import annotations

import json
import math
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import protocols
from benchmark import records
from benchmark.records import Record
from leaderboards.across import Across, across
from leaderboards.across.groups import critical_difference
from leaderboards.across.pages import markdown, write
from leaderboards.across.picture import _joined
from leaderboards.across.protocols import BOTH, NEITHER, ONE, POOLED, pairs_of_places
from tests.test_tables import fields_of

FEW = 2_000


def run(
    root: Path, method: str, dataset: str, scores: np.ndarray, rules: str = "loo", seed: int = 0, **changes: Any
) -> Record:
    """A finished run with these ndcg@10 per user."""
    protocol = {"name": rules, "version": 1, "hash": protocols.load(rules).hash}
    means = {name: float(scores.mean()) for name in ("ndcg@10", "recall@10")}
    fields = fields_of(method, dataset, seed, protocol=protocol, metrics=means) | changes
    users = np.arange(1, len(scores) + 1, dtype=np.int32)
    place = root / rules / fields["profile"] / dataset / records.escape(method) / f"seed={seed}"
    arrays = {"users": users, "ndcg@10": scores, "recall@10": scores}
    return records.write(place, fields, {"per_user.npz": arrays}, None)


def constant(root: Path, table: dict[str, dict[str, float]], users: int = 40, rules: str = "loo") -> list[Record]:
    """Dataset -> method -> the score of every user."""
    return [
        run(root, method, dataset, np.full(users, score), rules)
        for dataset, some in table.items()
        for method, score in some.items()
    ]


def across_few(found: list[Record]) -> Across:
    return across(found, permutations=FEW)


def test_mean_ranks_by_hand(tmp_path):
    table = {
        "a": {"x": 0.3, "y": 0.2, "z": 0.1},
        "b": {"x": 0.1, "y": 0.3, "z": 0.1},
        "c": {"x": 0.5, "y": 0.4, "z": 0.6},
    }
    (one,) = across_few(constant(tmp_path, table)).groups
    assert one.ranks["x"] == {"a": 1, "b": 2.5, "c": 2} and one.ranks["z"] == {"a": 3, "b": 2.5, "c": 1}
    assert one.mean_rank("y") == pytest.approx(2) and one.methods == ("x", "y", "z")
    assert one.critical is None, "three datasets are too few"


def test_every_dataset_weighs_the_same_whatever_its_users(tmp_path):
    rng = np.random.default_rng(0)
    scores = {name: rng.random((2, users)) for name, users in (("small", 11), ("large", 90))}
    found = [run(tmp_path, m, name, some[i]) for name, some in scores.items() for i, m in enumerate("xy")]
    (one,) = across_few(found).groups
    (pair,) = one.pairs
    side = 1 if pair.method == "x" else -1
    expected = np.mean([some[0].mean() - some[1].mean() for some in scores.values()])
    assert pair.difference == pytest.approx(side * expected)
    draws = [rng.choice(some[0] - some[1], (20_000, some.shape[1])).mean(1) for some in scores.values()]
    low, high = sorted(side * np.quantile(np.mean(draws, 0), [0.025, 0.975]))
    assert pair.interval == pytest.approx((low, high), abs=0.006)


def test_the_users_of_every_dataset_are_drawn_by_themselves(tmp_path):
    found = constant(tmp_path, {"a": {"x": 0.4, "y": 0.2}}, users=10)
    found += constant(tmp_path, {"b": {"x": 0.2, "y": 0.2}}, users=90)
    (pair,) = across_few(found).groups[0].pairs
    assert pair.interval == pytest.approx((0.1, 0.1)), "drawing from all users at once would vary"


def test_p_is_that_of_all_sign_flips_within_the_datasets(tmp_path):
    rng = np.random.default_rng(7)
    gains = [rng.normal(1.0, 1, 3), rng.normal(0.0, 1, 9)]
    found = [run(tmp_path, "x", name, gain + 5) for name, gain in zip("ab", gains, strict=True)]
    found += [run(tmp_path, "y", name, np.full(len(gain), 5.0)) for name, gain in zip("ab", gains, strict=True)]
    (pair,) = across(found, permutations=20_000).groups[0].pairs
    observed = abs(np.mean([gain.mean() for gain in gains]))
    weights = np.concatenate([gain / len(gain) / 2 for gain in gains])
    exact = np.mean([abs(np.dot(signs, weights)) >= observed - 1e-12 for signs in product((1, -1), repeat=12)])
    unweighted = np.concatenate(gains)
    other = np.mean([abs(np.dot(s, unweighted)) >= abs(unweighted.sum()) for s in product((1, -1), repeat=12)])
    assert 0.02 < exact < 0.8 and abs(exact - other) > 0.1, "else the weights would not show"
    assert pair.p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 20_000))


def test_a_pair_is_told_apart_only_with_one_sign_on_all_datasets(tmp_path):
    rng = np.random.default_rng(1)
    noise = rng.random(400) / 10
    alike = [run(tmp_path / "1", m, d, noise + lead) for d in "ab" for m, lead in (("x", 0.3), ("y", 0.2))]
    assert across_few(alike).groups[0].pairs[0].significant
    unlike = [run(tmp_path / "2", m, "a", noise + lead) for m, lead in (("x", 0.5), ("y", 0.2))]
    unlike += [run(tmp_path / "2", m, "b", noise + lead) for m, lead in (("x", 0.2), ("y", 0.25))]
    (pair,) = across_few(unlike).groups[0].pairs
    pair = pair if pair.method == "x" else pair.turned()
    assert pair.p_holm < 0.05 and pair.difference > 0 and not pair.significant
    assert (pair.wins, pair.losses) == (1, 1) and pair.verdicts == {"a": 1, "b": -1}


def test_missing_methods_and_seeds_are_said_and_never_filled_in(tmp_path):
    found = constant(tmp_path, {d: {"x": 0.3, "y": 0.2, "z": 0.1} for d in "ab"} | {"c": {"x": 0.3, "y": 0.2}})
    found += constant(tmp_path / "2", {"a": {"w": 0.9}})
    found.append(run(tmp_path, "x", "a", np.full(40, 0.4), seed=1))
    made = across_few(found)
    two, three = made.groups
    assert (two.datasets, set(two.methods)) == (("a", "b"), {"x", "y", "z"})
    assert (three.datasets, set(three.methods)) == (("a", "b", "c"), {"x", "y"})
    assert two.missing == {"w": ("b",)} and three.missing == {"w": ("b", "c"), "z": ("c",)}
    assert two.values["x"]["a"] == pytest.approx(0.35)
    assert two.seeds == {"x": ("b: 0",), "y": ("a: 0", "b: 0"), "z": ("a: 0", "b: 0")}
    text = markdown(made)
    counted = [run(tmp_path / "3", m, d, np.full(40, 0.1), training={}) for m in "xy" for d in "ab"]
    seeds = [run(tmp_path / "3", "u", d, np.full(40, 0.2), seed=seed) for d in "ab" for seed in (0, 1)]
    assert not across_few(counted + seeds).groups[0].seeds, "what is counted and not trained needs no other seed"
    assert "- w: no result on b, c" in text and "- x: b: 0\n" in text


def flipping(root: Path, lead: float) -> list[Record]:
    """y leads under loo and trails under warmcold, by so much; z is last under both."""
    rng = np.random.default_rng(5)
    noise = {(rules, d, m): rng.random(300) / 2 for rules in ("loo", "warmcold") for d in "ab" for m in "xyz"}
    means = {"loo": {"y": lead, "x": 0.0, "z": -0.4}, "warmcold": {"y": 0.0, "x": lead, "z": -0.4}}
    return [
        run(root, m, d, 1 + values - values.mean() + means[rules][m], rules) for (rules, d, m), values in noise.items()
    ]


def test_orders_that_change_are_found_with_the_sides_that_tell_them_apart(tmp_path):
    (one,) = across_few(flipping(tmp_path, 0.2)).beside
    assert [page.dataset for page in one.pages] == [POOLED, "a", "b"]
    for page in one.pages:
        (turn,) = page.flips
        assert (turn.method, turn.other, turn.told_apart) == ("y", "x", BOTH)
        assert turn.first.difference == pytest.approx(0.2) and turn.second.difference == pytest.approx(-0.2)
        assert turn.first.interval[0] > 0 > turn.second.interval[1]
        assert [s.ranks for s in page.standings] == [(1, 2), (2, 1), (3, 3)] and page.tau == pytest.approx(1 / 3)


def test_a_change_within_the_noise_is_no_finding(tmp_path):
    (one,) = across_few(flipping(tmp_path, 1e-4)).beside
    assert all(turn.told_apart == NEITHER for page in one.pages for turn in page.flips)
    assert not any(page.significant for page in one.pages) and one.pages[0].flips


def test_a_change_that_one_side_alone_tells_apart_says_so(tmp_path):
    found = [r for r in flipping(tmp_path, 0.2) if r.protocol["name"] == "loo"]
    found += [r for r in flipping(tmp_path / "2", 1e-4) if r.protocol["name"] == "warmcold"]
    (one,) = across_few(found).beside
    assert [turn.told_apart for turn in one.pages[0].flips] == [ONE]


def test_protocols_are_set_beside_each_other_only_in_one_track_and_profile():
    found = ["loo/paper-full", "loo/unified-small", "warmcold/unified-full", "warmcold/unified-small"]
    assert pairs_of_places(found) == [("loo/unified-small", "warmcold/unified-small")]


def test_methods_of_one_protocol_only_are_named(tmp_path):
    found = [*flipping(tmp_path, 0.2), *constant(tmp_path / "w", {d: {"w": 0.1} for d in "ab"}, users=300)]
    (one,) = across_few(found).beside
    assert one.methods == ("x", "y", "z") and one.only == (("w",), ())
    assert "Only under loo/unified-small, and therefore not here: w." in markdown(across_few(found))


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_demsars(methods, q):
    assert critical_difference(methods, 12) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 72), rel=1e-3)


def test_a_critical_difference_needs_six_datasets(tmp_path):
    table = {d: {"x": 0.3 + i / 100, "y": 0.2, "z": 0.1} for i, d in enumerate("abcdef")}
    made = across_few(constant(tmp_path / "r", table))
    write(made, tmp_path / "out")
    assert made.groups[0].critical == pytest.approx(critical_difference(3, 6))
    assert (tmp_path / "out" / "across.ranks.loo.unified-small.6-datasets.svg").exists()
    del table["f"]
    fewer = across_few(constant(tmp_path / "s", table))
    assert fewer.groups[0].critical is None and "needs 6 datasets and here are 5" in markdown(fewer)


def test_bars_join_what_is_near_and_nothing_else():
    assert _joined([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert _joined([1.0, 3.0], 1.0) == []


def test_the_same_records_give_the_same_files_in_any_order(tmp_path):
    found = [*flipping(tmp_path, 0.2), run(tmp_path, "w", "a", np.full(300, 0.3), limit_users=300)]
    told = write(across_few(found), tmp_path / "1")
    write(across_few(found[::-1]), tmp_path / "2")
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert {"across.md", "across.csv", "across.flips.csv", "across.json"} < set(names)
    for name in names:
        if not name.endswith(".png"):
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    text = (tmp_path / "1" / "across.md").read_text()
    assert "w (seed 0) on a, loo: limited to 300 users" in text and str(tmp_path) not in text
    assert all(f"({name})" in text for name in names if name.endswith(".svg"))
    flips = pd.read_csv(StringIO((tmp_path / "1" / "across.flips.csv").read_text()))
    assert flips["flips"].sum() == 3 and len(flips) == 9
    stored = json.loads((tmp_path / "1" / "across.json").read_text())
    assert stored["groups"][0]["mean ranks"]["z"] == 3
    assert "1 of 3 pairs of methods change their order, 1 of them told apart on both sides" in told[0]
