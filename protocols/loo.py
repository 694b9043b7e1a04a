"""Leave-one-out: every user's last item tests, the second last validates, all before trains.

Dataset -> who is asked -> training view, test questions, slices of the questions, facts to print and assert.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.lists import tie_order
from benchmark.protocol import Protocol
from benchmark.types import Cases, Dataset, Questions, Sequences, Slice, Split, TrainingView
from protocols._slices import binary, by_length, by_popularity, popularity_groups, scan_order

RULES: dict[str, Any] = {
    "split": "last item tests, second last validates",
    "min_interactions": 3,
    "shorter_users": "train only",
    "users": "ascending by id",
    "targets": 1,
    "history_length": 20,
    "history": "items before the target, oldest first; the test history includes the validation item",
    "candidates": "every item with at least one interaction",
    "ks": [1, 5, 10, 20],
    "metrics": [f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10, 20)] + ["mrr@20"],
    "primary": "ndcg@10",
    "selection": "ndcg@10",
    "reference": "sasrec",
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
        "head_share": 0.2,
        "popularity_ties": "first appearance, users in file order, each user's items in time order",
        "popularity_groups": 5,
        "history_bounds": [5, 10, 20],
        "transition": "last history item -> target adjacent in some training sequence",
    },
}


def split(dataset: Dataset) -> Split:
    """Ask every user with enough interactions. Raises ValueError when the data cannot be asked this way."""
    sequences = dataset.sequences
    _check_every_item_occurs(dataset)
    asked = sequences.lengths >= RULES["min_interactions"]
    if dataset.presplit is not None:
        asked = _presplit_asked(dataset, dataset.presplit)
    if not asked.any():
        raise ValueError(
            f"no user of {dataset.name} has the {RULES['min_interactions']} interactions protocol loo needs"
        )
    train = _head(sequences, sequences.lengths - 2 * asked)
    tie = tie_order(dataset.n_items, RULES["tie_seed"])
    valid = _questions(sequences, asked, 1, tie)
    test = _questions(sequences, asked, 0, tie)
    view = TrainingView(
        n_users=dataset.n_users,
        n_items=dataset.n_items,
        users=np.arange(1, dataset.n_users + 1, dtype=np.int32),
        sequences=train,
        valid=valid,
        max_history=RULES["history_length"],
        item_text=dataset.item_text,
        item_fields=dataset.item_fields,
        selection=RULES["selection"],
    )
    slices = _slices(dataset, view, test)
    return Split(view, test, slices, dataset.categories, _facts(dataset, view, test, slices))


def _check_every_item_occurs(dataset: Dataset) -> None:
    idle = dataset.n_items - len(np.unique(dataset.items))
    if idle:
        raise ValueError(
            f"{dataset.name} numbers {idle} items that nobody interacted with, and protocol loo ranks only "
            "items that occur; leave them out when the dataset is prepared"
        )


def _presplit_asked(dataset: Dataset, label: np.ndarray) -> np.ndarray:
    """(U,) bool: users with given answers. Raises ValueError unless each is train..., valid, test."""
    labels = Sequences.from_lengths(label[dataset.chronological], dataset.sequences.lengths)
    asked = np.bincount(labels.row_of, weights=labels.items > 0, minlength=len(labels)) > 0  # (U,)
    place_from_end = np.repeat(labels.offsets[1:], labels.lengths) - np.arange(len(labels.items))  # (T,) 1 = last
    wanted = np.select([place_from_end == 1, place_from_end == 2], [2, 1], 0)
    wrong = asked[labels.row_of] & (labels.items != wanted)
    broken = np.flatnonzero(asked & (labels.lengths < RULES["min_interactions"]))
    broken = np.concatenate([labels.row_of[wrong], broken])
    if len(broken):
        raise ValueError(
            f"the given split of {dataset.name} is not leave-one-out: user '{dataset.user_keys[broken[0]]}' "
            "needs training interactions and, last in time, exactly one for validation and then one for test"
        )
    return asked


def _leading(sequences: Sequences, lengths: np.ndarray) -> np.ndarray:
    """(T,) bool: does the item stand among the first ``lengths`` (R,) of its row?"""
    within = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    return within < lengths[sequences.row_of]


def _head(sequences: Sequences, lengths: np.ndarray) -> Sequences:
    """The first ``lengths`` (R,) items of every row."""
    return Sequences.from_lengths(sequences.items[_leading(sequences, lengths)], lengths)


def _questions(sequences: Sequences, asked: np.ndarray, later: int, tie: np.ndarray) -> Questions:
    """Each asked user's target is the item with ``later`` items after it; everything before it was seen."""
    rows = sequences.take(asked)
    seen = _head(rows, rows.lengths - 1 - later)
    targets = rows.items[rows.offsets[1:] - 1 - later]
    users = (np.flatnonzero(asked) + 1).astype(np.int32)
    cases = Cases(users, seen.tail(RULES["history_length"]), seen, tie)
    return Questions(cases, Sequences.from_lengths(targets, np.ones(len(users), np.int64)))


