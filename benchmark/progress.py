"""What the user sees while jobs run: a line for the grid with its ETA, a line for the current stage of every slot.

On a terminal the lines are redrawn in place; elsewhere (a log file, CI) a plain line is printed now and then.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from tqdm import tqdm

PLAIN_SECONDS = 15.0


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``; hours from 60 minutes on."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


@dataclass
class Stage:
    """The current stage of one slot, and how long it has still to go at its own pace."""

    job: str
    name: str = "starting"
    fraction: float = 0.0
    note: str = ""
    begun: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Stage -> moment and fraction at which it was first seen; training goes on when a validation comes between."""
    reached: dict[str, float] = field(default_factory=dict)
    """Stage -> its last fraction; one that falls back begins anew, as the next epoch's validation does."""

    def update(self, name: str, done: float, total: float, note: str) -> None:
        fraction = done / total if total else 0.0
        if fraction < self.reached.get(name, math.inf):
            self.begun[name] = time.monotonic(), fraction
        self.reached[name] = fraction
        self.name, self.fraction, self.note = name, fraction, note

    def __str__(self) -> str:
        since, first = self.begun.get(self.name, (time.monotonic(), 0.0))
        gained, spent = self.fraction - first, time.monotonic() - since
        eta = f", at most {duration(spent * (1 - self.fraction) / gained)} left" if gained > 0 and spent > 1 else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.job}: {self.name} {self.fraction:4.0%}{note}{eta}"


class Display:
    """Progress of jobs that run in ``slots`` places at once; ``estimates`` gives every job's expected seconds."""

    def __init__(self, slots: int, estimates: dict[str, float], stream: TextIO | None = None):
        self.stream = sys.stderr if stream is None else stream
        self.slots, self.estimates, self.total = slots, estimates, len(estimates)
        self.started = time.monotonic()
        self.spent: dict[str, float] = {}
        self.stages: dict[int, Stage] = {}
        self.begun: dict[int, float] = {}
        self.plain_at = self.started
        self.lines: list[tqdm] = []
        if self.stream.isatty():
            self.lines = [
                tqdm(total=0, position=p, bar_format="{desc}", file=self.stream, leave=False, dynamic_ncols=True)
                for p in range(slots + 1)
            ]

    def begin(self, slot: int, job: str) -> None:
        self.stages[slot], self.begun[slot] = Stage(job), time.monotonic()

    def stage(self, slot: int, name: str, done: float, total: float, note: str) -> None:
        self.stages[slot].update(name, done, total, note)

    def end(self, slot: int, outcome: str) -> None:
        """Say how a job ended; the line stays on the screen."""
        job = self.stages.pop(slot).job
        self.spent[job] = time.monotonic() - self.begun.pop(slot)
        self.say(f"[{len(self.spent)}/{self.total}] {job}: {outcome} in {duration(self.spent[job])}")

    def say(self, text: str) -> None:
        if self.lines:
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def refresh(self) -> None:
        """Redraw, or on a plain stream print a line when the last one is old."""
        grid = f"grid {len(self.spent)}/{self.total}, {duration(time.monotonic() - self.started)} spent{self._eta()}"
        stages = [str(self.stages[slot]) for slot in sorted(self.stages)]
        if self.lines:
            for line, text in zip(self.lines, [grid, *stages, *[""] * self.slots], strict=False):
                line.set_description_str(text)
        elif time.monotonic() - self.plain_at >= PLAIN_SECONDS:
            self.plain_at = time.monotonic()
            self.say("; ".join([grid, *stages]))

    def close(self) -> None:
        for line in self.lines:
            line.close()

    def _eta(self) -> str:
        """Estimates scaled by how the finished jobs compared with theirs; none before the first has ended."""
        if not self.spent:
            return ""
        expected = sum(self.estimates.get(job, 0.0) for job in self.spent)
        pace = sum(self.spent.values()) / expected if expected else 1.0
        running = {str(stage.job) for stage in self.stages.values()}
        left = sum(seconds for job, seconds in self.estimates.items() if job not in self.spent and job not in running)
        under_way = sum(
            max(0.0, self.estimates.get(stage.job, 0.0) * pace - (time.monotonic() - self.begun[slot]))
            for slot, stage in self.stages.items()
        )
        return f", about {duration((left * pace + under_way) / self.slots)} left"
