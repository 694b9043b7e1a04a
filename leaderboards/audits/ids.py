"""Semantic-ID audits of one dataset -> tables: the report card of every tokenizer, and hits counted in three ways.

What the audits measured is said in ``methods/audits/ids``. Nothing here knows a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from benchmark.metrics import parse
from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.audits.rows import log_scale, name_of
from leaderboards.drawing import BLACK, BLUE, RED, looks, plain
from leaderboards.layout import Section

SHOWN = ("recall@10", "ndcg@10")
OURS = "tie rule"
WAYS = {"id": "by ID", "strict": "by item, strict", OURS: "by item, tie rule"}


def heading(group: Sequence[Record]) -> list[str]:
    protocol, fields, audit = group[0].protocol, group[0].fields, group[0].fields["audit"]
    first = f"Protocol {protocol['name']} version {protocol['version']} ({protocol['hash']}), track {fields['track']}"
    return [f"{first}, profile {fields['profile']}.", f"{audit['users']:,} test users, beam {audit['beam_size']}."]


def inflation(record: Record, metric: str, way: str = "id") -> tuple[float, float | None]:
    """What a way of counting adds to the suite's own score, and as a share of it (None where that is 0)."""
    hits = record.fields["audit"]["hits"]
    added = hits[way][metric] - hits[OURS][metric]
    return added, added / hits[OURS][metric] if hits[OURS][metric] else None


def findings(group: Sequence[Record]) -> list[str]:
    """One paragraph per tokenizer."""
    return [f"**{name_of(record, group)}.** " + " ".join(_sentences(record)) for record in group]


def _sentences(record: Record) -> list[str]:
    card = record.fields["audit"]["ids"]
    said = [
        f"{card['colliding_items']:,} of {card['items']:,} items share their ID with another (largest group "
        f"{card['largest_group']})."
    ]
    for metric in SHOWN:
        (added, share), (lost, _) = inflation(record, metric), inflation(record, metric, "strict")
        told = f" ({100 * share:+.2f} %)" if share is not None else ""
        said.append(
            f"Counting hits by ID instead of by item changes {metric} by {lay.signed(added)}{told}; counting strictly "
            f"changes it by {lay.signed(lost)}."
        )
    weakest = min(range(len(card["levels"])), key=lambda i: card["levels"][i]["perplexity"] / card["levels"][i]["size"])
    level = card["levels"][weakest]
    said.append(
        f"The least used level is {weakest + 1}: {level['used']:,} of {level['size']:,} codes, perplexity "
        f"{level['perplexity']:.1f}."
    )
    single = [i + 1 for i, fan in enumerate(card["fan_out"]) if i and fan["mean"] < 1.5]
    if single:
        said.append(f"From level {single[0]} on a prefix has fewer than 1.5 codes to choose from on average.")
    agreement = card.get("category_agreement")
    if agreement and agreement["by_prefix_length"][0] is not None and agreement["chance"]:
        times = agreement["by_prefix_length"][0] / agreement["chance"]
        said.append(f"Two items with the same first code share their category {times:.1f} times as often as any two.")
    return said


def sections(group: Sequence[Record]) -> list[Section]:
    made = [_cards(group), _levels(group)]
    if any("category_agreement" in record.fields["audit"]["ids"] for record in group):
        made.append(_agreement(group))
    return [*made, _hits(group)]


def _cards(group: Sequence[Record]) -> Section:
    """One row per tokenizer."""
    rows = []
    for record in group:
        audit = record.fields["audit"]
        card = audit["ids"]
        counts = [
            card[n]
            for n in ("items", "distinct_codes", "colliding_items", "largest_group", "largest_first_level_bucket")
        ]
        rows.append(
            [name_of(record, group), *(f"{count:,}" for count in counts), lay.number(audit["reconstruction_error"])]
        )
    header = ["method", "items", "distinct IDs", "items that share an ID", "largest group", "largest first code"]
    notes = [
        "Largest first code: items with the most frequent code of the first level. Reconstruction error: of the "
        "tokenizer at its chosen epoch, as its report says; not every tokenizer reconstructs."
    ]
    return Section("Identifiers", [*header, "reconstruction error"], rows, notes=notes)


