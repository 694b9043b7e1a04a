"""Records -> everything that goes beyond one table: several datasets together, and two protocols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.records import Record
from leaderboards.across.groups import PERMUTATIONS, Group, groups, places, summaries_of
from leaderboards.across.protocols import Beside, beside, pairs_of_places
from leaderboards.summary import Summary


@dataclass(frozen=True)
class Across:
    """Both views, and what they leave out."""

    groups: list[Group]
    beside: list[Beside]
    left_out: list[str]


def across(
    records: Sequence[Record],
    summaries: Mapping[str, Mapping[str, Summary]] | None = None,
    permutations: int = PERMUTATIONS,
) -> Across:
    """What finished runs say across datasets and protocols.

    ``summaries`` (place -> dataset -> summary) saves making them again where the tables have just been made. Raises
    ValueError where one table could not be made of the records (see ``summary.summarise``).
    """
    found = places(records)
    tables = summaries_of(found, permutations) if summaries is None else summaries
    together = [one for place in found for one in groups(place, found[place], tables[place], permutations)]
    pages = [beside(a, b, found, tables, permutations) for a, b in pairs_of_places(list(found))]
    return Across(together, [page for page in pages if page is not None], _left_out(records))


def _left_out(records: Sequence[Record]) -> list[str]:
    """Runs that are never set beside others, each with its reason."""
    told = []
    for record in sorted(records, key=lambda r: (r.protocol["name"], r.dataset, r.method, r.seed)):
        run = f"{record.method} (seed {record.seed}) on {record.dataset}, {record.protocol['name']}"
        if record.fields["limit_users"]:
            told.append(f"{run}: limited to {record.fields['limit_users']:,} users")
        elif record.status != "ok":
            told.append(f"{run}: {record.status}, {record.fields['reason'] or 'no reason recorded'}")
    return told
