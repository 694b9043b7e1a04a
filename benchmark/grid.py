"""Many jobs: skip what is finished, run each of the rest in its own process, and let no failure touch another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from benchmark import records
from benchmark.job import Job, Loaders, Planned, base_fields
from benchmark.method import UNIFIED
from benchmark.progress import Display, duration
from benchmark.protocol import Protocol
from benchmark.provenance import hardware, provenance
from benchmark.records import Record
from benchmark.worker import finish, main

GRACE_SECONDS = 60.0
"""How long a job that was told to stop may take to write its checkpoint before it is killed."""
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """How a job ended: a record status, or ``interrupted`` when it can be continued."""

    job: Job
    status: str
    reason: str | None = None


@dataclass
class Grid:
    """What happened: jobs already finished before, and the outcomes of this call."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopped_by: str | None = None
    """``signal 2``, ``time limit`` or ``first failure`` when the grid ended before its last job."""

    @property
    def failures(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.status in ("failed", "timeout", "oom")]

    @property
    def exit_code(self) -> int:
        """What the command line says: 128 + signal, 1 for a failure, 3 for out of time, 0."""
        if self.stopped_by and self.stopped_by.startswith("signal "):
            return 128 + int(self.stopped_by.split()[1])
        return 1 if self.failures else 3 if self.stopped_by else 0


def refuse_other_protocols(output_dir: Path, protocol: Protocol) -> None:
    """Results made under other rules may not lie in the same folder. Reads every record there.

    Raises ValueError when one has another protocol hash, or is damaged.
    """
    for record in records.read_all(output_dir / protocol.name):
        theirs = record.protocol
        if theirs["hash"] != protocol.hash:
            raise ValueError(
                f"{output_dir / protocol.name} holds results of {protocol.name} version {theirs['version']} "
                f"({theirs['hash']}), but this is version {protocol.version} ({protocol.hash}); results of two "
                f"protocols never mix: choose another --output-dir"
            )


def refuse_other_encoders(planned: Sequence[Planned]) -> None:
    """All results of one unified table were read with one text encoder; another encoder needs its own folder.

    Said before anything runs, as the tables of such a folder would be refused. Raises ValueError.
    """
    readers = {one.job.dataset_name: one.job for one in planned if one.job.text_encoder and one.job.track == UNIFIED}
    for job in readers.values():  # all of a dataset read with the same encoder
        ours = job.text_encoder_identity
        assert ours is not None
        table = {name: getattr(job, name) for name in ("track", "profile", "limit_users", "dataset_hash")}
        for record in records.read_all(job.output_dir / job.protocol / job.dataset_name):
            meets = record.status == "ok" and table.items() <= record.fields.items()
            theirs = record.fields["text_encoder"] if meets else None
            if theirs and not records.same_encoder(theirs, ours):
                raise ValueError(
                    f"{record.method} on {record.dataset} was run with the text encoder "
                    f"{records.encoder_label(theirs)}, but {job.method_name} would read with "
                    f"{records.encoder_label(ours)}, and a table has one encoder: choose it with --text-encoder, "
                    f"or choose another --output-dir"
                )


def describe(output_dir: Path) -> list[str]:
    """One line per record below ``output_dir`` and per unfinished job, for the ``status`` command."""
    done = [
        f"{r.status:8} {r.protocol['name']} {r.dataset} {r.method} seed {r.seed} {r.fields['profile']}"
        + (f": {r.fields['reason']}" if r.fields["reason"] else "")
        for r in records.read_all(output_dir)
    ]
    work = output_dir / ".work"
    waiting = sorted(path.parent.relative_to(work) for path in work.rglob("*.checkpoint"))
    return [*done, *(f"{'to go on':8} {' '.join(path.parts)}" for path in waiting)] or [f"no runs in {output_dir}"]


def finished(planned: Sequence[Planned]) -> list[Record]:
    """The records there are of the planned jobs."""
    return [records.read(item.job.folder) for item in planned if item.job.folder.exists()]


def conclude(done: Grid, mine: Sequence[Record]) -> int:
    """Say what did not end well, now or in an earlier run that was left as it is -> exit code."""
    for outcome in done.failures:
        print(f"{outcome.status}: {outcome.job}: {outcome.reason}", file=sys.stderr)
    if done.stopped_by:
        print(f"stopped by {done.stopped_by}; the same command continues", file=sys.stderr)
    left = any(record.status not in records.SETTLED for record in mine)
    return done.exit_code or int(left)


def announce(planned: Sequence[Planned], overwrite: str, slots: int) -> list[Planned]:
    """Print what is left to do and how long that takes with ``slots`` jobs at once -> the jobs to run."""
    todo = [one for one in planned if not is_finished(one.job, overwrite)]
    for one in todo:
        print(f"  {one}")
    expected = duration(sum(one.seconds for one in todo) / slots)
    print(f"{len(planned) - len(todo)} of {len(planned)} jobs are finished, the rest takes about {expected}")
    for warning in made_otherwise(planned, todo):
        print(warning, file=sys.stderr)
    return todo


def made_otherwise(planned: Sequence[Planned], todo: Sequence[Planned]) -> list[str]:
    """A warning when results that will not be redone were made by other code than the present one."""
    kept = finished([item for item in planned if item not in todo])
    now = provenance()
    other = [r for r in kept if (r.fields["provenance"]["commit"], False) != (now["commit"], now["dirty"])]
    if not other:
        return []
    return [
        f"{len(other)} finished jobs were made by another commit or by uncommitted code; --overwrite always redoes them"
    ]


