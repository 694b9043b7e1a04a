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
from leaderboards.chance import AgainstChance
from leaderboards.compare import Comparison, against, compare_all_pairs
from leaderboards.scores import RESAMPLES, Interval, Scores, SliceCell, intervals, setting_cells, slice_cells
from leaderboards.targets import Asked, asked_settings, chances


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
    settings: dict[str, SliceCell] = field(default_factory=dict)
    """By setting: among warm or cold candidates only, or on the answers of one popularity group."""
    chance: dict[str, AgainstChance] = field(default_factory=dict)
    """By setting with candidates of its own; ``all`` is the test itself."""

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
    settings: dict[str, Asked] = field(default_factory=dict)
    """``all`` and every setting with candidates of its own; empty where the protocol has none."""

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
    scores = Scores.of(done, primary, recall)
    asked = asked_settings(done, recall)
    runs = {method: [r for r in done if r.method == method] for method in sorted({r.method for r in done})}
    means = intervals(scores.primary, RESAMPLES)
    slices, settings, chance = slice_cells(scores), setting_cells(scores), chances(done, recall, asked)
    seeds = {method: [r.seed for r in group] for method, group in runs.items()}
    pairs = compare_all_pairs(scores.primary, reference, seeds=seeds, permutations=permutations)
    versus = {one.method: one for one in against(pairs, reference)}
    rows = [
        Row(
            method=method,
            seeds=tuple(seeds[method]),
            metrics=_means([r.metrics for r in group]),
            spread=_spreads([r.metrics for r in group]),
            interval=means[method],
            slices=slices[method],
            facts=_facts(group),
            comparison=versus.get(method),
            mcnemar=scores.mcnemar(method, reference),
            settings=settings[method],
            chance=chance[method],
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
        settings=asked,
    )


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
    trials = fields[0].get("tuning", {}).get("trials")
    return {
        "timings": _means([one["timings"] for one in fields]),
        "peak_memory_bytes": _means([one["peak_memory_bytes"] for one in fields]),
        "parameters": fields[0]["parameters"],
        "spend": fields[0]["spend"] or {},
        "stopped_by": sorted({str(one["stopped_by"]) for one in trained if one.get("stopped_by")}),
        "trained": bool(trained),
        "config": fields[0]["config"],
        "config_hash": fields[0]["config_hash"],
        **({} if trials is None else {"trials": len(trials)}),
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
