"""Summary -> figures per dataset: every method's interval and its difference to the reference; settings and chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards import drawing
from leaderboards.drawing import BETTER, OPEN, REFERENCE, WORSE, plain
from leaderboards.layout import label
from leaderboards.summary import Row, Summary
from leaderboards.tables import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHANCE = {"above chance": (BETTER, "^"), "below chance": (WORSE, "v"), "": (OPEN, "o")}


def draw(summaries: Sequence[Summary], folder: Path) -> list[str]:
    """Write ``<dataset>.svg`` and ``.png`` into ``folder`` -> notes to print, empty when all went well.

    Where the protocol has settings, ``<dataset>.settings.svg`` and ``.png`` show recall in each of them beside chance.
    Without matplotlib nothing is drawn and the note says so. The same summary gives the same SVG.
    """
    return drawing.draw(_figures(summaries), folder)


def _figures(summaries: Sequence[Summary]) -> Iterator[tuple[str, Any]]:
    for summary in (one for one in summaries if one.rows):
        yield file_name(summary.dataset), _figure(summary)
        if summary.settings:
            yield f"{file_name(summary.dataset)}.settings", _settings(summary)


def _figure(summary: Summary) -> Any:
    from matplotlib.figure import Figure

    height = 1.5 + 0.3 * len(summary.rows)
    panels = 2 if summary.has_reference and len(summary.rows) > 1 else 1
    figure = Figure(figsize=(4.0 + 3.2 * panels, height), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    _means(axes[0], summary)
    if panels == 2:
        _differences(axes[1], summary)
    figure.suptitle(f"{_title(summary)}, {summary.users:,} users", fontsize=10)
    return figure


def _title(summary: Summary) -> str:
    protocol = summary.shared["protocol"]
    return f"{summary.dataset}, protocol {protocol['name']} v{protocol['version']}, profile {summary.shared['profile']}"


def _settings(summary: Summary) -> Any:
    """Recall in every setting, the intervals of its difference to chance, and chance as a dashed line."""
    from matplotlib.figure import Figure

    panels = len(summary.settings)
    figure = Figure(figsize=(2.0 + 2.6 * panels, 1.8 + 0.3 * len(summary.rows)), layout="constrained")
    for axes, (name, asked) in zip(figure.subplots(1, panels, sharey=True), summary.settings.items(), strict=True):
        axes.axvline(asked.chance, color=REFERENCE, linewidth=0.8, linestyle="--")
        for place, row in enumerate(summary.rows):
            one = row.chance[name]
            low, high = (asked.chance + bound for bound in one.interval)
            _whisker(axes, place, one.recall, low, high, *_CHANCE[one.verdict])
        _name_rows(axes, summary)
        axes.set_title(f"{name}: {asked.users:,} users,\n{asked.candidates:,} candidates", fontsize=9)
        axes.set_xlabel(summary.recall)
        _plain(axes)
        axes.locator_params(axis="x", nbins=4)
    figure.suptitle(_title(summary), fontsize=10)
    present = {row.chance[name].verdict for name in summary.settings for row in summary.rows}
    handles = [
        axes.plot([], [], marker, color=colour, linestyle="", label=verdict or "not told apart")[0]
        for verdict, (colour, marker) in _CHANCE.items()
        if verdict in present
    ]
    handles += axes.plot([], [], "--", color=REFERENCE, linewidth=0.8, label="chance")
    title = "95 % interval over users and target items"
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8, title=title, title_fontsize=8
    )
    return figure


def _means(axes: Axes, summary: Summary) -> None:
    """The ranked metric of every method, best on top."""
    for place, row in enumerate(summary.rows):
        colour, marker = _look(row, summary.reference)
        value, (low, high) = row.metrics[summary.primary], row.interval
        _whisker(axes, place, value, low, high, colour, marker)
    _name_rows(axes, summary)
    axes.set_xlabel(f"{summary.primary}, 95 % interval over users")
    _plain(axes)


def _name_rows(axes: Axes, summary: Summary) -> None:
    """The methods beside the axis, best on top; the axis of values starts at 0 or below."""
    axes.set_yticks(range(len(summary.rows)), [label(row) for row in summary.rows])
    axes.set_ylim(len(summary.rows) - 0.5, -0.5)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))


def _differences(axes: Axes, summary: Summary) -> None:
    """Differences to the reference, with the line of no difference."""
    axes.axvline(0, color=REFERENCE, linewidth=0.8)
    for place, row in enumerate(summary.rows):
        colour, marker = _look(row, summary.reference)
        if row.comparison is not None:
            _whisker(axes, place, row.comparison.difference, *row.comparison.interval, colour, marker)
        elif row.method == summary.reference:
            axes.plot(0, place, marker, color=colour, markersize=5)
    axes.set_xlabel(f"difference to {summary.reference}, 95 % interval")
    axes.tick_params(axis="y", length=0)
    _plain(axes)
    _legend(axes, summary)


def _look(row: Row, reference: str) -> tuple[str, str]:
    """Colour and marker of a method: what the test says about it."""
    if row.method == reference:
        return REFERENCE, "D"
    if row.comparison is None or not row.comparison.significant:
        return OPEN, "o"
    return (BETTER, "^") if row.comparison.difference > 0 else (WORSE, "v")


def _whisker(axes: Axes, place: int, value: float, low: float, high: float, colour: str, marker: str) -> None:
    axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(value, place, marker, color=colour, markersize=5)


def _legend(axes: Axes, summary: Summary) -> None:
    """Below the panels, with the kinds of method that occur."""
    named = {"D": "reference", "^": "better", "v": "worse", "o": "not told apart"}
    present = {_look(row, summary.reference) for row in summary.rows}
    ordered = sorted(present, key=lambda look: list(named).index(look[1]))
    handles = [
        axes.plot([], [], marker, color=colour, linestyle="", label=named[marker])[0] for colour, marker in ordered
    ]
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def _plain(axes: Axes) -> None:
    plain(axes, "x")
    axes.locator_params(axis="x", nbins=5)
