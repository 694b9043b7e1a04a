"""Records -> one figure per dataset: how every trained method's validation score rose while it trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.records import Record
from leaderboards.drawing import COLOURS, MARKERS, draw, plain
from leaderboards.tables import file_name

LINES = ("-", "--", ":", "-.")


def draw_curves(found: Sequence[Record], folder: Path) -> None:
    """Write ``<dataset>-training.svg`` and ``.png`` into ``folder``: validation score against epochs.

    Methods without a training are left out, and a dataset without any trained method gets no figure. The same
    records give the same SVG. Without matplotlib nothing is drawn.
    """
    draw(_figures(found), folder)


def _figures(found: Sequence[Record]) -> Iterator[tuple[str, Any]]:
    by_dataset: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        if record.status == "ok" and record.fields["training"].get("curve"):
            by_dataset[record.dataset].append(record)
    for dataset, trained in sorted(by_dataset.items()):
        yield f"{file_name(dataset)}-training", _figure(dataset, trained)


def _figure(dataset: str, trained: Sequence[Record]) -> Any:
    from matplotlib.figure import Figure

    height = max(4.2, 0.6 + 0.18 * len(trained))  # inches; the legend has a line per training
    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes = figure.subplots()
    look_of = {method: _look(place) for place, method in enumerate(sorted({record.method for record in trained}))}
    for record in sorted(trained, key=lambda r: (r.method, r.seed)):
        _curve(axes, record, *look_of[record.method])
    axes.set_xlabel("epochs")
    axes.set_ylabel("validation score (mark = chosen epoch)")
    axes.set_ylim(bottom=0)
    plain(axes)
    fields = trained[0].fields
    axes.set_title(f"{dataset}, profile {fields['profile']}: training", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _look(place: int) -> tuple[str, str, str]:
    """Colour, marker and line of a method: when the colours begin again, each gets the next marker and another line."""
    again, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], MARKERS[(colour + again) % len(MARKERS)], LINES[again % len(LINES)]


def _curve(axes: Any, record: Record, colour: str, marker: str, line: str) -> None:
    """One line, its chosen epoch marked; the legend says how long the training took."""
    training = record.fields["training"]
    points = [(epoch, e["valid"]) for epoch, e in enumerate(training["curve"], start=1) if "valid" in e]
    minutes = record.fields["timings"].get("train", 0.0) / 60
    text = f"{record.method} seed {record.seed} ({minutes:.0f} min)"
    axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, linewidth=1.4)
    chosen = dict(points).get(training.get("best_epoch"))
    if chosen is not None:
        axes.plot(training["best_epoch"], chosen, marker, color=colour, markersize=6)
    axes.plot([], [], marker=marker, color=colour, linestyle=line, label=text)
