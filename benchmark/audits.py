"""Where the answers of audits lie: records like those of runs, in a folder that no table of runs is made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark import records
from benchmark.files import content_hash
from benchmark.job import Job

KINDS = ("decoding", "ids", "leakage", "scaling")
"""The questions there are; each is a module of ``methods.audits`` and a table of ``leaderboards``."""
WITHOUT_RUNS = ("leakage",)
"""Those that fit models themselves, or ask data alone, and so belong to no run."""


def audits_dir(output_dir: Path, kind: str) -> Path:
    """Every record of one kind of audit lies below it."""
    return output_dir / ".audits" / kind


def folder_of(job: Job, kind: str, key: Mapping[str, Any]) -> Path:
    """The record of one audit of a job's model; ``key`` is JSON and names all that decides its numbers."""
    root = audits_dir(job.output_dir, kind)
    place = records.folder_of(root, job.protocol, job.dataset_name, job.method_name, job.config_hash, job.seed)
    return place / content_hash(key, 10)
