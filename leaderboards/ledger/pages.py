"""The ledger as files: Markdown, CSV, JSON and pictures. The same records give the same bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.files import json_bytes, write_atomically
from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.grids import grid
from leaderboards.ledger import ABOVE, BELOW, INSIDE, Ledger, Row, by_place, closest, ledger
from leaderboards.ledger.checks import Doubt, published_doubts
from leaderboards.ledger.data import MATCHES, RERUN_ONLY, RERUN_PROTOCOL, SHORTER, SMALLER, Figure, reruns
from leaderboards.ledger.picture import draw_ledger, picture_name
from leaderboards.scores import SEEN_DROPPED
from leaderboards.tables import plain

GLANCE = ("ndcg@10", "recall@10")
RERUN_METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
_INTRO = (
    "Every published figure for which there is a run, beside other people's reruns and ours. Generated from the "
    "records and from the cited figures in `leaderboards/ledger/published_figures.csv` and `other_reruns.csv`; "
    "nothing here is typed.",
    "Gap: ours less the published figure. Intervals are 95 % bootstrap over users: they cover which users were asked, "
    "not the luck of one training, nor the published figure's own uncertainty. "
    f"*{INSIDE}*: the published figure lies inside our interval; *{BELOW}*, *{ABOVE}*: ours is below or above it.",
    f"**{SMALLER}**: our run is of a smaller network than the one the paper names; **{SHORTER}**: the paper names none "
    "and ours has the network of its full size with fewer epochs or less patience. Such a gap says nothing about "
    "whether the paper can be reproduced. HR@K is recall@K where every user has one answer.",
    "Accuracy only: times, overlaps and coverage that the papers print are not here. TIGER's own figures are quoted "
    "from the README of cornac.",
)


_SEEN = (
    "Most do not say whether items that the user already had may be recommended, on which much hangs (docs/sasrec.md). "
    "Ours stand here both ways; everywhere else in the ledger seen items are kept, as the protocol asks."
)


def write_ledger(records: Sequence[Record], folder: Path) -> list[str]:
    """Write ``ledger.md``, ``.csv``, ``.json`` and one picture per dataset into ``folder`` -> lines to print.

    Nothing where no published figure is of these data.
    """
    made = ledger(records)
    if not made.rows:
        return []
    notes = draw_ledger(made, folder)
    write_atomically(folder / "ledger.md", markdown(made, records).encode())
    write_atomically(folder / "ledger.csv", csv(made).encode())
    write_atomically(folder / "ledger.json", json_bytes(as_json(made)))
    answered, inside = len({row.figure for row in made.rows}), sum(row.verdict == INSIDE for row in made.rows)
    figures = (
        f"ledger: {answered} published figures have a run; of {len(made.rows)} comparisons {inside} have the figure"
    )
    smaller = f"{sum(bool(row.size) for row in made.rows)} are of a smaller model or a shorter training"
    return [f"{figures} inside our interval, {smaller}", *notes]


def markdown(made: Ledger, records: Sequence[Record]) -> str:
    """The whole ledger, readable raw."""
    parts = ["# Published figures beside ours", *_INTRO]
    if made.rows:
        parts += ["## At a glance", _glance(closest(made.rows))]
        parts.append(f"The closest of our methods, on all users, {GLANCE[0]}; `(!)` marks a figure that is in doubt.")
    for place, rows in by_place(made.rows).items():
        parts += [f"## {place[0]}, {place[1]}", f"![published and ours]({picture_name(place)}.svg)", *_section(rows)]
    parts += ["## In doubt as printed", *_doubtful(), "## Reruns by others", *_reruns(records)]
    parts += ["## Figures without a run", _without(made), "## Which run answers which figure", _matching()]
    if made.left_out:
        parts += ["## Runs left out", "\n".join(f"- {one}" for one in made.left_out)]
    return "\n\n".join(parts) + "\n"


def _glance(rows: Sequence[Row]) -> str:
    lines = [
        [
            row.figure.dataset,
            row.figure.protocol,
            _printed(row.figure),
            row.figure.source,
            lay.number(row.figure.value) + (" (!)" if row.doubts else ""),
            _ours(row),
            lay.number(row.value),
            f"{row.relative:+.0%}",
            row.verdict,
            row.size or "same size",
        ]
        for row in rows
        if row.figure.name == GLANCE[0] and row.figure.subset == "all"
    ]
    header = ["dataset", "protocol", "method", "source", "published", "ours is", "ours", "gap", "ours stands", "size"]
    return grid(header, lines)


def _section(rows: Sequence[Row]) -> list[str]:
    """Every figure of one dataset, and the numbered notes behind it."""
    notes: dict[str, int] = {}
    lines = []
    for row in rows:
        told = [*(f"{d.kind}: {d.text}" for d in row.doubts), *filter(None, [row.reason])]
        numbers = [notes.setdefault(text, len(notes) + 1) for text in told]
        lines.append([*_cells(row), ", ".join(map(str, numbers))])
    header = ["users asked", "method", "source", "metric", "published", "others", "ours is", "track, profile", "size"]
    header += ["seeds", "ours", "95 % interval", "gap", "relative", "ours stands", "notes"]
    listed = "\n".join(f"{number}. {text[0].upper()}{text[1:]}." for text, number in notes.items())
    return [grid(header, lines), listed] if notes else [grid(header, lines)]


def _cells(row: Row) -> list[str]:
    figure = row.figure
    spread = f" (sd {lay.number(row.spread)})" if row.spread is not None else ""
    return [
        f"{figure.subset}, {row.users:,}",
        _printed(figure),
        figure.source,
        figure.metric,
        lay.number(figure.value) + (f" ({row.doubts[0].kind})" if row.doubts else ""),
        _range(row.reruns),
        _ours(row),
        f"{row.track}, {row.profile}",
        row.size or "same",
        str(len(row.seeds)) + spread,
        lay.number(row.value),
        lay.interval(row.interval),
        lay.signed(row.gap),
        f"{row.relative:+.1%}",
        row.verdict,
    ]


def _printed(figure: Figure) -> str:
    return figure.method + (f", {figure.backbone}" if figure.backbone else "")


def _ours(row: Row) -> str:
    return row.method + (" (under-trained)" if row.under_trained else "")


def _range(values: Sequence[float]) -> str:
    """Lowest to highest, and how many."""
    if len(values) < 2:
        return lay.number(values[0]) if values else "-"
    return f"{lay.number(min(values))} to {lay.number(max(values))} ({len(values)})"


def _doubtful() -> list[str]:
    """All published figures in doubt, with or without a run."""
    groups: dict[tuple[str, ...], list[Figure]] = defaultdict(list)
    for figure, doubts in published_doubts().items():
        for doubt in doubts:
            groups[figure.source, figure.dataset, figure.method, doubt.kind, doubt.text].append(figure)
    lines = []
    for (source, dataset, method, kind, text), some in groups.items():
        values = ", ".join(f"{f.metric}{'' if f.subset == 'all' else f' {f.subset}'} {f.value:.4f}" for f in some)
        lines.append([source, dataset, method, values, f"{kind}: {text}"])
    note = (
        "Found by arithmetic alone. With one answer per user, hr and ndcg at two cut-offs bound each other: a hit "
        "is worth 1 / log2(rank + 1); bounds allow for the rounding of every figure of the row. A row that breaks them "
        "is misprinted or not of one run."
    )
    return [note, grid(["source", "dataset", "method", "figures", "what speaks against them"], sorted(lines))]


def _reruns(records: Sequence[Record]) -> list[str]:
    """Other people's figures on data sets of ours, with our runs of the same thing below them."""
    asked_all = [r for r in records if r.status == "ok" and not r.fields["limit_users"]]
    mine = [r for r in asked_all if r.protocol["name"] == RERUN_PROTOCOL]
    spec: dict[str, list[str]] = defaultdict(list)
    for match in (*MATCHES, *RERUN_ONLY):
        if match.reruns and match.ours not in spec[match.reruns]:
            spec[match.reruns].append(match.ours)
    lines = []
    for (dataset, method), some in groupby(sorted(reruns(), key=_thing), key=_thing):
        runs = [r for r in mine if r.dataset == dataset and r.method in spec[method]]
        if not runs:
            continue
        values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for one in some:
            values[one.source, one.details + (f" ({one.fault})" if one.fault else "")][one.metric] = one.value
        lines += [[dataset, method, *key, *(lay.number(v.get(m)) for m in RERUN_METRICS)] for key, v in values.items()]
        for run in sorted(runs, key=lambda r: (r.method, r.seed)):
            lines += [[dataset, method, "**ours**", *cells] for cells in _ours_rerun(run)]
    if not lines:
        return ["None of the known reruns is of something that was run here."]
    return [_SEEN, grid(["dataset", "what", "who", "how", *RERUN_METRICS], lines)]


