"""What goes beyond one table, as files: Markdown, CSV, JSON and pictures. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.files import json_bytes, write_atomically
from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.across import Across, across
from leaderboards.across.groups import ENOUGH_DATASETS, PERMUTATIONS, Group, Pair
from leaderboards.across.picture import draw_across, ranks_name, slopes_name
from leaderboards.across.protocols import BOTH, Beside, Page, Side, Turn
from leaderboards.grids import grid
from leaderboards.summary import Summary
from leaderboards.tables import plain

_INTRO = (
    "Several tables read together: methods over datasets, and protocols side by side. Generated from the records; a "
    "missing method or seed is said, never filled in."
)
_BESIDE = (
    "The protocols ask other users about other targets, so orders are compared and values are not. A pair is told "
    "apart with Holm p < .05 and one sign in every seed (and dataset): for one dataset within all pairs of its own "
    "table, for all datasets within all pairs of the methods below."
)
_POOLED = (
    "Difference: mean over datasets of the mean difference per user, so that a large dataset does not outweigh a "
    "small one. Interval: 95 % bootstrap over the users of every dataset by itself. p: two-sided sign flips of single "
    f"users, Holm within all pairs of the group. {lay.BETTER}, {lay.WORSE}: better, worse with Holm p < .05 and the "
    "same sign in every dataset and seed."
)


def write_across(
    records: Sequence[Record],
    folder: Path,
    summaries: Mapping[str, Mapping[str, Summary]] | None = None,
    permutations: int = PERMUTATIONS,
) -> list[str]:
    """Write ``across.md``, ``across.csv`` (pairs over datasets), ``across.flips.csv`` (pairs under two protocols),
    ``across.json`` and the pictures into ``folder`` -> lines to print.

    ``summaries`` (place -> dataset -> summary) saves making them again. Nothing where there is one table only.
    """
    made = across(records, summaries, permutations)
    return write(made, folder) if made.groups or made.beside else []


def write(made: Across, folder: Path) -> list[str]:
    """The files of it."""
    notes = draw_across(made, folder)
    write_atomically(folder / "across.md", markdown(made).encode())
    write_atomically(folder / "across.csv", _csv(_pair_line(g, p) for g in made.groups for p in g.pairs))
    turns = ((b, page, turn) for b in made.beside for page in b.pages for turn in page.turns)
    write_atomically(folder / "across.flips.csv", _csv(_turn_line(*one) for one in turns))
    write_atomically(folder / "across.json", json_bytes(as_json(made)))
    return [*(_told(one) for one in made.beside), *notes]


def _told(one: Beside) -> str:
    """The sentence of two protocols: over all datasets where there are several."""
    page = one.pages[0]
    share = f"{len(page.flips)} of {len(page.turns)} pairs of methods change their order"
    apart = f"{len(page.significant)} of them told apart on both sides"
    return f"{one.first} -> {one.second}, {page.dataset}: {share}, {apart}"


def markdown(made: Across) -> str:
    """All of it, readable raw."""
    parts = ["# Across datasets and protocols", _INTRO]
    parts += ["## Where conclusions change", _BESIDE] if made.beside else []
    for one in made.beside:
        parts += _protocols(one)
    for together in made.groups:
        parts += _datasets(together)
    if made.left_out:
        parts += ["## Runs left out", "\n".join(f"- {run}" for run in made.left_out)]
    return "\n\n".join(parts) + "\n"


def _protocols(one: Beside) -> list[str]:
    """Two protocols: pictures, orders, flips."""
    parts = [f"### {one.first} beside {one.second}", _told(one) + "."]
    parts.append(f"![ranks under both]({slopes_name(one)}.svg)")
    for page in one.pages:
        parts += [f"#### {page.dataset}", _orders(one, page)]
        parts.append(f"Kendall's tau of the two orders: {page.tau:.2f}.")
        if page.flips:
            parts.append(_flips(one, page))
    missing = [
        f"Only under {place}, and therefore not here: {', '.join(names)}."
        for place, names in zip((one.first, one.second), one.only, strict=True)
        if names
    ]
    return [*parts, *missing]


def _orders(one: Beside, page: Page) -> str:
    """Every method's place under both protocols."""
    lines = []
    for standing in page.standings:
        cells = [standing.method]
        for side in (0, 1):
            cells += [_rank(standing.ranks[side]), lay.number(standing.values[side])]
            cells += [lay.interval(standing.intervals[side])] if standing.intervals else []
        lines.append([*cells, f"{standing.ranks[0] - standing.ranks[1]:+g}"])
    bounds = ["95 % interval"] if page.standings[0].intervals else []
    shown = [name for place in (one.first, one.second) for name in (f"{_protocol(place)}: #", one.primary, *bounds)]
    return grid(["method", *shown, "places gained"], lines)


