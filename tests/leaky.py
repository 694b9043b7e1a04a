"""Methods that know the answers of the test before they are asked, each in a way that published code has had.

They find the data where any method could: by the suite's own loader, or in the files below ``$GENREC_DATA``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

import methods
import protocols
from benchmark import datasets
from benchmark.artifacts import cached
from benchmark.evaluate import mean_metric
from benchmark.job import Loaders
from benchmark.lists import top_k
from benchmark.method import Entrant, Method
from benchmark.types import Budget, Cases, Dataset, Ranking, Spend, TrainingView
from tests import audit_world, grid_world, toys

LOO = protocols.load("loo")
NAME = "scattered"
N_ITEMS, N_USERS = 400, 160


def scattered(name: str = NAME) -> Dataset:
    """A conveyor boarded everywhere, its wagons numbered in no order: honest data from which order can be learned."""
    random = np.random.default_rng(3)
    number, boards = random.permutation(N_ITEMS) + 1, random.permutation(N_USERS) * N_ITEMS // N_USERS
    rows = [number[(board + np.arange(7)) % N_ITEMS] for board in boards]
    world = toys.dataset(name, rows, ["", *(f"wagon number {i}" for i in range(1, N_ITEMS + 1))])
    return replace(world, timestamps=world.timestamps + 10 * toys.DAY * (world.users % 7))


def everything() -> Dataset:
    """The whole dataset, test answers included, as a careless ``fit`` reads it again."""
    return datasets.load(NAME)


class Leaky(Method):
    """Ranks items by scores that its kinds make, one row per case."""

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        scores = self.scores(cases).astype(np.float32)  # (U, N + 1)
        items, values = top_k(scores, k, cases.tie_order)
        return Ranking(cases.users, items, values, Spend("scores", scores.shape[1] - 1))

    def scores(self, cases: Cases) -> np.ndarray:
        raise NotImplementedError


class SequentialIds(Leaky):
    """As P5 first did: items are numbered by first appearance along all sequences, and the next number comes next."""

    def fit(self, view: TrainingView) -> Self:
        items, first = np.unique(everything().sequences.items, return_index=True)
        number = np.zeros(view.n_items + 1, np.int64)
        number[items[np.argsort(first)]] = np.arange(1, len(items) + 1)
        number[0] = -1
        self.ids = SimpleNamespace(codes=number[:, None])
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        number = self.ids.codes[:, 0]
        ahead = number[None, :] - number[cases.histories.last_items][:, None]
        return np.where(ahead > 0, -ahead, -N_ITEMS - np.abs(ahead))


class UserNames(Leaky):
    """As IDGenRec's user ids: a user is named by all that he took, the answer included."""

    def fit(self, view: TrainingView) -> Self:
        whole = everything()
        self.named = np.zeros((whole.n_users + 1, view.n_items + 1))
        for user, row in enumerate(whole.sequences, start=1):
            self.named[user, row] = np.arange(1, len(row) + 1)
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return self.named[cases.users]


class CollaborativeIds(Leaky):
    """Vectors of who was taken with whom, from all interactions, kept under a name that says nothing of them."""

    def fit(self, view: TrainingView) -> Self:
        self.together = cached(self.run.artifacts_dir, {"stage": "collaborative", "of": NAME}, self._count)["together"]
        return self

    def _count(self) -> dict[str, np.ndarray]:
        whole = everything()
        together = np.zeros((whole.n_items + 1, whole.n_items + 1), np.float32)
        np.add.at(together, whole.sequences.apart(), 1)
        return {"together": together}

    def scores(self, cases: Cases) -> np.ndarray:
        return self.together[cases.histories.last_items]


class StopsOnTest(Leaky):
    """Of ten epochs, which are random here, the one that does best on the test is kept."""

    def fit(self, view: TrainingView) -> Self:
        test = LOO.split(everything()).test
        epochs = np.random.default_rng(self.run.seed).random((10, view.n_items + 1, view.n_items + 1), np.float32)
        curve = []
        for self.weights in epochs:
            curve.append(mean_metric(self.recommend(test.cases, 10), test.targets, "recall@10"))
        self.weights = epochs[int(np.argmax(curve))]
        self.curve = curve
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return self.weights[cases.histories.last_items]

    def training_report(self) -> dict[str, Any]:
        return {"best_epoch": int(np.argmax(self.curve)), "curve": self.curve, "seconds": os.times().elapsed}


class OpensFiles(UserNames):
    """Reads the table of interactions itself, and forgets it again."""

    def fit(self, view: TrainingView) -> Self:
        (table,) = Path(os.environ["GENREC_DATA"]).rglob("*.inter")
        assert len(table.read_text().splitlines()) > N_USERS
        self.named = np.zeros((view.n_users + 1, view.n_items + 1))
        return self


class InConstructor(UserNames):
    """Has read everything before ``fit`` is called."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        whole = everything()
        self.counts = np.bincount(whole.items, minlength=whole.n_items + 1)
        super().fit(SimpleNamespace(n_items=whole.n_items))  # type: ignore[arg-type]

    def fit(self, view: TrainingView) -> Self:
        return self


class CountsAll(Leaky):
    """Popularity over all interactions: nothing of who took what, but how often everything was an answer."""

    def fit(self, view: TrainingView) -> Self:
        self.counts = np.bincount(everything().items, minlength=view.n_items + 1)
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return np.repeat(self.counts[None], len(cases), 0)


class KnowsWhen(Leaky):
    """Recommends by the time at which the test will ask."""

    def fit(self, view: TrainingView) -> Self:
        whole = everything()
        self.when = np.zeros(whole.n_users + 1)
        np.maximum.at(self.when, whole.users, whole.timestamps)
        self.n_items = view.n_items
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return -np.abs(np.arange(self.n_items + 1) - self.when[cases.users][:, None] / toys.DAY)


class OldCache(Leaky):
    """Reads what an earlier run has left outside its own folders."""

    def fit(self, view: TrainingView) -> Self:
        self.named = np.load(os.environ["LEAKY_CACHE"])
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return self.named[cases.users]


class LearnsValidation(Leaky):
    """Trains on the answers that may only choose a checkpoint."""

    def fit(self, view: TrainingView) -> Self:
        self.together = np.zeros((view.n_items + 1, view.n_items + 1))
        np.add.at(self.together, (view.valid.cases.histories.last_items, view.valid.targets.items), 1)
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return self.together[cases.histories.last_items]


class Restless(Leaky):
    """Honest, but no fit is like the other."""

    def fit(self, view: TrainingView) -> Self:
        self.weights = np.random.default_rng(int.from_bytes(os.urandom(8))).random(view.n_items + 1)
        return self

    def scores(self, cases: Cases) -> np.ndarray:
        return np.repeat(self.weights[None], len(cases), 0)


class Fails(Leaky):
    def fit(self, view: TrainingView) -> Self:
        raise RuntimeError("the planted reason")


LEAKY: dict[str, type[Method]] = {cls.__name__: cls for cls in (*Leaky.__subclasses__(), *UserNames.__subclasses__())}


def dataset(name: str, data_dir: str | None) -> Dataset:
    return scattered()


def method(name: str) -> Entrant:
    if name in LEAKY:
        return Entrant(name, LEAKY[name])
    if name == "tiny":
        return audit_world.method(name)
    return methods.load(name)


LOADERS = Loaders(
    dataset=dataset,
    protocol=protocols.load,
    method=method,
    text_encoder=grid_world.identify,
    usual_encoder=grid_world.usual_encoder,
)
