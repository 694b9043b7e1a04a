"""What a fit has left behind, taken apart into values to compare: artifacts, models and reports, but no times."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.files import read_sealed, sha256_of

TIMES = ("second", "minute", "time", "memory")
"""Words in the names of numbers that no two runs share; an array of such a name is part of a model."""


def leaves(value: Any, name: str = "", timed: bool = False) -> Iterator[tuple[str, np.ndarray | str]]:
    """Name and content of every value inside ``value``; JSON in strings is opened, and ``timed`` numbers left out."""
    if isinstance(value, str) and value[:1] == "{":
        with suppress(json.JSONDecodeError):  # a string may begin so without being JSON
            value = json.loads(value)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "U":
        yield from leaves(str(value), name, timed)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{name}/{key}".strip("/"), timed or any(word in str(key) for word in TIMES))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from leaves(one, f"{name}/{place}".strip("/"), timed)
    elif isinstance(value, torch.Tensor):
        yield name, value.detach().cpu().view(torch.uint8 if value.dtype == torch.bfloat16 else value.dtype).numpy()
    elif isinstance(value, np.ndarray):
        yield name, value
    elif not (timed and isinstance(value, int | float)):
        yield name, repr(value)


def digests(value: Any) -> dict[str, str]:
    """Name -> SHA-256 of every leaf."""
    return {name: _digest(leaf) for name, leaf in leaves(value)}


def _digest(leaf: np.ndarray | str) -> str:
    if isinstance(leaf, str):
        return hashlib.sha256(leaf.encode()).hexdigest()
    head = f"{leaf.dtype}{leaf.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(leaf).tobytes()).hexdigest()


def artifacts(folder: Path) -> dict[str, Any]:
    """Relative path -> arrays of every cached artifact (of other files their SHA-256); locks are none."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): _artifact(path) for path in found}


def _artifact(path: Path) -> Any:
    payload = read_sealed(path) if path.suffix == ".npz" else None
    if payload is None:
        return sha256_of(path)
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the values that are not the same in both, or in one only."""
    left, right = digests(one), digests(other)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
