"""The command line: names only select; every hyper-parameter lives in Python. A test freezes these flags."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_UNITS = {"s": 1, "m": 60, "h": 3600}


def names(text: str) -> list[str]:
    """``a,b c`` -> ``["a", "b", "c"]``."""
    return [name for name in re.split(r"[,\s]+", text) if name]


def seconds(text: str) -> float:
    """``90``, ``90s``, ``9m`` or ``1.5h`` -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration; write 90s, 9m or 1.5h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"seed '{text}' is not a whole number from 0 to 2147483647")
    return int(text)


class _Extend(argparse.Action):
    """Collect lists written with commas, spaces, or by repeating the flag."""

    def __call__(self, parser, namespace, values, option_string=None):
        found = list(getattr(namespace, self.dest) or [])
        new: list[Any] = [name for value in values for name in ([value] if Path(value).exists() else names(value))]
        if not new:
            parser.error(f"{option_string} needs at least one name")
        if self.dest == "seeds":
            try:
                new = [seed(name) for name in new]
            except argparse.ArgumentTypeError as error:
                parser.error(f"argument {option_string}: {error}")
        setattr(namespace, self.dest, list(dict.fromkeys(found + new)))


def parser() -> argparse.ArgumentParser:
    """Sub-commands; without one, ``run``."""
    top = argparse.ArgumentParser(
        prog="run_all.py",
        description="Run sequential recommenders under one fixed protocol and build the leaderboard.",
        epilog="Without a command: run. Without --datasets: the embedded demo data at the smoke profile.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run methods on datasets (the default command)"))
    listing = commands.add_parser("list", help="list methods, datasets or protocols")
    listing.add_argument("what", choices=("methods", "datasets", "protocols"))
    listing.add_argument("--data-dir", help="folder with one sub-folder per dataset; default $GENREC_DATA")
    prepare = commands.add_parser("prepare", help="filter a raw dataset once: first of duplicates, k-core, order")
    prepare.add_argument("source", type=Path, help="folder or .inter file in RecBole's atomic format")
    prepare.add_argument("--output-dir", type=Path, required=True, help="folder to create for the prepared files")
    prepare.add_argument("--name", help="name of the prepared dataset; default: the folder's name")
    prepare.add_argument("--k-core", type=positive, default=5, help="least interactions per user and item")
    board = commands.add_parser("leaderboard", help="rebuild the tables from finished runs")
    board.add_argument("--output-dir", type=Path, default=Path("results"), help="folder of the runs")
    board.add_argument("--publish", type=Path, metavar="DIR", help="also copy compact records and tables here")
    status = commands.add_parser("status", help="what is finished, failed or under way")
    status.add_argument("--output-dir", type=Path, default=Path("results"), help="folder of the runs")
    return top


def _add_run(run: argparse.ArgumentParser) -> None:
    what = run.add_argument_group("what to run")
    what.add_argument("--protocol", default="loo", help="how methods are asked (default: loo)")
    what.add_argument("--datasets", nargs="+", action=_Extend, metavar="NAME", help="names, aliases or paths")
    what.add_argument(
        "--methods", nargs="+", action=_Extend, metavar="NAME", help="names or path/to/file.py; default: all"
    )
    what.add_argument("--seeds", nargs="+", action=_Extend, metavar="N", help="default: 0")
    what.add_argument(
        "--track",
        choices=("unified", "paper"),
        default="unified",
        help="unified (default): the same choices for all, and ranked; paper: each paper's own",
    )
    what.add_argument("--profile", choices=("smoke", "small", "full"), help="size; default: full on CUDA, else small")
    what.add_argument(
        "--limit-users", type=positive, metavar="N", help="ask only N test users (not a benchmark result)"
    )
    where = run.add_argument_group("where")
    where.add_argument("--data-dir", help="folder with one sub-folder per dataset; default $GENREC_DATA")
    where.add_argument(
        "--text-encoder",
        metavar="NAME_OR_PATH",
        default=os.environ.get("GENREC_TEXT_ENCODER") or None,
        help="what reads item texts: lsa, a hub name or a folder; default $GENREC_TEXT_ENCODER, else the track's own",
    )
    where.add_argument("--output-dir", type=Path, default=Path("results"), help="default: results")
    where.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    where.add_argument("--jobs", type=positive, metavar="N", help="jobs at once; default: one per GPU, or one")
    how = run.add_argument_group("how")
    how.add_argument("--time-limit", type=seconds, metavar="T", help="checkpoint and stop after T (90s, 9m, 2h)")
    how.add_argument("--job-limit", type=seconds, metavar="T", help="give one job up after T; its row says timeout")
    how.add_argument("--overwrite", choices=("never", "failed", "always"), default="failed", help="default: failed")
    how.add_argument("--dry-run", action="store_true", help="print the plan with estimates and stop")
    how.add_argument("--exit-on-error", action="store_true", help="stop at the first failing job")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments with ``command`` always set."""
    known = {"run", "list", "prepare", "leaderboard", "status"}
    words = list(argv)
    if not words or (words[0] not in known and words[0] not in ("-h", "--help") and words[0].startswith("-")):
        words.insert(0, "run")
    return parser().parse_args(words)
