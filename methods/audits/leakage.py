"""Leakage linter: do the data, the protocol or a method let the answers of the test be known before they are asked?

Static checks ask a dataset under a protocol; dynamic ones fit every method named twice, once with the test answers
handed round among the users, each time in a process of its own. Needs no finished runs. ``docs/leakage.md`` says what
each check can see and what it cannot.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import cli, records
from benchmark.audits import folder_of
from benchmark.files import make_folder, sentence
from benchmark.job import Job, Loaders, base_fields, plan_grid
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.run import Run
from methods.audits import leakage_dynamic, leakage_static
from methods.audits.leakage_checks import FAIL, Check
from methods.audits.leakage_dynamic import METRIC, Left, Worlds
from methods.audits.leakage_static import Subject
from methods.audits.leakage_world import SEED, live
from methods.popularity import Popularity

VERSION = 2
DATA = "data"
"""Stands for the method in the record of the static checks."""
Live = Callable[[Job, Loaders, str, Path, bool], None]


def ask(
    args: argparse.Namespace,
    protocol: Protocol,
    profile: str,
    device: str,
    loaders: Loaders,
    tables: Callable[[str, Path, Sequence[Record]], list[str]],
    alive: Live | None = None,
) -> int:
    """Check the datasets, and every method that is named -> exit code: 1 when something leaks or could not be asked.

    ``alive`` makes one world, by default in a process of its own.
    """
    output_dir = args.output_dir.resolve()
    make_folder(output_dir)
    planned = []
    for name in args.datasets or ["demo"]:  # all of them first: a wrong name is told before anything is fitted
        subject = Subject.of(loaders.dataset(name, args.data_dir), protocol)
        jobs = _suited(_jobs(args, protocol, profile, name, loaders), loaders, subject)
        planned.append((_data_job(args, protocol, profile, name, subject), subject, jobs))
    found, complete = [], True
    for plain, subject, jobs in planned:
        users = {"users": subject.split.test.cases.users}
        found.append(_write(plain, protocol, device, leakage_static.checks(subject), users))
        of_methods = _all_dynamic(jobs, protocol, loaders, device, subject, alive or _in_a_process)
        found += of_methods
        complete &= len(of_methods) == len(jobs)
    print("\n".join(tables("leakage", output_dir, found)))
    leaks = any(check["verdict"] == FAIL for record in found for check in record.fields["audit"]["checks"])
    return int(leaks or not complete)


def _suited(jobs: Sequence[Job], loaders: Loaders, subject: Subject) -> list[Job]:
    """Those that can run on the data, after telling of the others."""
    suited = []
    for job in jobs:
        reason = loaders.method(job.method_spec).cls.unsuited(subject.split.train)
        if reason is None:
            suited.append(job)
        else:
            print(f"{job}: not asked, {reason}")
    return suited


def _all_dynamic(
    jobs: Sequence[Job], protocol: Protocol, loaders: Loaders, device: str, subject: Subject, alive: Live
) -> list[Record]:
    """Every method one after the other, whatever becomes of each -> the records of those that could be asked."""
    if not jobs:
        return []
    try:
        worlds, found = Worlds.of(subject), []
    except ValueError as error:
        print(f"error: {subject.dataset.name}: {sentence(error)}", file=sys.stderr)
        return []
    for job in jobs:
        try:
            found.append(_write(job, protocol, device, *dynamic(job, loaders, device, worlds, alive)))
        except (ValueError, OSError, MemoryError) as error:
            print(f"error: {job}: {sentence(error)}", file=sys.stderr)
    return found


def _jobs(args: argparse.Namespace, protocol: Protocol, profile: str, name: str, loaders: Loaders) -> list[Job]:
    if not args.methods:
        return []
    rest = cli.where(args) | {"track": args.track, "profile": profile}
    return [one.job for one in plan_grid([name], args.methods, args.seeds or [0], protocol, loaders, **rest)]


def _data_job(args: argparse.Namespace, protocol: Protocol, profile: str, name: str, subject: Subject) -> Job:
    """What the record of the static checks is filed under."""
    return Job(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        dataset_spec=name,
        dataset_name=subject.dataset.name,
        dataset_hash=subject.dataset.sha256,
        method_spec=DATA,
        method_name=DATA,
        seed=0,
        profile=profile,
        track=args.track,
        config={},
        method_source=None,
        output_dir=args.output_dir.resolve(),
    )


def _write(job: Job, protocol: Protocol, device: str, checks: list[Check], arrays: dict[str, np.ndarray]) -> Record:
    settings = {"device": device.partition(":")[0], "permutation": SEED}
    fields = base_fields(job, protocol) | {
        "status": "ok",
        "audit": {"settings": settings, "version": VERSION, "checks": [asdict(check) for check in checks]},
        "device": device,
    }
    folder = folder_of(job, "leakage", {"version": VERSION, "settings": settings})
    return records.write(folder, fields, {"per_user.npz": arrays}, None)


def dynamic(
    job: Job, loaders: Loaders, device: str, worlds: Worlds, alive: Live
) -> tuple[list[Check], dict[str, np.ndarray]]:
    """Fit in both worlds and compare -> the checks, and the scores per user on the answers handed round.

    The world with the answers handed round comes first: what a method hides outside the folders of a run is then found
    by the second, and knows the wrong answers. Raises ValueError with the reason when a fit fails.
    """
    with tempfile.TemporaryDirectory(prefix=".leakage-", dir=job.output_dir) as place:

        def world(name: str, is_permuted: bool) -> Left:
            print(f"{job}: fit with the test answers {name}", flush=True)
            folder = Path(place) / name.replace(" ", "-")
            folder.mkdir()
            alive(job, loaders, device, folder, is_permuted)
            shutil.rmtree(folder / "data", ignore_errors=True)
            return Left(folder)

        right, left = world("handed round", True), world("as they are", False)
        checks = leakage_dynamic.checks(left, right, lambda: world("as they are once more", False), worlds)
        test, answers = worlds.moved.split.test, worlds.plain.split.test
        arrays = {
            "users": test.cases.users,
            f"{METRIC}/as they are": leakage_dynamic.per_user(left.ranking(), answers),
            f"{METRIC}/permuted": leakage_dynamic.per_user(right.ranking(), test),
            f"{METRIC}/permuted, popularity": leakage_dynamic.per_user(_popular(worlds.plain), test),
        }
        return checks, arrays


def _popular(subject: Subject) -> dict[str, np.ndarray]:
    """The lists of method ``popularity``, which knows nothing of a user."""
    split, length = subject.split, subject.protocol.budget.list_length
    listed = Popularity(run=Run()).fit(split.train).recommend(split.test.cases, length, candidates=split.candidates)
    return {"users": listed.users, "items": listed.items, "scores": listed.scores}


def _in_a_process(job: Job, loaders: Loaders, device: str, folder: Path, is_permuted: bool) -> None:
    """Nothing that one world leaves in memory reaches the other. Raises ValueError with the reason of a failure."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, loaders, device, folder, is_permuted, theirs))
    process.start()
    theirs.close()
    try:
        reason: Any = ours.recv()
    except EOFError:
        process.join()
        reason = f"its process ended without a word, exit code {process.exitcode} (-9: often for want of memory)"
    except BaseException:  # interrupted: nobody waits for the fit any more
        process.kill()
        raise
    finally:
        process.join()
    if reason is not None:
        raise ValueError(reason)


def _child(job: Job, loaders: Loaders, device: str, folder: Path, is_permuted: bool, connection: Any) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        live(job, loaders, device, folder, is_permuted)
    except Exception as error:  # of a method's own code: told in full, and the other methods are asked all the same
        traceback.print_exc()
        connection.send(sentence(error))
    except KeyboardInterrupt:  # of a whole terminal; the one that asked tells of it
        sys.exit(130)
    else:
        connection.send(None)


def _end_with_the_parent() -> None:
    """Where the one that asked was killed, nobody waits for the fit any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
