"""Summaries -> files: per dataset Markdown, LaTeX, CSV and JSON, an index, and a compact table for the terminal.

The same records give the same bytes, in whatever order they come: draws are seeded and nothing is dated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import permutations as ordered_pairs
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmark.files import json_bytes, write_atomically
from leaderboards import layout as lay
from leaderboards.chance import AgainstChance
from leaderboards.layout import Section
from leaderboards.sections import accuracy, heading, provenance, sections, versus_reference
from leaderboards.setting_sections import in_setting, overview, verdict_line
from leaderboards.summary import Row, Summary

TERMINAL_WIDTH = 120
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    lay.BETTER: r"$^{\dagger}$",
    lay.WORSE: r"$^{\ddagger}$",
} | {character: f"\\{character}" for character in "&%$#_{}"}
_TYPESET = frozenset(map(chr, (*range(0x20, 0x7F), *range(0xC0, 0x100)))) - set("ÐÞðþ")
"""What pdflatex has a letter for."""


def write(summaries: Sequence[Summary], folder: Path) -> dict[str, Path]:
    """The files of every summary, and README.md as their index."""
    written = {}
    for one in summaries:
        name = file_name(one.dataset)
        for suffix, content in (
            ("md", markdown(one)),
            ("tex", latex(one)),
            ("csv", csv(one)),
        ):
            write_atomically(folder / f"{name}.{suffix}", content.encode())
        write_atomically(folder / f"{name}.json", json_bytes(as_json(one)))
        written[one.dataset] = folder / f"{name}.md"
    write_atomically(folder / "README.md", index(summaries).encode())
    return written


def file_name(dataset: str) -> str:
    """A dataset's name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", dataset)


def markdown(summary: Summary) -> str:
    """Everything about one dataset, readable raw."""
    parts = [f"# {summary.dataset}", *heading(summary)]
    for section in sections(summary):
        rows = [
            [f"**{cell}**" if (i, j) in section.best else cell for j, cell in enumerate(row)]
            for i, row in enumerate(section.rows)
        ]
        parts += [f"## {section.title}", grid(section.flat_header, rows), *section.notes]
    made = "\n".join(f"- {name}: {value}" for name, value in provenance(summary))
    return "\n\n".join([*parts, f"## Provenance\n\n{made}"]) + "\n"


