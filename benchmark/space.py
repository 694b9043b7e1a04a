"""What tuning may choose: the possible values of a hyper-parameter, declared beside the Config.

A setting is named by its path in the Config (``training.learning_rate``); values travel as ``{path: value}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

TUNED = "tuned"
"""The preset that tuning adds to a method's name; no room may have one of this name."""


@dataclass(frozen=True)
class OneOf:
    """One of a few values, of any kind; their order says nothing to the search."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or any(value in self.values[:place] for place, value in enumerate(self.values)):
            raise ValueError(f"OneOf needs at least two different values, not {self.values!r}")

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def describe(self) -> dict[str, Any]:
        """As plain JSON, for the identity of a study."""
        return {"one of": [list(value) if isinstance(value, tuple) else value for value in self.values]}


@dataclass(frozen=True)
class Range:
    """Any number from ``low`` to ``high``, both included; whole numbers when both ends are."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{type(self).__name__} needs two finite ends, the lower one first, not {self}")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: Any) -> bool:
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def describe(self) -> dict[str, Any]:
        """As plain JSON, for the identity of a study."""
        return {"from": self.low, "to": self.high}


@dataclass(frozen=True)
class LogRange(Range):
    """As Range, but every doubling is equally likely: for learning rates and sizes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"LogRange needs ends above 0, not {self}")

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"scale": "log"}


Choices = OneOf | Range


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1, "a.c": 2}`` -> ``{"a": {"b": 1, "c": 2}}``."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        reduce(lambda branch, parent: branch.setdefault(parent, {}), parents, tree)[name] = value
    return tree


def values_at(config: Any, space: Mapping[str, Choices]) -> dict[str, Any]:
    """What ``config`` has at the paths of ``space``. Raises ValueError naming a path that it lacks."""
    try:
        return {path: reduce(getattr, path.split("."), config) for path in space}
    except AttributeError as error:
        raise ValueError(f"the search space names a field that the Config lacks: {error}") from error


def inside(values: Mapping[str, Any], space: Mapping[str, Choices]) -> bool:
    """Whether every value is one that the space allows."""
    return values.keys() == space.keys() and all(values[path] in choices for path, choices in space.items())


def n_settings(space: Mapping[str, Choices]) -> int | None:
    """How many different settings there are; None = more than can be counted."""
    sizes = [_size(choices) for choices in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def settings(space: Mapping[str, Choices]) -> Iterator[dict[str, Any]]:
    """Every setting of a countable space."""
    for values in product(*(_members(choices) for choices in space.values())):
        yield dict(zip(space, values, strict=True))


def _size(choices: Choices) -> int | None:
    if isinstance(choices, OneOf):
        return len(choices.values)
    return int(choices.high) - int(choices.low) + 1 if choices.whole else None


def _members(choices: Choices) -> tuple[Any, ...] | range:
    return choices.values if isinstance(choices, OneOf) else range(int(choices.low), int(choices.high) + 1)


def tuned_name(method: str) -> str:
    """``sasrec`` -> ``sasrec@tuned``, ``sasrec@bce`` -> ``sasrec@bce-tuned``."""
    return f"{method}-{TUNED}" if "@" in method else f"{method}@{TUNED}"


def is_tuned(preset: str) -> bool:
    """Whether a preset's name is one that only tuning gives."""
    return preset == TUNED or preset.endswith(f"-{TUNED}")
