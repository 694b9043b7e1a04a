"""Split, popularity and markov once more, from the raw file in a few lines that share nothing with the suite.

Only the protocol's tie order is taken from the suite; everything else is read, counted and ranked anew.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import protocols
from benchmark.datasets import load
from benchmark.evaluate import evaluate

Rows = list[tuple[str, str, float]]
LOO = protocols.load("loo")

DATA = [
    "demo",
    *(
        pytest.param(name, marks=pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="set $GENREC_DATA"))
        for name in ("amazon14-beauty", "amazon14-toys")
    ),
]


def raw_rows(name: str) -> Rows:
    """(user key, item key, time) in file order; demo, which has no file, from its own columns."""
    if name == "demo":
        data = load(name)
        users, items = data.user_keys[data.users - 1].tolist(), data.item_keys[data.items - 1].tolist()
        return list(zip(users, items, data.timestamps.tolist(), strict=True))
    with open(Path(os.environ["GENREC_DATA"]) / name / f"{name}.inter", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["user_id:token"], row["item_id:token"], float(row["timestamp:float"])) for row in reader]


def histories_of(rows: Rows) -> list[list[str]]:
    """Users by first appearance, each user's items by time, equal times in file order."""
    by_user: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for user, item, time in rows:
        by_user[user].append((time, item))
    return [[item for _, item in sorted(bought, key=lambda pair: pair[0])] for bought in by_user.values()]


def counts_by_second_route(rows: Rows) -> dict[str, int]:
    histories = histories_of(rows)
    training = [history[:-2] if len(history) > 2 else history for history in histories]
    answers = [history[-1] for history in histories if len(history) > 2]
    n_head = len({item for _, item, _ in rows}) // 5
    head = {}
    for which, sequences in (("training", training), ("all", histories)):
        counts = Counter(item for history in sequences for item in history)  # keeps first appearance
        head[which] = {item for item, _ in counts.most_common(n_head)}  # a stable sort
    known = {item for history in training for item in history}
    return {
        "training_pairs": sum(len(history) - 1 for history in training),
        "cold_targets": sum(item not in known for item in answers),
        "head_items": n_head,
        "head_users": sum(item in head["training"] for item in answers),
        "head_users_all_interactions": sum(item in head["all"] for item in answers),
    }


def metrics_by_second_route(rows: Rows, tie_order: np.ndarray) -> dict[str, dict[str, float]]:
    """method -> recall@10 and ndcg@10 from the rank of each answer: who scores more, or wins the tie."""
    number = {key: n for n, key in enumerate(sorted({item for _, item, _ in rows}), 1)}
    histories = [[number[item] for item in history] for history in histories_of(rows)]
    follows: dict[int, Counter[int]] = defaultdict(Counter)
    popularity = np.zeros(len(number) + 1)
    for history in histories:
        training = history[:-2] if len(history) > 2 else history
        np.add.at(popularity, training, 1)
        for last, following in pairwise(training):
            follows[last][following] += 1
    best_first = sorted(number.values(), key=lambda item: (-popularity[item], tie_order[item]))
    place = {item: rank for rank, item in enumerate(best_first, 1)}
    ranks: dict[str, list[int]] = {"popularity": [], "markov": []}
    for *_, last, answer in (history for history in histories if len(history) > 2):
        ranks["popularity"].append(place[answer])
        scores = 1e-3 * popularity / popularity.max()
        scores[list(follows[last])] += list(follows[last].values())
        better = (scores > scores[answer]) | ((scores == scores[answer]) & (tie_order < tie_order[answer]))
        ranks["markov"].append(1 + int(better[1:].sum()))
    return {method: recall_and_ndcg_at_10(np.array(of_method)) for method, of_method in ranks.items()}


def recall_and_ndcg_at_10(ranks: np.ndarray) -> dict[str, float]:
    return {"recall@10": (ranks <= 10).mean(), "ndcg@10": ((ranks <= 10) / np.log2(ranks + 1)).mean()}


@pytest.mark.parametrize("name", DATA)
def test_counts_of_the_split(name: str) -> None:
    assert counts_by_second_route(raw_rows(name)).items() <= LOO.split(load(name)).facts.items()


@pytest.mark.parametrize("name", DATA)
def test_popularity_and_markov(name: str, record_property: Callable[[str, object], None]) -> None:
    data = load(name)
    split = LOO.split(data)
    second = metrics_by_second_route(raw_rows(name), split.test.cases.tie_order)
    for method, wanted in second.items():
        room = importlib.import_module(f"methods.{method}").METHOD
        ranking = room().fit(split.train).recommend(split.test.cases, LOO.budget.list_length, budget=LOO.budget)
        found = evaluate(ranking, split.test, split, LOO.rules, data.n_items).metrics
        for metric, value in wanted.items():
            record_property(f"{method} {metric}", value)
            assert found[metric] == pytest.approx(value, abs=1e-9), f"{method} {metric}"
