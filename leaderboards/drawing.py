"""Figures on disk: SVG and PNG side by side, in one look; the same figure gives the same SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision; markers repeat what the colours say.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, RED, *_, BLACK = COLOURS
GREY, GRID = "#777777", "#dddddd"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
BETTER, WORSE, OPEN, REFERENCE = BLUE, RED, GREY, BLACK

_drawing = ContextVar("drawing", default=True)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Inside, ``draw`` draws nothing: for tables that are made again only to be compared."""
    before = _drawing.set(False)
    try:
        yield
    finally:
        _drawing.reset(before)


def draw(figures: Iterable[tuple[str, Any]], folder: Path) -> list[str]:
    """Write ``<name>.svg`` and ``.png`` of every pair of name and figure -> notes to print, empty when all went well.

    ``figures`` is a generator: what it makes is made here, in the common style. Without matplotlib it is never begun,
    nothing is drawn and the note says so.
    """
    if not _drawing.get():
        return []
    try:
        from matplotlib import rc_context
    except ImportError:
        return ["no pictures: matplotlib is not installed"]
    # a name is a name, also one with dollars
    with rc_context({"svg.fonttype": "none", "font.size": 9, "text.parse_math": False}):
        for name, figure in figures:
            folder.mkdir(parents=True, exist_ok=True)
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    return []


def plain(axes: Axes, grid: Literal["both", "x"] | None = "both") -> None:
    """A pale grid behind the marks and no frame; with ``grid`` "x" the rows have names in place of an axis."""
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"] if grid == "x" else ["top", "right"]].set_visible(False)


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name; after seven they begin again."""
    return dict(zip(names, cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