def _ours_rerun(run: Record) -> list[list[str]]:
    """How and what, as the protocol asks, and with seen items dropped from the same lists."""
    how = f"`{run.method}`, {run.fields['track']}, {run.fields['profile']}, seed {run.seed}"
    kept, dropped = ([run.metrics.get(f"{m}{end}") for m in RERUN_METRICS] for end in ("", f"/{SEEN_DROPPED}"))
    lines = [[how, *map(lay.number, kept)]]
    if dropped != kept and any(value is not None for value in dropped):
        lines.append([f"{how}; seen items dropped", *map(lay.number, dropped)])
    return lines


def _thing(one: Any) -> tuple[str, str]:
    return one.dataset, one.method


def _without(made: Ledger) -> str:
    lines = [[paper, method, str(count), why] for paper, method, count, why in made.unanswered]
    return grid(["paper", "method", "figures", "reason"], lines)


def _matching() -> str:
    lines = [[", ".join(m.papers) or "all", m.published, f"`{m.ours}`", m.why] for m in MATCHES]
    return grid(["paper", "published", "ours", "why"], lines)


def csv(made: Ledger) -> str:
    """One line per figure and run, nothing rounded."""
    return pd.DataFrame([_flat(row) for row in made.rows]).to_csv(index=False, lineterminator="\n")


