"""Which finished runs an audit asks: those named, or by default those it can ask; and what to tell of the others."""

from __future__ import annotations

import argparse
import shlex
from collections import defaultdict
from typing import Any

import methods
from benchmark import cli, records
from benchmark.job import Job, Loaders, plan_grid
from benchmark.method import UNIFIED, Method
from benchmark.protocol import Protocol


def chosen(
    args: argparse.Namespace, question: Any, protocol: Protocol, profile: str, loaders: Loaders
) -> tuple[list[list[Job]], list[str]]:
    """Sets of jobs that are asked together (of one, unless the question compares models), and what is missing.

    Raises ValueError for a method that cannot be asked, and where there is nothing to compare.
    """
    specs = _methods(args, question, loaders)
    rest = cli.where(args) | {"track": args.track, "profile": profile}
    planned = plan_grid(args.datasets or ["demo"], specs, args.seeds or [0], protocol, loaders, **rest)
    jobs = [one.job for one in planned]
    missing = {job.folder: reason for job in jobs if (reason := _lacks(job, args))}
    if not question.TOGETHER:
        return [[job] for job in jobs if job.folder not in missing], list(missing.values())
    sets: dict[tuple[str, int], list[Job]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.method_name):
        there = [job] if args.methods or job.folder not in missing else []
        sets[job.dataset_name, job.seed] += there
    for (dataset, seed), some in sets.items():
        if len(some) < 2:
            raise ValueError(_too_few(f"{dataset} seed {seed}", some, args))
    if not args.methods:
        left_out = ", ".join(str(job) for job in jobs if job.folder in missing)
        if left_out:
            print(f"left out, without a finished run with these settings and its model: {left_out}")
        return list(sets.values()), []
    whole = [some for some in sets.values() if not any(job.folder in missing for job in some)]
    return whole, list(missing.values())


def _methods(args: argparse.Namespace, question: Any, loaders: Loaders) -> list[str]:
    """The methods to ask: those named, or every one of the lineup, or of the runs there are, that can be asked.

    Raises ValueError for a named method that cannot, and when there is none.
    """
    if not args.methods:
        if question.TOGETHER:
            return _there(args, question, loaders)
        return [spec for spec in methods.lineup(args.track) if question.refusal(loaders.method(spec).cls) is None]
    for spec in args.methods:
        reason = question.refusal(loaders.method(spec).cls)
        if reason is not None:
            raise ValueError(f"{spec} {reason}; leave it out of --methods")
    return list(args.methods)


def _there(args: argparse.Namespace, question: Any, loaders: Loaders) -> list[str]:
    """Every method that has a finished run, wrappers apart: what they look up about users is not timed.

    Raises ValueError when that leaves nothing to compare.
    """
    names = sorted({run.method for run in records.read_all(args.output_dir) if run.status == "ok"})
    found = [name for name in names if (cls := _class_of(name, loaders)) and _fits(cls, question, args.track)]
    if not found:
        raise ValueError(
            f"there is no finished run in {args.output_dir} of a method that audit {args.what} could ask; name methods "
            "with --methods to be told how to make their runs"
        )
    return found


def _class_of(name: str, loaders: Loaders) -> type[Method] | None:
    """None for a method that came from a file of the user's: its record does not say where that is."""
    try:
        return loaders.method(name).cls
    except ValueError:
        return None


def _fits(cls: type[Method], question: Any, track: str) -> bool:
    return cls.wraps is None and question.refusal(cls) is None and (track == UNIFIED or track in cls.tracks)


def _too_few(what: str, some: list[Job], args: argparse.Namespace) -> str:
    names = f"only {some[0].method_name}" if some else "none"
    return (
        f"audit {args.what} compares models that are asked together, and of {what} there is {names} with these "
        "settings; name several with --methods, and those without a run are told with the command that makes it"
    )


def _lacks(job: Job, args: argparse.Namespace) -> str | None:
    """Why a job cannot be audited, with the command that helps; None when its record and its model are there."""
    command = _command(job, args)
    if not job.folder.exists():
        return f"{job} has no finished run with these settings{_elsewhere(job)}; make it with: {command}"
    record = records.read(job.folder)
    if record.status != "ok":
        return f"{job} ended as '{record.status}' ({record.fields['reason']}); make it again with: {command}"
    if not job.model_path.exists():
        return f"{job} was run, but its model was not saved; make it again with: {command} --overwrite always"
    return None


def _elsewhere(job: Job) -> str:
    """A hint at runs of the same method with another profile, which never stand beside those of this one."""
    there = {records.read(path.parent).fields["profile"] for path in job.folder.parents[1].glob("*/seed=*/record.json")}
    others = ", ".join(sorted(there - {job.profile}))
    return f" (profile {job.profile}; there are some of profile {others}, and profiles never mix)" if others else ""


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
        "language-models": None if args.language_models is None else str(args.language_models),
        "output-dir": str(args.output_dir),
    }
    words = [word for flag, value in flags.items() if value for word in (f"--{flag}", value)]
    return shlex.join(["python", "run_all.py", *words])
