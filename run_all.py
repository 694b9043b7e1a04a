"""The door of GenRec Bench: files -> Dataset -> split -> fit -> recommend -> scores -> record -> leaderboard."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import methods
import protocols
from benchmark import cli, datasets, grid, records
from benchmark import tune as tuning
from benchmark.datasets.command import prepare
from benchmark.files import make_folder, sentence
from benchmark.job import Loaders, Planned, plan_grid
from benchmark.protocol import Protocol
from leaderboards import audits, command, publish, trials
from methods.audits.command import ask
from methods.blocks.text_encoder import identify

LOADERS = Loaders(
    datasets.load, protocols.load, methods.load, text_encoder=identify, usual_encoder=methods.usual_text_encoder
)


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


def _open(args: argparse.Namespace, jobs: int | None, profile: str | None) -> tuple[Protocol, str, list[str]]:
    """Protocol, profile and devices of the jobs, after refusing a folder of results made under other rules."""
    protocol = protocols.load(args.protocol)
    grid.refuse_other_protocols(args.output_dir, protocol)
    from methods.blocks.devices import job_devices  # imports torch, which the other commands do without

    profile, devices = job_devices(args.device, jobs, profile or "")
    print(f"protocol {protocol.name} version {protocol.version} ({protocol.hash}), profile {profile}")
    return protocol, profile, devices


def run(args: argparse.Namespace) -> int:
    protocol, profile, devices = _open(args, args.jobs, args.profile or (None if args.datasets else "smoke"))
    chosen = args.datasets or ["demo"], args.methods or _lineup(args.track), args.seeds or [0]
    rest = cli.where(args) | {"track": args.track, "limit_users": args.limit_users}
    planned = plan_grid(*chosen, protocol, LOADERS, profile=profile, **rest)
    grid.refuse_other_encoders(planned)
    todo = grid.announce(planned, args.overwrite, len(devices))
    if args.dry_run:
        return 0
    make_folder(args.output_dir)
    limits = {"time_limit": args.time_limit, "job_limit": args.job_limit, "exit_on_error": args.exit_on_error}
    return _show(grid.run_jobs(todo, LOADERS, devices, **limits), planned, args)


def tune(args: argparse.Namespace) -> int:
    protocol, profile, devices = _open(args, 1, args.profile)
    rest = cli.where(args) | {name: getattr(args, name) for name in ("seed", "time_limit", "dry_run")}
    rest |= {"profile": profile, "device": devices[0]}
    tuned = tuning.tune(args.method, args.dataset, args.trials, protocol, LOADERS, methods.tunable, **rest)
    print("\n".join(trials.show(tuned.planned, tuned.folder)))
    return _show(tuned.grid, tuned.planned, args)


def _show(done: grid.Grid, planned: Sequence[Planned], args: argparse.Namespace) -> int:
    """Print what failed and the tables with the planned jobs in them -> exit code."""
    mine = grid.finished(planned)
    code = grid.conclude(done, mine)
    if mine:
        everything = publish.newest(records.read_all(args.output_dir))
        print("\n".join(publish.tables(everything, args.output_dir / "leaderboards", mine)))
    return code


def _lineup(track: str) -> list[str]:
    """Every method that has settings for the track, after saying how many have not."""
    chosen = methods.lineup(track)
    left_out = len(methods.lineup()) - len(chosen)
    if left_out:
        print(f"{left_out} methods without settings for track {track} are left out")
    return chosen


def show_list(args: argparse.Namespace) -> int:
    lines: dict[str, Callable[[], list[str]]] = {"methods": methods.lineup, "protocols": protocols.describe}
    lines["datasets"] = partial(datasets.describe, args.data_dir)
    print("\n".join(lines[args.what]()))
    return 0


def audit(args: argparse.Namespace) -> int:
    return ask(args, _open, LOADERS, audits.show)


def status(args: argparse.Namespace) -> int:
    print("\n".join(grid.describe(args.output_dir)))
    return 0


COMMANDS = {"list": show_list, "import": command.import_run}
COMMANDS |= {f.__name__: f for f in (run, prepare, tune, audit, status)}
COMMANDS |= {f.__name__: f for f in (command.leaderboard, command.verify, command.submit)}

if __name__ == "__main__":
    sys.exit(main())