def _flat(row: Row) -> dict[str, Any]:
    figure = row.figure
    line = {name: getattr(figure, name) for name in ("paper", "table", "protocol", "dataset", "subset")}
    line |= {"published method": figure.method, "backbone": figure.backbone, "beam size": figure.beam_size}
    line |= {"printed metric": figure.metric, "metric": figure.name, "published": figure.value}
    line |= {"reruns": len(row.reruns)}
    line |= {"rerun low": min(row.reruns, default=None), "rerun high": max(row.reruns, default=None)}
    line |= {"method": row.method, "track": row.track, "profile": row.profile, "size": row.size or "same"}
    line |= {"closest": row.match.closest, "under-trained": row.under_trained, "users": row.users}
    line |= {"seed": " ".join(map(str, row.seeds)), "ours": row.value, "seed sd": row.spread}
    line |= {"interval low": row.interval[0], "interval high": row.interval[1]}
    line |= {"gap": row.gap, "relative": row.relative, "ours stands": row.verdict}
    return line | {"known reason": row.reason, "doubts": _told(row.doubts)}


def _told(doubts: Sequence[Doubt]) -> str:
    return "; ".join(f"{doubt.kind}: {doubt.text}" for doubt in doubts)


def as_json(made: Ledger) -> dict[str, Any]:
    """Everything machine-readable."""
    rows = [asdict(row) | {"gap": row.gap, "relative": row.relative, "ours stands": row.verdict} for row in made.rows]
    names = ("paper", "method", "figures", "reason")
    doubts = [{"figure": asdict(f), "doubts": [asdict(d) for d in some]} for f, some in published_doubts().items()]
    unanswered = [dict(zip(names, one, strict=True)) for one in made.unanswered]
    return plain({"rows": rows, "doubts": doubts, "without a run": unanswered, "left out": made.left_out})
