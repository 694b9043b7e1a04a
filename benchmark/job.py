"""One job: dataset x protocol x method x seed. What decides its numbers, where it lies, what it is expected to cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import records
from benchmark.files import content_hash, sha256_of
from benchmark.method import Entrant, Estimate, Method, build_config, config_dict, replace_nested
from benchmark.progress import duration
from benchmark.protocol import Protocol
from benchmark.provenance import now, provenance
from benchmark.run import Run
from benchmark.space import nested
from benchmark.types import Dataset

START_SECONDS = 5.0
"""Importing libraries and reading the data, per job."""


@dataclass(frozen=True)
class Loaders:
    """How names become things. Passed in from outside, so that the machinery names no method."""

    dataset: Callable[[str, str | None], Dataset]
    protocol: Callable[[str], Protocol]
    method: Callable[[str], Entrant]
    text_encoder: Callable[[str], Mapping[str, str | None]]
    """A text encoder as the user names it -> its ``name`` and ``sha256`` (None = nothing to hash, or a hub
    model that is not on this disk), without loading it."""
    usual_encoder: Callable[[str], str]
    """Profile -> the text encoder of the unified track, when the user names none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides one run. ``identity`` is the part that decides its numbers."""

    protocol: str
    protocol_hash: str
    dataset_spec: str
    """As given on the command line: a name or a path."""
    dataset_name: str
    dataset_hash: str
    method_spec: str
    """As given on the command line: a name or a path."""
    method_name: str
    seed: int
    profile: str
    track: str
    config: Mapping[str, Any]
    method_source: str | None
    output_dir: Path
    data_dir: str | None = None
    language_models: Path | None = None
    """Folder that is searched for pre-trained language models before the hub."""
    limit_users: int | None = None
    text_encoder: str | None = None
    """As given on the command line, a name or a path; None = the method reads no text."""
    text_encoder_identity: Mapping[str, str | None] | None = None
    """``name`` and ``sha256`` (None where there is nothing to hash) of the encoder, wherever it lies."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """``{"training.learning_rate": 3e-3}``: laid over the Config last of all, and part of ``config``."""
    asked: str = "test"
    """``test``, or ``valid`` for a trial of tuning, which never sees the test."""
    tuning: Mapping[str, Any] | None = None
    """How ``overrides`` were found, for the record."""

    @property
    def config_hash(self) -> str:
        identity: dict[str, Any] = {
            "method": self.method_name,
            "config": self.config,
            "track": self.track,
            "profile": self.profile,
            "dataset": self.dataset_hash,
            "protocol": self.protocol_hash,
            "limit_users": self.limit_users,
            "source": self.method_source,
        }
        if self.text_encoder_identity is not None:  # no key at all for the others, whose hashes are published
            identity["text_encoder"] = records.encoder_key(self.text_encoder_identity)
        if self.asked != "test":
            identity["asked"] = self.asked
        return content_hash(identity, 10)

    @property
    def folder(self) -> Path:
        return self._below(self.output_dir if self.asked == "test" else tuning_dir(self.output_dir))

    @property
    def work_dir(self) -> Path:
        """Checkpoints and log of the unfinished job; gone once its record is written."""
        return self._below(self.output_dir / ".work")

    @property
    def model_path(self) -> Path:
        """The fitted model, of methods that save it."""
        return self._below(self.output_dir / ".models") / "model.ckpt"

    def _below(self, root: Path) -> Path:
        return records.folder_of(root, self.protocol, self.dataset_name, self.method_name, self.config_hash, self.seed)

    def __str__(self) -> str:
        trial = "" if self.asked == "test" else ", validation only"
        return f"{self.dataset_name} {self.method_name} seed {self.seed}{trial}"

    def method(self, entrant: Entrant, run: Run) -> Method:
        """The method of this job, unfitted."""
        config = configured(entrant, self.profile, self.track, self.overrides)
        return entrant.cls(config, argument=entrant.argument, run=run)


@dataclass(frozen=True)
class Planned:
    """A job and what it is expected to cost; None = nobody knows."""

    job: Job
    estimate: Estimate | None

    @property
    def seconds(self) -> float:
        """Expected seconds with the start of the process; an unknown job counts for half a minute."""
        return START_SECONDS + (30.0 if self.estimate is None else self.estimate.seconds)

    def __str__(self) -> str:
        if self.estimate is None:
            return f"{self.job!s:55} no estimate"
        return f"{self.job!s:55} ~{duration(self.seconds)}, {self.estimate.memory_bytes / 2**30:.1f} GiB"


def tuning_dir(output_dir: Path) -> Path:
    """Where trials and their logs lie; no table is made from what is in there."""
    return output_dir / ".tuning"


def configured(entrant: Entrant, profile: str, track: str, overrides: Mapping[str, Any] | None = None) -> Any:
    """The Config an entrant runs with. Raises ValueError for an unknown preset, track or field."""
    return replace_nested(build_config(entrant.cls, entrant.preset, profile, track), nested(overrides or {}))


def plan(
    dataset: Dataset, protocol: Protocol, entrant: Entrant, seed: int, *, profile: str, track: str, **rest: Any
) -> Planned:
    """The job that runs ``entrant`` on ``dataset``. Raises ValueError for an unknown preset or track."""
    config = configured(entrant, profile, track)
    job = Job(
        protocol=protocol.name,
        dataset_name=dataset.name,
        dataset_hash=dataset.sha256,
        protocol_hash=protocol.hash,
        method_name=entrant.name,
        method_source=None if entrant.source is None else sha256_of(Path(entrant.source)),
        seed=seed,
        profile=profile,
        track=track,
        config=config_dict(config),
        **rest,
    )
    return Planned(job, entrant.cls.estimate(config, dataset.n_users, dataset.n_items, len(dataset.users)))


def plan_grid(
    names: Sequence[str],
    specs: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol,
    loaders: Loaders,
    *,
    profile: str,
    track: str,
    text_encoder: str | None = None,
    data_dir: str | None = None,
    language_models: Path | None = None,
    **rest: Any,
) -> list[Planned]:
    """Every dataset x seed x method as a job, after printing the size of each dataset and the text encoder.

    Every name is looked up here, so an unknown one or a missing file ends the command before anything has run.
    ``text_encoder`` None = the one that profile, track and method ask for.
    """
    if language_models is not None and not language_models.is_dir():
        raise ValueError(
            f"there is no folder {language_models}, which --language-models or $GENREC_LANGUAGE_MODELS names; name the "
            "one that holds the language models' own folders"
        )
    entrants = {spec: loaders.method(spec) for spec in specs}
    encoders = {s: _encoder_of(e.cls, text_encoder, profile, track, loaders) for s, e in entrants.items()}
    identity = {e: None if e is None else loaders.text_encoder(e) for e in set(encoders.values())}
    rest |= {"profile": profile, "track": track, "data_dir": data_dir, "language_models": language_models}
    planned: dict[Path, Planned] = {}
    for name in names:
        data = loaders.dataset(name, data_dir)
        facts = protocol.split(data).facts  # refuses here, before any job has started
        print(f"{data.name}: " + ", ".join(f"{count:,} {fact.replace('_', ' ')}" for fact, count in facts.items()))
        for seed in seeds:
            for spec, entrant in entrants.items():
                encoder = encoders[spec]
                read = {"text_encoder": encoder, "text_encoder_identity": identity[encoder]}
                one = plan(data, protocol, entrant, seed, dataset_spec=name, method_spec=spec, **rest | read)
                planned[one.job.folder] = one  # the same thing named twice is run once
    jobs = [one.job for one in planned.values()]
    _refuse_clashes(jobs)
    for label in sorted(
        {records.encoder_label(job.text_encoder_identity) for job in jobs if job.text_encoder_identity}
    ):
        print(f"text encoder: {label}")
    return list(planned.values())


def _encoder_of(cls: type[Method], wanted: str | None, profile: str, track: str, loaders: Loaders) -> str | None:
    """What the user wants, else the paper's own on the paper track (but never at the smoke profile), else the usual."""
    if not cls.reads_text:
        return None
    own = cls.paper_text_encoder if track == "paper" and profile != "smoke" else ""
    return wanted or own or loaders.usual_encoder(profile)


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    """Two datasets, or two method files, of one name could not be told apart in a table. Raises ValueError."""
    for what, name, spec, content in (
        ("datasets", "dataset_name", "dataset_spec", "dataset_hash"),
        ("methods", "method_name", "method_spec", "method_source"),
    ):
        known: dict[str, Job] = {}
        for job in jobs:
            first = known.setdefault(getattr(job, name), job)
            if getattr(first, content) != getattr(job, content):
                both = f"{getattr(first, spec)} and {getattr(job, spec)}"
                raise ValueError(f"{both} are two {what} called {getattr(job, name)}; rename one of them")


def base_fields(job: Job, protocol: Protocol) -> dict[str, Any]:
    """What every record says, finished or not."""
    fields = {
        "status": "failed",
        "reason": None,
        "method": job.method_name,
        "dataset": job.dataset_name,
        "dataset_hash": job.dataset_hash,
        "seed": job.seed,
        "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        "track": job.track,
        "profile": job.profile,
        "config": job.config,
        "config_hash": job.config_hash,
        "method_source": job.method_source,
        "text_encoder": job.text_encoder_identity,
        "limit_users": job.limit_users,
        "metrics": {},
        "slices": {},
        "slice_labels": {},
        "facts": {},
        "training": {},
        "parameters": 0,
        "spend": None,
        "timings": {},
        "peak_memory_bytes": {},
        "device": None,
        "provenance": {**provenance(), "finished": now()},
    }
    return fields if job.tuning is None else fields | {"tuning": job.tuning}
