"""Warm and cold items under one cut in time: train < T1 <= validation < T2 <= test, for all users alike.

Dataset -> part of every interaction -> users with enough training -> training view, test questions, and the same
questions among warm items, among cold items, and by popularity of the answer. The variant with other moments is
``warmcold-setrec``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from benchmark.lists import tie_order
from benchmark.protocol import Protocol
from benchmark.types import Cases, Dataset, Questions, Sequences, Setting, Slice, Split, TrainingView
from protocols._slices import by_length, by_popularity, popularity_groups, scan_order

TRAIN, VALID, TEST = 0, 1, 2
"""Parts, as in ``Dataset.presplit``."""
LABELS = ("train", "valid", "test")
GIVEN = "setrec_split"
"""The label that comes with data published already cut (Steam)."""
WARM, COLD = "warm", "cold"

RULES: dict[str, Any] = {
    "split": "all interactions by time: train < T1 <= validation < T2 <= test",
    "cut": "T1 and T2 are the times of the interactions at 8/10 and 9/10 of all, ordered by time; "
    "data without times across users are cut by the label they come with",
    "min_training_interactions": 2,
    "shorter_users": "left out with all their interactions",
    "users": "ascending by id",
    "targets": "all items of the user in the part",
    "history_length": 50,
    "history": "items of the earlier parts, oldest first; the test history includes the validation items",
    "candidates": "every item with an interaction of the users that are kept",
    "settings": {
        "warm": "candidates and targets with an interaction in training",
        "cold": "candidates and targets without an interaction in training",
        "group": "targets of one popularity group, candidates as in the test",
    },
    "ks": [5, 10, 20],
    "metrics": [f"{name}@{k}" for name in ("recall", "ndcg") for k in (5, 10, 20)],
    "primary": "ndcg@10",
    "selection": "ndcg@10",
    "reference": "sasrec",
    "chance": "recall@K of a random list is K / candidates",
    "beyond_accuracy": [f"{n}@{k}" for n in ("coverage", "item_entropy", "category_entropy") for k in (10, 20)],
    "entropy": "natural logarithm; categories of the second level, items without one left out",
    "seen_items": "kept",
    "second_column": {"suffix": "seen-dropped", "rule": "same lists, seen items removed, gaps closed"},
    "unanswered_users": "score 0 and are counted",
    "list_length": 20,
    "budget": {"beam_size": 20, "list_length": 20},
    "ties": "seeded permutation of the items",
    "tie_seed": 20140723,
    "slices": {
        "popularity_groups": 5,
        "popularity_ties": "first appearance in training, users in file order, each user's items in time order",
        "history_bounds": [5, 10, 20, 50],
        "targets": "warm only, cold only, both",
    },
}


def cut_by_share(dataset: Dataset) -> np.ndarray:
    """(T,) the part of every interaction, with T1 and T2 from the data. Raises ValueError when there is no such cut."""
    if dataset.presplit is not None:
        return _checked(dataset, dataset.presplit)
    if dataset.order_only:
        return given_parts(dataset)
    ordered, n = np.sort(dataset.timestamps), len(dataset.timestamps)
    return parts_between(dataset.timestamps, ordered[n * 8 // 10], ordered[n * 9 // 10])


def parts_between(times: np.ndarray, t1: float, t2: float) -> np.ndarray:
    """(T,) int8 parts of interactions at ``times`` (T,): equal times never lie in two parts."""
    return np.searchsorted([t1, t2], times, side="right").astype(np.int8)


def given_parts(dataset: Dataset) -> np.ndarray:
    """(T,) int8 the parts that the data come with; -1 = in none. Raises ValueError when they come with none."""
    if GIVEN not in dataset.labels:
        raise ValueError(
            f"{dataset.name} has only the order of each user's items, no times that compare users, and no split label "
            f"of its own, so nobody can say which of its items were new; use data with timestamps, or protocol loo"
        )
    label = dataset.labels[GIVEN]
    parts = np.full(len(label), -1, np.int8)
    for code, name in enumerate(LABELS):
        parts[label == name] = code
    return _checked(dataset, parts)


def _checked(dataset: Dataset, parts: np.ndarray) -> np.ndarray:
    """The given parts (T,), -1 = none. Raises ValueError when they cannot be one cut in time for all users.

    Without times that compare users that cannot be seen in full; but a leave-one-out split is none.
    """
    order = dataset.chronological
    known = order[parts[order] >= 0]
    back = (np.diff(parts[known]) < 0) & (np.diff(dataset.users[known]) == 0)
    if back.any():
        user = dataset.user_keys[dataset.users[known[int(back.argmax())]] - 1]
        raise ValueError(f"the given split of {dataset.name} is not in time order: user '{user}' goes back to {LABELS}")
    if dataset.order_only:
        counts = [np.bincount(dataset.users[parts == part], minlength=dataset.n_users + 1) for part in (VALID, TEST)]
        if len(counts[1][counts[1] > 0]) > 1 and all((count[counts[1] > 0] == 1).all() for count in counts):
            raise ValueError(f"the given split of {dataset.name} is leave-one-out, not a cut in time; use protocol loo")
    else:
        times = [dataset.timestamps[parts == part] for part in (TRAIN, VALID, TEST)]
        if any(a.max(initial=-np.inf) >= b.min(initial=np.inf) for a, b in pairwise(times)):
            raise ValueError(
                f"the given split of {dataset.name} is not one cut in time for all users; use protocol loo"
            )
    return parts


def splitter(cut: Callable[[Dataset], np.ndarray], rules: dict[str, Any]) -> Callable[[Dataset], Split]:
    """The split by ``cut``, which says the part of every interaction (T,), -1 = none."""
    return lambda dataset: _split(dataset, cut(dataset), rules)


def _split(dataset: Dataset, parts: np.ndarray, rules: dict[str, Any]) -> Split:
    trained = np.bincount(dataset.users[parts == TRAIN], minlength=dataset.n_users + 1)
    kept = (parts >= 0) & (trained >= rules["min_training_interactions"])[dataset.users]
    parts = np.where(kept, parts, -1)
    missing = [name for code, name in enumerate(LABELS) if not (parts == code).any()]
    if missing:
        raise ValueError(
            f"{dataset.name} leaves no interaction for {' and '.join(missing)} once users with fewer than "
            f"{rules['min_training_interactions']} training interactions are left out; use a larger dataset, or "
            "one with finer times"
        )
    candidates = np.unique(dataset.items[kept]).astype(np.int64)
    tie = tie_order(dataset.n_items, rules["tie_seed"])
    users, train = _rows(dataset, parts, TRAIN, TRAIN, trained >= rules["min_training_interactions"])
    view = TrainingView(
        n_users=dataset.n_users,
        n_items=dataset.n_items,
        users=users,
        sequences=train,
        valid=_questions(dataset, parts, VALID, rules, tie),
        max_history=rules["history_length"],
        item_text=dataset.item_text,
        item_fields=dataset.item_fields,
        selection=rules["selection"],
        candidates=candidates,
    )
    test = _questions(dataset, parts, TEST, rules, tie)
    warm = view.item_counts > 0  # (N + 1,)
    settings = _settings(dataset, parts, test, candidates, warm, rules)
    facts = _facts(dataset, parts, view, test, candidates, warm, settings)
    return Split(view, test, _slices(test, warm, rules), dataset.categories, facts, candidates, settings)


def _rows(
    dataset: Dataset, parts: np.ndarray, first: int, last: int, of_users: np.ndarray
) -> tuple[np.ndarray, Sequences]:
    """The interactions of parts ``first`` to ``last`` of the users that ``of_users`` (U + 1,) bool asks for."""
    order = dataset.chronological
    inside = order[(parts[order] >= first) & (parts[order] <= last) & of_users[dataset.users[order]]]
    users = np.flatnonzero(of_users).astype(np.int32)
    counts = np.bincount(dataset.users[inside], minlength=dataset.n_users + 1)[users]
    return users, Sequences.from_lengths(dataset.items[inside], counts)


def _questions(dataset: Dataset, parts: np.ndarray, part: int, rules: dict[str, Any], tie: np.ndarray) -> Questions:
    """Every user with items in the part: they are the targets, the items of the parts before were seen."""
    asked = np.zeros(dataset.n_users + 1, bool)
    asked[dataset.users[parts == part]] = True
    users, seen = _rows(dataset, parts, TRAIN, part - 1, asked)
    _, targets = _rows(dataset, parts, part, part, asked)
    return Questions(Cases(users, seen.tail(rules["history_length"]), seen, tie), targets)


def _settings(
    dataset: Dataset,
    parts: np.ndarray,
    test: Questions,
    candidates: np.ndarray,
    warm: np.ndarray,
    rules: dict[str, Any],
) -> dict[str, Setting]:
    scan = scan_order(dataset)
    trained = by_popularity(dataset.items[scan][parts[scan] == TRAIN], dataset.n_items)
    labels, group = popularity_groups(trained, dataset.n_items, rules["slices"]["popularity_groups"])
    found = {
        WARM: _setting(test, warm, candidates[warm[candidates]]),
        COLD: _setting(test, ~warm, candidates[~warm[candidates]]),
    }
    found |= {f"group {label}": _setting(test, group == code) for code, label in enumerate(labels[:-1])}
    return {name: setting for name, setting in found.items() if len(setting.rows)}


def _setting(test: Questions, counts: np.ndarray, candidates: np.ndarray | None = None) -> Setting:
    """The users with a target that ``counts`` (N + 1,) bool, and only those targets."""
    kept = counts[test.targets.items]  # (T,)
    n_kept = np.bincount(test.targets.row_of[kept], minlength=len(test))
    rows = np.flatnonzero(n_kept)
    targets = Sequences.from_lengths(test.targets.items[kept], n_kept[rows])
    return Setting(rows, Questions(test.cases.take(rows), targets), candidates)


def _slices(test: Questions, warm: np.ndarray, rules: dict[str, Any]) -> dict[str, Slice]:
    n_warm = np.bincount(test.targets.row_of[warm[test.targets.items]], minlength=len(test))
    kind = np.select([n_warm == test.targets.lengths, n_warm == 0], [0, 1], 2).astype(np.int8)
    return {
        "history length": by_length(test.cases.seen.lengths, rules["slices"]["history_bounds"]),
        "targets": Slice(("warm only", "cold only", "both"), kind),
    }


def _facts(
    dataset: Dataset,
    parts: np.ndarray,
    view: TrainingView,
    test: Questions,
    candidates: np.ndarray,
    warm: np.ndarray,
    settings: dict[str, Setting],
) -> dict[str, int]:
    """Counts that identify the split, among them those that SETRec published."""
    kept = parts >= 0
    facts = {
        "users": len(view.users),
        "items": len(candidates),
        "interactions": int(kept.sum()),
        "training_interactions": int((parts == TRAIN).sum()),
        "validation_interactions": int((parts == VALID).sum()),
        "test_interactions": int((parts == TEST).sum()),
        "training_pairs": int(np.maximum(view.sequences.lengths - 1, 0).sum()),
        "users_asked": len(test),
        "candidates": len(candidates),
        "warm_targets": int(warm[test.targets.items].sum()),
        "cold_targets": int((~warm[test.targets.items]).sum()),
        "left_out_interactions": int((~kept).sum()),
    }
    for name, setting in settings.items():
        if setting.candidates is not None:
            facts |= {f"users_asked_{name}": len(setting.rows), f"candidates_{name}": len(setting.candidates)}
    return facts


PROTOCOL = Protocol(name="warmcold", version=1, rules=RULES, split=splitter(cut_by_share, RULES))
