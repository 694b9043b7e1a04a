"""Tuning: N trials of one method on one dataset, scored by validation alone; the best of them then takes the test.

A trial is an ordinary job in its own process, so crashes, signals, limits and checkpoints are those of any run. Trials
run one after the other, because each is chosen from the ones before it.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark import grid, records
from benchmark.files import json_bytes, sentence, write_atomically
from benchmark.grid import Grid
from benchmark.job import Job, Loaders, Planned, configured, plan_grid, tuning_dir
from benchmark.method import UNIFIED, Entrant, config_dict, search_space
from benchmark.names import hint
from benchmark.progress import duration
from benchmark.protocol import Protocol
from benchmark.space import Choices, tuned_name, values_at
from benchmark.study import SAMPLER, Study, Trial, folder_of, opened, read_trials, require_optuna, suggest
from benchmark.validate import PREFIX


@dataclass(frozen=True)
class Tuned:
    """What a call to ``tune`` did."""

    grid: Grid
    folder: Path
    """Of the study: its log, and the place for its picture."""
    planned: tuple[Planned, ...] = ()
    """The test job of the chosen setting, once it is chosen."""

    @property
    def log(self) -> Mapping[str, Any] | None:
        """The ``tuning`` field of its record."""
        return self.planned[0].job.tuning if self.planned else None


@dataclass(frozen=True)
class Tuner:
    """One method on one dataset, with all that its trials share."""

    default: Planned
    """The ordinary test job with nothing tuned."""
    entrant: Entrant
    space: Mapping[str, Choices]
    loaders: Loaders
    device: str
    deadline: float | None
    """On the monotonic clock."""

    @property
    def identity(self) -> dict[str, Any]:
        """Two studies with the same of this would do the same."""
        job = self.default.job
        return {
            "job": job.config_hash,  # protocol, dataset, method, profile, text encoder and the Config with its defaults
            "metric": PREFIX + self.loaders.protocol(job.protocol).rules["selection"],
            "space": {path: choices.describe() for path, choices in self.space.items()},
            "sampler": SAMPLER,
            "seed": job.seed,
        }

    @property
    def root(self) -> Path:
        """Above the study, beside the records of its trials."""
        job = self.default.job
        return tuning_dir(job.output_dir) / job.protocol / job.dataset_name / records.escape(job.method_name)

    def default_values(self) -> dict[str, Any]:
        job = self.default.job
        return values_at(configured(self.entrant, job.profile, job.track), self.space)

    def job(self, values: Mapping[str, Any], **changes: Any) -> Job:
        """The default job with these values. Raises ValueError when the Config will not have them."""
        base = self.default.job
        config = config_dict(configured(self.entrant, base.profile, base.track, values))
        return replace(base, overrides=dict(values), config=config, **changes)

    def run(self, job: Job) -> Grid:
        """One job to its end, within what is left of the time limit."""
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            return Grid(stopped_by="time limit")
        one = Planned(job, self.default.estimate)
        done = grid.run_jobs([one], self.loaders, [self.device], time_limit=left)
        for outcome in done.outcomes:
            if outcome.status != "interrupted" and not job.folder.exists():  # a full disk, or another process has it
                raise ValueError(f"{job}: {outcome.reason}")
        if not done.stopped_by and any(outcome.status == "interrupted" for outcome in done.outcomes):
            done.stopped_by = "a signal to its process"
        return done


def tune(
    spec: str,
    dataset: str,
    n_trials: int,
    protocol: Protocol,
    loaders: Loaders,
    tunable: Callable[[], Iterable[str]],
    *,
    profile: str,
    device: str,
    seed: int = 0,
    time_limit: float | None = None,
    dry_run: bool = False,
    **where: Any,
) -> Tuned:
    """Bring the study of ``spec`` on ``dataset`` to ``n_trials`` trials in all, and test the best of them.

    ``tunable`` lists the methods with a search space, ``where`` is what ``plan_grid`` takes: ``output_dir``,
    ``data_dir``, ``text_encoder``, ``language_models``. Trial 0 is the default setting. Raises ValueError for bad
    input.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    entrant = loaders.method(spec)
    space = search_space(entrant.cls, profile)
    if not space:
        raise ValueError(f"{entrant.name} has no search space; {hint(spec, tunable(), 'methods that have one')}")
    (default,) = plan_grid([dataset], [spec], [seed], protocol, loaders, profile=profile, track=UNIFIED, **where)
    tuner = Tuner(default, entrant, space, loaders, device, deadline)
    grid.refuse_other_encoders([replace(default, job=final_job(tuner, default.job.overrides, None))])
    if dry_run:
        _announce(tuner, n_trials)
        return Tuned(Grid(), folder_of(tuner.root, tuner.identity))
    require_optuna()
    with opened(tuner.root, tuner.identity, space) as study:
        return run_study(tuner, study, n_trials)


