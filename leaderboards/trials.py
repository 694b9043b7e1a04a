"""The ``tuning`` field of a record -> a table of its trials on screen, and a picture of how the search went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmark.job import Planned
from benchmark.progress import duration
from leaderboards import drawing

TRIAL, CHOSEN, FAILED, BEST = drawing.BLUE, drawing.RED, drawing.GREY, drawing.BLACK


def show(chosen: Sequence[Planned], folder: Path) -> list[str]:
    """Draw the pictures of tuned jobs into ``folder`` -> their tables, and where things are."""
    lines = []
    for job in (one.job for one in chosen):
        assert job.tuning is not None
        lines += [table(job.tuning), *draw(job.tuning, folder, str(job)), f"trials: {folder}"]
    return lines


def table(tuning: Mapping[str, Any]) -> str:
    """One line per trial in the order they were tried; the chosen one has a star."""
    rows = []
    for number, trial in enumerate(tuning["trials"]):
        score = trial["status"] if trial["score"] is None else f"{trial['score']:.4f}"
        star, note = "*" if number == tuning["chosen"] else "", "default" if number == 0 else ""
        values = [str(trial["values"][path]) for path in tuning["space"]]
        took = f"{trial['seconds']:.1f}s" if trial["seconds"] < 10 else duration(trial["seconds"])
        rows.append([f"{number}{star}", score, took, *values, note])
    names = [path.rpartition(".")[2] for path in tuning["space"]]
    return tabulate(rows, ["trial", tuning["metric"], "time", *names, ""], disable_numparse=True)


def draw(tuning: Mapping[str, Any], folder: Path, title: str) -> list[str]:
    """Write ``tuning.svg`` and ``tuning.png`` into ``folder`` -> notes to print, empty when all went well.

    Without matplotlib nothing is drawn and the note says so. The same trials give the same SVG.
    """
    return drawing.draw(_figures(tuning, title), folder)


def _figures(tuning: Mapping[str, Any], title: str) -> Iterator[tuple[str, Any]]:
    yield "tuning", _figure(tuning, title)


def _figure(tuning: Mapping[str, Any], title: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scores = {number: t["score"] for number, t in enumerate(tuning["trials"]) if t["score"] is not None}
    failed = [number for number, t in enumerate(tuning["trials"]) if t["score"] is None]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    best = {number: max(s for n, s in scores.items() if n <= number) for number in scores}
    axes.step([*best, len(tuning["trials"]) - 1], [*best.values(), max(scores.values())], where="post", color=BEST)
    axes.plot([], [], color=BEST, label="best so far")
    axes.plot(*zip(*scores.items(), strict=True), "o", color=TRIAL, markersize=5, label="trial")
    if 0 in scores:
        axes.plot(0, scores[0], "s", color=TRIAL, markersize=7, label="default")
    axes.plot(tuning["chosen"], scores[tuning["chosen"]], "*", color=CHOSEN, markersize=13, label="chosen")
    if failed:
        axes.plot(failed, [min(scores.values())] * len(failed), "x", color=FAILED, label="failed")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("trial")
    axes.set_ylabel(tuning["metric"].replace("valid:", "validation "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawing.plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
