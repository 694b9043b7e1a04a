"""Entrants that end in every way a job can end, on the conveyor world; importable by the jobs' own processes."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

import protocols
from benchmark.job import Loaders, plan_grid
from benchmark.lists import top_k
from benchmark.method import Entrant, Method
from benchmark.types import Ranking, Spend
from tests import toys


@dataclass(frozen=True)
class Optimiser:
    epochs: int = 9
    rate: float = 0.1


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


class Reader(Counting):
    """Reads item texts, and on the paper track with an encoder and a width of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 8
        layers: int = 1
        optimiser: Optimiser = Optimiser()

    profiles = {"small": {"width": 4, "optimiser": {"epochs": 3}}}
    tracks = {"paper": {"width": 16, "optimiser": {"rate": 0.5}}}
    presets = {"deep": {"layers": 3}, "wide": {"width": 32}}
    reads_text = True
    paper_text_encoder = "paper-encoder"

    def fit(self, view):
        print(f"read by {self.run.text_encoder}, width {self.config.width}")
        return super().fit(view)


class Plain(Reader):
    """A second reader, whose paper names no encoder."""

    paper_text_encoder = ""


class Deaf(Counting):
    """Never listens."""

    def fit(self, view):
        time.sleep(60)
        return self


FAMILY = [*Method.__subclasses__(), *Counting.__subclasses__(), *Reader.__subclasses__()]
CLASSES = {c.__name__: c for c in FAMILY if c.__module__ == __name__}


def dataset(name, data_dir):
    return toys.conveyor()


def method(name):
    name, _, preset = name.partition("@")
    return Entrant(name, CLASSES[name], preset=preset or None)


def identify(spec):
    """As if an encoder's checksum were made of its folder's name; ``lsa`` has none."""
    name = PurePosixPath(spec).name
    return {"name": name, "sha256": None if name == "lsa" else name.encode().hex().ljust(64, "0")}


def usual_encoder(profile):
    return "lsa" if profile == "smoke" else "usual-encoder"


LOADERS = Loaders(
    dataset=dataset, protocol=protocols.load, method=method, text_encoder=identify, usual_encoder=usual_encoder
)


def planned(names, output_dir, seed=0, profile="smoke", track="unified", text_encoder=None):
    return plan_grid(
        ["conveyor"],
        names,
        [seed],
        protocols.load("loo"),
        LOADERS,
        profile=profile,
        track=track,
        text_encoder=text_encoder,
        output_dir=output_dir,
    )
