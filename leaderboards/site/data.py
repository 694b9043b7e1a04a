"""Summaries, records and audits -> everything the page shows, as one value that JSON can hold.

Every table keeps the numbers of its summary, rounded to what is ever shown; arrays per user never get here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import protocols
from benchmark.metrics import PER_RUN, PER_USER, parse
from benchmark.records import Record
from leaderboards.compare import Comparison
from leaderboards.layout import place_of
from leaderboards.scores import SEEN_DROPPED, SliceCell
from leaderboards.sections import heading
from leaderboards.setting_sections import GROUP
from leaderboards.site.cards import card_of, family_of, is_floor
from leaderboards.summary import Row, Summary

DIGITS = 6
"""Significant digits of every number of the page; the files beside it hold all of them."""
HEAVY = ("metrics", "slices", "slice_labels", "training", "schema")
"""Parts of a record that the page shows elsewhere, or not at all."""


def table(summary: Summary, found: Sequence[Record]) -> dict[str, Any]:
    """One dataset under one protocol, track and profile; ``found`` are its records."""
    of_method: dict[str, list[Record]] = {}
    for record in found:
        of_method.setdefault(record.method, []).append(record)
    place, protocol = place_of(found[0]), summary.shared["protocol"]
    current = protocol["name"] in protocols.names() and protocols.load(protocol["name"]).hash == protocol["hash"]
    names = [row.method for row in summary.rows]
    return {
        "id": f"{place}/{summary.dataset}" + ("" if current else f"@{protocol['hash']}"),
        "place": place,
        "current": current,
        **summary.shared,
        "dataset": summary.dataset,
        "users": summary.users,
        "primary": summary.primary,
        "recall": summary.recall,
        "reference": summary.reference,
        "has_reference": summary.has_reference,
        "one_target": summary.one_target,
        "seeds": summary.seeds,
        "trained": any(row.facts["trained"] for row in summary.rows),
        "heading": heading(summary)[1:],
        "views": views(summary),
        "slices": _parts(summary),
        "settings": {name: asdict(asked) for name, asked in summary.settings.items()},
        "rows": [_row(row, summary, rank, of_method[row.method]) for rank, row in enumerate(summary.rows, start=1)],
        "pairs": [_pair(one, names) for one in summary.pairs],
        "absent": summary.absent,
        "made_by": summary.made_by,
        "facts": found[0].fields.get("facts", {}),
    }


def views(summary: Summary) -> list[dict[str, Any]]:
    """The metrics by the lists they were measured on: the test's own, those of settings, those without seen items."""
    names = {name for row in summary.rows for name in row.metrics}
    order = [*PER_USER, *PER_RUN]

    def place(name: str) -> tuple[int, int]:
        metric, k = parse(name.partition("/")[0])
        return order.index(metric), k

    by_lists: dict[str, list[str]] = {}
    for name in sorted(names, key=place):
        by_lists.setdefault(name.partition("/")[2], []).append(name)
    return [{"name": lists, "label": _view_label(lists), "metrics": by_lists[lists]} for lists in sorted(by_lists)]


def _view_label(lists: str) -> str:
    if lists.startswith(GROUP):
        return f"targets of popularity group {lists.removeprefix(GROUP)}"
    return {"": "the test", SEEN_DROPPED: "seen items dropped"}.get(lists, f"{lists} items only")


def _parts(summary: Summary) -> list[dict[str, Any]]:
    """What users or answers can be cut into: name, and label and number of users of every part that has any."""
    if not summary.rows:
        return []
    first = summary.rows[0]
    groups = {name.removeprefix(GROUP): cell for name, cell in first.settings.items() if name.startswith(GROUP)}
    apart = {name: cell for name, cell in first.settings.items() if not name.startswith(GROUP)}
    cuts = {"candidates": apart, "popularity group of the target": groups, **first.slices}
    return [
        {"name": name, "parts": [{"label": label, "users": cell.users} for label, cell in cells.items()]}
        for name, cells in cuts.items()
        if cells
    ]


