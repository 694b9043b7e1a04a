"""Summary -> the sections of a protocol with settings: warm and cold, popularity of the target, against chance."""

from __future__ import annotations

from dataclasses import replace

from benchmark.metrics import PER_USER, parse
from leaderboards.chance import ENOUGH_ITEMS, RESAMPLES, AgainstChance
from leaderboards.layout import BETTER, WORSE, Section, interval, label, metric_table, number, signed
from leaderboards.scores import SEEN_DROPPED, SliceCell
from leaderboards.summary import Summary
from leaderboards.targets import ALL

GROUP = "group "
"""Begins the names of settings that count the targets of one popularity group."""


def setting_sections(summary: Summary) -> list[Section]:
    """Everything about settings, nothing for protocols without them."""
    inside = [name for name in summary.settings if name != ALL]
    return [overview(summary), *(_in_full(summary, name) for name in inside), by_group(summary), chance(summary)]


def overview(summary: Summary) -> Section:
    """Recall and the ranked metric of every setting side by side."""
    names = [in_setting(metric, name) for name in summary.settings for metric in (summary.recall, summary.primary)]
    notes = [
        "Each setting ranks its own candidates anew and counts the targets among them, for the users who have any."
    ]
    notes += [f"{BETTER} and {WORSE} as in the ranked table."] if summary.has_reference else []
    title = " and ".join(name for name in summary.settings if name != ALL).capitalize()
    groups = [
        (f"{name}, {one.users:,} users, {one.candidates:,} candidates", 2) for name, one in summary.settings.items()
    ]
    return replace(metric_table(summary, title, names, notes), groups=groups)


def _in_full(summary: Summary, name: str) -> Section:
    """Every accuracy metric in one setting."""
    found = {metric.partition("/")[0] for row in summary.rows for metric in row.metrics}
    order = sorted((m for m in found if parse(m)[0] in PER_USER), key=_place)
    names = [in_setting(metric, name) for metric in order]
    one = summary.settings[name]
    title = f"Among {name} items: {one.users:,} users, {one.candidates:,} candidates"
    return metric_table(summary, title, names, [])


def _place(metric: str) -> tuple[int, int]:
    name, k = parse(metric)
    return list(PER_USER).index(name), k


def by_group(summary: Summary) -> Section:
    """The whole test again, counting the targets of one popularity group at a time."""
    title = "By popularity group of the target"
    names = [name for name in (summary.rows[0].settings if summary.rows else {}) if name.startswith(GROUP)]
    if not names:
        return Section(title, [], [])
    users = {name: summary.rows[0].settings[name].users for name in names}
    header = ["method", *[summary.primary, summary.recall] * len(names)]
    rows = [[label(row), *(text for name in names for text in _cells(row.settings[name]))] for row in summary.rows]
    note = (
        f"{summary.primary} with its 95 % interval over users, then {summary.recall}; popularity is that in training. "
        "The lists are those of the ranked table, only targets of the group count, for the users who have any."
    )
    groups = [(f"{name.removeprefix(GROUP)}: {users[name]:,} users", 2) for name in names]
    return Section(title, header, rows, notes=[note], groups=groups)


def _cells(cell: SliceCell) -> list[str]:
    return [f"{number(cell.primary)} {interval(cell.interval)}", number(cell.recall)]


def chance(summary: Summary) -> Section:
    """Recall of every method less that of a random list, in every setting."""
    k = parse(summary.recall)[1]
    header = ["method", *[summary.recall, "difference", "95 % interval"] * len(summary.settings)]
    rows = [
        [label(row), *(text for name in summary.settings for text in _against(row.chance[name]))]
        for row in summary.rows
    ]
    groups = [
        (f"{name}: chance {k}/{one.candidates:,} = {number(one.chance)}", 3) for name, one in summary.settings.items()
    ]
    return Section("Against chance", header, rows if summary.settings else [], notes=_chance_notes(k), groups=groups)


def _against(one: AgainstChance) -> list[str]:
    said = f" {one.verdict}" if one.verdict else ""
    return [number(one.recall), signed(one.difference), interval(one.interval, signed) + said]


def _chance_notes(k: int) -> list[str]:
    return [
        f"Chance: recall@{k} of a random list is {k} / candidates.",
        f"Intervals: pigeonhole bootstrap (Owen 2007), {RESAMPLES:,} resamples in which users and target items are "
        "drawn anew, each with replacement and independently. Both are a sample: a method that knows nothing but item "
        "ids gives everybody nearly the same few cold items, and resampling users alone would call it significant "
        "when those few happen to be wanted.",
        "Above chance: the interval lies above 0. Below chance: it lies below 0 and at least "
        f"{ENOUGH_ITEMS} different items are hit; with fewer, a bad list and an unlucky one cannot be told apart. "
        "The intervals are not adjusted for the number of methods and settings.",
    ]


def in_setting(metric: str, name: str) -> str:
    """The metric's name in one setting."""
    return metric if name == ALL else f"{metric}/{name}"


def is_seen_dropped(metric: str) -> bool:
    return metric.partition("/")[2] == SEEN_DROPPED


def verdict_line(summary: Summary) -> str:
    """One sentence about chance in every setting."""
    parts = []
    for name, one in summary.settings.items():
        above = sum(row.chance[name].verdict == "above chance" for row in summary.rows)
        parts.append(f"{name} {number(one.chance)}, {above} of {len(summary.rows)}")
    return f"{summary.recall} of a random list, and methods above it: {'; '.join(parts)}"
