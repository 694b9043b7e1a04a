"""One job: dataset x protocol x method x seed -> one record. The data path of the suite is `score`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import records
from benchmark.evaluate import evaluate, evaluate_setting, target_ranks
from benchmark.files import content_hash, sha256_of
from benchmark.method import Entrant, Estimate, Method, build_config, config_dict, replace_nested
from benchmark.progress import duration
from benchmark.protocol import Protocol
from benchmark.provenance import now, provenance
from benchmark.run import Run
from benchmark.space import nested
from benchmark.types import Dataset, Ranking, Setting, Slice, Split

START_SECONDS = 5.0
"""Importing libraries and reading the data, per job."""
LIMIT_SEED = 20_240_101
"""Draws the users of ``--limit-users``, the same for every method."""


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
    **rest: Any,
) -> list[Planned]:
    """Every dataset x seed x method as a job, after printing the size of each dataset and the text encoder.

    Every name is looked up here, so an unknown one or a missing file ends the command before anything has run.
    ``text_encoder`` None = the one that profile, track and method ask for.
    """
    entrants = {spec: loaders.method(spec) for spec in specs}
    encoders = {s: _encoder_of(e.cls, text_encoder, profile, track, loaders) for s, e in entrants.items()}
    identity = {e: None if e is None else loaders.text_encoder(e) for e in set(encoders.values())}
    rest |= {"profile": profile, "track": track, "data_dir": data_dir}
    planned: dict[Path, Planned] = {}
    for name in names:
        data = loaders.dataset(name, data_dir)
        print(f"{data.name}: {data.n_users:,} users, {data.n_items:,} items, {len(data.users):,} interactions")
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


def score(job: Job, loaders: Loaders, run: Run) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Files -> Dataset -> split -> fit -> recommend -> Ranking -> per-user scores: a record's fields and arrays."""
    dataset = loaders.dataset(job.dataset_spec, job.data_dir)
    protocol = loaders.protocol(job.protocol)
    split = limit(protocol.split(dataset), job.limit_users)
    entrant = loaders.method(job.method_spec)
    reason = entrant.cls.unsuited(split.train)
    if reason is not None:
        return base_fields(job, protocol) | {"status": "skipped", "reason": reason}, {}
    method = job.method(entrant, run)
    method.fit(split.train)
    ranking, again = ask(method, split, protocol)
    scores = evaluate(ranking, split.test, split, protocol.rules, dataset.n_items)
    apart: dict[str, np.ndarray] = {}
    for name, setting in split.settings.items():
        answer = again.get(name, ranking)
        apart |= evaluate_setting(answer, name, setting, protocol.rules, dataset.n_items, len(split.test))
    fields = base_fields(job, protocol) | {
        "status": "ok",
        "metrics": scores.metrics | {name: float(np.nanmean(values)) for name, values in apart.items()},
        "slices": {name: dict(by_label) for name, by_label in scores.by_slice.items()},
        "slice_labels": {name: list(s.labels) for name, s in scores.slices.items()},
        "facts": dict(split.facts),
        "training": dict(method.training_report()),
        "parameters": method.parameters(),
        "spend": asdict(ranking.spend),
        "timings": {name: round(seconds, 3) for name, seconds in run.timings.items()},
        "peak_memory_bytes": dict(run.peak_memory),
        "device": run.device,
    }
    if job.text_encoder is not None:  # a hub model's content is known now that it was read
        fields["text_encoder"] = loaders.text_encoder(job.text_encoder)
    labels = {f"slice:{name}": s.codes for name, s in scores.slices.items()}
    arrays = {"per_user.npz": {"users": scores.users, **scores.per_user, **apart, **labels}}
    for name, one in {"": ranking, **again}.items():
        arrays[records.ranking_file(name)] = records.ranking_arrays(one)
    if split.settings:
        arrays["per_target.npz"] = per_target(ranking, again, split)
    return fields, arrays


def ask(method: Method, split: Split, protocol: Protocol) -> tuple[Ranking, dict[str, Ranking]]:
    """The lists of the test, and by name those of every setting with candidates of its own.

    Only the first are timed as ``decode``; what the others took is ``decode of settings``.
    """
    length, budget, timings = protocol.budget.list_length, protocol.budget, method.run.timings
    ranking = method.recommend(split.test.cases, length, candidates=split.candidates, budget=budget)
    decode = timings.pop("decode", 0.0)
    again = {
        name: method.recommend(one.questions.cases, length, candidates=one.candidates, budget=budget)
        for name, one in split.settings.items()
        if one.candidates is not None
    }
    if again:
        timings["decode of settings"] = timings.pop("decode", 0.0)
    timings["decode"] = decode
    return ranking, again


def per_target(ranking: Ranking, again: Mapping[str, Ranking], split: Split) -> dict[str, np.ndarray]:
    """Every target of the test: ``users`` and ``items`` (T,), its ``rank`` in the list, 0 = not named.

    ``rank/<setting>`` is its rank in a list made for that setting, and ``asked/<setting>`` (T,) bool says whether it
    is asked there at all: where not, its rank is 0 too.
    """
    targets = split.test.targets
    users = split.test.cases.users[targets.row_of]
    found = {"users": users, "items": targets.items, "rank": target_ranks(ranking, split.test)}
    for name, one in again.items():
        setting = split.settings[name]
        assert setting.candidates is not None
        asked = np.isin(targets.row_of, setting.rows) & np.isin(targets.items, setting.candidates)
        found[f"asked/{name}"] = asked
        found[f"rank/{name}"] = np.zeros(len(users), np.uint8)
        found[f"rank/{name}"][asked] = target_ranks(one, setting.questions)
    return found


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


def limit(split: Split, n_users: int | None) -> Split:
    """The split with only ``n_users`` test users, a seeded sample that every method shares. None = all of them."""
    if n_users is None or n_users >= len(split.test):
        return split
    drawn = np.random.Generator(np.random.PCG64(LIMIT_SEED)).permutation(len(split.test))[:n_users]
    rows = np.sort(drawn)
    slices = {name: Slice(s.labels, s.codes[rows]) for name, s in split.slices.items()}
    settings = {name: _limited(one, rows) for name, one in split.settings.items()}
    settings = {name: one for name, one in settings.items() if len(one.rows)}
    facts = dict(split.facts) | {"users_asked": n_users}
    return replace(split, test=split.test.take(rows), slices=slices, facts=facts, settings=settings)


def _limited(setting: Setting, rows: np.ndarray) -> Setting:
    """The setting among the test users of ``rows`` (R,), ascending."""
    kept = np.isin(setting.rows, rows)
    return Setting(np.searchsorted(rows, setting.rows[kept]), setting.questions.take(kept), setting.candidates)
