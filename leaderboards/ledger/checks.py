"""Published figures against arithmetic: which cannot be as printed, and which are unlikely to be.

Figures carry rounding of half a last place; bounds are told only where they are missed by more than that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise

from leaderboards.ledger.data import Figure, figures

IMPOSSIBLE, SUSPICIOUS = "impossible", "suspicious"
ONE_TARGET = ("loo",)
"""Protocols in which every user has one answer, so that a list's score is a hit or a miss at a rank."""
ROUNDING = 5e-5
"""Half a unit of the fourth place, to which every paper of the file rounds."""
HEAD_TAIL_USERS = {
    "amazon14-beauty": (11_439, 10_924),
    "amazon14-toys": (8_970, 10_442),
    "amazon14-sports": (17_585, 18_013),
    "amazon18-instruments-img": (10_435, 6_677),
    "amazon18-arts-img": (12_308, 9_863),
}
"""Users of the head and of the tail as GenPlugin's Table 5 counts them."""
PART_GAP = 0.0025
"""Figures of separate trainings of one model lie this close; beyond it parts and whole are not of one model."""
TWIN_FIGURES, TWIN_SHARE = 4, 0.75
"""Two methods with so many equal figures, and such a share of those both have, are told to be twins."""


@dataclass(frozen=True)
class Doubt:
    """What is wrong with a figure: ``kind`` impossible or suspicious."""

    kind: str
    text: str


@cache
def published_doubts() -> dict[Figure, tuple[Doubt, ...]]:
    """The doubts about the figures of the file."""
    return doubts(figures())


def doubts(printed: Sequence[Figure]) -> dict[Figure, tuple[Doubt, ...]]:
    """Every figure that is in doubt, with all that speaks against it."""
    found: dict[Figure, list[Doubt]] = defaultdict(list)
    checks = (_impossible, _reprinted, _twins, _warm_below_all, _parts)
    for one, doubt in (told for check in checks for told in check(printed)):
        found[one].append(doubt)
    return {one: tuple(some) for one, some in found.items()}


def _impossible(printed: Sequence[Figure]) -> list[tuple[Figure, Doubt]]:
    """Rows of one table whose figures cannot be of the same lists."""
    rows: dict[tuple[str, ...], dict[str, Figure]] = defaultdict(dict)
    for one in printed:
        if one.protocol in ONE_TARGET:
            rows[one.row].setdefault(one.name, one)
    found = []
    for row in rows.values():
        for name, low, high, why in _bounds({name: one.value for name, one in row.items()}):
            if not low <= row[name].value <= high:
                found.append((row[name], Doubt(IMPOSSIBLE, _outside(row[name].value, low, high, why))))
    return found


def _outside(value: float, low: float, high: float, why: str) -> str:
    side, bound = ("less", low) if value < low else ("more", high)
    return f"{why} allow no {side} than {bound:.5f}"


def _bounds(row: dict[str, float]) -> list[tuple[str, float, float, str]]:
    """(metric, lowest, highest, from what) for one target per user; bounds include the rounding of all figures.

    A hit at rank r is worth 1 / log2(r + 1): the hits that k adds to those at j lie at ranks j + 1 to k.
    """
    found = []
    ks = sorted(int(name.partition("@")[2]) for name in row if name.startswith("recall@"))
    for j, k in pairwise(ks):
        found.append((f"recall@{k}", row[f"recall@{j}"] - 2 * ROUNDING, 1.0, f"the row's hr@{j}"))
    for k in [k for k in ks if f"ndcg@{k}" in row]:
        below = max((j for j in ks if j < k and (j == 1 or f"ndcg@{j}" in row)), default=0)
        hits, score = (
            (row[f"recall@{below}"], row.get(f"ndcg@{below}", row[f"recall@{below}"])) if below else (0.0, 0.0)
        )
        added = row[f"recall@{k}"] - hits
        if added < -2 * ROUNDING:
            continue  # told of the hits already
        worst, best = (1 / math.log2(rank + 1) for rank in (k, below + 1))
        slack = ROUNDING * (2 + 2 * best if below > 1 else 2)
        why = f"the row's hr@{k}" + (
            f", hr@{below} and ndcg@{below}" if below > 1 else f" and hr@{below}" if below else ""
        )
        found.append((f"ndcg@{k}", score + added * worst - slack, score + added * best + slack, why))
    return found


def _reprinted(printed: Sequence[Figure]) -> list[tuple[Figure, Doubt]]:
    """Figures that one paper prints with two values."""
    groups: dict[tuple[str, ...], list[Figure]] = defaultdict(list)
    for one in printed:
        groups[(*one.row, one.metric)].append(one)
    return [
        (one, Doubt(SUSPICIOUS, f"the paper's {other.table} prints {other.value:.4f}"))
        for group in groups.values()
        for one in group
        for other in group
        if other is not one
    ]


def _twins(printed: Sequence[Figure]) -> list[tuple[Figure, Doubt]]:
    """Two methods of one table with the same figures."""
    tables: dict[tuple[str, ...], dict[str, dict[tuple[str, str], Figure]]] = defaultdict(lambda: defaultdict(dict))
    for one in printed:
        tables[one.paper, one.table, one.dataset, one.backbone][one.method][one.subset, one.metric] = one
    found = []
    for table in tables.values():
        for a, b in combinations(sorted(table), 2):
            shared = table[a].keys() & table[b].keys()
            equal = sorted(key for key in shared if table[a][key].value == table[b][key].value)
            if len(equal) >= TWIN_FIGURES and len(equal) >= TWIN_SHARE * len(shared):
                text = f"{len(equal)} of {len(shared)} figures equal those of {{}}"
                for mine, other in ((a, b), (b, a)):
                    found += [(table[mine][key], Doubt(SUSPICIOUS, text.format(other))) for key in equal]
    return found


def _warm_below_all(printed: Sequence[Figure]) -> list[tuple[Figure, Doubt]]:
    """Among warm items only, with warm answers only, nothing is harder; so scores should not fall."""
    everything = {(*one.row[:3], *one.row[4:], one.metric): one for one in printed if one.subset == "all"}
    found = []
    for one in printed:
        whole = everything.get((*one.row[:3], *one.row[4:], one.metric))
        if one.subset == "warm" and whole is not None and one.value < whole.value - 2 * ROUNDING:
            text = (
                f"below the same method's {whole.value:.4f} among all items, though cold candidates and answers are out"
            )
            found.append((one, Doubt(SUSPICIOUS, text)))
    return found


def _parts(printed: Sequence[Figure]) -> list[tuple[Figure, Doubt]]:
    """Head and tail, weighted by their users, are all users."""
    groups: dict[tuple[str, ...], dict[str, Figure]] = defaultdict(dict)
    for one in printed:
        groups[(*one.row[:3], *one.row[4:], one.metric)].setdefault(one.subset, one)
    found = []
    for group in groups.values():
        if not {"all", "head", "tail"} <= group.keys() or group["all"].dataset not in HEAD_TAIL_USERS:
            continue
        head, tail = HEAD_TAIL_USERS[group["all"].dataset]
        made = (head * group["head"].value + tail * group["tail"].value) / (head + tail)
        whole = group["all"].value
        if abs(made - whole) > PART_GAP:
            text = f"head and tail, weighted by the users that the paper counts, make {made:.4f}, all users {whole:.4f}"
            found += [(group[subset], Doubt(SUSPICIOUS, text)) for subset in ("all", "head", "tail")]
    return found
