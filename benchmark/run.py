"""The circumstances of one job: seed, device, deadline, progress, folders. Never part of a method's Config."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


class Interrupted(Exception):
    """The job was told to stop; its checkpoint is on disk and the same command continues it."""


def _silent(stage: str, done: float, total: float, note: str) -> None:
    """Progress sink of a job nobody watches."""


@dataclass
class Run:
    """What a method is told about the run it is part of."""

    seed: int = 0
    device: str = "cpu"
    work_dir: Path | None = None
    """Where checkpoints of this job live; None = keep none."""
    artifacts_dir: Path | None = None
    """Content-addressed cache shared by all jobs; None = compute and keep nothing."""
    text_encoder: str = "lsa"
    """What reads the item texts: ``lsa``, a hub name or a folder. Only for methods with ``reads_text``."""
    language_models: Path | None = None
    """Folder that is searched for pre-trained language models before the hub; None = there is none."""
    report: Callable[[str, float, float, str], None] = _silent
    """Called as (stage, done, total, note)."""
    should_stop: Callable[[], bool] = lambda: False
    """True once a signal or the deadline asks the job to stop."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per stage (embed, tokenize, train, decode), summed over resumed sessions by whoever checkpoints."""
    peak_memory: dict[str, int] = field(default_factory=dict)
    """Bytes per stage: the process's high-water mark when the stage ended, or the device's where one is used."""

    def progress(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Tell how far a stage is, and stop here when the run was told to stop. Raises Interrupted."""
        self.report(stage, done, total, note)
        if self.should_stop():
            raise Interrupted(f"stopped during {stage}")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; nested or repeated stages add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start
            self.peak_memory[name] = max(self.peak_memory.get(name, 0), peak_rss())


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
