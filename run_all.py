"""The door of GenRec Bench: files -> Dataset -> split -> fit -> recommend -> scores -> record -> leaderboard."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmark.datasets.prepare import prepare as prepare_dataset

import methods
import protocols
from benchmark import cli, datasets, grid, records
from benchmark.files import sentence
from benchmark.job import Loaders, Planned, plan
from benchmark.progress import duration
from leaderboards import publish

LOADERS = Loaders(dataset=datasets.load, protocol=protocols.load, method=methods.load)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 all done, 1 some job failed, 2 wrong input, 3 out of time, 130 or 143 interrupted."""
    args = cli.parse(sys.argv[1:] if argv is None else argv)
    try:
        return COMMANDS[args.command](args)
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    protocol = protocols.load(args.protocol)
    grid.refuse_other_protocols(args.output_dir, protocol)
    devices = _devices(args.device, args.jobs)
    planned = _plan(args, devices[0])
    todo = [p for p in planned if not grid.is_finished(p.job, args.overwrite)]
    for item in todo:
        print(f"  {item}")
    expected = duration(sum(item.seconds for item in todo) / len(devices))
    print(f"{len(planned) - len(todo)} of {len(planned)} jobs are finished, the rest takes about {expected}")
    if args.dry_run:
        return 0
    done = grid.run_jobs(
        todo,
        LOADERS,
        devices,
        time_limit=args.time_limit,
        job_limit=args.job_limit,
        exit_on_error=args.exit_on_error,
    )
    finished = [records.read(item.job.folder) for item in planned if item.job.folder.exists()]
    for text in publish.tables(finished, args.output_dir / "leaderboards"):
        print(text)
    return _close(done)


def _plan(args: argparse.Namespace, device: str) -> list[Planned]:
    """Every job asked for, after saying what is asked and of which data."""
    protocol = protocols.load(args.protocol)
    profile = args.profile or ("smoke" if not args.datasets else "small" if device == "cpu" else "full")
    specs = args.methods or methods.lineup()
    entrants = [(spec, methods.load(spec)) for spec in specs]
    print(f"protocol {protocol.name} version {protocol.version} ({protocol.hash}), profile {profile}")
    planned = []
    for name in args.datasets or ["demo"]:
        data = datasets.load(name, args.data_dir)
        print(f"{data.name}: {data.n_users:,} users, {data.n_items:,} items, {len(data.users):,} interactions")
        where = {"dataset_spec": name, "data_dir": args.data_dir, "output_dir": args.output_dir.resolve()}
        planned += [
            plan(
                data,
                protocol,
                entrant,
                seed,
                profile,
                args.track,
                method_spec=spec,
                limit_users=args.limit_users,
                **where,
            )
            for seed in args.seeds or [0]
            for spec, entrant in entrants
        ]
    return planned


def _devices(wanted: str, n_jobs: int | None) -> list[str]:
    """One entry per job that runs at once. Raises ValueError when CUDA is asked for and absent."""
    gpus = 0 if wanted == "cpu" else _gpu_count()
    if wanted == "cuda" and not gpus:
        raise ValueError("--device cuda was asked for, but no CUDA device is visible; use --device cpu")
    if gpus:
        return [f"cuda:{place % gpus}" for place in range(n_jobs or gpus)]
    return ["cpu"] * (n_jobs or 1)


def _gpu_count() -> int:
    import torch  # here, so that the commands that only read tables start without it

    return torch.cuda.device_count()


def _close(done: grid.Grid) -> int:
    """Say what did not end well -> exit code."""
    for outcome in done.failures:
        print(f"{outcome.status}: {outcome.job}: {outcome.reason}", file=sys.stderr)
    if done.stopped_by:
        print(f"stopped by {done.stopped_by}; the same command continues", file=sys.stderr)
    return done.exit_code


def show_list(args: argparse.Namespace) -> int:
    if args.what == "methods":
        print("\n".join(methods.lineup()))
    elif args.what == "protocols":
        for protocol in map(protocols.load, protocols.names()):
            print(f"{protocol.name} version {protocol.version} ({protocol.hash})")
            print(json.dumps(protocol.rules, indent=2))
    else:
        print("\n".join(datasets.describe(args.data_dir)))
    return 0


def prepare(args: argparse.Namespace) -> int:
    stats = prepare_dataset(args.source, args.output_dir, args.name, args.k_core)
    print(f"wrote {args.output_dir}: " + ", ".join(f"{value:,} {name}" for name, value in stats.items()))
    return 0


def leaderboard(args: argparse.Namespace) -> int:
    found = publish.newest(records.read_all(args.output_dir))
    for text in publish.tables(found, args.output_dir / "leaderboards"):
        print(text)
    if args.publish:
        publish.copy(found, args.publish)
    return 0


def status(args: argparse.Namespace) -> int:
    print("\n".join(grid.describe(args.output_dir)))
    return 0


COMMANDS = {"run": run, "list": show_list, "prepare": prepare, "leaderboard": leaderboard, "status": status}

if __name__ == "__main__":
    sys.exit(main())
