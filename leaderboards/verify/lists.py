"""The lists of one record: scored anew with the data, and what they show without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.evaluate import check
from benchmark.metrics import coverage, entropy, parse
from benchmark.protocol import Protocol
from benchmark.records import Record
from benchmark.scoring import PER_USER, Arrays, rescore
from benchmark.types import PAD, Cases, Ranking, Sequences, Spend, Split
from leaderboards.foreign import is_foreign
from leaderboards.verify.record import TOLERANCE, against_data, against_lists, first
from leaderboards.verify.targets import against_targets
from leaderboards.verify.together import asked
from leaderboards.verify.verdicts import Notes

NO_LISTS = "not re-scored: the lists of this seed are not here, only its per-user scores"
MISSING = "the lists of the test are missing: record.json names no ranking.npz"
NO_SPEND = "spend: not stated"
MOST_ITEMS = 10**7
"""No item is above it where facts tell how many items may be named, but not the largest id."""
Lists = dict[str, dict[str, np.ndarray]]
"""Setting, "" = the test itself -> the arrays of its lists."""


def without_lists(record: Record, stored: Arrays, split: Split | None, protocol: Protocol, notes: Notes) -> None:
    """Published runs keep their lists for one seed; seed 0 must have them. The rest is held to the data, if any."""
    if record.seed == 0:
        notes.reasons.append("the lists are missing: record.json names no ranking.npz, which a run of seed 0 keeps")
    notes.not_checked.append(NO_LISTS)
    notes.hold("ranks of targets", first(against_targets(stored, protocol.rules["metrics"])))
    _check_spend(record, protocol, notes)
    if split is not None:
        length = protocol.rules["list_length"]
        again = {n: one.questions.cases.users for n, one in split.settings.items() if one.candidates is not None}
        lists = {name: _empty(users, length, record, notes) for name, users in again.items()}
        everybody = _empty(split.test.cases.users, length, record, notes)
        fields, arrays = rescore(everybody, lists, split, protocol.rules, split.train.n_items)
        wrong, _ = against_data(record, asked(stored), fields, asked(arrays))
        notes.hold("users, slices, targets and facts by the data", wrong)


def _check_spend(record: Record, protocol: Protocol, notes: Notes) -> None:
    """Raises ValueError when the record tells no spend, or one above the budget."""
    nobody = _empty(np.zeros(0, np.int32), protocol.rules["list_length"], record, notes)
    nothing = Sequences.from_rows([])
    cases = Cases(nobody.users, nothing, nothing, np.zeros(0, np.int64))
    check(nobody, cases, 0, protocol.rules["list_length"], protocol.budget)


def _empty(users: np.ndarray, length: int, record: Record, notes: Notes) -> Ranking:
    """Lists without an item, at the price that the record tells."""
    items = np.full((len(users), length), PAD)
    return _ranking(record, {"users": users, "items": items, "scores": np.full(items.shape, -np.inf)}, notes)


def rescored(record: Record, stored: Arrays, lists: Lists, split: Split, protocol: Protocol, notes: Notes) -> None:
    """Every number of the record from its lists and the data."""
    again = {name: _ranking(record, content, notes) for name, content in lists.items()}
    notes.checked.append("every user's list: asked once, known items, none twice, order, candidates, spend in budget")
    if "" not in again:
        notes.reasons.append(MISSING)
        return
    fields, arrays = rescore(again.pop(""), again, split, protocol.rules, split.train.n_items)
    wrong, exact = against_data(record, stored, fields, arrays)
    how = "to the bit" if exact else f"within {TOLERANCE:g}"
    notes.hold(f"per-user scores from the lists, {how}", wrong + against_lists(record, fields["metrics"]))


def by_themselves(record: Record, stored: Arrays, lists: Lists, protocol: Protocol, notes: Notes) -> None:
    """What lists show without the data: users, distinct items, order, spend, coverage, ranks of known targets."""
    per_user, facts, wrong = stored[PER_USER], record.fields["facts"], []
    largest = max(int(content["items"].max(initial=PAD)) for content in lists.values())
    n_items = min(largest if "candidates" in facts else facts["items"], MOST_ITEMS)
    wrong += [] if "" in lists else [MISSING]
    for name, content in lists.items():
        users = per_user["users"]
        if name:
            scores = per_user.get(f"{protocol.rules['primary']}/{name}")
            if scores is None:
                wrong.append(f"the lists among {name} items only were not asked for")
                continue
            users = users[~np.isnan(scores)]
        ranking, nothing = _ranking(record, content, notes), Sequences.from_rows([])
        cases = Cases(users, nothing, nothing, np.zeros(0, np.int64))
        try:
            check(ranking, cases, n_items, protocol.rules["list_length"], protocol.budget)
            wrong += [] if name else _beyond_accuracy(record, ranking, protocol)
        except ValueError as error:
            wrong.append(f"among {name} items only, {error}" if name else str(error))
    notes.hold("form of the lists, coverage and item entropy", first(wrong))
    notes.hold("ranks of targets", first(against_targets(stored, protocol.rules["metrics"])))


def _beyond_accuracy(record: Record, ranking: Ranking, protocol: Protocol) -> list[str]:
    """Coverage and entropy of all lists, as far as they need no categories."""
    n_candidates = record.fields["facts"].get("candidates", record.fields["facts"]["items"])
    earned = {}
    for metric in protocol.rules["beyond_accuracy"]:
        name, k = parse(metric)
        if name == "coverage":
            earned[metric] = coverage(ranking.items, n_candidates, k)
        elif name == "item_entropy":
            earned[metric] = entropy(ranking.items, k)
    return against_lists(record, earned)


def _ranking(record: Record, content: dict[str, np.ndarray], notes: Notes) -> Ranking:
    """Lists as stored, ids widened again; half-precision scores are scores like others."""
    items = content["items"]
    items = items.astype(np.int64) if items.dtype.kind in "iu" else items
    spend: Any = record.fields["spend"]
    if spend is None and is_foreign(record.method):
        if NO_SPEND not in notes.not_checked:
            notes.not_checked.append(NO_SPEND)
        spend = {"rule": "scores", "items_scored": 0.0}
    return Ranking(content["users"], items, content["scores"], None if spend is None else Spend(**spend))  # type: ignore[arg-type]
