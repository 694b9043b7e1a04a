"""Item and user vectors that know only who took what: a SASRec of the training split, one for every method that asks.

Trained with cross-entropy over all items and chosen on validation, as the method SASRec is. The result is cached by
all it depends on, so rooms that ask with the same settings and seed share one model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.artifacts import cached
from benchmark.evaluate import mean_metric
from benchmark.method import config_dict
from benchmark.run import Run
from benchmark.types import Sequences, Spend, TrainingView
from methods.blocks.ranking import rank_by_score
from methods.blocks.self_attention import Network, full_softmax, last_states, score_last, train_windows
from methods.blocks.training import Training

VERSION = 1
"""Part of every cached model; a change that moves the vectors raises it."""
BATCH = 1024
"""Histories read at once."""


@dataclass(frozen=True, kw_only=True)
class Collaborative:
    """Size and training of the model; the width is that of the codes it is compared with."""

    width: int = 32
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    training: Training = field(
        default_factory=lambda: Training(
            epochs=200, batch_size=512, learning_rate=1e-3, warmup_steps=100, schedule="constant", patience=20
        )
    )
    """``batch_size`` counts target positions."""


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"layers": 1, "training": {"epochs": 16, "batch_size": 256, "learning_rate": 3e-3, "patience": 4}},
    # Beauty, ndcg@10 on validation: .0487 in epoch 12 (15 s each, one thread), .0479 along a cosine of 12 epochs;
    # after 5 epochs .0412, with dropout .5 .0292.
    "small": {"training": {"epochs": 15, "learning_rate": 3e-3, "patience": 5, "max_minutes": 10.0}},
}
"""Overrides that every room takes over as they are, so that they all ask for the same model."""


@dataclass(frozen=True)
class CollaborativeModel:
    items: np.ndarray  # (N + 1, D) float32
    """The item embedding. PAD and items without a training interaction, whose vectors mean nothing, are zero."""
    report: dict[str, Any]
    """``stopped_by``, ``epochs``, ``best_epoch``, ``best_score``; the ``seconds`` of the training, cached or not."""
    network: Network
    run: Run

    def users(self, histories: Sequences) -> np.ndarray:
        """(R, D) float32: the state after the last ``max_history`` items of each history; zero for an empty one."""
        vectors = np.zeros((len(histories), self.items.shape[1]), np.float32)
        order = np.argsort(histories.lengths, kind="stable")[np.count_nonzero(histories.lengths == 0) :]
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                vectors[rows] = last_states(self.network, self.run.device, histories.take(rows)).cpu().numpy()
                self.run.progress("collaborative", start + len(rows), len(order))
        return vectors


def collaborative_model(view: TrainingView, settings: Collaborative, run: Run) -> CollaborativeModel:
    """The model of ``settings`` on the training sequences, from ``run.artifacts_dir`` when it is there.

    The global random state of torch is left as it was found, so a cached result changes nothing downstream, and
    ``run.timings`` tells of a stage ``collaborative`` only where it was trained. Raises ValueError when there is no
    pair of items to learn from, when a training's checkpoint is of other settings, and when the artifact is damaged.
    """
    device = torch.device(run.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(run.seed)
        network = Network(view.n_items, view.max_history, settings).to(device)
        key = identity(view, settings, run)
        stored = cached(run.artifacts_dir, key, lambda: _trained(network, view, settings.training, run))
    weights = {name: torch.from_numpy(array) for name, array in stored.items() if name != "report"}
    return with_weights(view, settings, run, weights, json.loads(str(stored["report"])))


def with_weights(
    view: TrainingView, settings: Collaborative, run: Run, weights: Mapping[str, Tensor], report: dict[str, Any]
) -> CollaborativeModel:
    """The model of known weights, those of its ``network`` by name."""
    with torch.random.fork_rng([]):  # on the CPU, whose random state the weights thrown away here would move
        network = Network(view.n_items, view.max_history, settings)
    network = network.to(run.device)
    network.load_state_dict(weights)
    items = network.item.weight.detach().cpu().numpy() * (view.item_counts > 0)[:, None].astype(np.float32)
    return CollaborativeModel(items, report, network.eval(), run)


def identity(view: TrainingView, settings: Collaborative, run: Run) -> dict[str, Any]:
    """JSON-able, all that the model depends on; for the keys of what is made from it too."""
    made = {"stage": "collaborative", "version": VERSION, "settings": config_dict(settings), "seed": run.seed}
    return made | view_hashes(view)


def view_hashes(view: TrainingView) -> dict[str, Any]:
    """What a training can read of a view but for the item texts: its sequences and the validation that selects."""
    valid = view.valid
    read = [valid.cases.histories, valid.targets]
    return {
        "sequences": _hash(view.sequences.items, view.sequences.offsets),
        "validation": _hash(*(a for rows in read for a in (rows.items, rows.offsets)), valid.cases.tie_order),
        "candidates": None if view.candidates is None else _hash(view.candidates),
        "selection": view.selection,
        "n_items": view.n_items,
        "max_history": view.max_history,
    }


def _hash(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays of integers, whatever their width."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.array([array.size, *array.ravel()], np.int64).tobytes())
    return digest.hexdigest()


def _trained(network: Network, view: TrainingView, training: Training, run: Run) -> dict[str, np.ndarray]:
    """Train ``network`` to its end -> its weights by name, and the report as JSON."""

    def loss(inputs: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
        return full_softmax(network(inputs)[wanted], network.item.weight, targets[wanted])

    def validate() -> float:
        """The selection metric on the validation questions."""
        valid, spend = view.valid, Spend(rule="scores", items_scored=view.n_items)
        ranking = rank_by_score(
            lambda cases: score_last(network, run.device, cases),
            valid.cases,
            10,
            run=run,
            spend=spend,
            candidates=view.candidates,
            stage="validate",
        )
        return mean_metric(ranking, valid.targets, view.selection)

    ended = train_windows(network, view.sequences, loss, training, validate, run, name="collaborative")
    if run.work_dir is not None:  # another model of this job, of other settings, may be next
        (run.work_dir / "collaborative.checkpoint").unlink(missing_ok=True)
    report = {
        "stopped_by": ended.stopped_by,
        "epochs": ended.epochs,
        "best_epoch": ended.best_epoch,
        "best_score": ended.best_score,
        "seconds": round(run.timings["collaborative"], 2),
    }
    weights = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    return weights | {"report": np.array(json.dumps(report))}


def collaborative_seconds(settings: Collaborative, n_users: int, n_items: int, n_interactions: int) -> float:
    """Expected training time: three times the forward FLOPs, and all validation scores, at 20 GFLOP/s a core."""
    per_position = 2 * settings.width * n_items + 24 * settings.layers * settings.width**2
    flops = 3 * n_interactions * per_position + 2 * n_users * n_items * settings.width
    return settings.training.capped(min(40, settings.training.epochs) * flops / 20e9)
