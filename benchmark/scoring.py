"""The data path of the suite: files -> Dataset -> split -> fit -> recommend -> Ranking -> scores, for one job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmark import records
from benchmark.evaluate import evaluate, evaluate_setting, target_ranks
from benchmark.job import Job, Loaders, base_fields
from benchmark.method import Method
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.types import Ranking, Setting, Slice, Split

Arrays = dict[str, dict[str, np.ndarray]]
"""File name -> its arrays."""
PER_USER, PER_TARGET = "per_user.npz", "per_target.npz"
LIMIT_SEED = 20_240_101
"""Draws the users of ``--limit-users``, the same for every method."""
COUNTED_IN_TEST = ("users_asked", "head_users", "warm_targets", "cold_targets")
"""How facts begin that a sample of the test users changes."""


def score(job: Job, loaders: Loaders, run: Run) -> tuple[dict[str, Any], Arrays]:
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
    if method.saves:
        method.save(job.model_path)
    ranking, again = ask(method, split, protocol)
    earned, arrays = rescore(ranking, again, split, protocol.rules, dataset.n_items)
    fields = base_fields(job, protocol) | {
        "status": "ok",
        **earned,
        "training": dict(method.training_report()),
        "parameters": method.parameters(),
        "spend": asdict(ranking.spend),
        "timings": {name: round(seconds, 3) for name, seconds in run.timings.items()},
        "peak_memory_bytes": dict(run.peak_memory),
        "device": run.device,
    }
    if job.text_encoder is not None:  # a hub model's content is known now that it was read
        fields["text_encoder"] = loaders.text_encoder(job.text_encoder)
    for name, one in {"": ranking, **again}.items():
        arrays[records.ranking_file(name)] = records.ranking_arrays(one)
    return fields, arrays


def rescore(
    ranking: Ranking, again: Mapping[str, Ranking], split: Split, rules: Mapping[str, Any], n_items: int
) -> tuple[dict[str, Any], Arrays]:
    """Lists -> a record's ``metrics``, ``slices``, ``slice_labels`` and ``facts``, and its arrays but for the lists.

    ``ranking`` answers the test questions of ``split``, ``again`` those of every setting with candidates of its own.
    Raises ValueError with one sentence when lists break the contract.
    """
    asked = {name for name, one in split.settings.items() if one.candidates is not None}
    for names, what in ((asked - again.keys(), "are missing"), (again.keys() - asked, "were not asked for")):
        if names:
            raise ValueError(f"the lists among {' and '.join(sorted(names))} items only {what}")
    scores = evaluate(ranking, split.test, split, rules, n_items)
    apart: dict[str, np.ndarray] = {}
    for name, setting in split.settings.items():
        answer = again.get(name, ranking)
        try:
            apart |= evaluate_setting(answer, name, setting, rules, n_items, len(split.test))
        except ValueError as error:
            raise ValueError(f"among {name} items only, {error}") from error
    fields = {
        "metrics": scores.metrics | {name: float(np.nanmean(values)) for name, values in apart.items()},
        "slices": {name: dict(by_label) for name, by_label in scores.by_slice.items()},
        "slice_labels": {name: list(one.labels) for name, one in scores.slices.items()},
        "facts": dict(split.facts),
    }
    labels = {f"slice:{name}": one.codes for name, one in scores.slices.items()}
    arrays = {PER_USER: {"users": scores.users, **scores.per_user, **apart, **labels}}
    if split.settings:
        arrays[PER_TARGET] = per_target(ranking, again, split)
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


def limit(split: Split, n_users: int | None) -> Split:
    """The split with only ``n_users`` test users, a seeded sample that every method shares. None = all of them."""
    if n_users is None or n_users >= len(split.test):
        return split
    drawn = np.random.Generator(np.random.PCG64(LIMIT_SEED)).permutation(len(split.test))[:n_users]
    rows = np.sort(drawn)
    slices = {name: Slice(s.labels, s.codes[rows]) for name, s in split.slices.items()}
    settings = {name: _limited(one, rows) for name, one in split.settings.items()}
    settings = {name: one for name, one in settings.items() if len(one.rows)}
    facts = {name: n for name, n in split.facts.items() if not name.startswith(COUNTED_IN_TEST)}
    facts |= {"users_asked": n_users} | {f"users_asked_{name}": len(s.rows) for name, s in settings.items() if name}
    return replace(split, test=split.test.take(rows), slices=slices, facts=facts, settings=settings)


def _limited(setting: Setting, rows: np.ndarray) -> Setting:
    """The setting among the test users of ``rows`` (R,), ascending."""
    kept = np.isin(setting.rows, rows)
    return Setting(np.searchsorted(rows, setting.rows[kept]), setting.questions.take(kept), setting.candidates)
