"""Audits of the newest runs -> tables and pictures of each dataset, and compact copies to publish.

Every question has a module of its own that makes a ``Question`` of the audits of one dataset; here are the files.
The same audits give the same bytes, in whatever order they come.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark import records
from benchmark.audits import WITHOUT_RUNS, audits_dir
from benchmark.files import content_hash, json_bytes, write_atomically
from benchmark.records import Record
from leaderboards.audits import (
    decoding,
    decoding_findings,
    decoding_pictures,
    ids,
    leakage,
    scaling,
    scaling_findings,
    scaling_pictures,
)
from leaderboards.drawing import draw
from leaderboards.layout import Section, place_of
from leaderboards.tables import TERMINAL_WIDTH, file_name, grid, label, latex_table, plain


@dataclass(frozen=True)
class Question:
    """How the audits of one question and one dataset are shown."""

    heading: Callable[[Sequence[Record]], list[str]]
    findings: Callable[[Sequence[Record]], list[str]]
    """Sentences computed from the numbers."""
    sections: Callable[[Sequence[Record]], list[Section]]
    lines: Callable[[Sequence[Record]], list[dict[str, Any]]]
    """Of the CSV."""
    terminal: Callable[[Sequence[Record]], str]
    figures: Callable[[Sequence[Record]], dict[str, Any]]
    """Name -> matplotlib figure."""


QUESTIONS = {
    "decoding": Question(
        decoding.heading,
        decoding_findings.findings,
        decoding.sections,
        decoding.lines,
        decoding.terminal,
        decoding_pictures.figures,
    ),
    "ids": Question(
        ids.heading,
        ids.findings,
        ids.sections,
        ids.lines,
        ids.terminal,
        ids.figures,
    ),
    "leakage": Question(
        leakage.heading,
        leakage.findings,
        leakage.sections,
        leakage.lines,
        leakage.terminal,
        lambda group: {},
    ),
    "scaling": Question(
        scaling.heading,
        scaling_findings.findings,
        scaling.sections,
        scaling.lines,
        scaling.terminal,
        scaling_pictures.figures,
    ),
}


def show(kind: str, output_dir: Path, asked: Sequence[Record]) -> list[str]:
    """Write the tables that ``asked`` stand in, with whatever else belongs into them -> what to print."""
    runs = records.read_all(output_dir)
    everything = of_runs(audits_dir(output_dir, kind), runs)
    return tables(kind, everything, output_dir / "leaderboards", asked)


def of_runs(folder: Path, runs: Sequence[Record]) -> list[Record]:
    """The audits below ``folder`` that belong to ``runs``, of each run the newest; none of a model made since.

    Of questions that need no run, the newest of each method.
    """
    finished = {_run_of(run): run.fields["provenance"]["finished"] for run in runs if run.status == "ok"}
    last: dict[tuple[Any, ...], Record] = {}
    for audit in sorted(records.read_all(folder), key=_finished):
        if folder.name in WITHOUT_RUNS or _finished(audit) >= finished.get(_run_of(audit), "~"):
            last[*_run_of(audit), audit.fields["audit"]["settings"].get("rule")] = audit
    return sorted(last.values(), key=lambda audit: str(audit.folder))


def _finished(record: Record) -> str:
    return record.fields["provenance"]["finished"]


def _run_of(record: Record) -> tuple[Any, ...]:
    return (
        place_of(record),
        record.protocol["hash"],
        record.dataset,
        record.method,
        record.fields["config_hash"],
        record.seed,
    )


def tables(kind: str, found: Sequence[Record], folder: Path, shown: Sequence[Record] | None = None) -> list[str]:
    """Write below ``folder`` the tables of ``found`` that ``shown`` stand in, or all, and return what to print.

    Only audits with the same settings (users, beams, device) share a table; of several settings those of the audit
    that was made last are shown.
    """
    asked = {(place_of(record), record.dataset) for record in (found if shown is None else shown)}
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in found:
        if (place_of(record), record.dataset) in asked:
            groups[place_of(record), record.dataset].append(record)
    texts = []
    for (place, dataset), group in sorted(groups.items()):
        alike = _of_the_last_settings(group)
        name = f"{file_name(dataset)}.{kind}"
        notes = write(QUESTIONS[kind], alike, folder / place, name)
        said = [textwrap.fill(one.replace("**", ""), TERMINAL_WIDTH) for one in QUESTIONS[kind].findings(alike)]
        texts += [QUESTIONS[kind].terminal(alike), *said, *notes, f"tables: {folder / place / name}.md"]
    return texts


def _of_the_last_settings(group: Sequence[Record]) -> list[Record]:
    """Per decoding rule the audits that agree in their settings and configuration with the newest of them."""

    def rule(record: Record) -> Any:
        return record.fields["audit"]["settings"].get("rule")

    newest = {rule(record): record.fields["audit"]["settings"] for record in sorted(group, key=_finished)}
    config = {r.method: r.fields["config_hash"] for r in sorted(group, key=_finished)}
    kept = [r for r in group if r.fields["audit"]["settings"] == newest[rule(r)]]
    kept = [r for r in kept if r.fields["config_hash"] == config[r.method]]
    return sorted(kept, key=lambda r: (str(rule(r)), r.method, r.seed))


def write(question: Question, group: Sequence[Record], folder: Path, name: str) -> list[str]:
    """The files ``name``.md, .tex, .csv and .json and the pictures of one dataset -> notes to print."""
    title = f"{group[0].dataset}: audit of {name.rpartition('.')[2]}"
    head, findings, sections = question.heading(group), question.findings(group), question.sections(group)
    parts = [f"# {title}", *head, "## Findings", *findings]
    for section in sections:
        parts += [f"## {section.title}", grid(section.flat_header, section.rows), *section.notes]
    made = "\n".join(f"- {line}" for line in _provenance(group))
    write_atomically(folder / f"{name}.md", ("\n\n".join([*parts, f"## Provenance\n\n{made}"]) + "\n").encode())
    needs = r"% needs \usepackage{booktabs} and \usepackage{graphicx} in the preamble"
    latex = [latex_table(s, title, head, f"{label(name)}-{i}") for i, s in enumerate(sections, start=1)]
    write_atomically(folder / f"{name}.tex", ("\n".join([needs, *latex]) + "\n").encode())
    lines = pd.DataFrame(question.lines(group)).convert_dtypes()
    write_atomically(folder / f"{name}.csv", lines.to_csv(index=False, lineterminator="\n").encode())
    raw = [
        {n: r.fields[n] for n in ("method", "seed", "config_hash", "text_encoder", "device", "provenance", "audit")}
        for r in group
    ]
    whole = {"dataset": group[0].dataset, "protocol": group[0].protocol, "findings": findings, "audits": raw}
    write_atomically(folder / f"{name}.json", json_bytes(plain(whole)))
    return draw(_figures(question, group, name), folder)


def _provenance(group: Sequence[Record]) -> list[str]:
    """One line for every way in which the audits were made."""
    lines = set()
    for record in group:
        made = record.fields["provenance"]
        machine = made["hardware"]["gpu"] if record.fields["device"].startswith("cuda") else made["hardware"]["cpu"]
        versions = ", ".join(f"{package} {version}" for package, version in made["versions"].items())
        changed = " with uncommitted changes" if made["dirty"] else ""
        lines.add(f"commit {made['commit']}{changed}, Python {made['python']}, {versions}, {machine}")
    return sorted(lines)


def _figures(question: Question, group: Sequence[Record], name: str) -> Iterator[tuple[str, Any]]:
    for kind, figure in question.figures(group).items():
        yield f"{name}-{kind}", figure


def copy(kind: str, found: Sequence[Record], folder: Path) -> None:
    """Write the audits below ``folder/audits`` and the tables made from them below ``folder/tables``."""
    copies = []
    for one in found:
        key = content_hash(one.fields["audit"]["settings"], 10)
        place = one.place_below(folder / "audits" / kind) / key
        copies.append(records.write(place, one.fields, {"per_user.npz": one.per_user()}, None))
    tables(kind, copies, folder / "tables")
