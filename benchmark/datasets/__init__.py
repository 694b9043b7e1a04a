"""Datasets by name or by path: `load` finds the atomic files and returns a Dataset; `names` tells what there is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmark.datasets import atomic, demo
from benchmark.datasets.assembly import assemble
from benchmark.datasets.catalogue import ALIASES, CATALOGUE, DEMO, Entry, resolve
from benchmark.datasets.folders import find, is_path, roots
from benchmark.datasets.sources import SOURCES
from benchmark.types import Dataset

__all__ = ["Listing", "describe", "load", "names", "resolve"]


def load(name_or_path: str, data_dir: str | Path | None = None) -> Dataset:
    """The dataset of a known name or alias, or of a folder with ``NAME.inter``, or of one ``.inter`` file.

    Known names, and then folders of that name, are looked for in ``data_dir``, ``$GENREC_DATA`` and the per-user
    cache; ``./beauty`` means the folder where ``beauty`` means the name. Nothing is ever downloaded here: that is
    what ``prepare`` is for. Raises ValueError for an unknown name or damaged data, MissingData (a FileNotFoundError
    too) saying what to run, or which file to put where, when it is found nowhere.
    """
    name = ALIASES.get(name_or_path, name_or_path)
    if name == DEMO:
        return assemble(demo.generate(), DEMO)
    if found := find(name, data_dir):
        return assemble(atomic.read(found), str(found))
    if name in CATALOGUE:
        raise atomic.MissingData(_advice(name, data_dir))
    path = Path(name_or_path).expanduser()
    if not path.exists() and not is_path(name_or_path):
        resolve(name_or_path)  # nothing of that name: refuses, and suggests the nearest
    return assemble(atomic.read(path), str(path))


def _advice(name: str, data_dir: str | Path | None) -> str:
    given = [str(root) for root in roots(data_dir)]
    made = SOURCES[name].writes
    where = f" --data-dir {data_dir}" if data_dir else ""
    first = f"`prepare` makes {made} instead; " if made else f"run `python run_all.py prepare {name}{where}`, or "
    return (
        f"{name} was not found; {first}put {name}.inter (and {name}.item, dataset.json) into {given[0]}{os.sep}{name} "
        f"or point --data-dir or $GENREC_DATA to the folder that holds {name} (searched: {', '.join(given)})"
    )


@dataclass(frozen=True)
class Listing:
    """One line of the list of datasets."""

    name: str
    entry: Entry
    where: str | None
    """Folder it was found in, ``built in``, or None."""


def names(data_dir: str | Path | None = None) -> list[Listing]:
    """Every dataset known by name, and where it was found."""
    listings = []
    for name, entry in CATALOGUE.items():
        found = find(name, data_dir)
        where = "built in" if name == DEMO else str(found) if found else None
        listings.append(Listing(name, entry, where))
    return listings


def describe(data_dir: str | Path | None = None) -> list[str]:
    """The list of datasets as lines to print, headings first."""
    lines = [f"{'name':26}{'alias':13}{'users':>8}{'items':>8}{'interactions':>14}  found"]
    for row in names(data_dir):
        counts = f"{row.entry.users:8,}{row.entry.items:8,}{row.entry.interactions:14,}"
        lines.append(f"{row.name:26}{row.entry.alias or '':13}{counts}  {row.where or 'no'}")
    return lines