def _levels(group: Sequence[Record]) -> Section:
    """Use of the codes, and children of a prefix, level by level."""
    rows = []
    for record in group:
        card = record.fields["audit"]["ids"]
        for place, (level, fan) in enumerate(zip(card["levels"], card["fan_out"], strict=True)):
            used = f"{level['used']:,} of {level['size']:,}"
            prefixes = f"{card['distinct_prefixes'][place]:,}"
            rows.append([name_of(record, group), str(place + 1), used, lay.number(level["perplexity"], 1), prefixes])
            rows[-1] += [lay.number(fan["mean"], 2), f"{fan['max']:,}"]
    header = ["method", "level", "codes in use", "perplexity", "prefixes up to here", "codes after a prefix", "at most"]
    notes = [
        "Perplexity: so many codes in equal use would be as uncertain. Codes after a prefix: how many codes of this "
        "level continue a prefix of the level before, on average; where it is 1 the decoder has no choice left."
    ]
    return Section("Levels", header, rows, notes=notes)


def _agreement(group: Sequence[Record]) -> Section:
    """Whether a shared prefix means a shared category."""
    cards = {name_of(record, group): record.fields["audit"]["ids"].get("category_agreement") for record in group}
    longest = max(len(one["by_prefix_length"]) for one in cards.values() if one)
    rows = []
    for name, one in cards.items():
        values = one["by_prefix_length"] if one else []
        cells = [lay.number(value) for value in values] + ["-"] * (longest - len(values))
        rows.append([name, lay.number(one["chance"] if one else None), *cells])
    header = ["method", "any two items", "first code", *(f"first {i} codes" for i in range(2, longest + 1))]
    notes = ["Of the pairs of items that share so many first codes, the part of one second-level category."]
    return Section("Category agreement", header, rows, notes=notes)


def _hits(group: Sequence[Record]) -> Section:
    """The three ways side by side."""
    rows = []
    for record in group:
        hits = record.fields["audit"]["hits"]
        for metric in sorted(hits[OURS], key=lambda name: (name.partition("@")[0] != "recall", parse(name)[1])):
            added, share = inflation(record, metric)
            cells = [lay.number(hits[way][metric]) for way in WAYS]
            told = "-" if share is None else f"{100 * share:+.2f} %"
            rows.append([name_of(record, group), metric, *cells, f"{added:+.5f}", told])
    notes = [
        "All test users, the same model and beam. By ID: a generated ID is a hit for every item that has it, as the "
        "evaluators of LETTER and LC-Rec count, which compare strings; K counts IDs. Strict: the target comes last of "
        "the items with its ID. Tie rule: the suite's own score, equal to the record's. Inflation: by ID minus tie "
        "rule.",
    ]
    rounded = sum(record.fields["audit"]["users_with_rounded_scores"] for record in group)
    if rounded:
        notes.append(f"The lists of {rounded:,} users differ from the recorded ones by rounding (other hardware).")
    header = ["method", "metric", *WAYS.values(), "inflation", "relative"]
    return Section("Three ways to count a hit", header, rows, notes=notes)


def lines(group: Sequence[Record]) -> list[dict[str, Any]]:
    """One line per method and seed; nothing rounded."""
    made = []
    for record in group:
        audit = record.fields["audit"]
        card = audit["ids"]
        line: dict[str, Any] = {"method": record.method, "seed": record.seed, "users": audit["users"]}
        line |= {name: value for name, value in card.items() if isinstance(value, int | float)}
        for place, (level, fan) in enumerate(zip(card["levels"], card["fan_out"], strict=True), start=1):
            line |= {f"level {place} {name}": value for name, value in level.items()}
            line |= {f"level {place} fan-out {name}": value for name, value in fan.items()}
        agreement = card.get("category_agreement") or {"by_prefix_length": [], "chance": None}
        line["category agreement by chance"] = agreement["chance"]
        shares = enumerate(agreement["by_prefix_length"], start=1)
        line |= {f"category agreement {length}": share for length, share in shares}
        line["reconstruction_error"] = audit["reconstruction_error"]
        line |= {
            f"{metric} {WAYS[way]}": v for way, by_metric in audit["hits"].items() for metric, v in by_metric.items()
        }
        made.append(line)
    return made


