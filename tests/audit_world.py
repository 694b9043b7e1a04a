"""A tiny generator and a tiny scorer on a conveyor some of whose wagons have the same text, recorded as by a run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

import protocols
from benchmark import cli, records
from benchmark.job import Job, plan_grid
from benchmark.method import Entrant
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.scoring import score
from benchmark.types import Cases, Dataset, TrainingView
from leaderboards import audits
from methods.audits import command
from methods.blocks.backbones import LanguageModel
from methods.blocks.ranking import Scorer
from methods.blocks.t5 import Shape, Stack
from methods.blocks.training import read_model, seed_everything, write_checkpoint
from methods.tiger import TIGER
from tests import grid_world, toys

LOO = protocols.load("loo")


class Tiny(TIGER):
    """Seconds of training; three levels of eight codes."""

    profiles = {
        "smoke": {
            "tokenizer": {
                "levels": 3,
                "codes": 8,
                "hidden": (32,),
                "width": 8,
                "training": {"epochs": 3, "batch_size": 16, "warmup_steps": 0},
            },
            "backbone": {
                "width": 16,
                "heads": 2,
                "head_width": 8,
                "feed": 32,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "dropout": 0.0,
            },
            "training": {"epochs": 3, "batch_size": 64, "warmup_steps": 0, "learning_rate": 5e-3},
        }
    }


WIDTHS = {"tiny-t5": 8, "scratch-s-t5": 16}
"""Stand-ins for named sizes."""


class Glance(Scorer):
    """Scores every item by one causal pass over the history; untrained, so that its numbers take no time."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        language_model: LanguageModel = LanguageModel(name="tiny-t5")

    config: Config
    saves = True
    presets = {"scratch-s-t5": {"language_model": {"name": "scratch-s-t5"}}, "copy": {}}
    model: nn.ModuleDict

    def fit(self, view: TrainingView) -> Self:
        seed_everything(self.run.seed)
        width = WIDTHS[self.config.language_model.name]
        self.shape = Shape(width=width, heads=2, head_width=3, feed=20, dropout=0.0)
        stack = Stack(self.shape, n_layers=2, causal=True)
        self.model = nn.ModuleDict({"table": nn.Embedding(view.n_items + 1, width), "stack": stack}).eval()
        return self

    def _score(self, cases: Cases) -> Tensor:
        lengths = cases.histories.lengths
        padded = torch.from_numpy(cases.histories.padded(int(lengths.max())).astype(np.int64))
        states = self.model["stack"](self.model["table"](padded))  # (B, L, D)
        last = states[torch.arange(len(padded)), torch.from_numpy(lengths - 1)]
        return last @ self.model["table"].weight.T

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def save(self, path: Path) -> None:
        write_checkpoint(path, {"model": self.model.state_dict()})

    def load(self, path: Path, view: TrainingView) -> Self:
        state = read_model(path, "cpu")
        self.fit(view).model.load_state_dict(state["model"])
        return self


def wagons() -> Dataset:
    """60 wagons; the first three have one text, and so have the two after them."""
    ring = toys.conveyor(60, 120, length=7)
    text = list(ring.item_text)
    text[2] = text[3] = text[1]
    text[5] = text[4]
    return toys.dataset("wagons", list(ring.sequences), text)


def method(spec: str) -> Entrant:
    name, _, preset = spec.partition("@")
    cls = {"tiny": Tiny, "other": Tiny, "tiger": Tiny, "glance": Glance, "setrec": Glance}.get(name)
    return Entrant(spec, cls, preset=preset or None) if cls else grid_world.method(spec)


LOADERS = replace(grid_world.LOADERS, dataset=lambda name, data_dir: wagons(), method=method)


def job_of(folder: Path, spec: str = "tiny", seed: int = 0) -> Job:
    (one,) = plan_grid(
        ["wagons"], [spec], [seed], LOO, LOADERS, profile="smoke", track="unified", output_dir=folder.resolve()
    )
    return one.job


def run(folder: Path, spec: str = "tiny", seed: int = 0) -> Job:
    """Train, score, save the model and write the record."""
    job = job_of(folder, spec, seed)
    records.write(job.folder, *score(job, LOADERS, Run(seed=seed)), None)
    return job


def ask(folder: Path, *words: str, tables: Any = audits.show, loaders: Any = LOADERS) -> int:
    """What ``run_all.py audit WORDS`` does, in this world."""
    flags = ["--datasets", "wagons", "--profile", "smoke", "--output-dir", str(folder)]
    return command.ask(cli.parse(["audit", *words, *flags]), _opened, loaders, tables)


def _opened(args: argparse.Namespace, jobs: int, profile: str | None) -> tuple[Protocol, str, list[str]]:
    assert profile is not None
    return LOO, profile, ["cpu"]
