"""From lists to scores: refuse a broken ranking, find hits, score every user, average users and slices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark import metrics
from benchmark.lists import drop_seen
from benchmark.types import PAD, Budget, Cases, Questions, Ranking, Sequences, Setting, Slice, Split

RULES_OF_SCORING = ("scores", "raw", "renorm", "exact")


@dataclass(frozen=True)
class Scores:
    """All that one ranking earned. ``per_user`` is the product; every mean is a view of it."""

    users: np.ndarray  # (U,) int32, in the order of the questions
    per_user: dict[str, np.ndarray]  # metric -> (U,) float64
    metrics: dict[str, float]
    """Mean over all users asked of every per-user metric; beyond-accuracy metrics of the whole run."""
    slices: Mapping[str, Slice]
    by_slice: dict[str, dict[str, dict[str, float]]]
    """slice -> label -> ``users`` (how many) and the mean of every per-user metric; no means of nobody."""


def evaluate(ranking: Ranking, questions: Questions, split: Split, rules: Mapping[str, Any], n_items: int) -> Scores:
    """Score a ranking under a protocol's rules. Raises ValueError when the ranking breaks the contract.

    ``questions`` are the test questions of ``split`` or a part of them. A user without a hit, or without a
    list, scores 0 and is counted; an INVALID entry keeps its rank and hits nothing.
    """
    check(ranking, questions.cases, n_items, rules["list_length"], Budget(**rules["budget"]), split.candidates)
    ranking = align(ranking, questions.cases.users)
    wanted = rules["metrics"]
    per_user = _per_user(ranking.items, questions.targets, wanted)
    fresh = _without_seen(ranking.items, questions.cases.seen)
    suffix = rules["second_column"]["suffix"]
    per_user |= {f"{name}/{suffix}": v for name, v in _per_user(fresh, questions.targets, wanted).items()}
    means = {name: float(values.mean()) for name, values in per_user.items()}
    n_candidates = n_items if split.candidates is None else len(split.candidates)
    means |= _beyond_accuracy(ranking.items, split.categories, n_candidates, rules["beyond_accuracy"])
    slices = _slices_of(questions.cases.users, split)
    by_slice = {name: _slice_means(one, per_user) for name, one in slices.items()}
    return Scores(questions.cases.users, per_user, means, slices, by_slice)


def evaluate_setting(
    ranking: Ranking, name: str, setting: Setting, rules: Mapping[str, Any], n_items: int, n_users: int
) -> dict[str, np.ndarray]:
    """``metric/name`` -> (n_users,) scores of the test users in one setting, NaN for those who are not asked there.

    ``ranking`` answers the setting's own candidates, or is that of the whole test where it has none. Raises
    ValueError when the ranking breaks the contract.
    """
    users = setting.questions.cases.users
    if setting.candidates is not None:
        budget = Budget(**rules["budget"])
        check(ranking, setting.questions.cases, n_items, rules["list_length"], budget, setting.candidates)
    items = align(ranking, users).items
    scores = {f"{metric}/{name}": np.full(n_users, np.nan) for metric in rules["metrics"]}
    for metric, values in _per_user(items, setting.questions.targets, rules["metrics"]).items():
        scores[f"{metric}/{name}"][setting.rows] = values
    return scores


def target_ranks(ranking: Ranking, questions: Questions) -> np.ndarray:
    """(T,) uint8: the place of every target in its user's list from 1 on, 0 where the list does not name it."""
    items = align(ranking, questions.cases.users).items  # (U, K)
    row_of, targets = questions.targets.row_of, questions.targets.items
    matches = items[row_of] == targets[:, None]  # (T, K)
    return np.where(matches.any(1), matches.argmax(1) + 1, 0).astype(np.uint8)


def mean_metric(ranking: Ranking, targets: Sequences, metric: str) -> float:
    """Mean over users of one metric, for the validation of a training loop.

    Row r of ``targets`` answers row r of ``ranking``. Raises ValueError when the lists are too short.
    """
    assert len(targets) == len(ranking.items), "targets and lists of different users"
    return float(_per_user(ranking.items, targets, [metric])[metric].mean())


