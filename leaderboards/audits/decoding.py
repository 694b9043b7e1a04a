"""Decoding audits of one dataset -> tables: overlap with exact scoring and its bounds, scores, cost, SimGR's Table 1.

What the audits measured is said in ``methods/audits/decoding``. Nothing here knows a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.audits.rows import (
    EQUATION_15,
    SIMGR,
    beams,
    by_rule,
    decoders,
    generators,
    name_of,
    one_pass,
    versus_exact,
)
from leaderboards.layout import Section


def heading(group: Sequence[Record]) -> list[str]:
    protocol, fields = group[0].protocol, group[0].fields
    first = f"Protocol {protocol['name']} version {protocol['version']} ({protocol['hash']}), track {fields['track']}"
    lines = [f"{first}, profile {fields['profile']}."]
    for rule, some in by_rule(group):
        audit = some[0].fields["audit"]
        lines.append(
            f"Rule {rule}: {audit['users']:,} of {audit['users_asked']:,} test users, drawn once and the same for "
            f"every method; device {some[0].fields['device']}, {audit['threads']} threads."
        )
    return lines


def sections(group: Sequence[Record]) -> list[Section]:
    made = []
    for rule, some in by_rule(group):
        if generators(some):
            made += [_overlaps(rule, some), _scores(rule, some), _simgr(rule, some), _targets(rule, some)]
        else:
            made.append(_scores(rule, some))
    return made


def _overlaps(rule: str, some: Sequence[Record]) -> Section:
    """How much of the exact list every beam finds, between its two bounds."""
    ks = [str(k) for k in some[0].fields["audit"]["ks"]]
    differs = any(row["overlap"][k] != row["item_overlap"][k] for record in some for row in beams(record) for k in ks)
    rows = []
    for record in some:
        for row in beams(record):
            cells = [name_of(record, some), row["decoder"]]
            for k in ks:
                cells += [lay.number(row[what][k]) for what in ("lower", "overlap", "upper")]
                cells += [lay.number(row["item_overlap"][k])] if differs else []
                cells.append(_percent(row["certified"][k]))
            rows.append(cells)
    for record in one_pass(some):
        cells = ["-", lay.number(1.0), "-", *([lay.number(1.0)] if differs else []), _percent(1.0)]
        rows.append([name_of(record, some), decoders(record)[0]["decoder"], *cells * len(ks)])
    columns = ["at least", "overlap", "at most", *(["items"] if differs else []), "certified"]
    notes = [
        "Mean over users of the share of the exact best K semantic IDs that the beam's best K hold. At least: IDs with "
        "every prefix among the best B of all prefixes of its depth and themselves among the best K, which no beam of "
        "size B can lose. At most: SimGR's Theorem 4.1 over the codes that lead to an item; an ID falls out only if B "
        "siblings are likelier, so where prefixes have few children it says nothing. Both hold for every user, or the "
        "audit would have failed. Certified: users whose list is proven exact by the search itself.",
    ]
    if one_pass(some):
        notes.append(
            "A method that scores all items in one pass has one list, the exact one: its overlap is 1 by construction "
            "and not measured, every list is certain, and bounds of what a beam finds do not apply to it (-)."
        )
    if differs:
        notes.append("Items: the same share of the lists of items, where items that share an ID stand apart.")
    header = ["method", "decoder", *columns * len(ks)]
    groups = [(f"overlap@{k} with exact", len(columns)) for k in ks]
    return Section(f"Beam against exact, rule {rule}", header, rows, notes=notes, groups=groups)


def _scores(rule: str, some: Sequence[Record]) -> Section:
    """What each decoder earns on the sample and what it costs."""
    rows = []
    for record in some:
        gaps = [*versus_exact(record), None]
        for row, gap in zip(decoders(record), gaps, strict=True):
            times, spend, lists = row["milliseconds"], row["spend"], row["lists"]
            rows.append(
                [
                    name_of(record, some),
                    row["decoder"],
                    lay.number(row["metrics"]["ndcg@10"]),
                    lay.signed(gap[0]) if gap else "-",
                    lay.interval(gap[1:], lay.signed) if gap else "-",
                    lay.number(row["metrics"]["recall@10"]),
                    lay.number(times["alone"], 2),
                    f"{lay.number(times['best'], 2)} ({times['best_batch']})",
                    f"{spend['forward_passes']:g}",
                    f"{spend['decoder_tokens']:,.0f}",
                    _percent(lists["fill"]),
                    _percent(lists["duplicate"]),
                    _percent(lists["invalid"]),
                    _memory(times["peak_memory_bytes"], record),
                ]
            )
    header = ["method", "decoder", "ndcg@10", "minus exact", "95 % interval", "recall@10", "ms/user alone"]
    header += [
        "ms/user in the best batch (its size)",
        "passes",
        "decoder tokens",
        "fill",
        "duplicates",
        "invalid",
        "peak memory",
    ]
    notes = [
        "On the sample, so not the table's own scores. The interval is a paired bootstrap over its users. Passes and "
        "tokens are per user. Fill, duplicates, invalid: shares of the places of lists of 20; a beam below 20 cannot "
        "fill them. Times are medians of repeats taken in turns, without what a method looks up "
        "about its users beforehand. Peak memory is the device's; on a CPU that of the "
        "whole process, in brackets.",
    ]
    if one_pass(some):
        notes.append(
            "All items: a method that scores every item in one pass and generates nothing, so rules and decoder tokens "
            "are not its own; it stands here with the users of this rule. Methods are timed one after the other here; "
            "audit scaling times them in turns."
        )
    return Section(f"Scores and cost, rule {rule}", header, rows, notes=notes)


def _memory(peak: int | None, record: Record) -> str:
    whole = record.fields["audit"]["process_peak_bytes"]
    return f"({whole / 2**30:.1f} GiB)" if peak is None else f"{peak / 2**30:.2f} GiB"


def _simgr(rule: str, some: Sequence[Record]) -> Section:
    """SimGR's Table 1 as the paper has it, ours and theirs; its reference is the widest beam."""
    widest = beams(generators(some)[0])[-1]["beam_size"]
    rows = [
        [
            name_of(record, some),
            row["decoder"],
            _percent(row["item_reference_overlap"]["5"]) if beams(record) else "-",
            lay.number(row["metrics"]["ndcg@10"]),
            lay.number(row["milliseconds"]["best"] * record.fields["audit"]["users_asked"] / 1000, 0),
        ]
        for record in some
        for row in beams(record) or decoders(record)
    ]
    rows += [
        ["LC-Rec, Qwen3-4B, Instruments (SimGR)", f"beam {size}", _percent(shared), lay.number(ndcg), f"{seconds}"]
        for size, (shared, ndcg, seconds) in SIMGR.items()
    ]
    header = ["method", "decoder", f"overlap@5 with beam {widest}", "ndcg@10", "inference, s for all users"]
    notes = [
        f"The reference here is the list of beam {widest}, not the exact one: a beam can agree with it and both be "
        "wrong. SimGR's rows are the paper's Table 1 (reference beam 100; another model, data set and machine). Our "
        "seconds are those of the best batch times all test users.",
    ]
    return Section(f"In the layout of SimGR's Table 1, rule {rule}", header, rows, notes=notes)


