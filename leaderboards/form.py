"""Whether one record has the form that the suite writes: what tables and pages read of it, and its arrays.

Nothing here needs the data. Every check returns sentences, none when all is well.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmark.metrics import PER_RUN
from benchmark.records import Record
from benchmark.scoring import PER_USER, Arrays

TRACKS, PROFILES = ("submitted", "unified", "paper"), ("smoke", "small", "full")
LISTS = {"users", "items", "scores"}
ABOVE_ONE = 1e-9
"""What rounding may add to the best score of a user."""
_ANY = (str, type(None))
_RUN: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "facts", "training", "timings", "peak_memory_bytes"), dict),
    "parameters": int,
    "device": _ANY,
    "reason": _ANY,
    "text_encoder": (dict, type(None)),
}
_MADE: Mapping[str, type | tuple[type, ...]] = {
    "commit": _ANY,
    "dirty": bool,
    "python": str,
    "versions": dict,
    "hardware": dict,
    "finished": str,
}
_FREE = ("reason", "tuning.trials.reason")
"""Words of whatever broke off a run or a trial: a library's own, with its colours."""
_HARDWARE = ("cpu", "cores", "memory_gib", "gpu")


def told(record: Record) -> list[str]:
    """What record.json says beside its numbers: of the kind that tables and pages expect, and harmless to print."""
    fields, wrong = record.fields, []
    for name, allowed in (("track", TRACKS), ("profile", PROFILES)):
        if fields[name] not in allowed:
            wrong.append(f"{name} is {fields[name]!r}, not one of {', '.join(allowed)}")
    wrong += [*_kinds(fields, _RUN, ""), *_kinds(fields["provenance"], _MADE, "provenance.")]
    if not wrong:
        hardware, encoder = fields["provenance"]["hardware"], fields["text_encoder"]
        wrong += [f"provenance.hardware.{name} is missing" for name in _HARDWARE if name not in hardware]
        if encoder is not None and not (isinstance(encoder.get("name"), str) and "sha256" in encoder):
            wrong.append("text_encoder has no name and sha256")
        wrong += _amounts(fields)
        wrong += _training(fields["training"])
    odd = [(place, what) for place, what in oddities(fields, "") if place not in _FREE]
    return wrong + [f"record.json holds {what} in {place}" for place, what in odd]


def _kinds(fields: Any, kinds: Mapping[str, type | tuple[type, ...]], where: str) -> list[str]:
    if not isinstance(fields, dict):
        return [f"{where.rstrip('.')} is {fields!r}, not an object"]
    wrong = [f"{where}{name} is missing from record.json" for name in kinds if name not in fields]
    return wrong + [
        f"{where}{name} is {fields[name]!r:.80}, which is not what a run writes there"
        for name, kind in kinds.items()
        if name in fields and (not isinstance(fields[name], kind) or (kind is int and isinstance(fields[name], bool)))
    ]


def _amounts(fields: Mapping[str, Any]) -> list[str]:
    """Seconds, bytes, counts and parameters are numbers of at least 0."""
    groups = ("timings", "peak_memory_bytes", "facts")
    amounts = {f"{group}.{name}": value for group in groups for name, value in fields[group].items()}
    amounts["parameters"] = fields["parameters"]
    return [f"{name} is {value!r:.80}, not a number of at least 0" for name, value in amounts.items() if not _is(value)]