def align(ranking: Ranking, users: np.ndarray) -> Ranking:
    """The same ranking in the order of ``users``, which it answers (see ``check``)."""
    order = np.argsort(ranking.users)
    rows = order[np.searchsorted(ranking.users, users, sorter=order)]
    return Ranking(ranking.users[rows], ranking.items[rows], ranking.scores[rows], ranking.spend)


def find_hits(items: np.ndarray, targets: Sequences) -> np.ndarray:
    """(U, K) bool: is the item a target of its user? PAD and INVALID never are."""
    stride = int(max(items.max(initial=0), targets.items.max(initial=0))) + 1
    rows = np.arange(len(items), dtype=np.int64)[:, None]
    answers = targets.row_of * stride + targets.items
    return np.isin(rows * stride + items, answers) & (items > PAD)


def _per_user(items: np.ndarray, targets: Sequences, wanted: list[str]) -> dict[str, np.ndarray]:
    """Every wanted metric of lists (U, K) -> (U,) float64."""
    hits = find_hits(items, targets)
    values = {}
    for metric in wanted:
        name, k = metrics.parse(metric)
        if k > items.shape[1]:
            raise ValueError(f"{metric} needs lists of {k} items, these have {items.shape[1]}")
        values[metric] = metrics.PER_USER[name](hits, targets.lengths, k)
    return values


def _without_seen(items: np.ndarray, seen: Sequences, block: int = 1024) -> np.ndarray:
    """(U, K) lists without items the user had, gaps closed; in blocks, so that long histories fit."""
    starts = range(0, len(items), block)
    parts = [np.arange(start, min(start + block, len(items))) for start in starts]
    return np.concatenate([drop_seen(items[rows], seen.take(rows).padded()) for rows in parts])


def _beyond_accuracy(
    items: np.ndarray, categories: np.ndarray | None, n_items: int, wanted: list[str]
) -> dict[str, float]:
    """Coverage and entropies of lists (U, K); category entropy only where the data have categories."""
    values = {}
    for metric in wanted:
        name, k = metrics.parse(metric)
        if name == "coverage":
            values[metric] = metrics.coverage(items, n_items, k)
        elif name == "item_entropy":
            values[metric] = metrics.entropy(items, k)
        elif categories is not None:
            values[metric] = metrics.entropy(categories[np.maximum(items, PAD)], k)
    return values


def _slices_of(users: np.ndarray, split: Split) -> dict[str, Slice]:
    """The split's slices for these users, who are some of those asked (ascending by id)."""
    rows = np.searchsorted(split.test.cases.users, users)
    return {name: Slice(one.labels, one.codes[rows]) for name, one in split.slices.items()}