def _flips(one: Beside, page: Page) -> str:
    """The pairs that change their order; differences are the first's lead."""
    lines = []
    for turn in page.flips:
        apart = f"**{BOTH}**" if turn.told_apart == BOTH else turn.told_apart
        lines.append([turn.method, turn.other, *_side(turn.first), *_side(turn.second), apart])
    header = [f"better under {_protocol(one.first)}", f"better under {_protocol(one.second)}"]
    for place in (one.first, one.second):
        header += [f"{_protocol(place)}: lead of the former", "95 % interval", "Holm p"]
    return grid([*header, "sides told apart"], lines)


def _side(side: Side) -> list[str]:
    return [lay.signed(side.difference), lay.interval(side.interval, lay.signed), lay.p_value(side.p_holm)]


def _datasets(one: Group) -> list[str]:
    """Several datasets: mean ranks, wins, pooled pairs."""
    title = f"## {one.place}: {', '.join(one.datasets)}"
    parts = [title, f"{len(one.methods)} methods that stand on all {len(one.datasets)} datasets, by {one.primary}."]
    parts += ["### Mean rank", _mean_ranks(one), _difference(one)]
    parts += ["### Wins", _wins(one)]
    parts.append(
        "Datasets on which the row beats the column; in brackets those whose own table tells the two apart "
        "(Holm within all pairs of that table)."
    )
    pairs = _reference_pairs(one)
    if pairs:
        parts += [f"### Over all datasets against {one.reference}", _pairs(one, pairs), _POOLED]
    parts += ["### Over all datasets against the next in rank", _pairs(one, _neighbours(one))]
    if one.missing:
        told = [f"- {method}: no result on {', '.join(where)}" for method, where in one.missing.items()]
        parts += ["Left out:", "\n".join(told)]
    if one.seeds:
        told = [f"- {method}: {'; '.join(where)}" for method, where in one.seeds.items()]
        parts += [
            "Not every trained method has every seed; each stands with the mean of the seeds it has:",
            "\n".join(told),
        ]
    return parts


def _difference(one: Group) -> str:
    if one.critical is None or one.friedman is None:
        return f"No critical difference: it needs {ENOUGH_DATASETS} datasets and here are {len(one.datasets)}."
    test = f"Friedman p {lay.p_value(one.friedman)}; mean ranks further apart than {one.critical:.2f} differ (Nemenyi)."
    return f"![critical difference]({ranks_name(one)}.svg)\n\n{test}"


def _mean_ranks(one: Group) -> str:
    lines = []
    for place, method in enumerate(one.methods):
        pairs = [_between(one, method, other) for other in one.methods if other != method]
        won = sum(pair.significant and pair.difference > 0 for pair in pairs)
        lost = sum(pair.significant and pair.difference < 0 for pair in pairs)
        by_dataset = [cell for name in one.datasets for cell in _of_dataset(one, method, name)]
        lines.append([str(place + 1), method, f"{one.mean_rank(method):.2f}", *by_dataset, f"{won}", f"{lost}"])
    shown = [cell for name in one.datasets for cell in (f"{name}: #", one.primary)]
    return grid(["#", "method", "mean rank", *shown, "better than", "worse than"], lines)