def grid(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right, a bar in a cell escaped."""
    names = {"method", "decoder", "status", "reason", "rule", "stopped by", "dataset", "best", "files"}
    names |= {"subject", "check", "verdict", "what was found"}
    align = ["left" if name in names else "right" for name in header]
    clean = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(clean, header, tablefmt="pipe", disable_numparse=True, colalign=align)


def latex(summary: Summary) -> str:
    """The ranked table, the settings and the comparison as booktabs tables, ready for \\input."""
    head = [f"% {sentence}" for sentence in heading(summary)]
    needs = r"% needs \usepackage{booktabs} and \usepackage{graphicx} in the preamble"
    made = [s for s in (accuracy(summary), overview(summary), versus_reference(summary)) if s.rows]
    name = label(summary.dataset)
    tables = [latex_table(s, summary.dataset, heading(summary), f"{name}-{i}") for i, s in enumerate(made, start=1)]
    return "\n".join([needs, *head, *tables]) + "\n"


def label(text: str) -> str:
    """Text as a part of a LaTeX label."""
    return re.sub(r"[^A-Za-z0-9-]", "-", text)


def latex_table(section: Section, about: str, heading: Sequence[str], name: str) -> str:
    """A booktabs table with its notes; ``about`` and ``heading`` go into the caption, ``name`` into the label."""
    lines = [*_latex_groups(section), " & ".join(map(escape, section.header)) + r" \\", r"\midrule"]
    for i, row in enumerate(section.rows):
        lines.append(" & ".join(_styled(cell, (i, j), section) for j, cell in enumerate(row)) + r" \\")
    columns = "".join("l" if name == "method" else "r" for name in section.header)
    caption = " ".join([f"{about}: {section.title}.", *heading])
    notes = [rf"\par\smallskip\footnotesize {escape(' '.join(section.notes))}"] if section.notes else []
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{name}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *notes,
            r"\end{table*}",
        ]
    )


def _latex_groups(section: Section) -> list[str]:
    """The headings above groups of columns, each with its rule; no lines where there are none."""
    if not section.groups:
        return []
    cells, rules, place = [""] * section.ungrouped, "", section.ungrouped
    for title, width in section.groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
        rules += rf"\cmidrule(lr){{{place + 1}-{place + width}}}"
        place += width
    return [" & ".join(cells) + r" \\", rules]


def _styled(cell: str, place: lay.Place, section: Section) -> str:
    """A cell in LaTeX: the number bold or underlined, its mark behind it."""
    value, _, sign = cell.partition(" ") if cell.endswith((lay.BETTER, lay.WORSE)) else (cell, "", "")
    style = r"\textbf{%s}" if place in section.best else r"\underline{%s}" if place in section.second else "%s"
    return style % escape(value) + escape(sign)


def escape(text: str) -> str:
    """Text for LaTeX: special characters written out, minus signs as such; U+4E2D for what pdflatex cannot set."""
    typeset = (c if c in _TYPESET else " " if c.isspace() else f"U+{ord(c):04X}" for c in text)
    safe = "".join(_LATEX.get(c, plain) for c, plain in zip(text, typeset, strict=True))
    return re.sub(r"(?<![\w.}])-(?=\d)", "$-$", safe)


def csv(summary: Summary) -> str:
    """One line per method or missing run, raw numbers, nothing rounded."""
    lines = [_flat(row, place + 1) for place, row in enumerate(summary.rows)]
    lines += [{"status": a["status"], **a} for a in summary.absent]
    return pd.DataFrame(lines).convert_dtypes().to_csv(index=False, lineterminator="\n")


def _flat(row: Row, rank: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "rank": rank,
        "method": row.method,
        "status": "ok",
        "seed": " ".join(map(str, row.seeds)),
    }
    line |= row.metrics | {"interval low": row.interval[0], "interval high": row.interval[1]}
    line |= {f"{name} seed sd": value for name, value in row.spread.items()}
    if row.comparison is not None:
        versus = asdict(row.comparison)
        low, high = versus.pop("interval")
        del versus["method"], versus["users"], versus["per_seed"], versus["seed_interval"]
        line |= {"difference low": low, "difference high": high, **versus}
    for name, one in row.chance.items():
        line |= {f"chance {name} {what}": value for what, value in _chance(one).items()}
    line |= {f"{stage} seconds": value for stage, value in row.facts["timings"].items()}
    line |= {"parameters": row.facts["parameters"], "stopped_by": " ".join(row.facts["stopped_by"])}
    return line | {f"spend {name}": value for name, value in row.facts["spend"].items()}


def _chance(one: AgainstChance) -> dict[str, Any]:
    low, high = one.interval
    return {"difference": one.difference, "low": low, "high": high, "verdict": one.verdict}


def as_json(summary: Summary) -> dict[str, Any]:
    """Everything machine-readable; what is not a finite number is null."""
    whole = asdict(summary) | {"has_reference": summary.has_reference, "seeds": summary.seeds}
    if not summary.settings:  # protocols without settings do not speak of them
        del whole["settings"]
        whole["rows"] = [{k: v for k, v in row.items() if k not in ("settings", "chance")} for row in whole["rows"]]
    return plain(whole)


def plain(value: Any) -> Any:
    """A value as JSON has it: text as keys, null for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def index(summaries: Sequence[Summary]) -> str:
    """README.md of a folder: its datasets, and methods across datasets."""
    protocol, shared = summaries[0].shared["protocol"], summaries[0].shared
    title = f"# Protocol {protocol['name']} version {protocol['version']}"
    title += f", track {shared['track']}, profile {shared['profile']}"
    text = f"Protocol hash {protocol['hash']}. All files here are generated from records; do not edit them."
    if shared["limit_users"] is not None:
        text += f" The run was limited to {shared['limit_users']:,} users: not a benchmark result."
    rows = []
    for one in summaries:
        name, best = file_name(one.dataset), one.rows[0] if one.rows else None
        links = ", ".join(f"[{suffix}]({name}.{suffix})" for suffix in ("md", "tex", "csv", "json"))
        value = lay.number(best.metrics[one.primary]) if best else "-"
        rows.append([one.dataset, f"{one.users:,}", best.method if best else "-", value, links])
    header = ["dataset", "users", "best", summaries[0].primary, "files"]
    return "\n\n".join([title, text, grid(header, rows), *_across(summaries)]) + "\n"


def _across(summaries: Sequence[Summary]) -> list[str]:
    """Mean rank and wins of the methods that have a result on every one of several datasets."""
    places = [[row.method for row in one.rows] for one in summaries]
    everywhere = sorted(set.intersection(*map(set, places)))
    if len(summaries) < 2 or len(everywhere) < 2:
        return []
    ranks = {m: [[o for o in order if o in everywhere].index(m) + 1 for order in places] for m in everywhere}
    ordered = sorted(everywhere, key=lambda m: (float(np.mean(ranks[m])), m))
    wins = dict.fromkeys(ordered_pairs(ordered, 2), 0)
    for a, b in wins:
        wins[a, b] = sum(x < y for x, y in zip(ranks[a], ranks[b], strict=True))
    rows = [
        [
            str(i + 1),
            m,
            lay.number(float(np.mean(ranks[m])), 2),
            *(str(wins.get((m, o), ".")) for o in ordered),
        ]
        for i, m in enumerate(ordered)
    ]
    header = ["#", "method", "mean rank", *(str(i + 1) for i in range(len(ordered)))]
    note = f"Datasets (of {len(summaries)}) on which the row's {summaries[0].primary} beats the column's."
    return ["## Across datasets", grid(header, rows), note]


def terminal(summaries: Sequence[Summary]) -> str:
    """Compact tables, at most 120 columns wide."""
    return "\n\n".join(_terminal_one(one) for one in summaries)


def _terminal_one(summary: Summary) -> str:
    apart = [in_setting(summary.primary, name) for name in summary.settings][1:]
    middle = apart or ["95 % interval"]  # both do not fit
    header = ["#", "method", summary.recall, summary.primary, *middle, "difference", "Holm p", "train", "decode"]
    width = 30 if apart else 36
    rows = [_terminal_row(summary, row, apart, width) for row in summary.rows]
    for i, cells in enumerate(rows):
        cells.insert(0, str(i + 1))
    grid = _aligned(header, rows) if rows else []
    notes = [verdict_line(summary)] if apart else []
    if summary.has_reference:
        notes += [f"{lay.BETTER} better, {lay.WORSE} worse than {summary.reference} ({summary.primary}, Holm p < .05)"]
    missing = [f"{a['method']} (seed {a['seed']}) {a['status']}: {a['reason']}" for a in summary.absent]
    lines = [summary.dataset, *heading(summary), *grid, *notes, *missing]
    return "\n".join(_cut(" ".join(line.split()) if line in missing else line, TERMINAL_WIDTH) for line in lines)


def _terminal_row(summary: Summary, row: Row, apart: Sequence[str], width: int) -> list[str]:
    """A method's cells; ``apart`` are the metrics of settings that stand in the place of the interval."""
    one, timings = row.comparison, row.facts["timings"]
    return [
        _cut(lay.label(row), width),
        lay.number(row.metrics[summary.recall]),
        lay.number(row.metrics[summary.primary]),
        *([lay.number(row.metrics.get(name)) for name in apart] or [lay.interval(row.interval)]),
        lay.signed(one.difference) + lay.mark(one) if one else "-",
        lay.p_value(one.p_holm if one else None),
        lay.seconds(timings.get("train")),
        lay.seconds(timings.get("decode")),
    ]


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table as narrow as its cells, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            f"{cell:<{w}}" if i == 1 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
