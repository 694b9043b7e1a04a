"""Where a record says what the answers were, its lists, the places of its targets and its scores must agree.

Whether those were the answers only the data can tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmark.metrics import PER_USER as METRICS
from benchmark.metrics import parse
from benchmark.scoring import PER_TARGET, PER_USER, Arrays
from leaderboards.verify.record import TOLERANCE, first, setting_of

FORM = {"users", "items", "rank"}


def against_targets(stored: Arrays, metrics: list[str]) -> list[str]:
    """Sentences about per_target.npz, empty when it agrees with the lists and per_user.npz or is not there."""
    if PER_TARGET not in stored:
        return []
    targets, per_user = stored[PER_TARGET], stored[PER_USER]
    lists = {setting_of(name): content for name, content in stored.items() if name.startswith("ranking")}
    settings = sorted({name.partition("/")[2] for name in targets if "/" in name})
    wrong = _form(targets, per_user["users"], settings)
    for setting in [] if wrong else ["", *settings]:
        end = f"/{setting}" if setting else ""
        asked = targets[f"asked{end}"] if setting else np.ones(len(targets["users"]), bool)
        ranks = targets[f"rank{end}"]
        if lists and setting and setting not in lists:
            wrong.append(f"the lists among {setting} items only are missing")
        if setting in lists:
            wrong += first(_places(targets, asked, ranks, lists[setting], f"rank{end}"))
        wrong += first(_scores(per_user, targets["users"][asked], ranks[asked], metrics, end))
    return wrong


def _form(targets: Mapping[str, np.ndarray], users: np.ndarray, settings: list[str]) -> list[str]:
    names = FORM | {f"{what}/{setting}" for what in ("rank", "asked") for setting in settings}
    kinds = {name: "b" if name.startswith("asked/") else "iu" for name in names}
    shape = (len(targets.get("users", ())),)
    if targets.keys() != names or any(
        targets[n].dtype.kind not in kinds[n] or targets[n].shape != shape for n in names
    ):
        return [f"{PER_TARGET} is not one user, item and rank per target"]
    if not np.array_equal(np.unique(targets["users"]), users) or (np.diff(targets["users"]) < 0).any():
        return [f"{PER_TARGET} is not of the users of {PER_USER}, in their order"]
    pairs = np.unique(np.stack([targets["users"].astype(np.int64), targets["items"].astype(np.int64)]), axis=1)
    return [] if pairs.shape[1] == shape[0] else [f"{PER_TARGET} names a target of a user twice"]


def _places(
    targets: Mapping[str, np.ndarray],
    asked: np.ndarray,
    ranks: np.ndarray,
    lists: Mapping[str, np.ndarray],
    name: str,
) -> list[str]:
    """Ranks that are not where the lists name the targets; 0 where they do not."""
    order = np.argsort(lists["users"])
    rows = order[np.searchsorted(lists["users"], targets["users"][asked], sorter=order).clip(max=len(order) - 1)]
    hits = lists["items"][rows] == targets["items"][asked][:, None]  # (T, K)
    hits &= (lists["users"][rows] == targets["users"][asked])[:, None]
    places = np.zeros(len(asked), np.int64)
    places[asked] = np.where(hits.any(1), hits.argmax(1) + 1, 0)
    return [
        f"{name} of user {targets['users'][row]} is {ranks[row]} in {PER_TARGET} but {places[row]} in the list"
        for row in np.flatnonzero(places != ranks)
    ]


def _scores(
    per_user: Mapping[str, np.ndarray], users: np.ndarray, ranks: np.ndarray, metrics: list[str], end: str
) -> list[str]:
    """Scores that the ranks (T,) of the targets of ``users`` (T,) do not earn."""
    asked, rows, counts = np.unique(users, return_inverse=True, return_counts=True)
    at = np.searchsorted(per_user["users"], asked)
    hits = np.zeros((len(asked), max(parse(metric)[1] for metric in metrics)), bool)
    named = (ranks > 0) & (ranks <= hits.shape[1])
    hits[rows[named], ranks[named].astype(np.int64) - 1] = True
    wrong = []
    for metric in metrics:
        name, k = parse(metric)
        earned = np.full(len(per_user["users"]), 0.0 if not end else np.nan)
        earned[at] = METRICS[name](hits, counts, k)
        said = per_user.get(f"{metric}{end}", np.full(len(earned), np.nan))
        far = np.flatnonzero(~np.isclose(said, earned, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
        wrong += [
            f"{metric}{end} of user {per_user['users'][row]} is {said[row].item()!r} in {PER_USER} but "
            f"{earned[row].item()!r} by its ranks in {PER_TARGET}"
            for row in far[:1]
        ]
    return wrong
