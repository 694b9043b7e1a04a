"""The ``audit`` command: finished runs with saved models -> audits, each kept as soon as it is done.

What was asked before is not asked again: the same model, settings and version of the audit are the same record.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import methods
from benchmark import records
from benchmark.audits import folder_of
from benchmark.files import make_folder, sentence, sha256_of
from benchmark.job import Job, Loaders, base_fields, plan_grid
from benchmark.progress import Display
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.run import Run
from benchmark.types import Split

if TYPE_CHECKING:
    from methods.blocks.generator import Generator

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]
"""What an audit found, as JSON, and its arrays per user."""
Tables = Callable[[str, Path, Sequence[Record]], list[str]]
"""(question, folder of the results, the audits asked for) -> what to print, after writing the tables."""


@dataclass(frozen=True)
class Asked:
    """All that an audit may look at."""

    method: Generator
    """Loaded from its file, as if fitted."""
    split: Split
    protocol: Protocol
    record: Record
    """Of the run that saved the model."""
    settings: Mapping[str, Any]
    run: Run


@dataclass(frozen=True)
class _Planned:
    """One audit to make, or made before."""

    job: Job
    settings: dict[str, Any]
    folder: Path

    def __str__(self) -> str:
        rule = self.settings.get("rule")
        return f"{self.job}" + (f" {rule}" if rule else "")


def ask(
    args: argparse.Namespace,
    opened: Callable[[argparse.Namespace, int, str | None], tuple[Protocol, str, list[str]]],
    loaders: Loaders,
    tables: Tables,
) -> int:
    """Make the audits that are missing, show them all -> exit code: 0 all there, 1 some could not be made."""
    protocol, profile, devices = opened(args, 1, args.profile or (None if args.datasets else "smoke"))
    question = import_module(f"{__package__}.{args.what}")
    chosen = args.datasets or ["demo"], _generators(args.methods, args.track, loaders), args.seeds or [0]
    rest = {name: getattr(args, name) for name in ("track", "text_encoder", "data_dir")}
    jobs = [
        one.job
        for one in plan_grid(*chosen, protocol, loaders, profile=profile, output_dir=args.output_dir.resolve(), **rest)
    ]
    missing = {job.folder: reason for job in jobs if (reason := _lacks(job, args))}
    for reason in missing.values():
        print(f"error: {reason}", file=sys.stderr)
    planned = [one for job in jobs if job.folder not in missing for one in _plan(job, args, question, devices[0])]
    failed = _make([one for one in planned if not one.folder.exists()], protocol, loaders, question, devices[0])
    found = [records.read(one.folder) for one in planned if one.folder.exists()]
    if found:
        print("\n".join(tables(args.what, args.output_dir, found)))
    return int(bool(missing) or failed)


def _generators(wanted: Sequence[str] | None, track: str, loaders: Loaders) -> list[str]:
    """The methods to ask: those named, or every one of the lineup that generates semantic IDs.

    Raises ValueError for a named method that does not: it has no decoder and no identifiers to ask about.
    """
    from methods.blocks.generator import Generator

    for spec in wanted or []:
        if not issubclass(loaders.method(spec).cls, Generator):
            raise ValueError(
                f"{spec} generates no semantic IDs, so there is nothing to audit; leave it out of --methods"
            )
    return list(wanted or [s for s in methods.lineup(track) if issubclass(loaders.method(s).cls, Generator)])


def _lacks(job: Job, args: argparse.Namespace) -> str | None:
    """Why a job cannot be audited, with the command that helps; None when its record and its model are there."""
    command = _command(job, args)
    if not job.folder.exists():
        return f"{job} has no finished run with these settings; make it with: {command}"
    record = records.read(job.folder)
    if record.status != "ok":
        return f"{job} ended as '{record.status}' ({record.fields['reason']}); make it again with: {command}"
    if not job.model_path.exists():
        return f"{job} was run, but its model was not saved; make it again with: {command} --overwrite always"
    return None


def _command(job: Job, args: argparse.Namespace) -> str:
    """The command line that makes a job."""
    flags = {
        "protocol": job.protocol,
        "datasets": job.dataset_spec,
        "methods": job.method_spec,
        "seeds": str(job.seed),
        "track": job.track,
        "profile": job.profile,
        "text-encoder": args.text_encoder,
        "data-dir": args.data_dir,
        "output-dir": str(args.output_dir),
    }
    words = [word for flag, value in flags.items() if value for word in (f"--{flag}", value)]
    return shlex.join(["python", "run_all.py", *words])


def _plan(job: Job, args: argparse.Namespace, question: Any, device: str) -> list[_Planned]:
    """The audits of one job: one for every decoding rule, or just one."""
    model = sha256_of(job.model_path)
    planned = []
    for settings in question.settings(args, device.partition(":")[0]):
        key = {"version": question.VERSION, "model": model, "settings": settings}
        planned.append(_Planned(job, settings, folder_of(job, args.what, key)))
    return planned


def _make(todo: Sequence[_Planned], protocol: Protocol, loaders: Loaders, question: Any, device: str) -> bool:
    """Make the audits one after the other, whatever becomes of each -> whether one failed."""
    if not todo:
        return False
    make_folder(todo[0].job.output_dir)
    display = Display(1, {str(one): 1.0 for one in todo})
    split_of = cache(lambda spec, data_dir: protocol.split(loaders.dataset(spec, data_dir)))
    failed = False
    try:
        for one in todo:
            display.begin(0, str(one))
            reason = _made(
                one, split_of(one.job.dataset_spec, one.job.data_dir), protocol, loaders, question, device, display
            )
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
    """Load the model, ask it and keep the answer -> why that failed, None when it did not."""

    def report(*what: Any) -> None:
        display.stage(0, *what)
        display.refresh()

    run = Run(
        seed=one.job.seed,
        device=device,
        artifacts_dir=one.job.output_dir / ".artifacts",
        text_encoder=one.job.text_encoder or Run.text_encoder,
        report=report,
    )
    try:
        method = one.job.method(loaders.method(one.job.method_spec), run).load(one.job.model_path, split.train)
        asked = Asked(method, split, protocol, records.read(one.job.folder), one.settings, run)  # type: ignore[arg-type]
        found, arrays = question.answer(asked)
    except (ValueError, OSError, MemoryError) as error:
        return sentence(error)
    except Exception as error:  # of a method's own code: told in full, and the other audits go on
        traceback.print_exc()
        return sentence(error)
    fields = base_fields(one.job, protocol) | {
        "status": "ok",
        "audit": {"settings": one.settings, **found},
        "device": device,
        "parameters": method.parameters(),
    }
    records.write(one.folder, fields, {"per_user.npz": arrays}, None)
    return None
