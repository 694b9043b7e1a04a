"""The pinned item text and the category codes: item table -> texts, fields, codes, all (N + 1,) by item id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

TEMPLATE: Mapping[str, Any] = MappingProxyType(
    {
        "version": 1,
        "fields": ("title", "brand", "categories"),
        "extra": "last",
        "separator": ". ",
        "empty": "left out",
    }
)
"""How an item is told to a text encoder: the fields that are present, in order, then a declared extra field."""

TEMPLATE_HASH = hashlib.sha256(json.dumps(dict(TEMPLATE), sort_keys=True).encode()).hexdigest()[:12]
"""Part of every artifact made from item text."""

FIELD_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"title": ("movie_title",), "categories": ("class", "genre")}
)
"""Columns that other public atomic files use for the same thing (MovieLens: movie_title, class or genre)."""

LEVELS = " > "
"""Separates the levels of a category path, widest first."""


def item_fields(table: pd.DataFrame | None, keys: np.ndarray, extra: str | None) -> dict[str, np.ndarray]:
    """The template's fields that ``table`` has -> name -> (N + 1,) object array of str, "" where unknown.

    ``table`` holds str columns and an ``item_id``; ``keys`` (N,) are the raw keys in id order.
    """
    if table is None:
        return {}
    rows = pd.Index(table["item_id"]).get_indexer(pd.Index(keys))  # (N,) -1 = not described
    wanted = [*TEMPLATE["fields"], *([extra] if extra else [])]
    columns = {field: _column_of(table, field) for field in wanted}
    return {
        field: np.array(["", *_picked(table[column], rows)], dtype=object)
        for field, column in columns.items()
        if column is not None
    }


def _column_of(table: pd.DataFrame, field: str) -> str | None:
    return next((name for name in (field, *FIELD_ALIASES.get(field, ())) if name in table.columns), None)


def _picked(column: pd.Series, rows: np.ndarray) -> np.ndarray:
    values = column.str.strip().to_numpy(object)
    return np.where(rows < 0, "", values[rows])


def item_texts(fields: Mapping[str, np.ndarray], n_items: int) -> list[str]:
    """(N + 1,) the template applied to ``item_fields``; "" for PAD and for items without any field."""
    if not fields:
        return [""] * (n_items + 1)
    separator = TEMPLATE["separator"]
    return [separator.join(filter(None, values)) for values in zip(*fields.values(), strict=True)]


def category_codes(fields: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(N + 1,) int32 codes 1.. of the second category level by sorted label, 0 = none; None without the field.

    A column in which no value is a path is a flat list of words (MovieLens genres) without a second level; its
    first word then stands for the item.
    """
    values = fields.get("categories")
    if values is None:
        return None
    is_path = any(LEVELS in value for value in values)
    labels = [_second_level(value) if is_path else value.split(" ")[0] for value in values]
    code_of = {label: code for code, label in enumerate(sorted(set(labels) - {""}), start=1)}
    return np.array([code_of.get(label, 0) for label in labels], np.int32)


def _second_level(path: str) -> str:
    levels = path.split(LEVELS)
    return levels[1].strip() if len(levels) > 1 else ""
