"""The only place that filters: raw tables -> duplicates dropped, k-core, in time order -> atomic files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.datasets import atomic
from benchmark.datasets.assembly import SPLIT, assemble, is_order_only
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.datasets.download import Say
from benchmark.datasets.folders import checked_name
from benchmark.datasets.locks import exclusive
from benchmark.datasets.times import in_seconds, parsed
from benchmark.files import explained, make_folder
from benchmark.types import Dataset

NOTES = ("skipped_note", "time_note")
"""What a reader of raw files tells the user, in its meta."""


def prepare(
    source: Path, target: Path, name: str | None = None, k_core: int = 5, *, say: Say = lambda _: None
) -> dict[str, int]:
    """Filter the atomic files at ``source`` once and write them to the new folder ``target`` -> the statistics.

    ``name`` defaults to the target's name; ``say`` is told what was converted and what is missing.
    """
    name = checked_name(name or target.resolve().name)
    return make(target, lambda: replace(atomic.read(Path(source)), name=name), k_core, str(source), say)


def make(target: Path, read: Callable[[], atomic.Tables], k_core: int, where: str, say: Say) -> dict[str, int]:
    """Read, filter and write to the new folder ``target``, in one process at a time -> the statistics.

    Of repeated (user, item) pairs the first in time stays (in file order at equal times); then users and items
    with fewer than ``k_core`` interactions go until none is left; rows are sorted by time, then file order.
    ``target`` appears whole or not at all; an existing one is refused, as are, of a name in the catalogue, counts
    other than its own. ``where`` names the raw data in errors.
    """
    _refuse_existing(target)
    make_folder(target.parent)
    with exclusive(target, lambda: say(f"another process is preparing {target}; waiting for it")) as waited:
        if waited and target.exists():
            raise ValueError(f"{target} was prepared by another process in the meantime and is whole; use it")
        _refuse_existing(target)
        prepared = refined(read(), k_core, where, say)
        _say_what_is_missing(assemble(prepared, where), say)  # refuses here what loading would refuse later
        _write_whole(prepared, target)
    return {name: prepared.meta[name] for name in ("users", "items", "interactions")}


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise ValueError(f"{target} exists already; choose a new folder or remove it first")


def refined(raw: atomic.Tables, k_core: int, where: str, say: Say) -> atomic.Tables:
    """The tables as they are to be written: Unix seconds, filtered, counted, described."""
    if SPLIT in raw.interactions:
        raise ValueError(f"{where} is split already and split data are never filtered; use it as it is")
    for note in filter(None, map(raw.meta.get, NOTES)):
        say(note)
    rows = raw.interactions
    if "timestamp" in rows and not is_order_only(raw):
        times, done = in_seconds(rows["timestamp"], where)
        rows = rows.assign(timestamp=times)
        if done:
            say(f"{where}: {done}")
    rows = filtered(rows, k_core, where)
    counts = {"users": rows["user_id"].nunique(), "items": rows["item_id"].nunique(), "interactions": len(rows)}
    _refuse_other_counts(raw.name, counts, where)
    time = raw.meta.get("time") or ("order only (file order)" if is_order_only(raw) else "unix seconds")
    items = None if raw.items is None else raw.items[raw.items["item_id"].isin(rows["item_id"])]
    meta = {**raw.meta, **counts, "name": raw.name, "time": time, "k_core": k_core, "sha256": {}}
    return atomic.Tables(raw.name, rows, items, raw.types, meta)


def filtered(rows: pd.DataFrame, k_core: int, where: str) -> pd.DataFrame:
    """The interactions that stay, in (time, file) order. Raises ValueError when none does."""
    if "timestamp" in rows:
        rows = rows.iloc[np.argsort(parsed(rows["timestamp"], where), kind="stable")]
    rows = rows[~rows.duplicated(["user_id", "item_id"], keep="first")]
    kept = core(pd.factorize(rows["user_id"])[0], pd.factorize(rows["item_id"])[0], k_core)
    if not len(kept):
        raise ValueError(f"{where} has no {k_core}-core: nothing is left after filtering; lower --k-core")
    return rows.iloc[kept].reset_index(drop=True)


def core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Positions (in order) of the interactions (T,) in the largest part where every user and item has ``k``."""
    kept = np.arange(len(users))
    while True:
        frequent = (np.bincount(users[kept])[users[kept]] >= k) & (np.bincount(items[kept])[items[kept]] >= k)
        if frequent.all():
            return kept
        kept = kept[frequent]


def _refuse_other_counts(name: str, counts: dict[str, int], where: str) -> None:
    entry = CATALOGUE.get(name)
    if entry and counts != entry.statistics:
        found, expected = (", ".join(f"{n:,} {what}" for what, n in c.items()) for c in (counts, entry.statistics))
        raise ValueError(
            f"{where} gives {found} where {name} has {expected}; fetch the raw files again, "
            f"or keep this version under another name with --name"
        )


def _say_what_is_missing(dataset: Dataset, say: Say) -> None:
    without = sum(not text for text in dataset.item_text[1:])
    if without:
        say(f"{without:,} of the {dataset.n_items:,} items have no text")


def _write_whole(tables: atomic.Tables, target: Path) -> None:
    """Write into a hidden sibling, then rename; what a killed process has left there is removed."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        atomic.write(tables, temporary)
        temporary.rename(target)
    except OSError as error:
        raise explained(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