def _slices(dataset: Dataset, view: TrainingView, test: Questions) -> dict[str, Slice]:
    """The partitions of the test questions in which the metrics are shown again."""
    rules, targets = RULES["slices"], test.targets.items
    scan = scan_order(dataset)
    in_training = np.zeros(len(dataset.items), bool)
    in_training[dataset.chronological] = _leading(dataset.sequences, view.sequences.lengths)
    trained = by_popularity(dataset.items[scan][in_training[scan]], dataset.n_items)
    overall = by_popularity(dataset.items[scan], dataset.n_items)
    warm = view.item_counts[targets] > 0
    labels, group = popularity_groups(trained, dataset.n_items, rules["popularity_groups"])
    return {
        "target popularity": _head_or_tail(trained, targets, dataset.n_items),
        "target popularity (all interactions)": _head_or_tail(overall, targets, dataset.n_items),
        "popularity group": Slice(labels, group[targets]),
        "history length": by_length(test.cases.seen.lengths, rules["history_bounds"]),
        "last-to-target transition": binary(("seen in training", "not seen"), _transition_seen(view, test)),
        "target": binary(("warm", "cold"), warm),
    }


def _head_or_tail(ordered: np.ndarray, targets: np.ndarray, n_items: int) -> Slice:
    """Head = the first floor(share x N) items of the order."""
    head = ordered[: int(RULES["slices"]["head_share"] * n_items)]
    return binary(("head", "tail"), np.isin(targets, head))


def _transition_seen(view: TrainingView, test: Questions) -> np.ndarray:
    """(U,) bool: does the target follow the last history item directly in some training sequence?"""
    before, after = view.sequences.apart()
    known = before.astype(np.int64) * (view.n_items + 1) + after
    asked = test.cases.histories.last_items.astype(np.int64) * (view.n_items + 1) + test.targets.items
    return np.isin(asked, known)


def _facts(dataset: Dataset, view: TrainingView, test: Questions, slices: dict[str, Slice]) -> dict[str, int]:
    """Counts that identify the split: a re-implementation that differs in one of them asks something else."""
    cold = view.item_counts[1:] == 0
    return {
        "users": dataset.n_users,
        "items": dataset.n_items,
        "interactions": len(dataset.items),
        "users_asked": len(test),
        "training_interactions": len(view.sequences.items),
        "training_pairs": int(np.maximum(view.sequences.lengths - 1, 0).sum()),
        "cold_items": int(cold.sum()),
        "cold_targets": int((slices["target"].codes == 1).sum()),
        "head_items": int(RULES["slices"]["head_share"] * dataset.n_items),
        "head_users": int((slices["target popularity"].codes == 0).sum()),
        "head_users_all_interactions": int((slices["target popularity (all interactions)"].codes == 0).sum()),
    }


PROTOCOL = Protocol(name="loo", version=1, rules=RULES, split=split)
