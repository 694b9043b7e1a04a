"""Entrants that end in every way a job can end, on the conveyor world; importable by the jobs' own processes."""

import os
import signal
import time

import numpy as np

import protocols
from benchmark.job import Loaders, plan_grid
from benchmark.lists import top_k
from benchmark.method import Entrant, Method
from benchmark.types import Ranking, Spend
from tests import toys


class Counting(Method):
    """Answers with the most frequent items."""

    def fit(self, view):
        self.counts = view.item_counts.astype(np.float32)
        print("counted")
        return self

    def recommend(self, cases, k, *, candidates=None, budget=None):
        items, scores = top_k(np.where(self.counts > 0, self.counts, -np.inf)[None], k, cases.tie_order)
        spend = Spend("scores", len(self.counts))
        return Ranking(cases.users, items.repeat(len(cases), 0), scores.repeat(len(cases), 0), spend)


class Raises(Counting):
    def fit(self, view):
        raise RuntimeError("the planted reason")


class OutOfMemory(Counting):
    def fit(self, view):
        np.empty(2**50)
        return self


class Dies(Counting):
    def fit(self, view):
        os._exit(7)


class Killed(Counting):
    def fit(self, view):
        os.kill(os.getpid(), signal.SIGKILL)
        return self


class Unsuited(Counting):
    @classmethod
    def unsuited(cls, view):
        return "needs pictures"


class Cheats(Counting):
    """Names the same item twice."""

    def recommend(self, cases, k, *, candidates=None, budget=None):
        ranking = super().recommend(cases, k)
        ranking.items[:, 1] = ranking.items[:, 0]
        return ranking


class Slow(Counting):
    """Works for a minute, telling how far it is."""

    def fit(self, view):
        for step in range(600):
            self.run.progress("train", step, 600, "working")
            time.sleep(0.1)
        return super().fit(view)


class Deaf(Counting):
    """Never listens."""

    def fit(self, view):
        time.sleep(60)
        return self


CLASSES = {c.__name__: c for c in Method.__subclasses__() + Counting.__subclasses__() if c.__module__ == __name__}


def dataset(name, data_dir):
    return toys.conveyor()


def method(name):
    return Entrant(name, CLASSES[name])


LOADERS = Loaders(dataset=dataset, protocol=protocols.load, method=method)


def planned(names, output_dir, seed=0):
    return plan_grid(
        ["conveyor"],
        names,
        [seed],
        protocols.load("loo"),
        LOADERS,
        profile="smoke",
        track="unified",
        output_dir=output_dir,
    )
