"""Records -> the ledger: every published figure for which there is a run, beside other people's reruns and ours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import protocols
from benchmark.records import Record
from leaderboards.ledger.checks import Doubt, published_doubts
from leaderboards.ledger.data import (
    GROUPED_LIKE_GENPLUGIN,
    MATCHES,
    SETTINGS,
    Figure,
    Match,
    answers,
    figures,
    known_reason,
    matches,
    others,
    size_of,
)
from leaderboards.scores import PART_RESAMPLES, RESAMPLES, Interval, intervals

INSIDE, BELOW, ABOVE = "inside", "below", "above"
"""Where ours stands: the published figure lies inside our interval, or ours is below or above it."""
ENDED = {"limit": "all that were set", "patience": "ended by patience", "cap": "ended by the cap on training time"}
"""Whatever ended a training."""
ENCODERS = {"TIGER": "Sentence-T5", "GenPlugin": "Llama 2"}
"""What reads the item texts in a paper, where it says so for all its rows that read them."""
Runs = Sequence[Record]
"""Seeds of one configuration of one method on one dataset."""


@dataclass(frozen=True)
class Row:
    """One published figure beside one of our methods."""

    figure: Figure
    match: Match
    method: str
    track: str
    profile: str
    size: str
    """How our model's size stands to the paper's; "" = the same, as far as is known."""
    seeds: tuple[int, ...]
    users: int
    value: float
    """Mean over users and seeds."""
    spread: float | None
    """Standard deviation over seeds (ddof 1); None with one seed."""
    interval: Interval
    """95 % bootstrap over users."""
    reruns: tuple[float, ...]
    reason: str
    under_trained: bool
    doubts: tuple[Doubt, ...]

    @property
    def gap(self) -> float:
        return self.value - self.figure.value

    @property
    def relative(self) -> float:
        """The gap as a share of the published figure."""
        return self.gap / self.figure.value

    @property
    def verdict(self) -> str:
        low, high = self.interval
        return INSIDE if low <= self.figure.value <= high else BELOW if self.value < self.figure.value else ABOVE


@dataclass(frozen=True)
class Ledger:
    """All of it; rows in the order of the published tables."""

    rows: list[Row]
    unanswered: list[tuple[str, str, int, str]]
    """Paper, published method, its figures without a run, and why there is none."""
    left_out: list[str]
    """Runs that cannot stand beside published figures, with the reason."""


def ledger(records: Sequence[Record]) -> Ledger:
    """The ledger of finished runs, whatever their order."""
    usable, left_out = _usable(records)
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in sorted(usable, key=lambda r: (r.method, r.seed)):
        fields = record.fields
        key = (record.protocol["name"], record.dataset, fields["dataset_hash"], fields["track"], fields["profile"])
        groups[*key, record.method, fields["config_hash"]].append(record)
    columns: dict[tuple[str, ...], dict[tuple[Figure, int], np.ndarray]] = defaultdict(dict)
    found: list[tuple[Figure, Match, int, tuple[str, ...]]] = []
    runs = list(groups.values())
    for number, group in enumerate(runs):
        arrays = [record.per_user() for record in group] if (answered := _answered(group[0])) else []
        for figure, match in answered:
            scores = _scores(group[0], arrays, figure)
            if scores is not None:
                place = (figure.protocol, figure.dataset, group[0].fields["dataset_hash"], figure.subset)
                columns[place][figure, number] = scores
                found.append((figure, match, number, place))
    bounds = {place: _intervals(scores, place[-1] == "all") for place, scores in columns.items()}
    rows = [
        _row(figure, match, runs[number], columns[place][figure, number], bounds[place][figure, number])
        for figure, match, number, place in found
    ]
    answered_figures = {row.figure for row in rows}
    return Ledger(_ordered(rows), _unanswered([f for f in figures() if f not in answered_figures]), left_out)


def _usable(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """The runs that may stand beside figures of all users, and a sentence on each of the others."""
    usable, left_out = [], []
    for record in sorted(records, key=lambda r: (r.protocol["name"], r.dataset, r.method, r.seed)):
        asked, run = (
            record.protocol,
            f"{record.method} (seed {record.seed}) on {record.dataset}, {record.protocol['name']}",
        )
        now = protocols.load(asked["name"]) if asked["name"] in protocols.names() else None
        if record.status != "ok":
            left_out.append(f"{run}: {record.status}, {record.fields['reason'] or 'no reason recorded'}")
        elif record.fields["limit_users"]:
            left_out.append(f"{run}: limited to {record.fields['limit_users']:,} users")
        elif now is None or now.hash != asked["hash"]:
            left_out.append(f"{run}: made under another version of the protocol ({asked['hash']})")
        else:
            usable.append(record)
    return usable, left_out


def _answered(record: Record) -> list[tuple[Figure, Match]]:
    """The published figures that a run answers."""
    place = (record.protocol["name"], record.dataset)
    there = [figure for figure in figures() if (figure.protocol, figure.dataset) == place]
    return [(figure, match) for figure in there for match in matches(figure) if answers(record, match)]


def _scores(record: Record, stored: Sequence[Mapping[str, np.ndarray]], figure: Figure) -> np.ndarray | None:
    """Scores (U, S), of a run's seeds, of the users that the figure's subset asks; None where there are no such.

    ``stored`` are the arrays of the seeds, ``record`` is one of them.
    """
    name = f"{figure.name}/{figure.subset}" if figure.subset in SETTINGS else figure.name
    if any(name not in arrays for arrays in stored):
        return None
    scores = np.stack([arrays[name] for arrays in stored], 1)  # (U, S)
    if figure.subset in (*SETTINGS, "all"):
        return scores[~np.isnan(scores).any(1)]
    labels = record.fields["slice_labels"].get(GROUPED_LIKE_GENPLUGIN, [])
    if figure.subset not in labels:
        return None
    return scores[stored[0][f"slice:{GROUPED_LIKE_GENPLUGIN}"] == labels.index(figure.subset)]


def _intervals(scores: dict[tuple[Figure, int], np.ndarray], whole: bool) -> dict[tuple[Figure, int], Interval]:
    """As in the tables: the same draws for everything that was asked of the same users."""
    named = {f"{i}": one for i, one in enumerate(scores.values())}
    return dict(zip(scores, intervals(named, RESAMPLES if whole else PART_RESAMPLES).values(), strict=True))


def _row(figure: Figure, match: Match, runs: Runs, scores: np.ndarray, interval: Interval) -> Row:
    first = runs[0]
    reason = known_reason(first, figure)
    return Row(
        figure=figure,
        match=match,
        method=first.method,
        track=first.fields["track"],
        profile=first.fields["profile"],
        size=size_of(first, figure),
        seeds=tuple(record.seed for record in runs),
        users=len(scores),
        value=float(scores.mean()),
        spread=float(scores.mean(0).std(ddof=1)) if len(runs) > 1 else None,
        interval=interval,
        reruns=tuple(others(match, figure)),
        reason=f"{reason}; {facts_of(first, figure)}" if reason else "",
        under_trained=any((record.fields["training"] or {}).get("stopped_by") == "cap" for record in runs),
        doubts=published_doubts().get(figure, ()),
    )


def facts_of(record: Record, figure: Figure) -> str:
    """What the run was, by its record, and what the paper names of its own."""
    fields, training = record.fields, record.fields["training"] or {}
    ours = [f"{fields['parameters']:,} parameters"] if fields["parameters"] else []
    if "epochs" in training:
        ours.append(f"{training['epochs']} epochs ({ENDED.get(str(training.get('stopped_by')), 'end not recorded')})")
    theirs = [figure.backbone] if figure.backbone else []
    if fields["text_encoder"]:
        ours.append(f"item texts by {fields['text_encoder']['name']}")
        theirs += [f"item texts by {ENCODERS[figure.paper]}"] if figure.paper in ENCODERS else []
    sides = ((f"ours (seed {record.seed})", ours), ("the paper's", theirs))
    return "; ".join(f"{side}: {', '.join(facts)}" for side, facts in sides if facts)


def _ordered(rows: Iterable[Row]) -> list[Row]:
    """By protocol, dataset and subset, then in the order of ``MATCHES``; metrics of one row stay together."""
    places = {figure: i for i, figure in enumerate(figures())}
    first: dict[tuple[str, ...], int] = {}
    for figure, place in places.items():
        first.setdefault(figure.row, place)
    subsets = ("all", "warm", "cold", "head", "tail")

    def key(row: Row) -> tuple[object, ...]:
        figure = row.figure
        kind, _, k = figure.name.partition("@")
        order = (MATCHES.index(matches(figure)[0]), first[figure.row])
        place = (figure.protocol, figure.dataset, subsets.index(figure.subset), *order)
        return (*place, not row.match.closest, row.method, row.track, row.profile, kind, -int(k))

    return sorted(rows, key=key)


def _unanswered(some: Sequence[Figure]) -> list[tuple[str, str, int, str]]:
    """Figures without a run, counted by paper and method."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for figure in some:
        names = " or ".join(dict.fromkeys(match.ours for match in matches(figure)))
        why = f"no run of {names} on that data and protocol" if names else "no such method in the suite"
        counts[figure.paper, figure.method, why] += 1
    return [(paper, method, count, why) for (paper, method, why), count in sorted(counts.items())]


def closest(rows: Iterable[Row]) -> list[Row]:
    """The rows in which ours is what the paper ran, as far as is known."""
    return [row for row in rows if row.match.closest]


def by_place(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (protocol, dataset), in their order."""
    places: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        places[row.figure.protocol, row.figure.dataset].append(row)
    return dict(places)
