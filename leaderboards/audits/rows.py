"""What tables, findings and pictures of audits share; and what SimGR reports of the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.records import Record
from leaderboards.compare import bootstrap_interval

SIMGR = {10: (0.7572, 0.0754, 8570), 20: (0.7824, 0.0784, 10760), 30: (0.8796, 0.0791, 12630)} | {
    50: (0.9032, 0.0795, 15840),
    100: (1.0, 0.0808, 25560),
}
"""SimGR (paper), Table 1: beam -> overlap@5 with beam 100, ndcg@10, seconds for all users. LC-Rec, Instruments."""
EQUATION_15 = 0.6595
"""SimGR (paper), section 4.1: the union bound of LC-Rec's targets on Instruments, beam 20."""


def by_rule(group: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """The audits of each decoding rule, in the order of the group."""
    for rule in dict.fromkeys(record.fields["audit"]["settings"]["rule"] for record in group):
        yield rule, [record for record in group if record.fields["audit"]["settings"]["rule"] == rule]


def name_of(record: Record, group: Sequence[Record]) -> str:
    """The method, with its seed where the group has several."""
    return record.method + (f" seed {record.seed}" if len({one.seed for one in group}) > 1 else "")


def decoders(record: Record) -> list[dict[str, Any]]:
    """Every decoder's row; those that search have a ``beam_size``, and the exact one is last.

    A method that scores all items in one pass has one row, which is exact by construction.
    """
    return record.fields["audit"]["decoders"]


def beams(record: Record) -> list[dict[str, Any]]:
    return [row for row in decoders(record) if row["beam_size"] is not None]


def generators(some: Sequence[Record]) -> list[Record]:
    """Those with a beam search."""
    return [record for record in some if beams(record)]


def one_pass(some: Sequence[Record]) -> list[Record]:
    """Those that score all items."""
    return [record for record in some if not beams(record)]


def versus_exact(record: Record, metric: str = "ndcg@10") -> list[tuple[float, float, float]]:
    """For every beam: its metric minus the exact one's, and the 95 % paired bootstrap interval over users."""
    values = record.per_user()[metric]  # (U, D + 1)
    differences = values[:, :-1] - values[:, -1:]
    if not differences.shape[1]:  # there is nothing but the exact decoder
        return []
    low, high = bootstrap_interval(differences)
    return list(zip(differences.mean(0).tolist(), low.tolist(), high.tolist(), strict=True))


def log_scale(set_scale: Any, axis: Any, steps: Sequence[int] = (1, 2, 5)) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5, 10, ... or at other ``steps`` of a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
