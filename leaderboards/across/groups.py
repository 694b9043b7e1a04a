"""Several tables -> what they say together: ranks over datasets, wins, and pairs of methods over all their users.

Letters in shape comments: U users, M methods, C comparisons, R resamples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

import protocols
from benchmark.records import Record
from leaderboards.compare import ALPHA, LEVEL, Comparison, holm, resampled_means, sign_flip
from leaderboards.layout import place_of
from leaderboards.scores import RESAMPLES, Interval, Scores
from leaderboards.summary import Row, Summary, summarise

PERMUTATIONS = 100_000
ENOUGH_DATASETS = 6
"""From so many on a critical difference of mean ranks says something."""


@dataclass(frozen=True)
class Pair:
    """One method against another over several datasets, each with the same weight; positive = ``method`` is better."""

    method: str
    reference: str
    differences: dict[str, float]
    """By dataset."""
    difference: float
    """Mean of the datasets' mean differences."""
    interval: Interval
    """95 % bootstrap over the users of every dataset by itself."""
    p: float
    """Two-sided sign flip over the users of all datasets."""
    p_holm: float
    """Adjusted within all pairs of the group."""
    significant: bool
    """Holm p < .05 and the same sign in every dataset and seed."""
    verdicts: dict[str, int]
    """By dataset: 1 or -1 where the dataset's own table tells them apart, else 0."""

    @property
    def wins(self) -> int:
        return sum(difference > 0 for difference in self.differences.values())

    @property
    def losses(self) -> int:
        return sum(difference < 0 for difference in self.differences.values())

    @property
    def significant_wins(self) -> int:
        return sum(verdict > 0 for verdict in self.verdicts.values())

    @property
    def significant_losses(self) -> int:
        return sum(verdict < 0 for verdict in self.verdicts.values())

    def turned(self) -> Pair:
        """The same from the other side."""
        return Pair(
            self.reference,
            self.method,
            {name: -value for name, value in self.differences.items()},
            -self.difference,
            (-self.interval[1], -self.interval[0]),
            self.p,
            self.p_holm,
            self.significant,
            {name: -value for name, value in self.verdicts.items()},
        )


@dataclass(frozen=True)
class Group:
    """Datasets under one protocol, track and profile, and the methods that have a result on every one of them."""

    place: str
    primary: str
    reference: str
    datasets: tuple[str, ...]
    values: dict[str, dict[str, float]]
    """Method -> dataset -> the primary metric; methods in the order of their mean rank."""
    ranks: dict[str, dict[str, float]]
    """Method -> dataset -> its place among these methods; equal values share the mean of their places."""
    pairs: list[Pair]
    """Every pair once, the one with the better mean rank first."""
    missing: dict[str, tuple[str, ...]]
    """Methods left out, and the datasets on which they have no result."""
    seeds: dict[str, tuple[str, ...]]
    """Trained methods that lack seeds which others have, and where: "dataset: the seeds it has"."""
    friedman: float | None
    critical: float | None
    """Nemenyi's critical difference of mean ranks at .05; both only with enough datasets."""

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.values)

    def mean_rank(self, method: str) -> float:
        return float(np.mean(list(self.ranks[method].values())))


