"""Significance of paired per-user scores: sign-flip permutation, bootstrap, Holm, effect sizes.

Letters in shape comments: U users, M methods, C comparisons, S seeds, P permutations, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

ALPHA = 0.05
POWER = 0.8
LEVEL = 0.95
BLOCK = 256
"""Permutations or resamples worked on at a time: bounds memory to BLOCK x U numbers."""
TIE = 1e-11
"""Sums closer than this share of the sum of absolute terms are equal: far above float64 rounding, and far below
any gap that could matter, so that permutations that only reorder the same gains count as ties."""


@dataclass(frozen=True)
class Comparison:
    """One method against another on one metric; positive differences are in favour of ``method``."""

    method: str
    reference: str
    users: int
    difference: float
    """Mean over users of the difference between the methods' means over their own seeds."""
    interval: tuple[float, float]
    """95 % paired bootstrap over users."""
    p: float
    p_holm: float
    """Adjusted within the declared family."""
    effect_size: float
    """Cohen's d_z."""
    relative: float
    """Difference as a share of the reference's mean; nan when that is 0."""
    wins: int
    ties: int
    losses: int
    minimum_detectable: float
    per_seed: Mapping[int, float]
    seed_interval: tuple[float, float] | None
    """95 % t-interval over the differences in the seeds that both have, from 3 such seeds on."""
    significant: bool
    """Holm p < .05 and the same sign in every seed."""


def sign_flip(
    differences: np.ndarray,
    permutations: int = 100_000,
    seed: int = 0,
    contrasts: np.ndarray | None = None,
) -> np.ndarray:
    """Two-sided sign-flip permutation p-values of the mean of each column of ``differences`` (U, C) -> (C,).

    p = (1 + permutations at least as extreme) / (1 + permutations); one sign matrix serves all columns. With
    ``contrasts`` (C, K) the tested columns are ``differences @ contrasts`` (K of them) at the price of C: all pairs
    of M methods cost M - 1 columns. Users without any difference cannot move a sum and are left out.
    """
    moving = differences[(differences != 0).any(1)].astype(np.float64)  # (U', C)
    contrasts = np.eye(differences.shape[1]) if contrasts is None else contrasts  # (C, K)
    total = moving.sum(0)  # (C,)
    bound = np.abs(total @ contrasts) - TIE * np.abs(moving).sum(0) @ np.abs(contrasts)  # (K,)
    extreme = np.zeros(contrasts.shape[1], np.int64)
    for kept in _random_subsets(len(moving), permutations, seed):
        # a sum with signs = twice the terms that keep their sign, minus all terms
        sums = (2 * (kept @ moving) - total) @ contrasts  # (block, K)
        extreme += (np.abs(sums) >= bound).sum(0)
    return (1 + extreme) / (1 + permutations)


