"""Records -> what one table says: rows in order of merit, comparisons, slices, costs, provenance; all as numbers.

Here records that may not stand in one table are refused; ``tables`` and ``picture`` only lay the numbers out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.method import UNIFIED
from benchmark.metrics import parse
from benchmark.records import Record
from leaderboards.compare import Comparison, against, bootstrap_interval, compare_all_pairs, mcnemar

RESAMPLES = 10_000
SLICE_RESAMPLES = 2_000
Interval = tuple[float, float]


@dataclass(frozen=True)
class SliceCell:
    """One method in one part of the users."""

    users: int
    primary: float
    interval: Interval
    recall: float


@dataclass(frozen=True)
class Row:
    """One method on one dataset, means over its seeds."""

    method: str
    seeds: tuple[int, ...]
    metrics: dict[str, float]
    spread: dict[str, float]
    """Standard deviation over seeds (ddof 1); empty with one seed."""
    interval: Interval
    """95 % bootstrap over users of the primary metric."""
    slices: dict[str, dict[str, SliceCell]]
    facts: dict[str, Any]
    """``timings`` and ``peak_memory_bytes`` (means over seeds), ``parameters``, ``spend``, ``stopped_by``, ..."""
    comparison: Comparison | None = None
    mcnemar: float | None = None
    """Exact p of recall against the reference: one target, one seed; a cross-check of the permutation test."""

    @property
    def under_trained(self) -> bool:
        return "cap" in self.facts["stopped_by"]


@dataclass(frozen=True)
class Summary:
    """One dataset under one protocol, track and profile."""

    dataset: str
    primary: str
    recall: str
    """The recall shown beside the primary metric, at the same K."""
    reference: str
    users: int
    one_target: bool
    rows: list[Row]
    pairs: list[Comparison]
    """Every pair of methods, Holm within all pairs."""
    absent: list[dict[str, Any]]
    """Runs without a result: method, seed, status, reason."""
    shared: dict[str, Any]
    """protocol, track, profile, limit_users, dataset_hash: equal in all records of the table."""
    made_by: dict[str, list[str]] = field(default_factory=dict)
    """Commits, hardware, Python and package versions, text encoders: all that occur."""

    @property
    def has_reference(self) -> bool:
        return any(row.method == self.reference for row in self.rows)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))


def summarise(
    records: Sequence[Record], *, reference: str, primary: str = "ndcg@10", permutations: int = 100_000
) -> list[Summary]:
    """One summary per dataset, sorted by name; the order of ``records`` does not matter.

    Raises ValueError when the records may not be compared: two protocol hashes, tracks, profiles or user limits,
    two hashes of one dataset, two text encoders on the unified track, two configurations of one method, or
    different users asked.
    """
    if not records:
        raise ValueError("there are no records to make a leaderboard of; run some methods first")
    _refuse_mixture(records)
    names = sorted({record.dataset for record in records})
    groups = [sorted((r for r in records if r.dataset == name), key=_key) for name in names]
    return [_one_dataset(group, reference, primary, permutations) for group in groups]


def _key(record: Record) -> tuple[str, int]:
    return record.method, record.seed


def _refuse_mixture(records: Iterable[Record]) -> None:
    _one_value(records, "protocol hashes", lambda r: f"{r.protocol['name']} {r.protocol['hash']}")
    for name in ("track", "profile", "limit_users"):
        _one_value(records, f"values of {name}", _field(name))
    for dataset in sorted({record.dataset for record in records}):
        group = [record for record in records if record.dataset == dataset]
        _one_value(group, f"versions of {dataset} (dataset hashes)", _field("dataset_hash"))
        if group[0].fields["track"] == UNIFIED:  # on the paper track each method reads with its paper's own
            readers = [r for r in group if r.status == "ok" and r.text_encoder]
            by_encoder = {e["sha256"] or e["name"]: r for r in readers if (e := r.fields["text_encoder"])}
            advice = "run all with the same --text-encoder, or each encoder in its own --output-dir"
            _one_value(by_encoder.values(), f"text encoders on {dataset}", lambda r: r.text_encoder, advice)
        for method in sorted({record.method for record in group}):
            runs = [record for record in group if record.method == method]
            _one_value(runs, f"configurations of {method} on {dataset}", _field("config_hash"))
            if len({record.seed for record in runs}) < len(runs):
                raise ValueError(f"a seed of {method} on {dataset} was given twice; give every record once")


def _field(name: str) -> Callable[[Record], Any]:
    return lambda record: record.fields[name]


def _one_value(
    records: Iterable[Record], what: str, value: Callable[[Record], Any], advice: str = "give records of one of them"
) -> None:
    found = sorted({str(value(record)) for record in records})
    if len(found) > 1:
        raise ValueError(f"one table cannot hold several {what} ({', '.join(found)}); {advice}")


def _one_dataset(records: list[Record], reference: str, primary: str, permutations: int) -> Summary:
    done = [record for record in records if record.status == "ok"]
    recall = f"recall@{parse(primary)[1]}"
    scores = _Scores.of(done, primary, recall)
    runs = {method: [r for r in done if r.method == method] for method in sorted({r.method for r in done})}
    intervals = _intervals(scores.primary, RESAMPLES)
    slices = _slice_cells(scores)
    seeds = {method: [r.seed for r in group] for method, group in runs.items()}
    pairs = compare_all_pairs(scores.primary, reference, seeds=seeds, permutations=permutations)
    versus = {one.method: one for one in against(pairs, reference)}
    rows = [
        Row(
            method=method,
            seeds=tuple(seeds[method]),
            metrics=_means([r.metrics for r in group]),
            spread=_spreads([r.metrics for r in group]),
            interval=intervals[method],
            slices=slices[method],
            facts=_facts(group),
            comparison=versus.get(method),
            mcnemar=scores.mcnemar(method, reference),
        )
        for method, group in runs.items()
    ]
    return Summary(
        dataset=records[0].dataset,
        primary=primary,
        recall=recall,
        reference=reference,
        users=scores.users,
        one_target=scores.one_target,
        rows=sorted(rows, key=lambda row: (-row.metrics[primary], row.method)),
        pairs=pairs,
        absent=[_absence(record) for record in records if record.status != "ok"],
        shared={key: records[0].fields[key] for key in ("protocol", "track", "profile", "limit_users", "dataset_hash")},
        made_by=_made_by(done or records),
    )


@dataclass(frozen=True)
class _Scores:
    """Per-user scores of every method on the same users."""

    users: int
    primary: dict[str, np.ndarray]  # method -> (U, S)
    recall: dict[str, np.ndarray]  # method -> (U, S)
    slices: dict[str, tuple[list[str], np.ndarray]]  # name -> labels, (U,) codes

    @classmethod
    def of(cls, records: Sequence[Record], primary: str, recall: str) -> _Scores:
        """Raises ValueError when two records asked different users, or sorted them differently into slices."""
        primaries: dict[str, list[np.ndarray]] = {}
        recalls: dict[str, list[np.ndarray]] = {}
        first: dict[str, np.ndarray] = {}
        for record in records:
            arrays = record.per_user()
            frame = {k: v for k, v in arrays.items() if k == "users" or k.startswith("slice:")}
            first = first or frame
            if frame.keys() != first.keys() or any(not np.array_equal(frame[k], first[k]) for k in frame):
                raise ValueError(
                    f"{record.method} (seed {record.seed}) on {record.dataset} was asked other users or slices than "
                    f"{records[0].method}; run both again on the same data"
                )
            primaries.setdefault(record.method, []).append(arrays[primary])
            recalls.setdefault(record.method, []).append(arrays[recall])
        labels = records[0].fields["slice_labels"] if records else {}
        return cls(
            len(first.get("users", ())),
            {method: np.stack(columns, 1) for method, columns in primaries.items()},
            {method: np.stack(columns, 1) for method, columns in recalls.items()},
            {name: (labels[name], first[f"slice:{name}"]) for name in labels},
        )

    @property
    def one_target(self) -> bool:
        """Whether every recall is a hit or a miss: then recall@K is hr@K, and McNemar's test applies."""
        return bool(self.recall) and all(np.isin(hits, (0, 1)).all() for hits in self.recall.values())

    def mcnemar(self, method: str, reference: str) -> float | None:
        if method == reference or reference not in self.recall or not self.one_target:
            return None
        ours, theirs = self.recall[method], self.recall[reference]
        return mcnemar(ours[:, 0], theirs[:, 0]) if ours.shape[1] == theirs.shape[1] == 1 else None