def _of_dataset(one: Group, method: str, name: str) -> list[str]:
    return [_rank(one.ranks[method][name]), lay.number(one.values[method][name])]


def _wins(one: Group) -> str:
    lines = []
    for place, method in enumerate(one.methods):
        cells = [_won(_between(one, method, other)) if other != method else "." for other in one.methods]
        lines.append([str(place + 1), method, *cells])
    return grid(["#", "method", *(str(i + 1) for i in range(len(one.methods)))], lines)


def _won(pair: Pair) -> str:
    return f"{pair.wins} ({pair.significant_wins})" if pair.significant_wins else str(pair.wins)


def _between(one: Group, method: str, other: str) -> Pair:
    """A pair from the side of ``method``."""
    if one.methods.index(method) < one.methods.index(other):
        return next(pair for pair in one.pairs if (pair.method, pair.reference) == (method, other))
    return _between(one, other, method).turned()


def _reference_pairs(one: Group) -> list[Pair]:
    if one.reference not in one.methods:
        return []
    return [_between(one, method, one.reference) for method in one.methods if method != one.reference]


def _neighbours(one: Group) -> list[Pair]:
    return [_between(one, a, b) for a, b in zip(one.methods, one.methods[1:], strict=False)]


def _pairs(one: Group, pairs: Sequence[Pair]) -> str:
    lines = []
    for pair in pairs:
        mark = (lay.BETTER if pair.difference > 0 else lay.WORSE) if pair.significant else ""
        bounds = lay.interval(pair.interval, lay.signed)
        apart = [lay.signed(pair.differences[name]) for name in one.datasets]
        difference = f"{lay.signed(pair.difference)} {mark}".strip()
        lines.append([pair.method, pair.reference, difference, bounds, lay.p_value(pair.p_holm), *apart])
    return grid(["method", "against", "difference", "95 % interval", "Holm p", *one.datasets], lines)


def _protocol(place: str) -> str:
    return place.partition("/")[0]


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _csv(lines: Any) -> bytes:
    return pd.DataFrame(list(lines)).to_csv(index=False, lineterminator="\n").encode()


def _pair_line(one: Group, pair: Pair) -> dict[str, Any]:
    line: dict[str, Any] = {"place": one.place, "datasets": " ".join(one.datasets), "metric": one.primary}
    line |= {"method": pair.method, "reference": pair.reference, "difference": pair.difference}
    line |= {"low": pair.interval[0], "high": pair.interval[1], "p": pair.p, "p holm": pair.p_holm}
    line |= {"significant": pair.significant, "wins": pair.wins, "losses": pair.losses}
    return line | {"significant wins": pair.significant_wins, "significant losses": pair.significant_losses}


def _turn_line(one: Beside, page: Page, turn: Turn) -> dict[str, Any]:
    line: dict[str, Any] = {"first": one.first, "second": one.second, "dataset": page.dataset, "metric": one.primary}
    line |= {"method": turn.method, "other": turn.other, "flips": turn.flips, "sides told apart": turn.told_apart}
    for name, side in (("first", turn.first), ("second", turn.second)):
        low, high = side.interval
        line |= {f"{name} difference": side.difference, f"{name} low": low, f"{name} high": high}
        line |= {f"{name} p holm": side.p_holm, f"{name} significant": side.significant}
    return line


def as_json(made: Across) -> dict[str, Any]:
    """Everything machine-readable."""
    groups = [asdict(g) | {"mean ranks": {m: g.mean_rank(m) for m in g.methods}} for g in made.groups]
    return plain({"groups": groups, "beside": [asdict(one) for one in made.beside], "left out": made.left_out})
