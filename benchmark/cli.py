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


def beams(text: str) -> list[int]:
    """``20,10`` -> ``[10, 20]``."""
    return sorted({positive(size) for size in names(text) or [""]})


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
    _add_prepare(commands.add_parser("prepare", help="download, read and filter a dataset once"))
    _add_tune(commands.add_parser("tune", help="try settings of one method by validation, then test the best"))
    _add_audit(commands.add_parser("audit", help="question the saved models of finished runs"))
    board = commands.add_parser("leaderboard", help="rebuild the tables from finished runs")
    board.add_argument("--output-dir", type=Path, default=Path("results"), help="folder of the runs")
    board.add_argument("--html", type=Path, metavar="DIR", help="also make a page of them that opens from a file")
    board.add_argument("--publish", type=Path, metavar="DIR", help="also copy compact records and tables here")
    _add_exchange(commands)
    status = commands.add_parser("status", help="what is finished, failed or under way")
    status.add_argument("--output-dir", type=Path, default=Path("results"), help="folder of the runs")
    return top


def _add_exchange(commands: Any) -> None:
    """What is done with runs that somebody else should believe."""
    data = {"help": "folder with one sub-folder per dataset, to score lists anew; default $GENREC_DATA"}
    verify = commands.add_parser("verify", help="score finished runs anew from their lists, without any training")
    verify.add_argument("path", type=Path, metavar="PATH", help="results folder, one run, or a file of lists")
    submit = commands.add_parser("submit", help="pack verified runs for a pull request")
    submit.add_argument("path", type=Path, metavar="PATH", help="results folder, one run, or a file of lists")
    submit.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder that the runs are copied into")
    foreign = commands.add_parser("import", help="score lists that another program made, as a run of their own")
    foreign.add_argument("file", type=Path, metavar="FILE", help="lines of user, item, rank, score; .gz as well")
    foreign.add_argument("--sidecar", type=Path, metavar="FILE", help="what the lists are; default: FILE.json or .toml")
    foreign.add_argument("--output-dir", type=Path, default=Path("results"), help="default: results")
    for parser in (verify, submit, foreign):
        parser.add_argument("--data-dir", **data)


def _add_prepare(prepare: argparse.ArgumentParser) -> None:
    prepare.add_argument("source", metavar="NAME_OR_PATH", help="a known dataset, a table, or a folder of atomic files")
    prepare.add_argument(
        "--output-dir",
        type=Path,
        help="new folder for the prepared files; default: NAME where --datasets NAME finds it",
    )
    prepare.add_argument("--name", help="name of the prepared dataset; default: the source's own")
    prepare.add_argument(
        "--k-core", type=positive, help="least interactions per user and item; default: 5, or the named dataset's own"
    )
    prepare.add_argument("--data-dir", help="folder with one sub-folder per dataset; default $GENREC_DATA")
    prepare.add_argument(
        "--raw-dir",
        type=Path,
        help="folder of the official files, missing ones are downloaded; default: raw/NAME in the data folder",
    )
    prepare.add_argument(
        "--columns", metavar="OURS=THEIRS,...", help="columns of a table: user_id=A,item_id=B,timestamp=C"
    )
    prepare.add_argument("--items", type=Path, metavar="FILE", help="table of item texts that goes with a table")


def _add_run(run: argparse.ArgumentParser) -> None:
    what = run.add_argument_group("what to run")
    _add_what(what)
    what.add_argument(
        "--limit-users", type=positive, metavar="N", help="ask only N test users (not a benchmark result)"
    )
    where = run.add_argument_group("where")
    _add_where(where)
    jobs = "jobs at once; default: one per GPU, one on a CPU, one per core at smoke"
    where.add_argument("--jobs", type=positive, metavar="N", help=jobs)
    how = run.add_argument_group("how")
    how.add_argument("--time-limit", type=seconds, metavar="T", help="checkpoint and stop after T (90s, 9m, 2h)")
    how.add_argument("--job-limit", type=seconds, metavar="T", help="give one job up after T; its row says timeout")
    how.add_argument("--overwrite", choices=("never", "failed", "always"), default="failed", help="default: failed")
    how.add_argument("--dry-run", action="store_true", help="print the plan with estimates and stop")
    how.add_argument("--exit-on-error", action="store_true", help="stop at the first failing job")


