"""Entrants whose best setting is known, on the conveyor world; importable by the jobs' own processes."""

import dataclasses
import os
from dataclasses import dataclass

import numpy as np

import protocols
from benchmark.grid import Grid, Outcome
from benchmark.lists import top_k
from benchmark.method import Entrant, Method
from benchmark.run import Interrupted, Run
from benchmark.space import OneOf, Range
from benchmark.types import Ranking, Spend
from benchmark.worker import _run_to_record
from tests import grid_world


@dataclass(frozen=True)
class Knob:
    rate: float = 0.5
    shape: tuple[int, ...] = (1,)


class Guess(Method):
    """Names the item ``step`` wagons on: on the conveyor step 1 is always right, and every other step wrong."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        step: int = 3
        knob: Knob = Knob()

    search = {"step": OneOf((0, 1, 2))}

    def fit(self, view):
        self.n_items = view.n_items
        return self

    def recommend(self, cases, k, *, candidates=None, budget=None):
        guess = (cases.histories.last_items + self.config.step - 1) % self.n_items + 1
        scores = np.zeros((len(cases), self.n_items + 1), np.float32)
        scores[:, 0] = -np.inf
        scores[np.arange(len(cases)), guess] = 1
        items, best = top_k(scores, k, cases.tie_order)
        return Ranking(cases.users, items, best, Spend("scores", self.n_items))


class Nested(Guess):
    """Reads what the search writes deep inside the Config, tuples included."""

    search = {"knob.rate": Range(0.0, 1.0), "knob.shape": OneOf(((1,), (2, 3)))}
    search_profiles = {"small": {"knob.rate": Range(0.0, 0.25)}}

    def fit(self, view):
        assert isinstance(self.config.knob.shape, tuple)
        return super().fit(view)


class Fragile(Guess):
    """Step 0 does not fit into memory, step 2 fails."""

    def fit(self, view):
        if self.config.step == 0:
            raise MemoryError("the planted shortage")
        if self.config.step == 2:
            raise RuntimeError("the planted reason")
        return super().fit(view)


class Hopeless(Guess):
    def fit(self, view):
        raise RuntimeError("the planted reason")


class Unsuited(Guess):
    @classmethod
    def unsuited(cls, view):
        return "needs pictures"


class Dies(Guess):
    """Its process ends without a word at step 0."""

    def fit(self, view):
        if self.config.step == 0:
            os._exit(7)
        return super().fit(view)


class OnceSlow(Guess):
    """The first job of all works until it is told to stop, and keeps a checkpoint; the next ones find that and end."""

    def fit(self, view):
        checkpoint = self.run.artifacts_dir / "started"
        if not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.touch()
            try:
                for _ in range(600):
                    self.run.progress("train", 0, 1)
                    grid_world.time.sleep(0.1)
            except Interrupted:
                (self.run.work_dir / "train.checkpoint").write_text("half way")
                raise
        if (self.run.work_dir / "train.checkpoint").exists():
            print("continued", (self.run.work_dir / "train.checkpoint").read_text())
        return super().fit(view)


class Fixed(Guess):
    """Nothing to search."""

    search = {}


CLASSES = {c.__name__: c for c in [Guess, *Guess.__subclasses__()]}


def method(name):
    return Entrant(name, CLASSES[name])


LOADERS = dataclasses.replace(grid_world.LOADERS, method=method)


def without_test(name):
    """The protocol, of whose test nothing is left: whoever reaches for it falls."""
    protocol = protocols.load(name)

    def split(dataset):
        empty = {field: None for field in ("test", "slices", "categories", "settings")}
        return dataclasses.replace(protocol.split(dataset), **empty)

    return dataclasses.replace(protocol, split=split)


def run_here(planned, loaders, devices, *, time_limit=None):
    """``grid.run_jobs`` in this very process: the same records without the seconds a process takes to start."""
    outcomes = []
    for item in planned:
        item.job.work_dir.mkdir(parents=True, exist_ok=True)
        run = Run(seed=item.job.seed, work_dir=item.job.work_dir, artifacts_dir=item.job.output_dir / ".artifacts")
        outcomes.append(Outcome(item.job, *_run_to_record(item.job, loaders, run)))
    return Grid(outcomes)
