"""What a foreign run says of itself: a small JSON or TOML file, every entry checked before it is believed or stored.

``method``, ``protocol``, ``dataset`` and ``seed`` are needed. Optional: ``protocol_hash`` (refuses another version),
``lists`` (setting -> file beside the run, for protocols that ask again among some items), ``spend`` (rule,
items_scored, forward_passes, beam_size, decoder_tokens), ``config``, ``parameters``, ``notes``, ``track``
(``submitted`` unless it keeps to the choices of ``unified`` or ``paper``) and ``profile`` (``full``).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.names import hint
from benchmark.types import Spend
from leaderboards.form import PROFILES, TRACKS

PREFIX = "submitted:"
"""No room of the house has this name, so no foreign run can be taken for a method of the suite."""
LARGEST = 2**20
"""Bytes of a sidecar."""
LONGEST = 5_000
"""Characters of the notes."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Sidecar:
    """A checked sidecar."""

    method: str
    protocol: str
    dataset: str
    seed: int
    protocol_hash: str | None = None
    lists: Mapping[str, str] = field(default_factory=dict)
    """Setting -> name of a file in the folder of the run."""
    spend: Spend | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    notes: str = ""
    track: str = "submitted"
    profile: str = "full"


def is_foreign(method: str) -> bool:
    """Whether a record's method was imported, not run."""
    return method.startswith(PREFIX)


def sidecar_of(path: Path) -> Path:
    """The sidecar beside a run file. Raises ValueError when there is none, or more than one, or no such file."""
    if not path.is_file():
        raise ValueError(f"there is no run file {str(path)!r}")
    stem = path.name.removesuffix(".gz")
    stems = dict.fromkeys((path.name, stem, stem.rpartition(".")[0] or stem))
    places = [path.with_name(name + ending) for name in stems for ending in (".json", ".toml")]
    found = [place for place in places if place != path and place.is_file()]
    if len(found) != 1:
        names = " and ".join(place.name for place in found) or "none"
        raise ValueError(
            f"{path.name} needs one sidecar beside it, {path.name}.json or {path.name}.toml, that says method, "
            f"protocol, dataset and seed; there is {names}"
        )
    return found[0]


def read_sidecar(path: Path) -> Sidecar:
    """Raises ValueError with one sentence that names the file and the entry."""
    try:
        return _checked(_parsed(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError("the sidecar does not exist")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"a sidecar of more than {LARGEST:,} bytes is none; keep lists in the run file")
    try:
        text = path.read_bytes().decode()
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        json.dumps(said, allow_nan=False)  # dates, NaN and infinity have no place in a record
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not plain JSON or TOML ({error})") from error
    if not isinstance(said, dict):
        raise ValueError("it must hold one object of entries such as method and dataset")
    return said


def _checked(said: dict[str, Any]) -> Sidecar:
    known = [one.name for one in fields(Sidecar)]
    for name in said.keys() - set(known):
        raise ValueError(f"unknown entry {name!r}; {hint(name, known, 'entries')}")
    for name in ("method", "protocol", "dataset", "seed"):
        if name not in said:
            raise ValueError(f"the entry {name!r} is missing")
    for name, kind, what in _KINDS:
        if name in said and (not isinstance(said[name], kind) or isinstance(said[name], bool)):
            raise ValueError(f"{name} must be {what}, not {said[name]!r}")
    for name in ("method", "protocol", "dataset"):
        if not _NAME.fullmatch(said[name]):
            raise ValueError(
                f"{name} {said[name]!r} is no plain name; use up to 64 letters, digits and _ . - (no folder, no ':')"
            )
    for name, most in (("seed", 2**31), ("parameters", 2**63)):
        if not 0 <= said.get(name, 0) < most:
            raise ValueError(f"{name} must be a whole number from 0 to {most - 1}, not {said[name]}")
    for name, allowed in (("track", TRACKS), ("profile", PROFILES)):
        if name in said and said[name] not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {said[name]!r}")
    _check_notes(said.get("notes", ""))
    _check_lists(said.get("lists", {}))
    return Sidecar(**said | ({"spend": _spend(said["spend"])} if "spend" in said else {}))


_TEXT, _WHOLE, _TABLE = (str, "text"), (int, "a whole number"), (dict, "an object")
_KINDS = [
    *((name, *_TEXT) for name in ("method", "protocol", "dataset", "protocol_hash", "notes", "track", "profile")),
    *((name, *_WHOLE) for name in ("seed", "parameters")),
    *((name, *_TABLE) for name in ("lists", "spend", "config")),
]


def _check_notes(notes: str) -> None:
    """Any letters, also those of markup, which stay text; nothing that steers a terminal or turns lines around."""
    odd = next((letter for letter in notes if not letter.isprintable() and letter != "\n"), None)
    if odd is not None:
        raise ValueError(f"notes hold the control character {odd!r}; remove it")
    if len(notes) > LONGEST:
        raise ValueError(f"notes of {len(notes):,} characters are too long; {LONGEST:,} are kept")


def _check_lists(lists: dict[str, Any]) -> None:
    for setting, name in lists.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"lists: {setting!r} must name a file beside the run, without folders, not {name!r}")


def _spend(said: dict[str, Any]) -> Spend:
    known = {one.name: one.type for one in fields(Spend)}
    for name, value in said.items():
        if name not in known:
            raise ValueError(f"unknown entry {name!r} of spend; {hint(name, known, 'entries')}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) if name == "rule" else number):
            raise ValueError(f"{name} of spend must be {'text' if name == 'rule' else 'a number'}, not {value!r}")
    for name in ("rule", "items_scored"):
        if name not in said:
            raise ValueError(f"spend needs {name}")
    return Spend(**said)