def _add_what(parser: argparse._ActionsContainer) -> None:
    """What selects runs, whether they are to be made or to be audited."""
    parser.add_argument("--protocol", default="loo", help="how methods are asked (default: loo)")
    parser.add_argument("--datasets", nargs="+", action=_Extend, metavar="NAME", help="names, aliases or paths")
    parser.add_argument(
        "--methods", nargs="+", action=_Extend, metavar="NAME", help="names or path/to/file.py; default: all"
    )
    parser.add_argument("--seeds", nargs="+", action=_Extend, metavar="N", help="default: 0")
    parser.add_argument(
        "--track",
        choices=("unified", "paper"),
        default="unified",
        help="unified (default): the same choices for all, and ranked; paper: each paper's own",
    )
    parser.add_argument("--profile", choices=("smoke", "small", "full"), help="size; default: full on CUDA, else small")


def _add_where(parser: argparse._ActionsContainer) -> None:
    """What every command that runs jobs takes."""
    parser.add_argument("--data-dir", help="folder with one sub-folder per dataset; default $GENREC_DATA")
    parser.add_argument(
        "--text-encoder",
        metavar="NAME_OR_PATH",
        default=os.environ.get("GENREC_TEXT_ENCODER") or None,
        help="what reads item texts: lsa, a hub name or a folder; default $GENREC_TEXT_ENCODER, else the track's own",
    )
    parser.add_argument(
        "--language-models",
        type=Path,
        metavar="DIR",
        default=os.environ.get("GENREC_LANGUAGE_MODELS") or None,
        help="folder with gpt2/, Qwen3-0.6B/ and so on, read in place of the hub's; default $GENREC_LANGUAGE_MODELS",
    )
    parser.add_argument("--output-dir", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def where(args: argparse.Namespace) -> dict[str, Any]:
    """The folders and models that jobs are planned with."""
    named = {name: getattr(args, name) for name in ("data_dir", "text_encoder", "language_models")}
    return named | {"output_dir": args.output_dir.resolve()}


def _add_tune(tune: argparse.ArgumentParser) -> None:
    tune.add_argument("method", metavar="METHOD", help="name or path/to/file.py")
    tune.add_argument("--dataset", required=True, metavar="NAME", help="name, alias or path")
    tune.add_argument("--trials", type=positive, default=20, metavar="N", help="settings to try in all; default: 20")
    tune.add_argument("--protocol", default="loo", help="how methods are asked (default: loo)")
    tune.add_argument("--profile", choices=("smoke", "small", "full"), help="size; default: full on CUDA, else small")
    tune.add_argument("--seed", type=seed, default=0, metavar="N", help="of the search and of every trial; default: 0")
    _add_where(tune)
    tune.add_argument("--time-limit", type=seconds, metavar="T", help="checkpoint and stop after T (90s, 9m, 2h)")
    tune.add_argument("--dry-run", action="store_true", help="print the plan with an estimate and stop")


def _add_audit(audit: argparse.ArgumentParser) -> None:
    kinds = audit.add_subparsers(dest="what", metavar="QUESTION", required=True)
    decoding = kinds.add_parser("decoding", help="beams against exact scoring: lists, scores, time")
    ids = kinds.add_parser("ids", help="how good the semantic IDs are, and what their collisions do to scores")
    leakage = kinds.add_parser("leakage", help="whether data, protocol or the methods named know the test answers")
    scaling = kinds.add_parser("scaling", help="models timed in turns in one process, beside their scores and sizes")
    for kind in (decoding, ids, leakage, scaling):
        _add_what(kind.add_argument_group("which runs"))
        _add_where(kind.add_argument_group("where"))
    how = decoding.add_argument_group("how")
    how.add_argument(
        "--users", type=positive, metavar="N", help="of the test, drawn once; default: 200 raw, 1000 renorm, CUDA 2000"
    )
    how.add_argument("--beams", type=beams, default=beams("10,20,50,100"), metavar="B,...", help="10,20,50,100")
    timed = scaling.add_argument_group("how")
    timed.add_argument("--users", type=positive, metavar="N", help="of the test, drawn once; default: 200, CUDA 2000")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments with ``command`` always set."""
    known = {"run", "list", "prepare", "tune", "audit", "leaderboard", "verify", "submit", "import", "status"}
    words = list(argv)
    if not words or (words[0] not in known and words[0] not in ("-h", "--help") and words[0].startswith("-")):
        words.insert(0, "run")
    return parser().parse_args(words)