def places(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of every protocol, track and profile; runs of some of the users are left out."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not record.fields["limit_users"]:
            found[place_of(record)].append(record)
    return dict(sorted(found.items()))


def summaries_of(
    found: Mapping[str, Sequence[Record]], permutations: int = PERMUTATIONS
) -> dict[str, dict[str, Summary]]:
    """Place -> dataset -> what its table says."""
    made = {}
    for place, records in found.items():
        rules = protocols.load(records[0].protocol["name"]).rules
        summaries = summarise(
            records, reference=rules["reference"], primary=rules["primary"], permutations=permutations
        )
        made[place] = {one.dataset: one for one in summaries if one.rows}
    return made


def groups(place: str, records: Sequence[Record], tables: Mapping[str, Summary], permutations: int) -> list[Group]:
    """One group for every set of two or more datasets that are all the datasets some method stands in."""
    stands: dict[str, frozenset[str]] = {
        method: frozenset(name for name, one in tables.items() if method in {row.method for row in one.rows})
        for method in sorted({row.method for one in tables.values() for row in one.rows})
    }
    sets = sorted({some for some in stands.values() if len(some) > 1}, key=lambda some: (len(some), sorted(some)))
    made = []
    for datasets in sets:
        everywhere = [method for method, some in stands.items() if some >= datasets]
        if len(everywhere) > 1:
            chosen = {name: tables[name] for name in sorted(datasets)}
            made.append(group(place, records, chosen, everywhere, permutations))
    return made


def group(
    place: str,
    records: Sequence[Record],
    tables: Mapping[str, Summary],
    methods: Sequence[str],
    permutations: int = PERMUTATIONS,
) -> Group:
    """These methods over these datasets; every one must stand in every table."""
    first = next(iter(tables.values()))
    rows = {name: {row.method: row for row in one.rows} for name, one in tables.items()}
    metric = {name: {m: rows[name][m].metrics[first.primary] for m in methods} for name in tables}
    ranks = {
        name: dict(zip(methods, stats.rankdata([-values[m] for m in methods]).tolist(), strict=True))
        for name, values in metric.items()
    }
    order = sorted(methods, key=lambda m: (float(np.mean([ranks[name][m] for name in tables])), m))
    means = {name: _means(records, name, order, first) for name in tables}
    enough = len(tables) >= ENOUGH_DATASETS and len(order) > 2
    table = [[ranks[name][m] for name in tables] for m in order]
    return Group(
        place=place,
        primary=first.primary,
        reference=first.reference,
        datasets=tuple(tables),
        values={m: {name: metric[name][m] for name in tables} for m in order},
        ranks={m: {name: ranks[name][m] for name in tables} for m in order},
        pairs=_pairs(order, means, tables, permutations),
        missing={
            method: tuple(name for name in tables if method not in rows[name])
            for method in sorted({m for some in rows.values() for m in some} - set(methods))
        },
        seeds=_lacking({name: {m: rows[name][m] for m in order} for name in tables}),
        friedman=float(stats.friedmanchisquare(*table).pvalue) if enough else None,
        critical=critical_difference(len(order), len(tables)) if enough else None,
    )


def critical_difference(methods: int, datasets: int) -> float:
    """Nemenyi: mean ranks further apart than this differ at .05. Source: Demsar 2006."""
    quantile = float(stats.studentized_range.ppf(LEVEL, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * datasets))


def _means(records: Sequence[Record], dataset: str, methods: Sequence[str], table: Summary) -> np.ndarray:
    """Every user's mean over a method's seeds, (U, M) in the order of ``methods``."""
    done = [r for r in records if r.dataset == dataset and r.status == "ok" and r.method in methods]
    scores = Scores.of(sorted(done, key=lambda r: (r.method, r.seed)), table.primary, table.recall).primary
    return np.stack([scores[method].mean(1) for method in methods], 1)


def _pairs(
    methods: Sequence[str], means: Mapping[str, np.ndarray], tables: Mapping[str, Summary], permutations: int
) -> list[Pair]:
    """All pairs; ``means`` are (U, M) per dataset.

    A user's difference is divided by the users of the dataset, so that a sum over all is the mean over datasets, and
    signs are flipped user by user: within every dataset by itself.
    """
    chosen = list(combinations(range(len(methods)), 2))
    contrasts = np.zeros((len(methods) - 1, len(chosen)))  # (M - 1, C), in differences to the last method
    for column, (a, b) in enumerate(chosen):
        contrasts[a, column] = 1.0
        if b < len(methods) - 1:
            contrasts[b, column] = -1.0
    gains = [(scores[:, :-1] - scores[:, -1:]) for scores in means.values()]  # (U, M - 1) each
    p = sign_flip(np.concatenate([gain / (len(gain) * len(gains)) for gain in gains]), permutations, 0, contrasts)
    drawn = sum(resampled_means(gain, RESAMPLES, seed) @ contrasts for seed, gain in enumerate(gains)) / len(gains)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)  # (C,) each
    found = []
    adjusted = holm(p)
    for i, (a, b) in enumerate(chosen):
        by_dataset = {name: float((scores[:, a] - scores[:, b]).mean()) for name, scores in means.items()}
        judged = [oriented(one, methods[a], methods[b]) for one in tables.values()]
        difference = float(np.mean(list(by_dataset.values())))
        signs = {float(np.sign(seed)) for one in judged for seed in one.values()}
        told = {name: _verdict(one, methods[a], methods[b]) for name, one in tables.items()}
        found.append(
            Pair(
                method=methods[a],
                reference=methods[b],
                differences=by_dataset,
                difference=difference,
                interval=(float(low[i]), float(high[i])),
                p=float(p[i]),
                p_holm=float(adjusted[i]),
                significant=bool(adjusted[i] < ALPHA and signs == {float(np.sign(difference))}),
                verdicts=told,
            )
        )
    return found


def of_pair(table: Summary, method: str, other: str) -> tuple[Comparison, int]:
    """The table's comparison of two methods, and 1 or -1 for the side it is told from."""
    for one in table.pairs:
        if (one.method, one.reference) == (method, other):
            return one, 1
        if (one.method, one.reference) == (other, method):
            return one, -1
    raise ValueError(f"the table of {table.dataset} does not compare {method} with {other}; make it again")


def oriented(table: Summary, method: str, other: str) -> dict[int, float]:
    """The differences in every seed, from the side of ``method``."""
    one, side = of_pair(table, method, other)
    return {seed: side * difference for seed, difference in one.per_seed.items()}


def _verdict(table: Summary, method: str, other: str) -> int:
    one, side = of_pair(table, method, other)
    return side * int(np.sign(one.difference)) if one.significant else 0


def _lacking(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, tuple[str, ...]]:
    """Trained methods without some of the seeds that others of the group have, and where; dataset -> method -> row."""
    trained = [(name, row) for name, some in rows.items() for row in some.values() if row.facts["trained"]]
    every = {seed for _, row in trained for seed in row.seeds}
    found: dict[str, list[str]] = defaultdict(list)
    for dataset, row in trained:
        if set(row.seeds) != every:
            found[row.method].append(f"{dataset}: {', '.join(map(str, row.seeds))}")
    return {method: tuple(where) for method, where in sorted(found.items())}
