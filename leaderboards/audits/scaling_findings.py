"""Scaling audits -> what they say, in sentences whose every number is computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.audits.rows import name_of
from leaderboards.audits.scaling_rows import (
    REFERENCE,
    Published,
    audit,
    line_of,
    predicted,
    published,
    reference_of,
    room,
    searches,
    speed,
)


def findings(group: Sequence[Record]) -> list[str]:
    """A paragraph for every one-pass method, on what is published, and on every method with several sizes."""
    passes = [record for record in group if not searches(record)]
    said = [f"**{name_of(record, group)}.** {_speed(record, group)}" for record in passes]
    subjects = {one.subject for one in published()}
    if any(room(record) in subjects for record in passes):
        said.append(f"**What was published.** {_claims()} {_measured(group, subjects)}")
    return [*said, f"**Scaling.** {_scaling(group)}"]


def _speed(record: Record, group: Sequence[Record]) -> str:
    """One pass against the reference's beam search: measured, and in FLOPs."""
    rate = (
        f"answers {speed(record, 'best'):,.1f} users a second in its best batch and {speed(record, 'alone'):,.1f} alone"
    )
    reference = reference_of(record, group)
    if reference is None:
        return f"It {rate}; {REFERENCE} was not timed with it, so that is compared with nothing."
    faster = [f"{speed(record, when) / speed(reference, when):.2f}" for when in ("best", "alone")]
    work = audit(reference)["flops"] / audit(record)["flops"]
    sizes = audit(record)["size"], audit(reference)["size"]
    said = (
        f"One pass over all items with {sizes[0]} {rate}: {faster[0]} and {faster[1]} times as many as "
        f"{reference.method} with {sizes[1]} and beam {audit(record)['beam_size']}. By FLOPs it would be {work:.2f} "
        "times."
    )
    if sizes[0] != sizes[1]:
        said += " The backbones differ, so this is as much about their size as about how they answer."
    return said


def _claims() -> str:
    """The published ratios, as the text says them and as the tables give them."""
    by_backbone: dict[str, list[Published]] = defaultdict(list)
    for one in published():
        by_backbone[one.backbone].append(one)
    said = []
    for backbone, some in by_backbone.items():
        names = ", ".join(one.dataset for one in some)
        claims = "/".join(f"{one.claim:g}" for one in some if one.claim is not None)
        mean = "/".join(f"{one.against_sequences:.1f}" for one in some)
        alone = "/".join(f"{one.against_reference:.1f}" for one in some)
        said.append(
            f"On {backbone} ({names}) SETRec's text says {claims} times as fast as the mean of "
            f"{len(some[0].sequences)} methods with token sequences, whose times in its table give {mean}; against "
            f"{REFERENCE} alone the same table gives {alone}."
        )
    backbone, work = predicted()
    return " ".join(said) + f" The FLOPs of {backbone} were predicted to give about {work:.1f}."


def _measured(group: Sequence[Record], subjects: set[str]) -> str:
    """Ours beside them, where the reference was there."""
    told = [
        f"{speed(one, 'best') / speed(reference, 'best'):.2f} in the best batch and "
        f"{speed(one, 'alone') / speed(reference, 'alone'):.2f} alone ({name_of(one, group)} against "
        f"{reference.method})"
        for one in group
        if room(one) in subjects and (reference := reference_of(one, group)) is not None
    ]
    return f"Measured here: {'; '.join(told)}." if told else f"Nothing is measured here, as {REFERENCE} was not timed."


def _scaling(group: Sequence[Record]) -> str:
    """How the scores of every method move with its size; no test of significance."""
    by_line: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in group:
        by_line[line_of(record), record.seed].append(record)
    several = len({record.seed for record in group}) > 1
    said = []
    for (name, seed), some in sorted(by_line.items()):
        if len({audit(record)["size"] for record in some}) > 1:
            ordered = sorted(some, key=lambda one: audit(one)["weights"]["backbone"])
            path = ", ".join(f"{lay.number(audit(r)['metrics']['ndcg@10'])} ({audit(r)['size']})" for r in ordered)
            said.append(f"ndcg@10 of {name}{f' seed {seed}' if several else ''}, small backbone to large: {path}.")
    if not said:
        return "No method is here with more than one size, so nothing is said of how scores grow with it."
    return " ".join([*said, "These are single trainings; the leaderboard tests differences between methods."])
