"""One protocol beside another for the same methods: who stands where, and which pairs change their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from benchmark.records import Record
from leaderboards.across.groups import Group, group, of_pair
from leaderboards.scores import Interval
from leaderboards.summary import Summary

FIRST = "loo"
"""The protocol that the others are set beside: the one that papers use."""
POOLED = "all datasets"
BOTH, ONE, NEITHER = "both", "one", "neither"


@dataclass(frozen=True)
class Side:
    """A pair of methods under one protocol."""

    difference: float
    interval: Interval
    p_holm: float
    significant: bool


@dataclass(frozen=True)
class Turn:
    """A pair of methods under two protocols; ``method`` is the better one in the first."""

    method: str
    other: str
    first: Side
    second: Side

    @property
    def flips(self) -> bool:
        return self.first.difference * self.second.difference < 0

    @property
    def told_apart(self) -> str:
        """On how many sides the two are told apart."""
        return (NEITHER, ONE, BOTH)[self.first.significant + self.second.significant]


@dataclass(frozen=True)
class Standing:
    """One method under both protocols."""

    method: str
    ranks: tuple[float, float]
    """Among the methods that both have."""
    values: tuple[float, float]
    intervals: tuple[Interval, Interval] | None
    """95 % bootstrap over users; None for the mean over datasets."""


@dataclass(frozen=True)
class Page:
    """Two protocols on one dataset, or over all they share."""

    dataset: str
    standings: list[Standing]
    """In the order of the first protocol."""
    turns: list[Turn]
    """Every pair."""
    tau: float
    """Kendall's rank correlation of the two orders."""

    @property
    def flips(self) -> list[Turn]:
        """Pairs that change their order, those that are told apart on both sides first."""
        places = (BOTH, ONE, NEITHER)
        return sorted((t for t in self.turns if t.flips), key=lambda t: places.index(t.told_apart))

    @property
    def significant(self) -> list[Turn]:
        return [turn for turn in self.flips if turn.told_apart == BOTH]


@dataclass(frozen=True)
class Beside:
    """Everything about two protocols of one track and profile."""

    first: str
    second: str
    primary: str
    methods: tuple[str, ...]
    """Those that both have on every shared dataset."""
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Methods that only the first or the second has on all of these datasets."""
    pages: list[Page]
    """Over all shared datasets, if there are several, and then one by one."""


def pairs_of_places(found: Sequence[str]) -> list[tuple[str, str]]:
    """The first protocol with every other of the same track and profile; a place is ``protocol/track-profile``."""
    split = [(name, *name.split("/", 1)) for name in found]
    firsts = [(name, rest) for name, protocol, rest in split if protocol == FIRST]
    return [(a, b) for a, rest in firsts for b, protocol, other in split if protocol != FIRST and other == rest]


def beside(
    first: str,
    second: str,
    records: Mapping[str, Sequence[Record]],
    tables: Mapping[str, Mapping[str, Summary]],
    permutations: int,
) -> Beside | None:
    """Two protocols side by side; None when fewer than two methods stand in both."""
    datasets = sorted(tables[first].keys() & tables[second].keys())
    if not datasets:
        return None
    there = [_everywhere(tables[place], datasets) for place in (first, second)]
    methods = sorted(there[0] & there[1])
    if len(methods) < 2:
        return None
    pages = [_on(tables[first][name], tables[second][name], methods) for name in datasets]
    if len(datasets) > 1:
        pooled = [
            group(place, records[place], {name: tables[place][name] for name in datasets}, methods, permutations)
            for place in (first, second)
        ]
        pages.insert(0, _pooled(*pooled))
    only = (tuple(sorted(there[0] - there[1])), tuple(sorted(there[1] - there[0])))
    return Beside(first, second, tables[first][datasets[0]].primary, tuple(methods), only, pages)


def _everywhere(tables: Mapping[str, Summary], datasets: Sequence[str]) -> set[str]:
    return set.intersection(*({row.method for row in tables[name].rows} for name in datasets))


def _on(first: Summary, second: Summary, methods: Sequence[str]) -> Page:
    """One dataset: everything as its two tables have it."""
    rows = [{row.method: row for row in one.rows} for one in (first, second)]
    values = [{m: some[m].metrics[first.primary] for m in methods} for some in rows]
    standings = [
        Standing(m, ranks, (values[0][m], values[1][m]), (rows[0][m].interval, rows[1][m].interval))
        for m, ranks in _ranked(values[0], values[1], methods)
    ]
    order = [one.method for one in standings]
    turns = [Turn(a, b, _side(first, a, b), _side(second, a, b)) for i, a in enumerate(order) for b in order[i + 1 :]]
    return Page(first.dataset, standings, turns, _tau(standings))


def _side(table: Summary, method: str, other: str) -> Side:
    one, side = of_pair(table, method, other)
    low, high = one.interval
    return Side(side * one.difference, (low, high) if side > 0 else (-high, -low), one.p_holm, one.significant)


def _pooled(first: Group, second: Group) -> Page:
    """Several datasets: means over them, and the pooled pairs."""
    values, others = ({m: sum(some.values()) / len(some) for m, some in one.values.items()} for one in (first, second))
    standings = [
        Standing(m, ranks, (values[m], others[m]), None) for m, ranks in _ranked(values, others, first.methods)
    ]
    order = [one.method for one in standings]
    sides = [
        {(p.method, p.reference): p for pair in one.pairs for p in (pair, pair.turned())} for one in (first, second)
    ]
    turns = []
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            here, there = (
                Side(some[a, b].difference, some[a, b].interval, some[a, b].p_holm, some[a, b].significant)
                for some in sides
            )
            turns.append(Turn(a, b, here, there))
    return Page(POOLED, standings, turns, _tau(standings))


def _ranked(
    first: Mapping[str, float], second: Mapping[str, float], methods: Sequence[str]
) -> list[tuple[str, tuple[float, float]]]:
    """Methods with their ranks under both protocols, in the order of the first."""
    ranks = [
        dict(zip(methods, stats.rankdata([-one[m] for m in methods]).tolist(), strict=True)) for one in (first, second)
    ]
    return sorted(((m, (ranks[0][m], ranks[1][m])) for m in methods), key=lambda one: (one[1], one[0]))


def _tau(standings: Sequence[Standing]) -> float:
    return float(stats.kendalltau(*zip(*(one.ranks for one in standings), strict=True)).statistic)