def _cells(row: Row) -> dict[str, list[list[float]]]:
    """The same cuts: per part the ranked metric, its interval and the recall."""
    groups = [cell for name, cell in row.settings.items() if name.startswith(GROUP)]
    apart = [cell for name, cell in row.settings.items() if not name.startswith(GROUP)]
    cuts = {"candidates": apart, "popularity group of the target": groups}
    cuts |= {name: list(cells.values()) for name, cells in row.slices.items()}
    return {name: [_numbers(cell) for cell in cells] for name, cells in cuts.items() if cells}


def _numbers(cell: SliceCell) -> list[float]:
    return [cell.primary, *cell.interval, cell.recall]


def _row(row: Row, summary: Summary, rank: int, runs: Sequence[Record]) -> dict[str, Any]:
    seconds, facts = row.facts["timings"], row.facts
    decode = seconds.get("decode")
    return {
        "rank": rank,
        "method": row.method,
        "family": family_of(row.method),
        "floor": is_floor(row.method),
        "reference": row.method == summary.reference,
        "under_trained": row.under_trained,
        "seeds": row.seeds,
        "metrics": row.metrics,
        "spread": row.spread,
        "interval": row.interval,
        "cells": _cells(row),
        "chance": {name: asdict(one) for name, one in row.chance.items()},
        "verdict": _verdict(row, summary),
        "versus": None if row.comparison is None else _versus(row.comparison),
        "mcnemar": row.mcnemar,
        "limited": 0 < facts["spend"].get("beam_size", 0) <= max(parse(m.partition("/")[0])[1] for m in row.metrics),
        "cost": {
            "parameters": facts["parameters"],
            "train": seconds.get("train"),
            "decode": decode,
            "ms": None if decode is None or not summary.users else decode / summary.users * 1000,
            "timings": seconds,
            "memory": facts["peak_memory_bytes"],
            "spend": facts["spend"],
            "stopped_by": facts["stopped_by"],
            "trained": facts["trained"],
        },
        "trials": facts.get("trials"),
        "runs": [run(record) for record in sorted(runs, key=lambda record: record.seed) if record.status == "ok"],
    }


def _verdict(row: Row, summary: Summary) -> str:
    """What the test says of a method, in words."""
    if row.method == summary.reference:
        return "reference"
    if row.comparison is None:
        return ""
    if not row.comparison.significant:
        return "not told apart"
    return "better" if row.comparison.difference > 0 else "worse"


def _versus(one: Comparison) -> dict[str, Any]:
    """A comparison without what its table says anyway."""
    fields = asdict(one)
    return {name: fields[name] for name in fields if name not in ("method", "reference", "users")}


def _pair(one: Comparison, names: Sequence[str]) -> list[Any]:
    """Places of both in the table, difference, interval, Holm p, effect size, 1 or 0 for significant."""
    sides = [names.index(one.method), names.index(one.reference)]
    return [*sides, one.difference, *one.interval, one.p_holm, one.effect_size, int(one.significant)]


def run(record: Record) -> dict[str, Any]:
    """How one run was made, and how its training went."""
    fields = record.fields
    training = fields.get("training") or {}
    return {
        "path": "/".join(record.folder.parts[-5:]),  # protocol, dataset, method, configuration, seed
        "command": command(fields),
        "fields": {name: value for name, value in fields.items() if name not in HEAVY},
        "training": {name: value for name, value in training.items() if name != "curve"},
        "curve": [point["valid"] for point in training.get("curve", []) if "valid" in point],
    }


def command(fields: Mapping[str, Any]) -> str | None:
    """What makes a run again; None where one line cannot: a method from elsewhere, tuned settings, some users only."""
    method = fields["method"]
    if card_of(method) is None or fields.get("method_source") or fields.get("limit_users") or method.endswith("@tuned"):
        return None
    asked = {"protocol": fields["protocol"]["name"], "datasets": fields["dataset"], "methods": method}
    asked |= {"seeds": fields["seed"], "track": fields["track"], "profile": fields["profile"]}
    return shlex.join(["python", "run_all.py", *(word for name in asked for word in (f"--{name}", str(asked[name])))])


def rounded(value: Any) -> Any:
    """The same value with every float at ``DIGITS`` significant digits."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
