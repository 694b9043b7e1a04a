"""The command `prepare`: a dataset's name, a table or a folder -> which raw files, which reader, which new folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from benchmark.datasets import atomic
from benchmark.datasets.catalogue import ALIASES, CATALOGUE, DEMO, resolve
from benchmark.datasets.download import obtain
from benchmark.datasets.folders import checked_name, find, is_path, roots, writable_root
from benchmark.datasets.prepare import make
from benchmark.datasets.raw.columns import read_columns
from benchmark.datasets.raw.lines import Report
from benchmark.datasets.sources import SOURCES, Remote, Source
from benchmark.progress import PLAIN_SECONDS, Stage

COLUMNS = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}
"""What a table's columns are called unless --columns says otherwise."""
REDRAW_SECONDS = 0.2


class Meter:
    """One line of progress, redrawn on a terminal and printed now and then elsewhere."""

    def __init__(self, job: str, stream: TextIO | None = None):
        self.stream = sys.stderr if stream is None else stream
        self.stage, self.shown_at = Stage(job), time.monotonic()

    def report(self, what: str) -> Report:
        """A Report of the stage ``what``."""
        return lambda done, total: self._show(what, done, total)

    def say(self, text: str) -> None:
        print(f"{self._line_start()}{text}", file=self.stream, flush=True)

    def clear(self) -> None:
        """Leave no half line behind for whatever is printed next."""
        print(self._line_start(), end="", file=self.stream, flush=True)

    def _show(self, what: str, done: int, total: int) -> None:
        size = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB" if total else f"{done / 1e6:,.1f} MB"
        self.stage.update(what, done, total, size)
        now, last = time.monotonic(), bool(total) and done >= total
        wait = REDRAW_SECONDS if self.stream.isatty() else PLAIN_SECONDS
        if now - self.shown_at >= wait or (last and self.stream.isatty()):
            self.shown_at = now
            end = "" if self.stream.isatty() else "\n"
            print(f"{self._line_start()}{self.stage}", end=end, file=self.stream, flush=True)

    def _line_start(self) -> str:
        return "\r\033[K" if self.stream.isatty() else ""


def prepare(args: argparse.Namespace) -> int:
    """Do what the command line asks for, and say how to use what was written."""
    if args.name is not None:
        checked_name(args.name)
    name = ALIASES.get(args.source, args.source)
    meter = Meter(Path(name).name)
    if name in CATALOGUE:
        name, read, k_core, where = _from_source(name, args, meter)
    else:
        name, read, k_core, where = _from_path(args, meter)
    target = args.output_dir or _new_folder(name, args.data_dir)
    try:
        counts = make(target, lambda: replace(read(), name=name), args.k_core or k_core, where, meter.say)
    finally:
        meter.clear()
    print(f"wrote {target}: " + ", ".join(f"{value:,} {what}" for what, value in counts.items()))
    print(f"use it with: python run_all.py {_how_to_name(name, target, args.data_dir)}")
    return 0


Plan = tuple[str, Callable[[], atomic.Tables], int, str]
"""Name of the dataset to write, how to read what it is made from, its k-core, and where from, for errors."""


def _from_source(known: str, args: argparse.Namespace, meter: Meter) -> Plan:
    """The plan for a dataset of the catalogue."""
    if known == DEMO:
        raise ValueError("demo is generated in memory and needs no preparing")
    if args.columns or args.items:
        raise ValueError(f"--columns and --items describe your own table; {known} is read as its source publishes it")
    source = SOURCES[known]
    if source.note:
        meter.say(source.note)
    name = args.name or source.writes or known
    folder = args.raw_dir or _raw_folder(source, args.data_dir)
    return name, lambda: _read_source(source, folder, name, meter), source.k_core, str(folder)


def _read_source(source: Source, folder: Path, name: str, meter: Meter) -> atomic.Tables:
    """Obtain and read the official files of a source, which lie in ``folder`` or are downloaded there."""
    paths, sha256 = [], {}
    for remote in source.files:
        path = _place(remote, folder)
        if not path.exists():
            meter.say(f"downloading {remote.name} to {folder} ({source.terms})")
        report = meter.report(f"downloading {path.name}")
        sha256[path.name] = obtain(remote.urls, path, digest=remote.digest, report=report, say=meter.say)
        paths.append(path)
    raw = source.read(paths, name, meter.report("reading"))
    return replace(raw, meta={**raw.meta, **source.meta, "raw_sha256": sha256})


def _place(remote: Remote, folder: Path) -> Path:
    """Where the file lies or is to lie; its stand-in when only that is there."""
    path = folder / remote.name
    if remote.stand_in and not path.exists() and (folder / remote.stand_in).exists():
        return folder / remote.stand_in
    return path


def _raw_folder(source: Source, data_dir: str | None) -> Path:
    """The folder below a root that holds all files of the source, else the one to download into."""
    below = Path("raw") / source.folder
    for root in roots(data_dir):
        if all(_place(remote, root / below).exists() for remote in source.files):
            return root / below
    return writable_root(data_dir) / below


def _from_path(args: argparse.Namespace, meter: Meter) -> Plan:
    """The plan for the user's own files: a table with named columns, or atomic files."""
    path = Path(args.source).expanduser()
    if not path.exists() and path.suffix.lower() in (".csv", ".tsv", ".parquet", ".gz"):
        raise atomic.MissingData(f"{path} does not exist; give the path of a table, or of a folder with NAME.inter")
    if not path.exists() and not is_path(args.source):
        resolve(args.source)  # nothing of that name: refuses, and suggests the nearest
    if args.raw_dir:
        raise ValueError("--raw-dir is for datasets known by name; give the path of your own files itself")
    if path.is_file() and path.suffix != ".inter":
        name = checked_name(args.name or path.name.split(".")[0])
        return name, lambda: _read_table(path, name, args, meter), 5, str(path)
    if args.columns or args.items:
        raise ValueError(f"--columns and --items describe a CSV or Parquet table, which {path} is not")
    name = checked_name(args.name or _own_name(path, args.output_dir))
    return name, lambda: atomic.read(path), 5, str(path)


def _read_table(path: Path, name: str, args: argparse.Namespace, meter: Meter) -> atomic.Tables:
    columns = _columns(args.columns)
    return read_columns(path, name, columns=columns, items=args.items, report=meter.report("reading"))


def _own_name(path: Path, output_dir: Path | None) -> str:
    return output_dir.resolve().name if output_dir else path.resolve().name.removesuffix(".inter")


def _columns(text: str | None) -> Mapping[str, str]:
    """``user_id=who,item_id=what`` -> our name of each column -> the table's own."""
    if text is None:
        return COLUMNS
    pairs = [pair.partition("=") for pair in text.split(",")]
    columns = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    twice = len(columns) < len(pairs) or len(set(columns.values())) < len(pairs)
    if twice or not all(columns.values()) or not {"user_id", "item_id"} <= set(columns):
        raise ValueError(
            f"--columns {text!r} does not say which columns to read, each once; "
            f"write user_id=COLUMN,item_id=COLUMN,timestamp=COLUMN"
        )
    return columns


def _new_folder(name: str, data_dir: str | None) -> Path:
    if found := find(name, data_dir):
        raise ValueError(f"{found} exists already; remove it first, or choose another --name or --output-dir")
    return writable_root(data_dir) / name


def _how_to_name(name: str, target: Path, data_dir: str | None) -> str:
    found = find(name, data_dir)
    if found is None or found.resolve() != target.resolve():
        return f"--datasets {target}"
    return f"--datasets {name}" + (f" --data-dir {data_dir}" if data_dir else "")
