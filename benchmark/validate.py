"""A trial of tuning: fit on the training view and score its validation questions. The test is out of reach here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmark.evaluate import align, check, mean_metric
from benchmark.job import Job, Loaders, base_fields
from benchmark.method import Entrant
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.types import TrainingView

PREFIX = "valid:"
"""Marks a metric of the validation questions; no leaderboard reads it."""


def validate(job: Job, loaders: Loaders, run: Run) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Files -> Dataset -> training view -> fit -> score of its validation: a record's fields, and no arrays."""
    protocol = loaders.protocol(job.protocol)
    view = protocol.split(loaders.dataset(job.dataset_spec, job.data_dir)).train  # all that is kept of the split
    return score_view(job, view, protocol, loaders.method(job.method_spec), run), {}


def score_view(job: Job, view: TrainingView, protocol: Protocol, entrant: Entrant, run: Run) -> dict[str, Any]:
    """The fields of a trial's record; ``metrics`` holds the selection metric over all validation questions.

    The lists are as long and cost as much as those of the test. Raises ValueError when nobody validates, or when
    the lists break the contract.
    """
    fields = base_fields(job, protocol) | {"asked": job.asked}
    reason = entrant.cls.unsuited(view)
    if reason is not None:
        return fields | {"status": "skipped", "reason": reason}
    if not len(view.valid):
        raise ValueError(
            f"protocol {protocol.name} asks nobody for validation on {job.dataset_name}: nothing to tune by"
        )
    method = job.method(entrant, run)
    method.fit(view)
    length, cases = protocol.budget.list_length, view.valid.cases
    ranking = method.recommend(cases, length, candidates=view.candidates, budget=protocol.budget)
    check(ranking, cases, view.n_items, length, protocol.budget, view.candidates)
    score = mean_metric(align(ranking, cases.users), view.valid.targets, view.selection)
    return fields | {
        "status": "ok",
        "metrics": {PREFIX + view.selection: score},
        "facts": {"users_asked": len(cases)},
        "training": dict(method.training_report()),
        "parameters": method.parameters(),
        "spend": asdict(ranking.spend),
        "timings": {name: round(seconds, 3) for name, seconds in run.timings.items()},
        "peak_memory_bytes": dict(run.peak_memory),
        "device": run.device,
    }
