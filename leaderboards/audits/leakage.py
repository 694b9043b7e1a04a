"""Leakage audits of one dataset -> tables: what data and protocol let be known, and what each method knew.

What every check asks is said in ``docs/leakage.md``. Nothing here knows a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from benchmark.records import Record
from leaderboards import layout as lay
from leaderboards.audits.rows import name_of
from leaderboards.compare import bootstrap_interval
from leaderboards.layout import Section

DATA = "data"
"""The record of the static checks."""
METRIC = "ndcg@10"
SHORT = {"PASS": "pass", "FAIL": "FAIL", "NOT APPLICABLE": "-"}


def heading(group: Sequence[Record]) -> list[str]:
    protocol, fields = group[0].protocol, group[0].fields
    first = f"Protocol {protocol['name']} version {protocol['version']} ({protocol['hash']}), track {fields['track']}"
    return [f"{first}, profile {fields['profile']}."]


def _checks(record: Record) -> list[dict[str, Any]]:
    return record.fields["audit"]["checks"]


def _methods(group: Sequence[Record]) -> list[Record]:
    return [record for record in group if record.method != DATA]


def _subject(record: Record, group: Sequence[Record]) -> str:
    return "data and protocol" if record.method == DATA else name_of(record, _methods(group))


def findings(group: Sequence[Record]) -> list[str]:
    """One paragraph per failed check, and one that counts."""
    said = [
        f"**{_subject(record, group)}: {check['name']}.** FAIL: {check['says']}."
        for record in group
        for check in _checks(record)
        if check["verdict"] == "FAIL"
    ]
    verdicts = [check["verdict"] for record in group for check in _checks(record)]
    counts = ", ".join(f"{verdicts.count(verdict)} {word}" for verdict, word in _COUNTED.items())
    return [f"{len(verdicts)} checks of {len(group)} subjects: {counts}.", *said]


_COUNTED = {"PASS": "passed", "FAIL": "failed", "NOT APPLICABLE": "not applicable"}


def sections(group: Sequence[Record]) -> list[Section]:
    made = [_told("Data and protocol", [r for r in group if r.method == DATA], group)]
    methods = _methods(group)
    if methods:
        made += [_matrix(methods), _scores(methods), _told("Methods", methods, group)]
    return [section for section in made if section.rows]


def _told(title: str, some: Sequence[Record], group: Sequence[Record]) -> Section:
    """Every check with its sentence."""
    rows = [
        [_subject(record, group), check["name"], check["verdict"], check["says"]]
        for record in some
        for check in _checks(record)
    ]
    return Section(title, ["subject", "check", "verdict", "what was found"], rows)


def _matrix(methods: Sequence[Record]) -> Section:
    """Methods against checks."""
    names = [check["name"] for check in _checks(methods[0])]
    rows = []
    for record in methods:
        verdicts = {check["name"]: SHORT[check["verdict"]] for check in _checks(record)}
        rows.append([name_of(record, methods), *(verdicts.get(name, "-") for name in names)])
    return Section("Verdicts", ["method", *names], rows, notes=["-: not applicable."])


def _scores(methods: Sequence[Record]) -> Section:
    """On the real answers and on those handed round, beside popularity and the other permutations."""
    rows = []
    for record in methods:
        values = record.per_user()
        popular = values[f"{METRIC}/permuted, popularity"]
        low, high = bootstrap_interval(popular[:, None])[:, 0].tolist()
        (numbers,) = (c["numbers"] for c in _checks(record) if c["name"] == "scores on permuted answers")
        cells = [values[f"{METRIC}/as they are"].mean(), values[f"{METRIC}/permuted"].mean()]
        cells += [numbers["mean"], numbers["most"], popular.mean()]
        rows.append([name_of(record, methods), *map(lay.number, cells), lay.interval((low, high))])
    header = ["method", "answers as they are", "handed round", "other ways: mean", "most", "popularity", "its 95 %"]
    notes = [
        f"{METRIC}. Handed round: fitted and asked with every test answer given to another user. Other ways: the same "
        "lists on other permutations, which they cannot know; a score above all of them, and by more than 4 standard "
        "deviations, fails. Popularity: its lists on the answers handed round, and the bootstrap interval over users. "
        "A method that follows the latest trends may lie above popularity honestly, but not above the other ways."
    ]
    return Section("Scores on permuted answers", header, rows, notes=notes)


def lines(group: Sequence[Record]) -> list[dict[str, Any]]:
    """One line per check; nothing rounded."""
    return [
        {
            "subject": record.method,
            "seed": record.seed,
            "check": check["name"],
            "verdict": check["verdict"],
            "says": check["says"],
            **check["numbers"],
        }
        for record in group
        for check in _checks(record)
    ]


def terminal(group: Sequence[Record]) -> str:
    """Check by verdict of the data, and the methods' matrix."""
    parts = [group[0].dataset, *heading(group)]
    for record in group:
        if record.method == DATA:
            rows = [[check["name"], check["verdict"]] for check in _checks(record)]
            parts.append(tabulate(rows, ["data and protocol", "verdict"], disable_numparse=True))
    methods = _methods(group)
    if methods:
        names = [check["name"] for check in _checks(methods[0])]
        rows = [[name, *(SHORT[_checks(record)[i]["verdict"]] for record in methods)] for i, name in enumerate(names)]
        parts.append(tabulate(rows, ["check", *(name_of(r, methods) for r in methods)], disable_numparse=True))
    return "\n".join(parts)
