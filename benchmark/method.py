"""The contract every method keeps: a frozen Config, ``fit`` and ``recommend``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from benchmark.names import hint
from benchmark.run import Run
from benchmark.space import Choices, values_at
from benchmark.types import Budget, Cases, Ranking, TrainingView

UNIFIED = "unified"
"""The track that every method has and that is ranked: one encoder, one ID layout, one selection rule."""


@dataclass(frozen=True)
class Entrant:
    """A method as named on the command line: ``room[:argument][@preset]`` or an external file."""

    name: str
    cls: type[Method]
    argument: str | None = None
    preset: str | None = None
    source: str | None = None
    """Path of an external file; its content is part of the run's identity."""


@dataclass(frozen=True)
class Estimate:
    """A guess, made before the run, of what one job needs on this machine."""

    seconds: float
    memory_bytes: float


class Method(ABC):
    """Base of every entrant. A file ends with ``METHOD = TheClass``; its module name is its command-line name.

    ``config`` describes the model, ``run`` the circumstances (seed, device, deadline, progress). Learned state is
    set in ``fit`` only, and a second ``fit`` forgets the first.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters; the defaults are the unified track at full size."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """``room@preset`` -> Config overrides; each preset is one sentence in the room's docstring."""
    profiles: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """``smoke`` and ``small`` -> Config overrides. A profile changes size and training length only."""
    tracks: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """``paper`` -> Config overrides: the paper's own choices at full size, of which a profile still takes the size.
    Every method has ``unified``."""
    reads_text: ClassVar[bool] = False
    """Whether item texts are read through ``run.text_encoder``; the encoder is then part of the run's identity."""
    paper_text_encoder: ClassVar[str] = ""
    """The paper's own encoder, for track ``paper``; empty = the unified track's."""
    saves: ClassVar[bool] = False
    """Whether fitted models are kept, by ``save`` and ``load``, for audits that ask them again."""
    arguments: ClassVar[tuple[str, ...]] = ()
    """What may follow ``room:``; empty when the room takes no argument."""
    wraps: ClassVar[type[Method] | None] = None
    """What a wrapper needs of the method it builds on, whose name follows ``room:``; ``around`` makes its class."""
    variants: ClassVar[Mapping[str, type[Method]]] = {}
    """Arguments that name a class of their own, with its own Config, presets, profiles and tracks."""
    search: ClassVar[Mapping[str, Choices]] = {}
    """What ``tune`` may choose: path in the Config (``training.learning_rate``) -> OneOf, Range or LogRange of
    ``benchmark.space``. Size, optimiser and regularisation belong here; what the method is does not. Empty = the method
    cannot be tuned."""
    search_profiles: ClassVar[Mapping[str, Mapping[str, Choices]]] = {}
    """``smoke`` and ``small`` -> choices that take the place of those in ``search``, path by path."""
    lineup: ClassVar[tuple[str, ...]] = ("",)
    """Suffixes of the variants that run when no method is named, e.g. ``("", "@sampled")``."""

    def __init__(self, config: Any = None, *, argument: str | None = None, run: Run | None = None):
        self.config = self.Config() if config is None else config
        self.argument = argument
        self.run = Run() if run is None else run

    @abstractmethod
    def fit(self, view: TrainingView) -> Self:
        """Learn from training sequences and item texts; ``view.valid`` may choose a checkpoint, nothing more."""

    @abstractmethod
    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        """The ``k`` best items for every case, in the order of ``cases``.

        ``candidates`` (C,) restricts the ranking to these item ids; ``budget`` bounds the search. Ties go to the
        item with the lower ``cases.tie_order``. When fewer than ``k`` items can be named, PAD fills the end.
        """

    @classmethod
    def around(cls, base: type[Method]) -> type[Method]:
        """The class of a wrapper around ``base``, a subclass of ``wraps``, with its own Config and profiles."""
        raise NotImplementedError

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        """Why this method cannot run on these data (a skipped row with this reason), or None."""
        return None

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate | None:
        """Expected cost of one job on one CPU core, or None when nobody knows."""
        return None

    def save(self, path: Path) -> None:
        """Write all that ``recommend`` needs as one file; only asked of methods with ``saves``."""
        raise NotImplementedError

    def load(self, path: Path, view: TrainingView) -> Self:
        """Become what was saved, as if fitted to ``view``. Raises ValueError for a damaged file."""
        raise NotImplementedError

    def parameters(self) -> int:
        """Trainable parameters of the fitted model; 0 for a method that only counts."""
        return 0

    def training_report(self) -> Mapping[str, Any]:
        """Facts about the training for the record: ``stopped_by``, ``best_epoch``, ``curve``; empty when untrained."""
        return {}


def build_config(cls: type[Method], preset: str | None, profile: str, track: str = UNIFIED) -> Any:
    """The room's Config under a track, then a profile, then a preset: the later one wins, field by field.

    Raises ValueError for a track that the method lacks, and naming the presets there are for an unknown one.
    """
    if track != UNIFIED and track not in cls.tracks:
        raise ValueError(
            f"{cls.__name__} has no settings for track {track}; leave --track out or choose another method"
        )
    layers = [cls.tracks.get(track, {}), cls.profiles.get(profile, {})]
    if preset is not None:
        if preset not in cls.presets:
            raise ValueError(f"unknown preset '@{preset}'; {hint(preset, cls.presets, 'presets', prefix='@')}")
        layers.append(cls.presets[preset])
    return reduce(replace_nested, layers, cls.Config())


def search_space(cls: type[Method], profile: str) -> dict[str, Choices]:
    """What may be tuned at a profile, in the order of the paths. Raises ValueError for a path the Config lacks."""
    merged = {**cls.search, **cls.search_profiles.get(profile, {})}
    wrong = [path for path, choices in merged.items() if not isinstance(choices, Choices)]
    if wrong:
        raise ValueError(f"the search space of {cls.__name__} gives '{wrong[0]}' no OneOf, Range or LogRange")
    values_at(cls.Config(), merged)
    return dict(sorted(merged.items()))


def replace_nested(config: Any, overrides: Mapping[str, Any]) -> Any:
    """A copy of a (nested) frozen Config with fields replaced; a mapping value overrides inside a nested Config."""
    known = {f.name for f in fields(config)}
    unknown = set(overrides) - known
    if unknown:
        raise ValueError(f"{type(config).__qualname__} has no field {sorted(unknown)}; fields: {sorted(known)}")
    values = {name: getattr(config, name) for name in known}
    for name, value in overrides.items():
        values[name] = replace_nested(values[name], value) if isinstance(value, Mapping) else value
    return type(config)(**values)


def later(default: Any) -> Any:
    """A Config field that came after results were published, e.g. ``sharpness: float = later(1.0)``.

    While it has its default it is left out of a run's identity, so the results from before it stay valid. The
    default therefore never changes.
    """
    return field(default=default, metadata={LATER: True})


LATER = "later"


def config_dict(config: Any) -> dict[str, Any]:
    """The (nested) Config as plain JSON values, for the record and its hash; see ``later`` for what is left out."""
    values = {f.name: getattr(config, f.name) for f in fields(config) if not _is_unset(f, config)}
    return {name: config_dict(value) if is_dataclass(value) else value for name, value in values.items()}


def _is_unset(spec: Field[Any], config: Any) -> bool:
    return LATER in spec.metadata and getattr(config, spec.name) == spec.default