def run_study(tuner: Tuner, study: Study, n_trials: int) -> Tuned:
    """The trials that are missing, then the test. Raises ValueError when the study has more trials already."""
    if len(study.trials) > n_trials:
        have = len(study.trials)
        raise ValueError(f"the study in {study.folder} has {have} trials already; ask for --trials {have} or more")
    done = run_trials(tuner, study, n_trials)
    if done.stopped_by or study.best is None:
        return Tuned(done, study.folder)
    log = study.log()
    job = final_job(tuner, log["values"], log)
    planned = (Planned(job, tuner.default.estimate),)
    if grid.is_finished(job, "failed"):
        tell_again(job)
        return Tuned(Grid(), study.folder, planned)
    return Tuned(tuner.run(job), study.folder, planned)


def final_job(tuner: Tuner, values: Mapping[str, Any], log: Mapping[str, Any] | None) -> Job:
    """The test of the chosen values, under a name of its own."""
    return tuner.job(values, method_name=tuned_name(tuner.default.job.method_name), tuning=log)


def tell_again(job: Job) -> None:
    """More trials chose what was tested already: its record learns of them, its numbers stay."""
    fields = records.read(job.folder).fields
    if fields.get("tuning") != job.tuning:
        write_atomically(job.folder / "record.json", json_bytes(fields | {"tuning": job.tuning}))


def run_trials(tuner: Tuner, study: Study, n_trials: int) -> Grid:
    """Run what is missing -> how it stopped; when no trial succeeded the last failure is the outcome."""
    print(f"tuning log: {study.path}")
    paces: list[float] = []
    for number in range(n_trials):
        trial = study.trials[number] if number < len(study.trials) else _next(tuner, study)
        if trial is None:
            print(f"the whole search space was tried, so {n_trials - number} trials have nothing left to try")
            break
        if trial.status != "running":
            continue
        study.put(number, trial)
        started = time.monotonic()
        trial, done = run_trial(tuner, trial)
        if done.stopped_by:
            return done
        study.put(number, trial)
        paces.append(time.monotonic() - started)
        left = sum(paces) / len(paces) * (n_trials - number)  # the test is one more
        print(f"{_line(study, number, n_trials)}; about {duration(left)} left", flush=True)
    if study.best is None:
        print(f"error: none of the {len(study.trials)} trials succeeded, so nothing can be chosen", file=sys.stderr)
        return Grid([grid.Outcome(tuner.default.job, "failed", study.trials[-1].reason)])
    return Grid()


def _next(tuner: Tuner, study: Study) -> Trial | None:
    """The trial after the ones there are; the default comes first. None when every setting was tried."""
    if not study.trials:
        return Trial(tuner.default_values())
    values = suggest(tuner.space, study.trials, tuner.default.job.seed)
    return None if values is None else Trial(values)


def run_trial(tuner: Tuner, trial: Trial) -> tuple[Trial, Grid]:
    """Score one setting by validation, unless a record of it exists -> the trial as it ended.

    Raises ValueError when the method does not suit the data at all.
    """
    started = time.monotonic()
    try:
        job = tuner.job(trial.values, asked="valid")
    except ValueError as error:
        return replace(trial, status="failed", seconds=0.0, reason=sentence(error)), Grid()
    done = Grid() if job.folder.exists() else tuner.run(job)
    if done.stopped_by:
        return trial, done
    fields = records.read(job.folder).fields
    if fields["status"] == "skipped":
        raise ValueError(f"{job.method_name} cannot be tuned on {job.dataset_name}: {fields['reason']}")
    shutil.rmtree(job.work_dir, ignore_errors=True)  # a failed trial is not tried again
    spent = sum(fields["timings"].values()) or time.monotonic() - started
    score = fields["metrics"].get(tuner.identity["metric"])
    ended = replace(trial, status=fields["status"], reason=fields["reason"], score=score, seconds=round(spent, 3))
    return ended, done


def _line(study: Study, number: int, n_trials: int) -> str:
    """How a trial ended, and the best so far."""
    trial = study.trials[number]
    ended = f"{trial.status} ({trial.reason})" if trial.score is None else f"{trial.score:.4f}"
    values = ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in trial.values.items())
    best = "" if study.best is None else f"; best {study.trials[study.best].score:.4f} in trial {study.best}"
    return f"trial {number} ({number + 1} of {n_trials}): {ended} with {values}{best}"


def _announce(tuner: Tuner, n_trials: int) -> None:
    """The plan: the space, what is done, and what the rest takes."""
    study = folder_of(tuner.root, tuner.identity) / "study.json"
    trials = read_trials(study, tuner.identity, tuner.space)
    finished = sum(trial.status != "running" for trial in trials)
    for path, choices in tuner.space.items():
        print(f"  {path}: {choices}")
    print(f"  default: {tuner.default_values()}")
    seconds = tuner.default.seconds * (max(0, n_trials - finished) + 1)
    print(f"{finished} of {n_trials} trials are finished, the rest and the test take about {duration(seconds)}")