def _random_subsets(n: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (<= BLOCK, n) of fair coin flips, 0.0 or 1.0; the same array is filled again each time."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kept = np.empty((min(BLOCK, permutations), n))
    for start in range(0, permutations, BLOCK):
        size = min(BLOCK, permutations - start)
        random = np.frombuffer(rng.bytes(size * ((n + 7) // 8)), np.uint8).reshape(size, -1)
        kept[:size] = np.unpackbits(random, axis=1, count=n)
        yield kept[:size]


def resampled_means(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Means of the columns of ``values`` (U, C) over users drawn with replacement -> (R, C).

    Every column sees the same draws, so differences of columns are paired. The draws depend on U and ``seed`` only:
    a method's interval does not move when another method joins the table.
    """
    users = len(values)
    rng = np.random.Generator(np.random.PCG64(seed))
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        drawn = rng.integers(0, users, (size, users), dtype=np.int32)
        drawn += (np.arange(size, dtype=np.int32) * users)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)  # multinomial
        means[start : start + size] = counts.astype(np.float64) @ values / users
    return means


def bootstrap_interval(
    differences: np.ndarray, resamples: int = 10_000, seed: int = 0, level: float = LEVEL
) -> np.ndarray:
    """Percentile bootstrap over users for the mean of each column of ``differences`` (U, C) -> low, high (2, C).

    Given differences it is the paired interval; given one method's scores, the interval of its own mean.
    """
    return _percentiles(resampled_means(differences, resamples, seed), level)


def _percentiles(means: np.ndarray, level: float = LEVEL) -> np.ndarray:
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)  # (2, C)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (C,), monotone and at most 1. Source: Holm 1979."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided McNemar p for paired hits ``a``, ``b`` (U,) of 0 and 1: recall@K, one target, one seed.

    Raises ValueError for other values.
    """
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test needs a hit (1) or a miss (0) per user; use sign_flip for other scores")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def effect_size(differences: np.ndarray) -> float:
    """Cohen's d_z of paired differences (U,): mean / standard deviation (ddof 1); 0 when nobody differs."""
    mean, spread = differences.mean(), _spread(differences)
    if spread == 0:
        return 0.0 if mean == 0 else math.copysign(math.inf, mean)
    return float(mean / spread)


def minimum_detectable_effect(differences: np.ndarray, alpha: float = ALPHA, power: float = POWER) -> float:
    """Mean difference that a paired two-sided test of this size and spread finds with the given power.

    (z[1 - alpha/2] + z[power]) * sd / sqrt(U), normal approximation, before any correction for many tests.
    """
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return float(z * _spread(differences) / math.sqrt(len(differences)))


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def compare(
    per_user: Mapping[str, np.ndarray],
    reference: str,
    *,
    seeds: Mapping[str, Sequence[int]] | None = None,
    permutations: int = 100_000,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Every other method against ``reference``, Holm within these comparisons; sorted by method name.

    ``per_user[method]`` is (U, S), the same users in the same order for all; ``seeds`` names its columns (0, 1, ...
    if not given). The reference is fixed beforehand by the protocol, never the best that the data picked.
    """
    pairs = [(method, reference) for method in sorted(per_user) if method != reference]
    return _compare(per_user, pairs, reference, seeds, permutations, resamples, seed)


def compare_all_pairs(
    per_user: Mapping[str, np.ndarray],
    reference: str | None = None,
    *,
    seeds: Mapping[str, Sequence[int]] | None = None,
    permutations: int = 100_000,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Every pair once, Holm within all pairs; arguments as for ``compare``.

    Pairs with ``reference`` are told from the other method's side, so that ``against`` can pick them.
    """
    order = sorted(per_user, key=lambda method: (method == reference, method))
    pairs = list(combinations(order, 2))
    return _compare(per_user, pairs, order[-1], seeds, permutations, resamples, seed) if pairs else []


def against(comparisons: Sequence[Comparison], reference: str) -> list[Comparison]:
    """The family "all methods against the reference" out of all pairs, adjusted within itself."""
    return _judged([one for one in comparisons if one.reference == reference])


def _compare(
    per_user: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    base: str,
    seeds: Mapping[str, Sequence[int]] | None,
    permutations: int,
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Everything about ``pairs``, through the differences of every method to ``base``."""
    others = [method for method in sorted(per_user) if method != base]
    means = {method: scores.mean(1) for method, scores in per_user.items()}  # (U,) each
    if len({len(scores) for scores in means.values()}) > 1:
        raise ValueError("the methods were scored on different numbers of users; only equal users can be compared")
    differences = np.stack([means[m] - means[base] for m in others], axis=1)  # (U, M - 1)
    side = {m: np.eye(len(others))[i] for i, m in enumerate(others)} | {base: np.zeros(len(others))}
    contrasts = np.stack([side[a] - side[b] for a, b in pairs], axis=1)  # (M - 1, C)
    p = sign_flip(differences, permutations, seed, contrasts)
    low, high = _percentiles(resampled_means(differences, resamples, seed) @ contrasts)
    by_seed = {m: _by_seed(scores, seeds[m] if seeds else None) for m, scores in per_user.items()}
    rows = []
    for i, (a, b) in enumerate(pairs):
        gain = _snapped(means[a] - means[b])
        shared = sorted(set(by_seed[a]) & set(by_seed[b]))
        spread = _t_interval([by_seed[a][seed] - by_seed[b][seed] for seed in shared])
        row = _row(a, b, gain, float(means[b].mean()), (low[i], high[i]), p[i], _per_seed(by_seed[a], by_seed[b]))
        rows.append(replace(row, seed_interval=spread))
    return _judged(rows)


def _row(
    method: str,
    reference: str,
    gain: np.ndarray,
    baseline: float,
    interval: tuple[float, float],
    p: float,
    per_seed: Mapping[int, float],
) -> Comparison:
    """One comparison from its per-user differences ``gain`` (U,); the family's part is added by ``_judged``."""
    difference = float(gain.mean())
    return Comparison(
        method=method,
        reference=reference,
        users=len(gain),
        difference=difference,
        interval=(float(interval[0]), float(interval[1])),
        p=float(p),
        p_holm=math.nan,
        effect_size=effect_size(gain),
        relative=difference / baseline if baseline else math.nan,
        wins=int((gain > 0).sum()),
        ties=int((gain == 0).sum()),
        losses=int((gain < 0).sum()),
        minimum_detectable=minimum_detectable_effect(gain),
        per_seed=per_seed,
        seed_interval=None,
        significant=False,
    )


def _snapped(gain: np.ndarray) -> np.ndarray:
    """Differences with the rounding of means over seeds set to an exact 0, so that ties count as ties."""
    return np.where(np.abs(gain) < 1e-12, 0.0, gain)


def _by_seed(scores: np.ndarray, seeds: Sequence[int] | None) -> dict[int, float]:
    labels = range(scores.shape[1]) if seeds is None else seeds
    return dict(zip(labels, scores.mean(0).tolist(), strict=True))


def _per_seed(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """Difference of means in each seed both have; where fewer than two are shared, in every seed of either.

    A method without a seed (counted, not trained; or failed there) stands in it with its mean over its own seeds.
    """
    shared = sorted(set(a) & set(b))
    labels = shared if len(shared) > 1 else sorted(set(a) | set(b))
    mean_a, mean_b = (sum(one.values()) / len(one) for one in (a, b))
    return {label: a.get(label, mean_a) - b.get(label, mean_b) for label in labels}


def _t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    if len(values) < 3:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def _judged(family: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p adjusted within this family, and the verdict."""
    judged = []
    for one, adjusted in zip(family, holm([c.p for c in family]).tolist(), strict=True):
        signs = {math.copysign(1, d) if d else 0 for d in one.per_seed.values()}
        agree = signs == {math.copysign(1, one.difference)}
        judged.append(replace(one, p_holm=adjusted, significant=adjusted < ALPHA and agree))
    return judged