def _targets(rule: str, some: Sequence[Record]) -> Section:
    """SimGR's Equation 15 for the targets."""
    searched = generators(some)
    levels = len(beams(searched[0])[0]["targets"]["all codes"]["marginals"])
    rows = []
    for record in searched:
        for row in beams(record):
            for among, of in row["targets"].items():
                marginals = [_percent(q) for q in of["marginals"]]
                marginals += ["-"] * (levels - len(marginals))
                rows.append([name_of(record, some), row["decoder"], among, *marginals])
                rows[-1] += [_percent(of["union_bound"]), _percent(of["joint"])]
    header = [
        "method",
        "decoder",
        "rank among",
        *(f"level {i + 1}" for i in range(levels)),
        "union bound",
        "all levels",
    ]
    notes = [
        "Of the targets: the share whose code of a level is among the B likeliest given the target's own prefix; 1 "
        "minus the sum of the shares that are not (SimGR's Equation 15); and the share for which it holds at every "
        "level, measured, which the union bound is a lower bound of. SimGR reports a union bound of "
        f"{_percent(EQUATION_15)} for beam 20. That is a pessimistic estimate of how often the target can be reached. "
        "It is no overlap, and no value of the upper bound of Theorem 4.1, which speaks of the exact list: a target "
        "out of the beam's reach may be one that exact scoring does not list either, so it does not follow that 30 % "
        "of good items are lost. All codes: as in a search without a trie; codes of items: as in this search.",
    ]
    return Section(f"Targets within reach of the beam, rule {rule}", header, rows, notes=notes)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def lines(group: Sequence[Record]) -> list[dict[str, Any]]:
    """One line per method, seed, rule and decoder; nothing rounded."""
    made = []
    for record in group:
        audit = record.fields["audit"]
        gaps: list[Any] = [*versus_exact(record), (None, None, None)]
        for row, (gap, low, high) in zip(audit["decoders"], gaps, strict=True):
            line = {"method": record.method, "seed": record.seed, "rule": audit["settings"]["rule"]}
            line |= {"users": audit["users"], "decoder": row["decoder"], "beam_size": row["beam_size"]}
            line |= row["metrics"] | {"minus exact": gap, "low": low, "high": high} | row["milliseconds"]
            line |= {f"spend {name}": value for name, value in row["spend"].items()} | row["lists"]
            for what in ("lower", "overlap", "upper", "item_overlap", "certified"):
                line |= {f"{what}@{k}": value for k, value in row.get(what, {}).items()}
            for what in ("reference_overlap", "item_reference_overlap"):
                line |= {f"{what}@{k}": value for k, value in row.get(what, {}).items()}
            for among, of in row.get("targets", {}).items():
                line |= {f"union_bound {among}": of["union_bound"], f"joint {among}": of["joint"]}
            made.append(line)
    return made


def terminal(group: Sequence[Record]) -> str:
    """A compact table."""
    rows = []
    for rule, some in by_rule(group):
        for record in some:
            for row, gap in zip(decoders(record), [*versus_exact(record), None], strict=True):
                bounds = [
                    lay.number(row[w]["10"], 3) if gap else "-" for w in ("lower", "overlap", "upper", "certified")
                ]
                score = [lay.number(row["metrics"]["ndcg@10"]), lay.interval(gap[1:], lay.signed) if gap else "-"]
                cells = [name_of(record, some), rule, row["decoder"], *bounds, *score]
                rows.append([*cells, lay.number(row["milliseconds"]["best"], 2)])
    header = ["method", "rule", "decoder", ">=", "overlap@10", "<=", "certified", "ndcg@10", "minus exact", "ms/user"]
    table = tabulate(rows, header, disable_numparse=True, colalign=["left"] * 3 + ["right"] * 7)
    return "\n".join([group[0].dataset, *heading(group), table])
