"""Significance: against scipy, by hand, by the laws a test must keep, and by wrong tests that must be told apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from leaderboards.compare import (
    against,
    bootstrap_interval,
    compare,
    compare_all_pairs,
    effect_size,
    holm,
    mcnemar,
    minimum_detectable_effect,
    resampled_means,
    sign_flip,
)

DISCOUNT = 1 / np.log2(np.arange(2, 12))  # (10,) the values ndcg@10 takes with one target


def ndcg_scores(rng: np.random.Generator, shape: tuple[int, ...], hit_rate: float = 0.07) -> np.ndarray:
    """Scores as real ones are: mostly 0, otherwise one of ten discounts."""
    return np.where(rng.random(shape) < hit_rate, rng.choice(DISCOUNT, shape), 0.0)


def exact_p(differences: np.ndarray) -> float:
    """All 2^U sign vectors, by scipy."""
    test = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        n_resamples=math.inf,
        vectorized=True,
    )
    return float(test.pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_sign_flip_agrees_with_scipys_exact_enumeration(seed: int):
    differences = np.random.default_rng(seed).normal(0.4, 1, (10, 3))
    ours = sign_flip(differences, 50_000, seed)
    for column in range(3):
        exact = exact_p(differences[:, column])
        assert ours[column] == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 50_000) + 3e-5)


def test_sign_flip_agrees_with_scipys_enumeration_on_discrete_scores_full_of_ties():
    rng = np.random.default_rng(0)
    differences = ndcg_scores(rng, (12, 4), 0.7) - ndcg_scores(rng, (12, 4), 0.4)
    ours = sign_flip(differences, 50_000)
    for column in range(4):
        exact = exact_p(differences[:, column])
        assert ours[column] == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 50_000) + 3e-5)


def test_sums_that_differ_by_rounding_only_count_as_ties():
    # the observed sum is .2, and so is the smallest any signs can give: every permutation is as extreme
    assert sign_flip(np.array([[0.6], [0.2], [-0.6], [-0.2], [0.2]]), 4_000)[0] == 1.0
    # |+-.6 +-.4 +-.3 +-.7| is at least .6 for 12 of 16 sign vectors, .6 but for rounding in some of them
    assert sign_flip(np.array([[0.6], [0.4], [0.3], [-0.7]]), 50_000)[0] == pytest.approx(12 / 16, abs=0.015)


def test_sign_flip_agrees_with_scipys_sampling():
    rng = np.random.default_rng(1)
    differences = ndcg_scores(rng, (600,), 0.25) - ndcg_scores(rng, (600,), 0.21)
    test = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        n_resamples=9_999,
        vectorized=True,
        rng=2,
    )
    assert 0.01 < test.pvalue < 0.9
    assert sign_flip(differences[:, None], 20_000)[0] == pytest.approx(test.pvalue, abs=5 * 0.5 / math.sqrt(9_999))


def test_sign_flip_never_says_zero_and_counts_the_observed_labelling():
    certain = np.ones((500, 1))
    assert sign_flip(certain, 999)[0] == 1 / 1000


def test_equal_methods_have_p_one():
    assert sign_flip(np.zeros((50, 2)), 99).tolist() == [1.0, 1.0]


def test_users_without_any_difference_change_nothing():
    differences = np.random.default_rng(0).normal(0.2, 1, (40, 2))
    padded = np.zeros((400, 2))
    padded[::10] = differences
    assert sign_flip(padded, 999).tolist() == sign_flip(differences, 999).tolist()


def test_contrasts_are_the_tests_of_the_combined_columns():
    scores = ndcg_scores(np.random.default_rng(3), (300, 2), 0.3)
    contrasts = np.array([[1.0, 0, 1], [0, 1, -1]])
    combined = sign_flip(scores, 2_000, contrasts=contrasts)
    assert combined.tolist() == sign_flip(scores @ contrasts, 2_000).tolist()
    assert 0.01 < combined[2] < 1


@pytest.mark.parametrize("permutations", [1, 255, 256, 257, 600])
def test_blocks_leave_no_permutation_out(permutations: int):
    assert sign_flip(np.zeros((8, 1)), permutations).tolist() == [1.0]  # every permutation ties with the observed
    assert len(resampled_means(np.ones((5, 1)), permutations)) == permutations
    assert (resampled_means(np.ones((5, 1)), permutations) == 1).all()


def test_holm_by_hand():
    adjusted = holm([0.005, 0.01, 0.03, 0.04])
    assert adjusted == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert (adjusted < 0.05).sum() == 2


def test_holm_keeps_places_is_monotone_and_never_below_raw():
    p = np.random.default_rng(0).random(50) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all() and adjusted.max() <= 1
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert holm(p[::-1]).tolist() == adjusted[::-1].tolist()
    assert len(holm([])) == 0


def test_mcnemar_by_hand():
    a = np.array([1] * 8 + [0] * 2 + [1] * 30 + [0] * 60)
    b = np.array([0] * 8 + [1] * 2 + [1] * 30 + [0] * 60)
    # 8 against 2 users: 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, a) == 1.0


def test_mcnemar_refuses_other_scores():
    with pytest.raises(ValueError, match="sign_flip"):
        mcnemar(np.array([0.5, 1.0]), np.array([0.0, 1.0]))


def test_sign_flip_of_hits_is_mcnemars_test():
    rng = np.random.default_rng(5)
    a, b = (rng.random((2, 400)) < [[0.22], [0.16]]).astype(float)
    exact = mcnemar(a, b)
    assert 0.001 < exact < 0.5
    assert sign_flip((a - b)[:, None], 50_000)[0] == pytest.approx(exact, abs=5 * math.sqrt(exact / 50_000))


# --- calibration: many replications of a world in which nothing differs ---

REPLICATIONS, USERS = 2_000, 400
Test = Callable[[np.ndarray, np.ndarray, int], float]


def rejection_rate(test: Test) -> float:
    """How often ``test`` says p < .05 when two methods' labels are swapped at random, user by user."""
    rng = np.random.default_rng(7)
    a = ndcg_scores(rng, (USERS,), 0.2)
    b = np.where(rng.random(USERS) < 0.7, a, ndcg_scores(rng, (USERS,), 0.25))  # correlated, as real methods are
    rejected = 0
    for replication in range(REPLICATIONS):
        swap = rng.random(USERS) < 0.5
        rejected += test(np.where(swap, b, a), np.where(swap, a, b), replication) < 0.05
    return rejected / REPLICATIONS


