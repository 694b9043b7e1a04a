"""What goes beyond one table, as pictures: places under two protocols, and mean ranks with a critical difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards.across import Across
from leaderboards.across.groups import Group
from leaderboards.across.protocols import Beside, Page
from leaderboards.drawing import BETTER, OPEN, REFERENCE, WORSE, draw, plain
from leaderboards.tables import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOK = {
    1: (BETTER, "^", "passes another, told apart on both sides"),
    -1: (WORSE, "v", "is passed, told apart on both sides"),
}
_STILL = (OPEN, "o", "neither, or both")


def slopes_name(one: Beside) -> str:
    """File name, without its ending, of the picture of two protocols."""
    first, _, rest = one.first.partition("/")
    return file_name(f"across.{first}.{one.second.partition('/')[0]}.{rest}")


def ranks_name(one: Group) -> str:
    """File name, without its ending, of the picture of mean ranks."""
    return file_name(f"across.ranks.{one.place.replace('/', '.')}.{len(one.datasets)}-datasets")


def draw_across(made: Across, folder: Path) -> list[str]:
    """SVG and PNG of every pair of protocols, and of mean ranks where there are datasets enough -> notes to print."""
    return draw(_figures(made), folder)


def _figures(made: Across) -> Iterator[tuple[str, Any]]:
    for beside in made.beside:
        yield slopes_name(beside), _slopes(beside)
    for group in made.groups:
        if group.critical is not None:
            yield ranks_name(group), _mean_ranks(group)


def _slopes(one: Beside) -> Any:
    """One panel per page; a method's line goes from its place under the first protocol to that under the second."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(one.pages), 1.5 + 0.3 * len(one.methods)), layout="constrained")
    seen: set[int] = set()
    for axes, page in zip(figure.subplots(1, len(one.pages), squeeze=False)[0], one.pages, strict=True):
        moves = {standing.method: _move(page, standing.method) for standing in page.standings}
        seen |= set(moves.values())
        for standing in page.standings:
            colour, marker, _ = _LOOK.get(moves[standing.method], _STILL)
            width = 2.0 if moves[standing.method] else 1.0
            axes.plot([0, 1], standing.ranks, marker=marker, color=colour, linewidth=width, markersize=5)
        _name_ends(axes, one, page)
    figure.suptitle(f"Places by {one.primary}: {one.first} beside {one.second}", fontsize=10)
    handles = [
        axes.plot([], [], marker=marker, color=colour, label=label)[0]
        for move, (colour, marker, label) in {**_LOOK, 0: _STILL}.items()
        if move in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _move(page: Page, method: str) -> int:
    """1 when it passes another with both sides told apart, -1 when it is passed, 0 else or when both happens."""
    passed = any(turn.method == method for turn in page.significant)
    passes = any(turn.other == method for turn in page.significant)
    return int(passes) - int(passed)


def _name_ends(axes: Axes, one: Beside, page: Page) -> None:
    """Names with values on both sides, the best on top."""
    places = [[standing.ranks[side] for standing in page.standings] for side in (0, 1)]
    names = [[f"{s.method}  {s.values[side]:.4f}" for s in page.standings] for side in (0, 1)]
    axes.set_yticks(places[0], names[0])
    right = axes.secondary_yaxis("right")
    right.set_yticks(places[1], [" ".join(reversed(name.split("  "))) for name in names[1]])
    axes.set_ylim(len(page.standings) + 0.5, 0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 1], [one.first.partition("/")[0], one.second.partition("/")[0]])
    axes.set_title(f"{page.dataset} (tau {page.tau:.2f})", fontsize=9)
    for side in (axes, right):
        side.tick_params(axis="y", length=0)
        side.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _mean_ranks(one: Group) -> Any:
    """Mean ranks on a line, bars below that join what the critical difference does not tell apart."""
    from matplotlib.figure import Figure

    assert one.critical is not None
    ranks = [one.mean_rank(method) for method in one.methods]
    bars = _joined(ranks, one.critical)
    figure = Figure(figsize=(7.5, 1.4 + 0.27 * len(ranks)), layout="constrained")
    axes = figure.subplots()
    for place, rank in enumerate(ranks):
        axes.plot(rank, place, "o", color=REFERENCE, markersize=5)
    for start, end in bars:
        axes.plot([ranks[start], ranks[start]], [start, end], color=OPEN, linewidth=2.2, solid_capstyle="butt")
    axes.set_yticks(
        range(len(ranks)), [f"{method}  {rank:.2f}" for method, rank in zip(one.methods, ranks, strict=True)]
    )
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_xlabel(f"mean rank over {len(one.datasets)} datasets; a bar joins methods closer than {one.critical:.2f}")
    plain(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{one.place}, {one.primary}", fontsize=10)
    return figure


def _joined(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Longest runs of neighbours, ranks ascending, whose ends are no further apart than the critical difference."""
    runs: list[tuple[int, int]] = []
    for start, rank in enumerate(ranks):
        end = max(i for i, other in enumerate(ranks) if other - rank <= critical)
        if end > start and (not runs or end > runs[-1][1]):
            runs.append((start, end))
    return runs
