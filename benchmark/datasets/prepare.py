"""The only place that filters: raw atomic files -> duplicates dropped, k-core, in time order -> atomic files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.datasets import atomic
from benchmark.datasets.assembly import SPLIT, assemble, is_order_only, parsed_times
from benchmark.files import explained


def prepare(source: Path, target: Path, name: str | None = None, k_core: int = 5) -> dict[str, int]:
    """Filter the dataset at ``source`` once and write it to the new folder ``target`` -> its statistics.

    Of repeated (user, item) pairs the first in time stays (in file order at equal times); then users and items
    with fewer than ``k_core`` interactions go until none is left; rows are sorted by time, then file order.
    ``name`` defaults to the folder's name. ``target`` appears whole or not at all; an existing one is refused.
    """
    if target.exists():
        raise ValueError(f"{target} exists already; choose a new folder or remove it first")
    raw = atomic.read(Path(source))
    if SPLIT in raw.interactions:
        raise ValueError(f"{source} is split already and split data are never filtered; use it as it is")
    rows = filtered(raw.interactions, k_core, str(source))
    counts = {
        "users": rows["user_id"].nunique(),
        "items": rows["item_id"].nunique(),
        "interactions": len(rows),
    }
    time = raw.meta.get("time") or ("order only (file order)" if is_order_only(raw) else "unix seconds")
    items = None if raw.items is None else raw.items[raw.items["item_id"].isin(rows["item_id"])]
    name = name or target.resolve().name
    meta = {**raw.meta, **counts, "name": name, "time": time, "k_core": k_core, "sha256": {}}
    prepared = atomic.Tables(name, rows, items, raw.types, meta)
    assemble(prepared, str(source))  # refuses here what loading would refuse later
    _write_whole(prepared, target)
    return counts


def filtered(rows: pd.DataFrame, k_core: int, where: str) -> pd.DataFrame:
    """The interactions that stay, in (time, file) order. Raises ValueError when none does."""
    if "timestamp" in rows:
        rows = rows.iloc[np.argsort(parsed_times(rows["timestamp"], where), kind="stable")]
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


def _write_whole(tables: atomic.Tables, target: Path) -> None:
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        atomic.write(tables, temporary)
        temporary.rename(target)
    except OSError as error:
        raise explained(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
