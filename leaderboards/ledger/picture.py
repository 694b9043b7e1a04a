"""The ledger as pictures: per dataset, published figures as diamonds beside our values with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards.drawing import BETTER, OPEN, REFERENCE, WORSE, draw, plain
from leaderboards.ledger import ABOVE, BELOW, INSIDE, Ledger, Row, by_place
from leaderboards.ledger.checks import IMPOSSIBLE, ONE_TARGET
from leaderboards.ledger.data import SETTINGS, SHORTER, SMALLER
from leaderboards.tables import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("recall@10", "ndcg@10")
SHOWN = ("all", *SETTINGS)
"""Heads and tails stand in the tables only: their range would squeeze everything else."""
_LOOK = {ABOVE: (BETTER, "^"), BELOW: (WORSE, "v"), INSIDE: (OPEN, "o")}
_NAMED = {
    ABOVE: "ours, above the published figure",
    BELOW: "ours, below the published figure",
    INSIDE: "ours, not told apart",
}


def picture_name(place: tuple[str, str]) -> str:
    """File name, without its ending, of the picture of a protocol and a dataset."""
    return file_name(f"ledger.{place[0]}.{place[1]}")


def draw_ledger(made: Ledger, folder: Path) -> list[str]:
    """One SVG and PNG per protocol and dataset -> notes to print. Without matplotlib nothing is drawn."""
    return draw(_figures(made), folder)


def _figures(made: Ledger) -> Iterator[tuple[str, Any]]:
    for place, rows in by_place(made.rows).items():
        shown = [r for r in rows if r.figure.subset in SHOWN and r.figure.name in PANELS]
        yield picture_name(place), _figure(place, shown)


def _figure(place: tuple[str, str], rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    lines = list(dict.fromkeys(_line(row) for row in rows))
    figure = Figure(figsize=(11.0, 1.6 + 0.27 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, metric in zip(panels, PANELS, strict=True):
        for row in rows:
            if row.figure.name == metric:
                _draw(axes, lines.index(_line(row)), row)
        axes.set_xlabel(f"{metric}, 95 % interval over users")
        axes.set_xlim(left=0)
        plain(axes, "x")
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=6)
    panels[0].set_yticks(range(len(lines)), lines)
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    figure.suptitle(f"Published and ours: {place[1]}, protocol {place[0]}", fontsize=10)
    _legend(figure, panels[0], rows)
    return figure


def _line(row: Row) -> str:
    """What stands beside the axis: users asked, printed method, paper, our method and how it is smaller."""
    figure = row.figure
    asked = "" if figure.subset == "all" else f"{figure.subset}: "
    named = figure.backbone if figure.protocol not in ONE_TARGET else ""
    backbone = f", {named}" if named else ""
    how = f" ({row.size})" if row.size else ""
    return f"{asked}{figure.method} ({figure.paper}{backbone}) / {row.method}{how}"


def _draw(axes: Axes, place: int, row: Row) -> None:
    colour, marker = _LOOK[row.verdict]
    if row.reruns:
        axes.plot(row.reruns, [place] * len(row.reruns), "|", color=OPEN, markersize=7, markeredgewidth=0.9)
    axes.plot(list(row.interval), [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = "white" if row.size else colour
    axes.plot(row.value, place, marker, color=colour, markersize=5, markerfacecolor=face)
    axes.plot(row.figure.value, place, _diamond(row), color=REFERENCE, markersize=6, markerfacecolor="none")


def _diamond(row: Row) -> str:
    return "X" if any(doubt.kind == IMPOSSIBLE for doubt in row.doubts) else "D"


def _legend(figure: Any, axes: Axes, rows: Sequence[Row]) -> None:
    """Below the panels, with what occurs."""
    handles = [axes.plot([], [], "D", color=REFERENCE, markerfacecolor="none", linestyle="", label="published")[0]]
    if any(_diamond(row) == "X" for row in rows):
        label = "published, impossible as printed"
        handles += axes.plot([], [], "X", color=REFERENCE, markerfacecolor="none", linestyle="", label=label)
    if any(row.reruns for row in rows):
        handles += axes.plot([], [], "|", color=OPEN, linestyle="", label="reruns by others")
    present = {row.verdict for row in rows}
    handles += [
        axes.plot([], [], marker, color=colour, linestyle="", label=_NAMED[verdict])[0]
        for verdict, (colour, marker) in _LOOK.items()
        if verdict in present
    ]
    if any(row.size for row in rows):
        label = f"hollow: {SMALLER} or {SHORTER}"
        handles += axes.plot([], [], "o", color=OPEN, markerfacecolor="white", linestyle="", label=label)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
