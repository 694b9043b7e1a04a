"""A tiny generator on a conveyor some of whose wagons have the same text, trained and recorded as a run leaves it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import protocols
from benchmark import cli, records
from benchmark.job import Job, plan_grid
from benchmark.method import Entrant
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.scoring import score
from benchmark.types import Dataset
from leaderboards import audits
from methods.audits import command
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


def wagons() -> Dataset:
    """60 wagons; the first three have one text, and so have the two after them."""
    ring = toys.conveyor(60, 120, length=7)
    text = list(ring.item_text)
    text[2] = text[3] = text[1]
    text[5] = text[4]
    return toys.dataset("wagons", list(ring.sequences), text)


def method(spec: str) -> Entrant:
    return Entrant(spec, Tiny) if spec in ("tiny", "other") else grid_world.method(spec)


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