def terminal(group: Sequence[Record]) -> str:
    """A compact table."""
    rows = []
    for record in group:
        audit = record.fields["audit"]
        card, hits = audit["ids"], audit["hits"]
        cells = [
            f"{card['distinct_codes']:,}/{card['items']:,}",
            f"{card['colliding_items']:,}",
            str(card["largest_group"]),
        ]
        perplexity = " ".join(f"{level['perplexity']:.0f}" for level in card["levels"])
        rows.append([name_of(record, group), *cells, perplexity])
        rows[-1] += [*(lay.number(hits[way]["ndcg@10"]) for way in WAYS), f"{inflation(record, 'ndcg@10')[0]:+.5f}"]
    header = ["method", "IDs", "sharing", "largest", "perplexity", "ndcg@10 ID", "strict", "tie rule", "inflation"]
    table = tabulate(rows, header, disable_numparse=True, colalign=["left"] + ["right"] * 8)
    return "\n".join([group[0].dataset, *heading(group), table])


def figures(group: Sequence[Record]) -> dict[str, Any]:
    """How the levels are used, and what each way of counting does to the score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 1.9 + max(2.0, 0.55 * len(group))), layout="constrained")
    use, choice, counted = figure.subplots(1, 3)
    look_of = looks([name_of(r, group) for r in group])
    for record in group:
        colour, marker = look_of[name_of(record, group)]
        card = record.fields["audit"]["ids"]
        places = range(1, len(card["levels"]) + 1)
        shares = [level["perplexity"] / level["size"] for level in card["levels"]]
        use.plot(places, shares, color=colour, marker=marker, markersize=5, label=name_of(record, group))
        choice.plot(places, [fan["mean"] for fan in card["fan_out"]], color=colour, marker=marker, markersize=5)
    use.set_ylim(0, 1.03)
    use.set_title("perplexity / codebook size", fontsize=9)
    log_scale(choice.set_yscale, choice.yaxis)
    choice.set_title("codes after a prefix, mean (log scale)", fontsize=9)
    levels = max(len(record.fields["audit"]["ids"]["levels"]) for record in group)
    for axes in (use, choice):
        axes.set_xticks(range(1, levels + 1))
        axes.set_xlabel("level")
        plain(axes)
    _counted(counted, group)
    plain(counted, grid=None)
    fields = group[0].fields
    title = f"{group[0].dataset}, protocol {group[0].protocol['name']}, profile {fields['profile']}: semantic IDs"
    figure.suptitle(title, fontsize=10)
    handles, labels = use.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return {"card": figure}


def _counted(axes: Any, group: Sequence[Record]) -> None:
    """Bars: what counting by ID adds to recall@10, and what counting strictly takes, in percent of the suite's."""
    for place, record in enumerate(reversed(group)):
        for way, colour in (("id", RED), ("strict", BLUE)):
            share = inflation(record, "recall@10", way)[1] or 0.0
            axes.barh(place, 100 * share, height=0.5, color=colour)
            side = 1 if way == "id" else -1
            axes.annotate(
                f"{100 * share:+.2f}",
                (100 * share, place),
                textcoords="offset points",
                xytext=(4 * side, 0),
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=7,
            )
    axes.axvline(0, color=BLACK, linewidth=0.8)
    axes.set_ylim(-0.8, len(group) - 0.2)
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(group)), labels=[name_of(record, group) for record in reversed(group)])
    widest = max(abs(inflation(r, "recall@10", way)[1] or 0.0) for r in group for way in ("id", "strict"))
    axes.set_xlim(*(side * 100 * max(0.01, 1.4 * widest) for side in (-1, 1)))
    axes.set_title("recall@10, % against the tie rule:\nstrict (left), by ID (right)", fontsize=9)
