"""Summary -> sections: titled tables of finished strings, the same for Markdown, LaTeX and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmark.metrics import PER_RUN, PER_USER, parse
from leaderboards.compare import Comparison
from leaderboards.layout import (
    BETTER,
    WORSE,
    Section,
    interval,
    label,
    mark,
    metric_table,
    number,
    p_value,
    seconds,
    signed,
)
from leaderboards.setting_sections import is_seen_dropped, setting_sections
from leaderboards.summary import Row, Summary


def sections(summary: Summary) -> list[Section]:
    """All tables of one dataset that have something to say."""
    made = [accuracy(summary), *setting_sections(summary), versus_reference(summary), verdicts(summary)]
    made += [beyond_accuracy(summary), seen_dropped(summary), *by_slice(summary), cost(summary), absent(summary)]
    return [section for section in made if section.rows]


def heading(summary: Summary) -> list[str]:
    """Sentences that must be read before the numbers."""
    protocol = summary.shared["protocol"]
    asked = f"{summary.users:,} users asked" if summary.rows else "no run finished"
    lines = [
        f"Protocol {protocol['name']} version {protocol['version']} ({protocol['hash']}), "
        f"track {summary.shared['track']}, profile {summary.shared['profile']}, {asked}."
    ]
    limit = summary.shared["limit_users"]
    if limit is not None:
        lines.append(f"The run was limited to {limit:,} users: not a benchmark result.")
    if len(summary.seeds) == 1 and any(row.facts["trained"] for row in summary.rows):
        lines.append(f"One trained model per method (seed {summary.seeds[0]}).")
    elif len(summary.seeds) > 1:
        lines.append(f"Means over seeds {', '.join(map(str, summary.seeds))}.")
        fewer = [row for row in summary.rows if row.seeds != summary.seeds]
        if fewer:
            which = "; ".join(f"{row.method} has only {', '.join(map(str, row.seeds))}" for row in fewer)
            lines.append(f"Not every method ran with every seed: {which}.")
    if not summary.has_reference:
        lines.append(f"Differences are left out: the reference {summary.reference} has no finished run here.")
    return lines


def accuracy(summary: Summary) -> Section:
    """The ranked table, best first."""
    names = [name for name in _names(summary) if _is(name, PER_USER)]
    return metric_table(summary, f"Ranked by {summary.primary}", names, _notes(summary))


def versus_reference(summary: Summary) -> Section:
    """The ranked metric with its interval, and what separates each method from the reference."""
    spread = ["seed sd"] if any(row.spread for row in summary.rows) else []
    header = ["method", summary.primary, "95 % interval", *spread]
    if summary.has_reference:
        header += ["difference", "95 % interval", "relative", "Holm p", "d_z", "win/tie/loss"]
    rows = []
    for row in summary.rows:
        cells = [label(row), number(row.metrics[summary.primary]), interval(row.interval)]
        cells += [number(row.spread.get(summary.primary)) for _ in spread]
        rows.append(cells + (_against(row.comparison) if summary.has_reference else []))
    title = f"Compared with {summary.reference}" if summary.has_reference else f"Intervals of {summary.primary}"
    return Section(title, header, rows, notes=_comparison_notes(summary))


def _against(one: Comparison | None) -> list[str]:
    if one is None:
        return ["reference", *["-"] * 5]
    return [
        signed(one.difference) + mark(one),
        interval(one.interval, signed),
        signed(one.relative, 3),
        p_value(one.p_holm),
        signed(one.effect_size, 3),
        f"{one.wins}/{one.ties}/{one.losses}",
    ]


def verdicts(summary: Summary) -> Section:
    """All pairs as a matrix of signs, Holm within all pairs."""
    signs = {}
    for one in summary.pairs:
        sign = ("+" if one.difference > 0 else "-") if one.significant else "="
        signs[one.method, one.reference] = sign
        signs[one.reference, one.method] = {"+": "-", "-": "+", "=": "="}[sign]
    names = [row.method for row in summary.rows]
    rows = [
        [str(i + 1), row.method, *(signs.get((row.method, other), ".") for other in names)]
        for i, row in enumerate(summary.rows)
    ]
    note = "Row against column: + better, - worse, = not told apart (Holm within all pairs)."
    header = ["#", "method", *(str(i + 1) for i in range(len(names)))]
    return Section("All pairs", header, rows if len(rows) > 1 else [], notes=[note])


def beyond_accuracy(summary: Summary) -> Section:
    names = [name for name in _names(summary) if _is(name, PER_RUN)]
    rows = [[label(row), *(number(row.metrics.get(name)) for name in names)] for row in summary.rows]
    notes = ["Entropies in nats."] if any("entropy" in name for name in names) else []
    return Section("Beyond accuracy", ["method", *names], rows if names else [], notes=notes)


def seen_dropped(summary: Summary) -> Section:
    """The same lists without the items their user already had."""
    names = [name for name in _names(summary) if is_seen_dropped(name)]
    note = "The lists above with the user's earlier items removed and the gaps closed."
    return metric_table(summary, "Seen items dropped", names, [note])


def by_slice(summary: Summary) -> list[Section]:
    """One table per slice: a column for the ranked metric of every label, one for its recall."""
    made = []
    for name in summary.rows[0].slices if summary.rows else []:
        labels = list(summary.rows[0].slices[name].items())
        header = ["method"]
        for what, cell in labels:
            users = "1 user" if cell.users == 1 else f"{cell.users:,} users"
            header += [f"{what}: {users}", summary.recall]
        rows = []
        for row in summary.rows:
            cells = [row.slices[name][what] for what, _ in labels]
            shown = [[f"{number(c.primary)} {interval(c.interval)}", number(c.recall)] for c in cells]
            rows.append([label(row), *(text for pair in shown for text in pair)])
        note = f"{summary.primary} with its 95 % interval, then {summary.recall}."
        made.append(Section(f"By {name}", header, rows, notes=[note]))
    return made


def cost(summary: Summary) -> Section:
    """What each method took, and why its training ended."""
    header = ["method", "train", "decode", "parameters", "rule", "beam", "items scored", "forward passes"]
    header += ["decoder tokens", "stopped by"]
    rows = []
    for row in summary.rows:
        timings, spend = row.facts["timings"], row.facts["spend"]
        amounts = [spend.get(k) for k in ("items_scored", "forward_passes", "decoder_tokens")]
        rows.append(
            [
                label(row),
                seconds(timings.get("train")),
                seconds(timings.get("decode")),
                f"{row.facts['parameters']:,}",
                str(spend.get("rule", "-")),
                str(spend.get("beam_size", "-")),
                *("-" if amount is None else f"{amount:,.6g}" for amount in amounts),
                ", ".join(row.facts["stopped_by"]) or "-",
            ]
        )
    return Section("Cost", header, rows, notes=["Wall time, mean over seeds; items, passes and tokens per user."])


def absent(summary: Summary) -> Section:
    """Runs that gave no result, with the reason; never hidden."""
    rows = [[a["method"], str(a["seed"]), a["status"], " ".join(a["reason"].split())] for a in summary.absent]
    return Section("Without a result", ["method", "seed", "status", "reason"], rows)


def provenance(summary: Summary) -> list[tuple[str, str]]:
    """(what, value) lines that say where the numbers come from."""
    shared = [("dataset", f"{summary.dataset}, hash {summary.shared['dataset_hash']}")]
    return shared + [(name, value) for name, values in summary.made_by.items() for value in values]


def _notes(summary: Summary) -> list[str]:
    """What the marks of the first table mean, as far as they can occur."""
    notes = ["Best value bold, second best underlined (LaTeX), by the four decimals shown."]
    if summary.has_reference:
        notes.append(
            f"{BETTER} better, {WORSE} worse than {summary.reference} in {summary.primary}: Holm-adjusted p < .05 of "
            "a two-sided sign-flip permutation test over users, and the same sign in every seed."
        )
    if summary.one_target:
        notes.append("Every user has one target, so recall@K is the same as hr@K (hit rate).")
    if any(row.under_trained for row in summary.rows):
        notes.append("under-trained: the training was stopped by its cap, not by the validation score.")
    notes += _tuning_notes(summary.rows)
    largest = max((parse(name)[1] for row in summary.rows for name in row.metrics if _is(name, PER_USER)), default=0)
    limited = [r.method for r in summary.rows if 0 < r.facts["spend"].get("beam_size", 0) <= largest]
    if limited:
        notes.append(f"Decode-limited at K = {largest}, no larger beam was searched: {', '.join(limited)}.")
    return notes


def _tuning_notes(rows: Sequence[Row]) -> list[str]:
    """How hard the values of tuned methods were looked for, and a warning where that was not the same for all."""
    tuned = {row.method: row.facts["trials"] for row in rows if "trials" in row.facts}
    if not tuned:
        return []
    if len(set(tuned.values())) == 1:
        return [f"Tuned on validation with {next(iter(tuned.values()))} trials: {', '.join(tuned)}."]
    each = ", ".join(f"{method} ({trials})" for method, trials in tuned.items())
    return [
        f"Tuned on validation, trials in brackets: {each}.",
        "Warning: the tuned methods had different numbers of trials, so they cannot be compared fairly.",
    ]


def _comparison_notes(summary: Summary) -> list[str]:
    compared = [row.comparison for row in summary.rows if row.comparison is not None]
    if not compared:
        return []
    smallest, largest = (f([one.minimum_detectable for one in compared]) for f in (min, max))
    notes = [
        "Paired over users: bootstrap intervals, Holm within the methods of this table, win/tie/loss in users.",
        f"Minimum detectable effect in {summary.primary} with {summary.users:,} users (80 % power, alpha .05, one "
        f"test): {number(smallest)} to {number(largest)}, depending on the method.",
    ]
    seeds = [f"{c.method} {interval(c.seed_interval, signed)}" for c in compared if c.seed_interval is not None]
    if seeds:
        notes.append(f"95 % t-interval of the difference over seeds: {'; '.join(seeds)}.")
    each = [f"{c.method} {', '.join(map(signed, c.per_seed.values()))}" for c in compared if len(c.per_seed) > 1]
    if each:
        notes.append(f"Difference in each seed: {'; '.join(each)}.")
    exact = [f"{row.method} {p_value(row.mcnemar)}" for row in summary.rows if row.mcnemar is not None]
    if exact:
        notes.append(f"Cross-check, exact McNemar p on {summary.recall}, unadjusted: {'; '.join(exact)}.")
    return notes


def _names(summary: Summary) -> list[str]:
    """Every metric of any row: accuracy first, then by name and K."""
    order = [*PER_USER, *PER_RUN]
    names = {name for row in summary.rows for name in row.metrics}

    def place(name: str) -> tuple[str, int, int]:
        metric, k = parse(name.partition("/")[0])
        return name.partition("/")[2], order.index(metric), k

    return sorted(names, key=place)


def _is(name: str, family: Sequence[str] | dict[str, Callable]) -> bool:
    return "/" not in name and parse(name)[0] in family