def _slice_means(one: Slice, per_user: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    means: dict[str, dict[str, float]] = {}
    for code, label in enumerate(one.labels):
        rows = np.flatnonzero(one.codes == code)
        means[label] = {"users": len(rows)}
        if len(rows):
            means[label] |= {name: float(values[rows].mean()) for name, values in per_user.items()}
    return means


def check(
    ranking: Ranking, cases: Cases, n_items: int, k: int, budget: Budget, candidates: np.ndarray | None = None
) -> None:
    """Refuse with one sentence a ranking that breaks the contract; users may stand in any order.

    ``k`` is the list length asked for, ``candidates`` (C,) the only items allowed. Raises ValueError.
    """
    _check_form(ranking, k)
    _check_users(ranking.users, cases.users)
    _check_items(ranking, n_items, candidates)
    _check_scores(ranking)
    _check_spend(ranking, budget)


def _check_form(ranking: Ranking, k: int) -> None:
    users, items, scores = ranking.users, ranking.items, ranking.scores
    for name, array, kind in (("users", users, "i"), ("items", items, "i"), ("scores", scores, "f")):
        if not isinstance(array, np.ndarray) or array.dtype.kind != kind:
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            numbers = {"i": "signed integers", "f": "floating point numbers"}[kind]
            raise ValueError(f"the ranking's {name} must be a numpy array of {numbers}, not {found}")
    if users.ndim != 1 or items.shape != (len(users), k) or scores.shape != items.shape:
        raise ValueError(
            f"a ranking of {users.size} users and lists of {k} needs items and scores of shape "
            f"({users.size}, {k}), not {items.shape} and {scores.shape} (users {users.shape})"
        )


def _check_users(answered: np.ndarray, asked: np.ndarray) -> None:
    found, counts = np.unique(answered, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"the ranking answers user {found[counts > 1][0]} more than once; one list per user")
    unknown, missing = np.setdiff1d(found, asked), np.setdiff1d(asked, found)
    if len(unknown):
        raise ValueError(f"the ranking answers {len(unknown)} users that were not asked, e.g. user {unknown[0]}")
    if len(missing):
        raise ValueError(f"the ranking leaves out {len(missing)} users that were asked, e.g. user {missing[0]}")


def _check_items(ranking: Ranking, n_items: int, candidates: np.ndarray | None) -> None:
    items = ranking.items
    real = items > PAD
    ordered = np.sort(items, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > PAD)
    allowed = np.ones(n_items + 1, bool) if candidates is None else np.isin(np.arange(n_items + 1), candidates)
    known = items <= n_items
    _refuse(ranking, (items < -1) | ~known, f"names an unknown item (ids are 1..{n_items}, 0 = PAD, -1 = invalid)")
    _refuse(ranking, np.pad(twice, ((0, 0), (1, 0))), "names an item twice")
    _refuse(
        ranking,
        np.pad((items[:, :-1] == PAD) & (items[:, 1:] != PAD), ((0, 0), (1, 0))),
        "has PAD before an item",
    )
    _refuse(
        ranking,
        real & ~allowed[np.where(real & known, items, PAD)] & known,
        "names an item outside the candidates",
    )


def _check_scores(ranking: Ranking) -> None:
    scores, padding = ranking.scores, ranking.items == PAD
    rising = scores[:, 1:] > scores[:, :-1]
    _refuse(ranking, np.isnan(scores), "has a score that is not a number")
    _refuse(ranking, np.pad(rising, ((0, 0), (1, 0))), "has scores that increase; the best item comes first")
    _refuse(ranking, padding & ~np.isneginf(scores), "has a score other than -inf where the list is padded")


def _refuse(ranking: Ranking, wrong: np.ndarray, what: str) -> None:
    """Raise when any entry of ``wrong`` (U, K) is True, naming the first user."""
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(1))[0])
        more = int(wrong.any(1).sum()) - 1
        others = f" (and {more} more)" if more else ""
        raise ValueError(f"the list of user {ranking.users[row]}{others} {what}")


def _check_spend(ranking: Ranking, budget: Budget) -> None:
    spend, length = ranking.spend, ranking.items.shape[1]
    if spend is None:
        raise ValueError("the ranking does not say what it spent; a Spend is mandatory")
    if spend.rule not in RULES_OF_SCORING:
        raise ValueError(f"unknown scoring rule '{spend.rule}' in the spend; use one of {', '.join(RULES_OF_SCORING)}")
    amounts = (spend.items_scored, spend.forward_passes, spend.beam_size, spend.decoder_tokens)
    if not all(math.isfinite(amount) and amount >= 0 for amount in amounts):
        raise ValueError(f"every amount of the spend must be a finite number of at least 0, not {amounts}")
    if spend.beam_size > budget.beam_size:
        raise ValueError(f"the ranking spent a beam of {spend.beam_size}; the protocol allows {budget.beam_size}")
    if length > budget.list_length:
        raise ValueError(f"the ranking's lists have {length} items; the protocol allows {budget.list_length}")
