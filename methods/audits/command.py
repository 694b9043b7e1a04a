"""The ``audit`` command: finished runs with saved models -> audits, each kept as soon as it is done.

What was asked before is not asked again: the same models, settings and version of the audit are the same record.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import records
from benchmark.audits import WITHOUT_RUNS, folder_of
from benchmark.files import make_folder, sentence, sha256_of
from benchmark.job import Job, Loaders, base_fields
from benchmark.method import Method
from benchmark.progress import Display
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.run import Run
from benchmark.types import Split
from methods.audits.selection import chosen

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]
"""What an audit found, as JSON, and its arrays per user."""
Tables = Callable[[str, Path, Sequence[Record]], list[str]]
"""(question, folder of the results, the audits asked for) -> what to print, after writing the tables."""


@dataclass(frozen=True)
class Asked:
    """All that an audit may look at."""

    method: Method
    """Loaded from its file, as if fitted."""
    split: Split
    protocol: Protocol
    record: Record
    """Of the run that saved the model."""
    settings: Mapping[str, Any]
    run: Run


@dataclass(frozen=True)
class _Planned:
    """One audit to make, or made before: of one model, or of several that are asked together."""

    jobs: list[Job]
    settings: dict[str, Any]
    folders: list[Path]
    """Of the records, one per job."""

    def __str__(self) -> str:
        if len(self.jobs) > 1:
            first = self.jobs[0]
            return f"{first.dataset_name} seed {first.seed}: {', '.join(job.method_name for job in self.jobs)}"
        rule = self.settings.get("rule")
        return f"{self.jobs[0]}" + (f" {rule}" if rule else "")

    @property
    def is_made(self) -> bool:
        return all(folder.exists() for folder in self.folders)


def ask(
    args: argparse.Namespace,
    opened: Callable[[argparse.Namespace, int, str | None], tuple[Protocol, str, list[str]]],
    loaders: Loaders,
    tables: Tables,
) -> int:
    """Make the audits that are missing, show them all -> exit code: 0 all there, 1 some could not be made."""
    protocol, profile, devices = opened(args, 1, args.profile or (None if args.datasets else "smoke"))
    question = import_module(f"{__package__}.{args.what}")
    if args.what in WITHOUT_RUNS:
        return question.ask(args, protocol, profile, devices[0], loaders, tables)
    sets, complaints = chosen(args, question, protocol, profile, loaders)
    for reason in complaints:
        print(f"error: {reason}", file=sys.stderr)
    planned = [one for jobs in sets for one in _plan(jobs, args, question, devices[0])]
    failed = _make([one for one in planned if not one.is_made], protocol, loaders, question, devices[0])
    found = [records.read(folder) for one in planned if one.is_made for folder in one.folders]
    if found:
        print("\n".join(tables(args.what, args.output_dir, found)))
    return int(bool(complaints) or failed)


def _plan(jobs: list[Job], args: argparse.Namespace, question: Any, device: str) -> list[_Planned]:
    """The audits of a set of jobs: one for every decoding rule, or just one."""
    models = {job.method_name: sha256_of(job.model_path) for job in jobs}
    planned = []
    for settings in question.settings(args, device.partition(":")[0]):
        key: dict[str, Any] = {"version": question.VERSION}
        if question.TOGETHER:
            settings = settings | {"methods": sorted(models)}
            key |= {"models": models, "settings": settings}
        else:
            key |= {"model": models[jobs[0].method_name], "settings": settings}
        planned.append(_Planned(jobs, settings, [folder_of(job, args.what, key) for job in jobs]))
    return planned


def _make(todo: Sequence[_Planned], protocol: Protocol, loaders: Loaders, question: Any, device: str) -> bool:
    """Make the audits one after the other, whatever becomes of each -> whether one failed."""
    if not todo:
        return False
    make_folder(todo[0].jobs[0].output_dir)
    display = Display(1, {str(one): 1.0 for one in todo})
    split_of = cache(lambda spec, data_dir: protocol.split(loaders.dataset(spec, data_dir)))
    failed = False
    try:
        for one in todo:
            display.begin(0, str(one))
            split = split_of(one.jobs[0].dataset_spec, one.jobs[0].data_dir)
            reason = _made(one, split, protocol, loaders, question, device, display)
            failed |= reason is not None
            display.end(0, "ok" if reason is None else f"failed: {reason}")
    finally:
        display.close()
    return failed


def _made(
    one: _Planned,
    split: Split,
    protocol: Protocol,
    loaders: Loaders,
    question: Any,
    device: str,
    display: Display,
) -> str | None:
    """Load the models, ask them and keep the answers -> why that failed, None when it did not."""

    def report(*what: Any) -> None:
        display.stage(0, *what)
        display.refresh()

    try:
        asked = [_loaded(job, one.settings, split, protocol, loaders, device, report) for job in one.jobs]
        answers = question.answers(asked) if question.TOGETHER else [question.answer(asked[0])]
    except (ValueError, OSError, MemoryError) as error:
        return sentence(error)
    except Exception as error:  # of a method's own code: told in full, and the other audits go on
        traceback.print_exc()
        return sentence(error)
    for job, folder, of_model, (found, arrays) in zip(one.jobs, one.folders, asked, answers, strict=True):
        fields = base_fields(job, protocol) | {
            "status": "ok",
            "audit": {"settings": one.settings, **found},
            "device": device,
            "parameters": of_model.method.parameters(),
        }
        records.write(folder, fields, {"per_user.npz": arrays}, None)
    return None


def _loaded(
    job: Job,
    settings: Mapping[str, Any],
    split: Split,
    protocol: Protocol,
    loaders: Loaders,
    device: str,
    report: Callable[..., None],
) -> Asked:
    """Raises ValueError for a damaged model."""
    run = Run(
        seed=job.seed,
        device=device,
        artifacts_dir=job.output_dir / ".artifacts",
        text_encoder=job.text_encoder or Run.text_encoder,
        language_models=job.language_models,
        report=report,
    )
    method = job.method(loaders.method(job.method_spec), run).load(job.model_path, split.train)
    return Asked(method, split, protocol, records.read(job.folder), settings, run)
