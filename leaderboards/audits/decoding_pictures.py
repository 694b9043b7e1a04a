"""Decoding audits -> two figures: scores against time, and overlap with exact scoring between its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.records import Record
from leaderboards.audits.rows import beams, by_rule, decoders, generators, log_scale, name_of, one_pass
from leaderboards.drawing import BLACK, GREY, looks, plain

K = "10"


def figures(group: Sequence[Record]) -> dict[str, Any]:
    return {"pareto": _pareto(group)} | ({"overlap": _overlap(group)} if generators(group) else {})


def _looks(group: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method, the same in all panels."""
    return looks(sorted({name_of(record, group) for record in group}))


def _pareto(group: Sequence[Record]) -> Any:
    """ndcg@10 against milliseconds in the best batch: a line over the beams, a star for exact scoring.

    A method that scores all items in one pass is a star alone.
    """
    from matplotlib.figure import Figure

    rules = list(by_rule(group))
    figure = Figure(figsize=(1.2 + 3.9 * len(rules), 3.9), layout="constrained")
    look_of = _looks(group)
    stars = sorted({name_of(record, group) for record in one_pass(group)})
    for axes, (rule, some) in zip(figure.subplots(1, len(rules), squeeze=False)[0], rules, strict=True):
        for record in some:
            colour, marker = look_of[name_of(record, group)]
            points = [(row["milliseconds"]["best"], row["metrics"]["ndcg@10"]) for row in decoders(record)]
            if beams(record):
                axes.plot(*zip(*points[:-1], strict=True), color=colour, marker=marker, markersize=5, linewidth=1.4)
            axes.plot(*points[-1], "*", color=colour, markersize=13, markeredgecolor="white", markeredgewidth=0.6)
            for row, point in zip(beams(record), points, strict=False):
                axes.annotate(
                    str(row["beam_size"]), point, textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7
                )
        log_scale(axes.set_xscale, axes.xaxis)
        axes.margins(0.12, 0.15)
        axes.set_xlabel("milliseconds a user, best batch (log scale)")
        axes.set_ylabel(f"ndcg@10 of {some[0].fields['audit']['users']:,} users")
        axes.set_title(f"rule {rule}", fontsize=9)
        plain(axes)
    handles = [
        axes.plot([], [], color=c, marker=m, label=name)[0] for name, (c, m) in look_of.items() if name not in stars
    ]
    handles += [axes.plot([], [], "*", color=look_of[name][0], markersize=10, label=name)[0] for name in stars]
    handles.append(axes.plot([], [], "*", color=BLACK, markersize=10, linestyle="", label="exact")[0])
    _finish(figure, group, handles, "beam sizes beside the marks")
    return figure


def _overlap(group: Sequence[Record]) -> Any:
    """overlap@10 with exact scoring over beam sizes; the band is what its bounds leave open."""
    from matplotlib.figure import Figure

    rules = list(by_rule(group))
    names = sorted({name_of(record, group) for record in generators(group)})
    figure = Figure(figsize=(1.4 + 2.5 * max(2, len(names)), 0.9 + 2.4 * len(rules)), layout="constrained")
    panels = figure.subplots(len(rules), len(names), squeeze=False, sharex=True, sharey=True)
    look_of = _looks(group)
    for line, (rule, some) in zip(panels, rules, strict=True):
        by_name = {name_of(record, group): record for record in some}
        for axes, name in zip(line, names, strict=True):
            axes.set_title(f"{name}, {rule}", fontsize=9)
            if name in by_name:
                _band(axes, by_name[name], *look_of[name])
            plain(axes)
        line[0].set_ylabel(f"overlap@{K} with exact")
    for axes in panels[-1]:
        axes.set_xlabel("beam size (log scale)")
    axes = panels[0][0]
    handles = [
        axes.plot([], [], color=BLACK, marker="o", markersize=4, label="overlap")[0],
        axes.fill_between([], [], color=GREY, alpha=0.25, label="between its bounds"),
        axes.plot([], [], color=BLACK, linestyle=":", label="users certified exact")[0],
    ]
    _finish(figure, group, handles, "")
    return figure


def _band(axes: Any, record: Record, colour: str, marker: str) -> None:
    rows = beams(record)
    sizes = [row["beam_size"] for row in rows]
    low, value, high, certain = ([row[w][K] for row in rows] for w in ("lower", "overlap", "upper", "certified"))
    axes.fill_between(sizes, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(sizes, value, color=colour, marker=marker, markersize=4, linewidth=1.4)
    axes.plot(sizes, certain, color=colour, linestyle=":", linewidth=1.4)
    axes.set_xscale("log")
    axes.set_xticks(sizes, labels=list(map(str, sizes)))
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)


def _finish(figure: Any, group: Sequence[Record], handles: list[Any], note: str) -> None:
    """Title and legend."""
    fields = group[0].fields
    title = f"{group[0].dataset}, protocol {group[0].protocol['name']}, profile {fields['profile']}"
    figure.suptitle(title + (f" ({note})" if note else ""), fontsize=10)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