def _is(value: Any) -> bool:
    """A number of at least 0 that a 64-bit word holds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < 2**63


def _training(training: Mapping[str, Any]) -> list[str]:
    """The curve of a training is what its figure draws."""
    curve = training.get("curve", [])
    points = curve if isinstance(curve, list) else [None]
    if all(isinstance(p, dict) and isinstance(p.get("valid", 0.0), int | float) for p in points):
        return []
    return ["training.curve is not a list of epochs with a number called valid"]


def oddities(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Places below ``place`` of control characters and of numbers that JSON has no word for, and what stands there."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from oddities(name, f"a name below {place or 'its top'}")
            yield from oddities(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from oddities(inner, place)
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, f"the number {value}"
    elif isinstance(value, str):
        odd = next((c for c in value if unicodedata.category(c)[0] == "C" and c not in "\n\t"), None)
        if odd is not None:
            yield place, f"the control character {odd!r}"


def arrays(record: Record, stored: Arrays, rules: Mapping[str, Any], suffix: str) -> list[str]:
    """What the arrays show by themselves: users, the range of scores, who is asked in a setting, parts of slices."""
    wrong = []
    for name, content in stored.items():
        if name.startswith("ranking") and content.keys() != LISTS:
            wrong.append(f"{name} holds {', '.join(sorted(content))}; lists are users, items and scores")
    per_user = stored[PER_USER]
    wrong += _users(per_user, record.fields["facts"].get("users_asked"))
    if wrong:
        return wrong
    wrong += _metrics(record, per_user, rules, suffix)
    for name, codes in per_user.items():
        labels = record.fields["slice_labels"].get(name.removeprefix("slice:"), ())
        if name.startswith("slice:") and not (codes.dtype.kind == "i" and _between(codes, -1, len(labels) - 1)):
            wrong.append(f"{name} in {PER_USER} names parts that slice_labels in record.json has not")
    return wrong + _settings(per_user, record.fields["facts"], suffix)


def _between(values: np.ndarray, low: float, high: float) -> bool:
    return bool(np.nanmin(values) >= low and np.nanmax(values) <= high)


def _users(per_user: Mapping[str, np.ndarray], asked: Any) -> list[str]:
    users = per_user.get("users", np.empty(0))
    if users.ndim != 1 or users.dtype.kind != "i" or not len(users) or users[0] < 1:
        return [f"{PER_USER} does not say whose scores it holds"]
    repeated = np.flatnonzero(np.diff(users) <= 0)
    if len(repeated):
        return [f"{PER_USER} is not of every user once, in order: see user {users[repeated[0] + 1]}"]
    if len(users) != asked:
        return [f"{PER_USER} is of {len(users)} users, facts in record.json say that {asked} were asked"]
    return []


def _metrics(record: Record, per_user: Mapping[str, np.ndarray], rules: Mapping[str, Any], suffix: str) -> list[str]:
    """Every metric of the protocol is there, whatever it shows, and none that the protocol has not."""
    wanted, whole = rules["metrics"], [n for n in record.metrics if n.partition("@")[0] in PER_RUN]
    missing = [n for m in wanted for n in (m, f"{m}/{suffix}") if n not in per_user]
    wrong = [f"{name} is missing from {PER_USER}" for name in missing]
    wrong += [f"the protocol has no metric {name}" for name in whole if name not in rules["beyond_accuracy"]]
    for name, values in per_user.items():
        if name == "users" or name.startswith("slice:"):
            continue
        if name.partition("/")[0] not in wanted:
            wrong.append(f"the protocol has no metric {name}")
        elif values.dtype.kind != "f" or np.isnan(values).all() or not _between(values, 0, 1 + ABOVE_ONE):
            wrong.append(f"{name} in {PER_USER} is not a score from 0 to 1 of every user")
    return wrong


def _settings(per_user: Mapping[str, np.ndarray], facts: Mapping[str, Any], suffix: str) -> list[str]:
    """Only in a setting may a user be without a score, and there without any."""
    wrong: list[str] = []
    asked: dict[str, np.ndarray] = {}
    for name, values in per_user.items():
        if name == "users" or name.startswith("slice:"):
            continue
        setting, without = name.partition("/")[2], np.isnan(values)
        if setting in ("", suffix):
            if without.any():
                wrong.append(f"{name} of user {per_user['users'][without.argmax()]} is missing in {PER_USER}")
        elif not np.array_equal(asked.setdefault(setting, without), without):
            wrong.append(f"{name} in {PER_USER} is of other users than the other metrics of {setting}")
    for setting, without in asked.items():
        said = facts.get(f"users_asked_{setting}", int((~without).sum()))
        if said != (~without).sum():
            wrong.append(f"{setting} is asked of {(~without).sum()} users in {PER_USER}, of {said} by facts")
    return wrong