def _intervals(scores: Mapping[str, np.ndarray], resamples: int) -> dict[str, Interval]:
    """Bootstrap interval of every method's mean over users and seeds, with the same draws for all."""
    if not scores:
        return {}
    low, high = bootstrap_interval(np.stack([s.mean(1) for s in scores.values()], 1), resamples).tolist()
    return dict(zip(scores, zip(low, high, strict=True), strict=True))


def _slice_cells(scores: _Scores) -> dict[str, dict[str, dict[str, SliceCell]]]:
    """method -> slice -> label -> cell; labels without users are left out."""
    cells: dict[str, dict[str, dict[str, SliceCell]]] = {
        method: {name: {} for name in scores.slices} for method in scores.primary
    }
    for name, (labels, codes) in scores.slices.items():
        for code, label in enumerate(labels):
            rows = np.flatnonzero(codes == code)
            if not len(rows):
                continue
            inside = {method: values[rows] for method, values in scores.primary.items()}
            for method, interval in _intervals(inside, SLICE_RESAMPLES).items():
                recall = float(scores.recall[method][rows].mean())
                cell = SliceCell(len(rows), float(inside[method].mean()), interval, recall)
                cells[method][name][label] = cell
    return cells


def _means(maps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every key over the maps that have it, keys in the order of their first appearance."""
    keys = dict.fromkeys(key for one in maps for key in one)
    return {key: float(np.mean([one[key] for one in maps if key in one])) for key in keys}


def _spreads(maps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(maps) < 2:
        return {}
    return {key: float(np.std([one[key] for one in maps], ddof=1)) for key in maps[0]}


def _facts(runs: Sequence[Record]) -> dict[str, Any]:
    fields = [record.fields for record in runs]
    trained = [one["training"] for one in fields if one["training"]]
    return {
        "timings": _means([one["timings"] for one in fields]),
        "peak_memory_bytes": _means([one["peak_memory_bytes"] for one in fields]),
        "parameters": fields[0]["parameters"],
        "spend": fields[0]["spend"] or {},
        "stopped_by": sorted({str(one["stopped_by"]) for one in trained if one.get("stopped_by")}),
        "trained": bool(trained),
        "config": fields[0]["config"],
        "config_hash": fields[0]["config_hash"],
    }


def _absence(record: Record) -> dict[str, Any]:
    reason = record.fields["reason"] or "no reason recorded"
    return {"method": record.method, "seed": record.seed, "status": record.status, "reason": reason}


def _made_by(records: Sequence[Record]) -> dict[str, list[str]]:
    """Everything the results were made with, each value once, sorted."""
    found: dict[str, set[str]] = {}
    for record in records:
        made = record.fields["provenance"]
        dirty = " (with uncommitted changes)" if made["dirty"] else ""
        hardware = made["hardware"]
        found.setdefault("commit", set()).add(f"{made['commit'] or 'unknown'}{dirty}")
        machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB memory"
        found.setdefault("hardware", set()).add(machine + (f", {hardware['gpu']}" if hardware["gpu"] else ""))
        versions = {"python": made["python"], **made["versions"]}
        found.setdefault("versions", set()).add(", ".join(f"{name} {v}" for name, v in sorted(versions.items())))
        if record.text_encoder:
            found.setdefault("text encoder", set()).add(record.text_encoder)
    return {name: sorted(values) for name, values in found.items()}
