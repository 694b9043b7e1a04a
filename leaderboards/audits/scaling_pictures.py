"""Scaling audits -> two figures: scores against backbone parameters in the layout of SimGR's Figure 3, and users/s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmark.records import Record
from leaderboards.audits.rows import log_scale, name_of
from leaderboards.audits.scaling_rows import audit, line_of, searches, speed
from leaderboards.drawing import BLACK, BLUE, RED, looks, plain

PANELS = ("recall@10", "ndcg@10")
WIDE = 100
"""An axis whose ends differ by more than so many times is labelled at powers of ten only."""


def figures(group: Sequence[Record]) -> dict[str, Any]:
    return {"scores": _scores(group), "speed": _speed(group)}


def _scores(group: Sequence[Record]) -> Any:
    """One panel per metric, one line per method over its sizes; a mark is the mean over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    lines = sorted({line_of(record) for record in group})
    look_of = looks(lines)
    for axes, metric in zip(figure.subplots(1, 2), PANELS, strict=True):
        for line in lines:
            points = _points([record for record in group if line_of(record) == line], metric)
            colour, marker = look_of[line]
            xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
            axes.plot(xs, ys, color=colour, marker=marker, markersize=6, linewidth=1.4, label=line)
        counts = [max(1, audit(record)["weights"]["backbone"]) for record in group]
        log_scale(axes.set_xscale, axes.xaxis, _steps(min(counts), max(counts)))
        axes.margins(0.18, 0.16)
        _name_sizes(axes, group)
        axes.set_xlabel("backbone parameters, millions (log scale)")
        axes.set_ylabel(metric)
        plain(axes)
    handles, labels = axes.get_legend_handles_labels()
    _title(figure, group, "scores by size of the backbone")
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _points(some: Sequence[Record], metric: str) -> list[tuple[float, float, str]]:
    """(millions of backbone weights, mean over seeds, size) of every model of a line, small to large."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in some:
        found[record.method].append(record)
    points = [
        (
            audit(seeds[0])["weights"]["backbone"] / 1e6,
            sum(audit(one)["metrics"][metric] for one in seeds) / len(seeds),
            audit(seeds[0])["size"],
        )
        for seeds in found.values()
    ]
    return sorted(points)


def _steps(low: float, high: float) -> tuple[int, ...]:
    """Where a logarithmic axis between these is labelled, see ``log_scale``."""
    return (1,) if high / low > WIDE else (1, 2, 5)


def _name_sizes(axes: Any, group: Sequence[Record]) -> None:
    """The names of the sizes along the upper edge, upright, each at its parameters."""
    places = {audit(record)["size"]: audit(record)["weights"]["backbone"] / 1e6 for record in group}
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(sorted(places.values()), labels=sorted(places, key=lambda size: places[size]))
    upper.minorticks_off()
    upper.tick_params(labelsize=7, rotation=30)
    for label in upper.get_xticklabels():
        label.set_ha("left")
    for place in places.values():
        axes.axvline(place, color="#bbbbbb", linewidth=0.6, linestyle=":", zorder=0)


def _speed(group: Sequence[Record]) -> Any:
    """Users a second: a bar for the best batch, a mark for users one by one."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    ordered = sorted(group, key=lambda one: (speed(one, "best"), one.method, one.seed))
    figure = Figure(figsize=(7.6, 1.6 + 0.36 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    for place, record in enumerate(ordered):
        best, alone = speed(record, "best"), speed(record, "alone")
        axes.barh(place, best, height=0.6, color=BLUE if searches(record) else RED)
        axes.plot(alone, place, "D", color=BLACK, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6)
        offset: Any = {"textcoords": "offset points", "xytext": (5, 0), "va": "center", "fontsize": 7.5}
        axes.annotate(f"{best:,.0f}" if best >= 10 else f"{best:.1f}", (best, place), **offset)
    axes.set_yticks(range(len(ordered)), labels=[_with_size(record, group) for record in ordered])
    fastest, slowest = (pick(speed(r, when) for r in ordered) for pick, when in ((max, "best"), (min, "alone")))
    log_scale(axes.set_xscale, axes.xaxis, _steps(slowest, fastest))
    axes.set_xlim(slowest / 1.6, fastest * 1.8)
    axes.set_xlabel("users a second (log scale)")
    plain(axes)
    beam = audit(group[0])["beam_size"]
    handles: list[Any] = [
        Patch(color=BLUE, label=f"beam {beam}, best batch"),
        Patch(color=RED, label="one pass, best batch"),
    ]
    handles += axes.plot([], [], "D", color=BLACK, markersize=4.5, label="users one by one")
    _title(figure, group, "inference, timed in turns in one process")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _with_size(record: Record, group: Sequence[Record]) -> str:
    """The method and, where it does not say so itself, its size."""
    name = name_of(record, group)
    return name if line_of(record) != record.method else f"{name} ({audit(record)['size']})"


def _title(figure: Any, group: Sequence[Record], what: str) -> None:
    fields = group[0].fields
    place = f"{group[0].dataset}, protocol {group[0].protocol['name']}, profile {fields['profile']}"
    figure.suptitle(f"{place}: {what}", fontsize=10)