def is_finished(job: Job, overwrite: str) -> bool:
    """Whether ``--overwrite never|failed|always`` leaves this job alone. Raises ValueError on a damaged record."""
    if overwrite == "always" or not job.folder.exists():
        return False
    status = records.read(job.folder).status
    return overwrite == "never" or status in records.SETTLED


def run_jobs(
    planned: Sequence[Planned],
    loaders: Loaders,
    devices: Sequence[str],
    *,
    time_limit: float | None = None,
    job_limit: float | None = None,
    exit_on_error: bool = False,
) -> Grid:
    """Run the planned jobs side by side, one per entry of ``devices``; limits in seconds.

    A crash, an out-of-memory or a job over ``job_limit`` becomes a record with its reason. SIGTERM, Ctrl-C and the
    time limit let running jobs checkpoint and stop; the same call later continues them.
    """
    grid, waiting = Grid(), [item.job for item in planned]
    running: dict[int, _Slot] = {}
    display = Display(len(devices), {str(item.job): item.seconds for item in planned})
    _set_threads(len(devices))
    deadline = None if time_limit is None else time.monotonic() + time_limit
    with _caught_signals() as caught:
        while waiting or running:
            grid.stopped_by = grid.stopped_by or _reason_to_stop(caught, deadline, grid, exit_on_error)
            if grid.stopped_by:
                waiting.clear()
                for slot in running.values():
                    slot.stop()
            for place in range(len(devices)):
                if waiting and place not in running:
                    running[place] = _Slot(waiting.pop(0), loaders, devices[place], job_limit)
                    display.begin(place, str(running[place].job))
            for place in [p for p, slot in running.items() if slot.poll(display, p)]:
                outcome = running.pop(place).outcome(loaders)
                grid.outcomes.append(outcome)
                display.end(place, outcome.status + (f" ({outcome.reason})" if outcome.reason else ""))
            display.refresh()
            wait([slot.connection for slot in running.values()], POLL_SECONDS)
    display.close()
    return grid


def _set_threads(slots: int) -> None:
    """Share the cores among the jobs: inherited by every process started from here on, unless already set."""
    cores = hardware()["cores"] or 1
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, cores // slots)))


def _reason_to_stop(caught: list[int], deadline: float | None, grid: Grid, exit_on_error: bool) -> str | None:
    if caught:
        return f"signal {caught[0]}"
    if deadline is not None and time.monotonic() >= deadline:
        return "time limit"
    return "first failure" if exit_on_error and grid.failures else None


@contextmanager
def _caught_signals():
    """Collect SIGINT and SIGTERM instead of dying of them; a second Ctrl-C changes nothing."""
    caught: list[int] = []
    previous = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Slot:
    """One running job: its process, its messages, its limits."""

    def __init__(self, job: Job, loaders: Loaders, device: str, job_limit: float | None):
        self.job = job
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=main, args=(job, loaders, device, theirs))
        # Ctrl-C reaches the whole process group. The child inherits that it is ignored, from its first instruction.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, previous)
        theirs.close()
        self.end: tuple[str, str | None] | None = None
        self.kill_at: float | None = None
        self.timeout_at = None if job_limit is None else time.monotonic() + job_limit
        self.job_limit = job_limit
        self.timed_out = False

    def stop(self) -> None:
        """Ask once; `poll` kills the process when the grace is over."""
        if self.kill_at is None and self.process.is_alive():
            self.process.terminate()
            self.kill_at = time.monotonic() + GRACE_SECONDS

    def poll(self, display: Display, place: int) -> bool:
        """Read messages and enforce limits; True when the process has ended and all it said was read."""
        ended = not self.process.is_alive()
        self._read(display, place)
        if ended:
            self.process.join()
            return True
        now = time.monotonic()
        if self.timeout_at is not None and now >= self.timeout_at and not self.timed_out:
            self.timed_out = True
            self.stop()
        if self.kill_at is not None and now >= self.kill_at:
            self.process.kill()
        return False

    def _read(self, display: Display, place: int) -> None:
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if message[0] == "progress":
                    display.stage(place, *message[1:])
                else:
                    self.end = message[1], message[2]
        except (EOFError, OSError):
            pass  # the process closed its side; its exit code tells the rest

    def outcome(self, loaders: Loaders) -> Outcome:
        """What became of it; of a process that died without a word the record is written here."""
        self.connection.close()
        if self.timed_out and (self.end is None or self.end[0] == "interrupted"):
            assert self.job_limit is not None
            return self._record(loaders, "timeout", f"still running after its limit of {duration(self.job_limit)}")
        if self.end is not None:
            return Outcome(self.job, *self.end)
        if self.kill_at is not None:
            return Outcome(self.job, "interrupted", "killed before it could write a checkpoint")
        return self._record(loaders, *_death(self.process.exitcode))

    def _record(self, loaders: Loaders, status: str, reason: str) -> Outcome:
        fields = base_fields(self.job, loaders.protocol(self.job.protocol)) | {"status": status, "reason": reason}
        return Outcome(self.job, *finish(self.job, fields, {}))


def _death(exitcode: int | None) -> tuple[str, str]:
    """Status and reason for a process that ended without a message."""
    if exitcode == -signal.SIGKILL:
        return "oom", "the process was killed (signal 9), most likely because memory ran out; use a smaller profile"
    if exitcode is not None and exitcode < 0:
        return "failed", f"the process died of signal {-exitcode}; see its log.txt"
    return "failed", f"the process ended with exit code {exitcode} and no result; see its log.txt"
