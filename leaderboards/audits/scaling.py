"""Scaling audits of one dataset -> tables: scores by size of the backbone, inference side by side, published times.

What the audits measured is said in ``methods/audits/scaling``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.audits.rows import name_of
from leaderboards.audits.scaling_rows import (
    REFERENCE,
    audit,
    published,
    published_ratio,
    reference_of,
    searches,
    speed,
)
from leaderboards.layout import Section

METRICS = ("ndcg@10", "recall@10")


def heading(group: Sequence[Record]) -> list[str]:
    protocol, fields, first = group[0].protocol, group[0].fields, audit(group[0])
    opening = f"Protocol {protocol['name']} version {protocol['version']} ({protocol['hash']}), track {fields['track']}"
    return [
        f"{opening}, profile {fields['profile']}.",
        f"Timed in turns in one process per seed: {first['users']:,} of {first['users_asked']:,} test users, drawn "
        f"once and the same for every method; device {fields['device']}, {first['threads']} threads. Mean history "
        f"{first['mean_history']:.2f} items. Methods that generate search with beam {first['beam_size']}; the others "
        "score every item in one pass.",
    ]


def sections(group: Sequence[Record]) -> list[Section]:
    return [_sizes(group), _inference(group), _published()]


def _sizes(group: Sequence[Record]) -> Section:
    """Scores beside sizes, the small backbones first."""
    rows = []
    for record in sorted(group, key=lambda one: (audit(one)["weights"]["backbone"], one.method, one.seed)):
        weights = audit(record)["weights"]
        counts = [_count(weights[what]) for what in ("backbone", "trainable", "all")]
        scores = [lay.number(audit(record)["metrics"][metric]) for metric in METRICS]
        rows.append([audit(record)["size"], name_of(record, group), *counts, *scores])
    notes = [
        "Backbone: weights of the transformer's layers, without tables of tokens and adapters; trainable: all that a "
        "gradient moves; all: what the model holds. Scores are the record's, of all test users. * = other weights than "
        "the size's own."
    ]
    return Section(
        "Scores by size", ["size", "method", "backbone", "trainable", "all weights", *METRICS], rows, notes=notes
    )


def _inference(group: Sequence[Record]) -> Section:
    """Time and arithmetic of a user, relative to the reference."""
    rows = []
    for record in group:
        spend, times, reference = audit(record)["spend"], audit(record)["milliseconds"], reference_of(record, group)
        rows.append(
            [
                name_of(record, group),
                audit(record)["size"],
                f"beam {spend['beam_size']}, {spend['rule']}" if searches(record) else "one pass",
                f"{spend['forward_passes']:g}",
                f"{spend['decoder_tokens']:,.0f}",
                f"{spend['items_scored']:,.0f}",
                lay.number(times["alone"], 2),
                f"{lay.number(times['best'], 3)} ({times['best_batch']})",
                f"{speed(record, 'alone'):,.1f}",
                f"{speed(record, 'best'):,.1f}",
                "-" if reference is None else reference.method,
                *(_times(record, reference, when) for when in ("alone", "best")),
                f"{audit(record)['flops'] / 1e9:.4g}",
                "-" if reference is None else f"{audit(reference)['flops'] / audit(record)['flops']:.2f}",
                published_ratio(record),
            ]
        )
    header = ["method", "size", "how", "passes", "decoder tokens", "items scored", "ms/user alone"]
    header += ["ms/user in the best batch (its size)", "users/s alone", "users/s best batch", "against"]
    header += ["times as fast, alone", "times as fast, best batch", "GFLOP/user", "times fewer FLOPs"]
    header.append(f"published: times as fast as {REFERENCE}")
    notes = [
        f"Against: the model of {REFERENCE} that the times are compared with, of the same size where there is one. "
        "Times are medians of repeats taken in turns, histories to lists, without what is made once for all users "
        "(tries, vectors of items, looked-up neighbours). Passes, tokens and items scored are per user. GFLOP: twice "
        "the multiplications of every matrix product, attention and output layer included, of one user with a history "
        "of mean length; docs/audits.md says the formula. Published: SETRec, Tables 1 and 2, for this data set."
    ]
    return Section("Inference", header, rows, notes=notes)


def _times(record: Record, reference: Record | None, when: str) -> str:
    return "-" if reference is None else f"{speed(record, when) / speed(reference, when):.2f}"


def _published() -> Section:
    """SETRec's own times, both ways to divide them."""
    rows = [
        [
            one.dataset,
            one.backbone,
            f"{one.seconds[one.subject]:,.0f}",
            f"{one.seconds[REFERENCE]:,.0f}",
            f"{one.mean_of_sequences:,.0f}",
            f"{one.against_reference:.1f}",
            f"{one.against_sequences:.1f}",
            "-" if one.claim is None else f"{one.claim:g}",
            one.source,
        ]
        for one in published()
    ]
    header = ["data set", "backbone", "SETRec, s", "TIGER, s", "mean of the token sequences, s"]
    header += ["times as fast as TIGER", "times as fast as that mean", "the text says", "source"]
    notes = [
        "Seconds for all test users as published. The text's figures are against the mean of the methods whose "
        f"identifiers are token sequences ({', '.join(name for name in published()[0].sequences)}); the figure for "
        "Qwen is over both data sets."
    ]
    return Section("As published by SETRec", header, rows, notes=notes)


def _count(weights: int) -> str:
    """12,345 or 4.20 M or 1.72 B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if weights >= size:
            return f"{weights / size:.2f} {letter}"
    return f"{weights:,}"


def lines(group: Sequence[Record]) -> list[dict[str, Any]]:
    """One line per method and seed; nothing rounded."""
    made = []
    for record in group:
        found, reference = audit(record), reference_of(record, group)
        line: dict[str, Any] = {"method": record.method, "seed": record.seed, "size": found["size"]}
        line |= {f"weights {what}": count for what, count in found["weights"].items()} | found["metrics"]
        line |= {"users": found["users"], **found["milliseconds"], "flops": found["flops"]}
        line |= {f"users/s {when}": speed(record, when) for when in ("alone", "best")}
        line["against"] = None if reference is None else reference.method
        for when in ("alone", "best"):
            ratio = None if reference is None else speed(record, when) / speed(reference, when)
            line[f"times as fast {when}"] = ratio
        line["times fewer flops"] = None if reference is None else audit(reference)["flops"] / found["flops"]
        line |= {f"spend {name}": value for name, value in found["spend"].items()}
        line["timed with"] = " ".join(one["method"] for one in found["timed_with"])
        made.append(line)
    return made


def terminal(group: Sequence[Record]) -> str:
    """A compact table."""
    rows = []
    for record in group:
        found, reference = audit(record), reference_of(record, group)
        cells = [name_of(record, group), found["size"], _count(found["weights"]["backbone"])]
        cells += [lay.number(found["metrics"]["ndcg@10"]), f"{speed(record, 'alone'):,.1f}"]
        cells += [f"{speed(record, 'best'):,.1f}", _times(record, reference, "best")]
        rows.append([*cells, f"{found['flops'] / 1e9:.4g}", published_ratio(record)])
    header = ["method", "size", "backbone", "ndcg@10", "users/s alone", "best batch", f"x {REFERENCE}", "GFLOP/user"]
    header.append(f"published x {REFERENCE}")
    table = tabulate(rows, header, disable_numparse=True, colalign=["left"] * 2 + ["right"] * 7)
    return "\n".join([group[0].dataset, *heading(group), table])