def plausible(rate: float) -> bool:
    """Would a test that rejects exactly 5 % show this rate, but for one time in 10,000?"""
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], REPLICATIONS, 0.05) / REPLICATIONS
    return low <= rate <= high


def ours(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    return float(sign_flip((a - b)[:, None], 799, seed)[0])


def better_side_only(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    return ours(a, b, seed) / 2  # one-sided towards whichever method looks better


def unpaired(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    return float(stats.ttest_ind(a, b).pvalue)


def every_run_a_user(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    return float(sign_flip(np.tile(a - b, 3)[:, None], 799, seed)[0])  # three equal seeds counted as more users


def test_swapped_labels_are_rejected_five_percent_of_the_time():
    assert plausible(rejection_rate(ours))


@pytest.mark.parametrize("wrong", [better_side_only, unpaired, every_run_a_user])
def test_the_calibration_catches_a_wrong_test(wrong: Test):
    assert not plausible(rejection_rate(wrong))


def family_wise_errors(adjust: Callable[[np.ndarray], np.ndarray], replications: int = 400) -> int:
    """Replications in which any of ten exchangeable methods differs "significantly" from the first."""
    rng = np.random.default_rng(11)
    worlds = ndcg_scores(rng, (300, 10), 0.25)
    errors = 0
    for replication in range(replications):
        shuffled = rng.permuted(worlds, axis=1)  # exchangeable: each user deals the scores out anew
        p = sign_flip(shuffled[:, 1:] - shuffled[:, :1], 799, replication)
        errors += bool((adjust(p) < 0.05).any())
    return errors


def test_ten_exchangeable_methods_have_a_family_wise_error_of_at_most_five_percent():
    bound = stats.binom.ppf(0.9999, 400, 0.05)
    assert family_wise_errors(holm) <= bound
    assert family_wise_errors(lambda p: p) > bound  # without Holm it is far above: the bound can be missed


# --- intervals and sizes ---


def test_bootstrap_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = 0.2 * DISCOUNT.mean()
    covered = 0
    for replication in range(300):
        low, high = bootstrap_interval(ndcg_scores(rng, (300, 1), 0.2), 600, replication)
        covered += bool(low[0] <= truth <= high[0])
    assert stats.binom.ppf(1e-4, 300, 0.93) <= covered <= stats.binom.ppf(1 - 1e-4, 300, 0.96)


def test_bootstrap_agrees_with_scipys():
    values = np.random.default_rng(1).gamma(2.0, size=200)
    low, high = bootstrap_interval(values[:, None], 20_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bootstrap_pairs_columns_and_ignores_company():
    scores = np.random.default_rng(2).random((150, 3))
    means = resampled_means(scores, 500)
    paired = bootstrap_interval(scores[:, :1] - scores[:, 1:2], 500)
    assert paired[:, 0] == pytest.approx(np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975]))
    assert bootstrap_interval(scores[:, :1], 500)[:, 0] == pytest.approx(bootstrap_interval(scores, 500)[:, 0])


def test_effect_size_and_minimum_detectable_effect_by_hand():
    differences = np.array([1.0, 3.0, 2.0, 2.0])  # mean 2, sd sqrt(2/3)
    assert effect_size(differences) == pytest.approx(2 / math.sqrt(2 / 3))
    assert minimum_detectable_effect(differences) == pytest.approx(
        (1.959964 + 0.841621) * math.sqrt(2 / 3) / 2, rel=1e-6
    )
    assert effect_size(np.zeros(5)) == 0.0 and effect_size(np.ones(5)) == math.inf


def test_the_minimum_detectable_effect_is_found_four_times_in_five():
    rng = np.random.default_rng(4)
    effect = minimum_detectable_effect(rng.normal(size=100_000)) * math.sqrt(100_000 / 200)
    found = sum(stats.ttest_1samp(rng.normal(effect, 1, 200), 0).pvalue < 0.05 for _ in range(1_000))
    assert 760 <= found <= 840


# --- whole comparisons ---

QUICK = {"permutations": 999, "resamples": 300}


def planted(seeds: int = 1) -> dict[str, np.ndarray]:
    """base, a clearly better method, a twin, and one that is worse."""
    rng = np.random.default_rng(0)
    base = ndcg_scores(rng, (2_000, seeds), 0.2)
    lost = rng.random((2_000, 1)) < 0.4
    better = np.where(rng.random((2_000, 1)) < 0.05, 1.0, base)
    return {"base": base, "better": better, "twin": base.copy(), "worse": np.where(lost, 0.0, base)}


def test_a_planted_difference_is_found_and_described():
    scores = planted()
    better, twin, worse = compare(scores, "base", **QUICK)
    gain = (scores["better"] - scores["base"])[:, 0]
    assert [one.method for one in (better, twin, worse)] == ["better", "twin", "worse"]
    assert better.difference == pytest.approx(gain.mean()) and better.difference > 0 > worse.difference
    assert better.interval[0] < better.difference < better.interval[1] and better.interval[0] > 0
    assert better.relative == pytest.approx(gain.mean() / scores["base"].mean())
    assert (better.wins, better.ties, better.losses) == (
        (gain > 0).sum(),
        (gain == 0).sum(),
        (gain < 0).sum(),
    )
    assert better.significant and worse.significant and not twin.significant
    assert (twin.p, twin.p_holm, twin.ties, twin.effect_size) == (1.0, 1.0, 2_000, 0.0)
    assert better.p_holm == pytest.approx(3 * better.p)  # the smallest of three
    assert better.per_seed == pytest.approx({0: better.difference}) and better.seed_interval is None


def test_the_mark_needs_the_adjusted_p():
    base = np.zeros((100, 1))
    wins = np.zeros((100, 1))
    wins[:14], base[14:18] = 1, 1  # 14 users gained and 4 lost: p = .031 alone
    (alone,) = compare({"base": base, "m0": wins}, "base", **QUICK)
    assert alone.p < 0.05 and alone.significant
    crowd = compare({"base": base, **{f"m{i}": wins for i in range(4)}}, "base", **QUICK)
    assert all(one.p < 0.05 < one.p_holm and not one.significant for one in crowd)


def test_one_contrary_seed_takes_the_mark_away():
    rng = np.random.default_rng(1)
    base = np.repeat(ndcg_scores(rng, (3_000, 1), 0.2), 3, axis=1)
    method = base + np.array([0.03, 0.03, -0.001])
    (one,) = compare({"base": base, "method": method}, "base", **QUICK)
    assert one.p_holm < 0.05 and not one.significant
    (same,) = compare({"base": base, "method": base + np.array([0.03, 0.03, 0.001])}, "base", **QUICK)
    assert same.significant


def test_seeds_are_paired_by_label_and_get_a_t_interval_from_three_on():
    base = np.tile([0.1, 0.2, 0.3], (10, 1))
    method = np.tile([0.32, 0.13, 0.21], (10, 1))  # its columns are seeds 2, 0, 1
    seeds = {"base": [0, 1, 2], "method": [2, 0, 1]}
    (one,) = compare({"base": base, "method": method}, "base", seeds=seeds, **QUICK)
    assert one.per_seed == pytest.approx({0: 0.03, 1: 0.01, 2: 0.02})
    half = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert one.seed_interval == pytest.approx((0.02 - half, 0.02 + half))


def test_a_method_of_one_seed_meets_every_seed_of_the_reference():
    base, counted = np.tile([0.1, 0.2, 0.3], (10, 1)), np.full((10, 1), 0.25)
    (one,) = compare({"base": base, "counted": counted}, "base", **QUICK)
    assert one.difference == pytest.approx(0.05)
    assert one.per_seed == pytest.approx({0: 0.15, 1: 0.05, 2: -0.05})
    assert not one.significant


def test_rounding_of_a_mean_over_seeds_is_a_tie():
    values = np.array([0.1, 0.7, 0.3])
    a, b = np.tile(values, (4, 1)), np.tile(values[::-1], (4, 1))
    assert a.mean(1)[0] != b.mean(1)[0] or sum(values) != sum(values[::-1])
    (one,) = compare({"a": a, "b": b}, "b", **QUICK)
    assert (one.wins, one.ties, one.losses) == (0, 4, 0)


def test_all_pairs_hold_every_pair_once_in_a_larger_family():
    scores = planted(2)
    pairs = compare_all_pairs(scores, "base", **QUICK)
    assert {frozenset((one.method, one.reference)) for one in pairs} == {
        frozenset((a, b)) for a in scores for b in scores if a < b
    }
    assert [one.p_holm for one in pairs] == pytest.approx(holm([one.p for one in pairs]))
    assert against(pairs, "base") == compare(scores, "base", **QUICK)


def test_every_pair_is_tested_on_its_own_difference():
    rng = np.random.default_rng(9)
    scores = {name: ndcg_scores(rng, (9, 1), 0.7) for name in "abc"}
    for one in compare_all_pairs(scores, "a", permutations=20_000, resamples=100):
        gain = (scores[one.method] - scores[one.reference])[:, 0]
        assert one.difference == pytest.approx(gain.mean())
        assert one.p == pytest.approx(exact_p(gain), abs=0.02)


def test_only_equal_users_can_be_compared():
    with pytest.raises(ValueError, match="equal users"):
        compare({"a": np.zeros((3, 1)), "b": np.zeros((4, 1))}, "b", **QUICK)
