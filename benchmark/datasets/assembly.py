"""Tables -> Dataset: numbering, time, labels and text; asserts what prepared data promise and changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark.datasets.atomic import PARTS, Tables
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.datasets.text import category_codes, item_fields, item_texts
from benchmark.datasets.times import parsed, refuse_finer
from benchmark.types import Dataset

SPLIT = "split"
OUTSIDE_HASH = ("name", "meta", "sha256")
RESULT_META = ("setrec_cutoffs",)
"""Entries of dataset.json that a protocol reads, so they belong to the content hash."""


def assemble(tables: Tables, where: str) -> Dataset:
    """Build the Dataset; ``where`` names its origin in errors.

    Items that ``.item`` leaves out have no text and are counted in ``meta["undescribed_items"]``. Raises ValueError
    when pairs repeat, an item is described twice, a time is missing, no number, negative or finer than seconds, or
    the counts differ from the catalogue's or from dataset.json's.
    """
    rows = tables.interactions
    user_keys, users = numbered(rows["user_id"])
    item_keys, items = numbered(rows["item_id"])
    entry = CATALOGUE.get(tables.name)
    _refuse_repeats(tables, where, users, items)
    _check_statistics(tables, where, user_keys, item_keys, users, items)
    extra = entry.extra_text if entry else tables.meta.get("extra_text")
    table = _checked_items(tables, where)
    described = item_fields(table, item_keys, extra)
    undescribed = 0 if table is None else int((~pd.Index(item_keys).isin(table["item_id"])).sum())
    dataset = Dataset(
        name=tables.name,
        user_keys=user_keys,
        item_keys=item_keys,
        users=users,
        items=items,
        timestamps=_timestamps(tables, where),
        order_only=is_order_only(tables),
        item_text=item_texts(described, len(item_keys)),
        item_fields=described,
        categories=category_codes(described),
        presplit=_presplit(rows, where),
        labels=_labels(tables),
        meta={**tables.meta, **({"extra_text": extra} if extra else {}), "undescribed_items": undescribed},
    )
    return replace(dataset, sha256=content_hash(dataset))


def numbered(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Raw keys -> sorted distinct keys (N,), and ids 1..N (T,) int32 in that order."""
    codes, keys = pd.factorize(column.to_numpy(object))
    order = np.argsort(keys.astype(str), kind="stable")  # by code point, as numpy and Python sort str
    place = np.empty(len(keys), np.int32)
    place[order] = np.arange(1, len(keys) + 1)
    return keys[order].astype(str), place[codes]


def is_order_only(tables: Tables) -> bool:
    """True when times say nothing across users: no column, or dataset.json says so."""
    declared = tables.meta.get("order_only") is True or str(tables.meta.get("time", "")).startswith("order only")
    return declared or "timestamp" not in tables.interactions


def _timestamps(tables: Tables, where: str) -> np.ndarray:
    """(T,) the column, or positions in each user's history, in file order, where there is none."""
    rows = tables.interactions
    if "timestamp" in rows:
        times = parsed(rows["timestamp"], where)
        return times if is_order_only(tables) else refuse_finer(times, where)
    return rows.groupby("user_id", sort=False).cumcount().to_numpy(np.float64)


def _refuse_repeats(tables: Tables, where: str, users: np.ndarray, items: np.ndarray) -> None:
    pairs = users.astype(np.int64) << 32 | items
    repeats = len(pairs) - len(pd.unique(pairs))
    if not repeats:
        return
    if tables.name in CATALOGUE:
        todo = f"{tables.name} as published has none; fetch it again"
    elif SPLIT in tables.interactions:
        todo = "remove them from the split files: a split is never filtered here"
    else:
        todo = "run `python run_all.py prepare PATH --output-dir DIR` first, and use DIR"
    raise ValueError(f"{where} holds {repeats:,} repeated (user, item) pairs; {todo}")


def _check_statistics(
    tables: Tables,
    where: str,
    user_keys: np.ndarray,
    item_keys: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
) -> None:
    """Hold the counts against the catalogue or dataset.json, and the core against the k_core it declares."""
    found = {"users": len(user_keys), "items": len(item_keys), "interactions": len(users)}
    entry = CATALOGUE.get(tables.name)
    declared = {name: tables.meta[name] for name in found if name in tables.meta}
    expected = entry.statistics if entry else {**found, **declared}
    if found != expected:
        todo = "fetch it again, or give your own version another name" if entry else "correct dataset.json"
        raise ValueError(f"{where} holds {_listed(found)} where {tables.name} has {_listed(expected)}; {todo}")
    k_core = tables.meta.get("k_core", 0)
    least = min(np.bincount(users)[1:].min(), np.bincount(items)[1:].min())
    if least < k_core:
        raise ValueError(
            f"{where} promises {k_core} interactions for every user and item but one has {least}; prepare it again"
        )


def _listed(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _checked_items(tables: Tables, where: str) -> pd.DataFrame | None:
    if tables.items is not None and not (ids := tables.items["item_id"]).is_unique:
        raise ValueError(f"{where} describes item {ids[ids.duplicated()].iloc[0]!r} twice; keep one row of it")
    return tables.items


def _presplit(rows: pd.DataFrame, where: str) -> np.ndarray | None:
    """(T,) int8 codes of PARTS, None where the protocol is to split."""
    if SPLIT not in rows:
        return None
    codes = pd.Index(PARTS).get_indexer(pd.Index(rows[SPLIT]))
    if (codes < 0).any():
        raise ValueError(f"{where} has the split {rows[SPLIT][codes < 0].iloc[0]!r}; use train, valid or test")
    return codes.astype(np.int8)


def _labels(tables: Tables) -> dict[str, np.ndarray]:
    """Further token columns of the interactions -> (T,) str."""
    known = ("user_id", "item_id", SPLIT)
    names = [name for name, kind in tables.types.items() if kind == "token" and name in tables.interactions]
    return {name: tables.interactions[name].to_numpy(object).astype(str) for name in names if name not in known}


def content_hash(dataset: Dataset) -> str:
    """SHA-256 of everything in a Dataset that can change a result, the same on every platform."""
    digest = hashlib.sha256()
    for spec in fields(dataset):
        if spec.name not in OUTSIDE_HASH:
            _add(digest, spec.name, getattr(dataset, spec.name))
    _add(digest, "meta", {name: json.dumps(dataset.meta.get(name), sort_keys=True) for name in RESULT_META})
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    """Feed one named value: mappings by sorted key, numbers as little-endian bytes, the rest as JSON."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            _add(digest, f"{name}/{key}", value[key])
        return
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        kind, content = (
            value.dtype.newbyteorder("<").str,
            value.astype(value.dtype.newbyteorder("<")).tobytes(),
        )
    elif isinstance(value, np.ndarray) and len(value) > 100_000:  # few distinct labels: hash them once
        codes, distinct = pd.factorize(value.astype(object))
        kind, content = "labels", json.dumps(list(distinct)).encode() + codes.astype("<i8").tobytes()
    else:
        kind, content = (
            "json",
            json.dumps(value.tolist() if isinstance(value, np.ndarray) else value).encode(),
        )
    digest.update(f"{name}\0{kind}\0{len(content)}\0".encode() + content)
