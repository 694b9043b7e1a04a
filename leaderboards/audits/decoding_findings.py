"""Decoding audits -> what they say, in sentences whose every number is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    versus_exact,
)

NOTHING = 1e-3
"""A bound this near to 0 or 1, or to the overlap itself, says nothing more than that, or is tight."""


def findings(group: Sequence[Record]) -> list[str]:
    """One paragraph for every rule and method."""
    return [
        f"**{name_of(record, some)}, rule {rule}.** "
        + (" ".join(_sentences(record)) if beams(record) else _one_pass(record, some))
        for rule, some in by_rule(group)
        for record in some
    ]


def _sentences(record: Record) -> list[str]:
    rows = beams(record)
    gaps = versus_exact(record)
    place = _usual(rows, record.fields["audit"]["budget"])
    said = [_enough(record, rows, gaps), _direction(record, rows[place], gaps[place]), _overlap(rows, rows[place])]
    said += [_certified(rows[place]), _bounds(rows), _reach(rows[place])]
    return [one for one in said if one]


def _one_pass(record: Record, some: Sequence[Record]) -> str:
    """A method that scores all items, beside the protocol's beam of every generator here."""
    row = decoders(record)[0]
    own, time = row["metrics"]["ndcg@10"], row["milliseconds"]["best"]
    said = [
        f"It scores all items in one pass, so its lists are exact: ndcg@10 {lay.number(own)} on these users, "
        f"{lay.number(time, 2)} ms a user in the best batch."
    ]
    for other in generators(some):
        if other.seed == record.seed:
            beam = beams(other)[_usual(beams(other), other.fields["audit"]["budget"])]
            said.append(
                f"Beam {beam['beam_size']} of {other.method} has {lay.number(beam['metrics']['ndcg@10'])} and takes "
                f"{lay.number(beam['milliseconds']['best'] / time, 2)} times as long."
            )
    return " ".join([*said, "The models were timed one after the other; audit scaling times them in turns."])


def _usual(rows: Sequence[Mapping[str, Any]], budget: int) -> int:
    """Which beam is the protocol's, or the widest below it, or the narrowest."""
    below = [i for i, row in enumerate(rows) if row["beam_size"] <= budget]
    return below[-1] if below else 0


def _enough(record: Record, rows: Sequence[Mapping[str, Any]], gaps: Sequence[tuple[float, float, float]]) -> str:
    """The smallest beam that cannot be told from exact scoring, and from which on that is so."""
    exact = decoders(record)[-1]["metrics"]["ndcg@10"]
    equal = [low <= 0 <= high for _, low, high in gaps]
    if not any(equal):
        return f"Every beam's ndcg@10 differs from that of exact scoring ({lay.number(exact)}) by more than chance."
    first = equal.index(True)
    row, (_, low, high) = rows[first], gaps[first]
    sentence = (
        f"The smallest beam whose ndcg@10 cannot be told from that of exact scoring ({lay.number(exact)}) is "
        f"{row['beam_size']}: {lay.number(row['metrics']['ndcg@10'])}, difference within "
        f"{lay.interval((low, high), lay.signed)}."
    )
    later = [rows[i]["beam_size"] for i in range(first, len(rows)) if not equal[i]]
    return sentence + (f" Wider ones differ again: {', '.join(map(str, later))}." if later else "")


def _direction(record: Record, row: Mapping[str, Any], gap: tuple[float, float, float]) -> str:
    """Whether exact scoring is better or worse than the protocol's beam."""
    difference, low, high = gap
    exact, size = decoders(record)[-1]["metrics"], row["beam_size"]
    if low == high == 0:
        return f"Beam {size} and exact scoring earn the same for every user."
    side = "higher than" if difference > 0 else "lower than" if difference < 0 else "equal to"
    certain = "more than chance" if low > 0 or high < 0 else "which may be chance"
    moved = f"{lay.number(row['metrics']['recall@10'])} against {lay.number(exact['recall@10'])}"
    return (
        f"Beam {size} scores {side} exact scoring, by {lay.signed(difference)} {lay.interval((low, high), lay.signed)} "
        f"ndcg@10 ({certain}); recall@10 is {moved}."
    )


def _overlap(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> str:
    """The shared part of the lists, with exact and with the widest beam, beside what SimGR reports."""
    size, widest = row["beam_size"], rows[-1]["beam_size"]
    found = f"{_percent(row['overlap']['5'])} and {_percent(row['overlap']['10'])}"
    sentence = f"The best 5 and 10 of beam {size} hold {found} of the exact ones"
    if size < widest:
        sentence += f", and the best 5 {_percent(row['item_reference_overlap']['5'])} of those of beam {widest}"
    if size in SIMGR and widest == 100 and size < widest:
        sentence += f", where SimGR reports {_percent(SIMGR[size][0])} for LC-Rec on another data set"
    return sentence + "."


def _certified(row: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{_percent(row['certified'][k])} (best {k})" for k in sorted(row["certified"], key=int))
    return f"That search proves its own list exact for these shares of the users: {shares}."


def _bounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the bounds of overlap@10 say something."""

    def sizes(holds: Any) -> str:
        return ", ".join(str(row["beam_size"]) for row in rows if holds(row))

    empty = sizes(lambda row: row["upper"]["10"] >= 1 - NOTHING)
    tight = sizes(lambda row: row["overlap"]["10"] - row["lower"]["10"] <= NOTHING)
    loose = sizes(lambda row: row["lower"]["10"] <= NOTHING)
    said = []
    if empty:
        said.append(f"the upper bound of overlap@10 (Theorem 4.1) is 1 and says nothing at beam {empty}")
    if tight:
        said.append(f"the lower bound is tight at beam {tight}")
    if loose:
        said.append(f"the lower bound is 0 and says nothing at beam {loose}")
    if not said:
        return "Both bounds of overlap@10 say something at every beam."
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def _reach(row: Mapping[str, Any]) -> str:
    """The union bound beside what it bounds."""
    of, size = row["targets"]["all codes"], row["beam_size"]
    theirs = f" (SimGR: {_percent(EQUATION_15)} at beam 20)" if size == 20 else ""
    vacuous = ", which is below 0 and says nothing" if of["union_bound"] <= 0 else ""
    return (
        f"The union bound of Equation 15 for the targets is {_percent(of['union_bound'])}{theirs}{vacuous}; what it "
        f"bounds, measured, is {_percent(of['joint'])}, and neither is an overlap."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
