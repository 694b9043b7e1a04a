"""What is known about methods and datasets beside their numbers: ``cards.json``, the catalogue, and facts of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.datasets.catalogue import CATALOGUE
from leaderboards import cite

UNKNOWN = "submitted"
"""The family of methods without a card."""


@cache
def known() -> Mapping[str, Any]:
    """``families`` in the order in which they are shown, and ``methods`` by ``room`` or ``room:argument``."""
    return json.loads(Path(__file__).with_name("cards.json").read_text(encoding="utf-8"))


def card_of(method: str) -> str | None:
    """The key of the card of ``room[:argument][@preset]``; None for a method from elsewhere."""
    name = method.partition("@")[0]
    keys = (name, name.partition(":")[0])
    return next((key for key in keys if key in known()["methods"]), None)


def family_of(method: str) -> str:
    key = card_of(method)
    return UNKNOWN if key is None else known()["methods"][key]["family"]


def is_floor(method: str) -> bool:
    key = card_of(method)
    return key is not None and known()["methods"][key].get("floor", False)


def method_cards(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A card for every room that stands in a table, families in order, each with where it stands."""
    places: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        for row in table["rows"]:
            places.setdefault(card_of(row["method"]) or row["method"].partition("@")[0], []).append(_place(row, table))
    cards = [_card(key) | {"places": places[key]} for key in places]
    order = [family["key"] for family in known()["families"]]
    return sorted(cards, key=lambda card: (order.index(card["family"]), card["title"].lower()))


def _card(key: str) -> dict[str, Any]:
    empty = {
        "title": key,
        "family": UNKNOWN,
        "about": "A method from outside this suite.",
        "faithful": [],
        "changed": [],
    }
    return {"key": key, **empty, **known()["methods"].get(key, {}), "bibtex": bibtex(key)}


def bibtex(name: str) -> str:
    """The entries to cite for a method or dataset; empty where there are none."""
    return "\n\n".join(cite.entries()[key] for key in cite.keys_of(name) or ())


def _place(row: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """One row of one table, as the method's card names it."""
    return {
        "table": table["id"],
        "method": row["method"],
        "rank": row["rank"],
        "of": len(table["rows"]),
        "value": row["metrics"][table["primary"]],
        "parameters": row["cost"]["parameters"],
        "train": row["cost"]["train"] if row["cost"]["trained"] else None,
    }


def dataset_cards(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A card for every dataset that has a table: the catalogue's entry, and its facts under every protocol."""
    cards: dict[str, dict[str, Any]] = {}
    for table in tables:
        name = table["dataset"]
        entry = asdict(CATALOGUE[name]) if name in CATALOGUE else None
        card = cards.setdefault(name, {"name": name, "entry": entry, "hashes": [], "asked": [], "bibtex": bibtex(name)})
        if table["dataset_hash"] not in card["hashes"]:
            card["hashes"].append(table["dataset_hash"])
        about = {"table": table["id"], "protocol": table["protocol"]["name"], "methods": len(table["rows"])}
        card["asked"].append(about | {"facts": table["facts"]})
    return [cards[name] for name in sorted(cards)]
