"""RecBole's general models: who bought what, without order. ``recbole:BPR``, ``LightGCN``, ``ItemKNN``, ``Pop``.

They know users by their id, from training alone: what a user had since then does not change the scores. RecBole
never recommends to the user of a general model what he already had, which is ``@drop-seen`` here; without it a
general model ranks the user's own purchases first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.method import Estimate
from benchmark.space import LogRange, OneOf, Range
from benchmark.types import Cases, Ranking, TrainingView
from methods.blocks.ranking import Scorer
from methods.blocks.training import Report, Training, seed_everything, train
from methods.recbole.library import GENERAL, NEGATIVE, TARGET, USER, build_model
from methods.recbole.purchases import Negatives, Purchases, old_scipy
from methods.recbole.sequential import DEFAULT_TRAINING, RATES, SMALL_WIDTHS, WIDTHS


class General(Scorer):
    """One of RecBole's general models, asked by user id."""

    model_name: ClassVar[str]
    config: Any
    """A Config with ``drop_seen`` and the model's ``options``."""
    model: Any
    """RecBole's classes carry no types."""
    presets = {"drop-seen": {"drop_seen": True}}

    def build(self, view: TrainingView) -> None:
        """Set ``model`` to a freshly initialised one."""
        self.purchases = Purchases(view)
        with old_scipy():
            options = asdict(self.config.options)
            self.model = build_model(GENERAL, self.model_name, options, self.purchases, self.run.device)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        asked = {USER: torch.from_numpy(cases.users).long().to(self.run.device)}
        scores = self.model.full_sort_predict(asked).view(len(cases), -1).float()
        if self.config.drop_seen:
            scores[cases.seen.row_of, cases.seen.items] = -torch.inf
        return scores


class Learned(General):
    """Trained on one pair an interaction: the item that the user had, and a drawn one that he had not."""

    def fit(self, view: TrainingView) -> Self:
        seed_everything(self.run.seed)
        self.build(view)
        self.negatives = Negatives(self.purchases, torch.device(self.run.device))
        self.users = torch.from_numpy(self.purchases.users).to(self.run.device)
        self.items = torch.from_numpy(self.purchases.items).to(self.run.device)
        self.report: Report = train(
            self.model,
            torch.ones(len(self.items), dtype=torch.long),
            lambda rows, _length: self._loss(rows),
            self.config.training,
            lambda: self._validate(view),
            self.run,
            validate_every=self.config.validate_every,
        )
        return self

    def _loss(self, rows: Tensor) -> Tensor:
        # Sparse products have no half precision everywhere, and dot products this short gain nothing from it.
        with torch.autocast(torch.device(self.run.device).type, enabled=False):
            return self.model.calculate_loss(self.batch(rows)).reshape(())  # LightGCN's is one number in a list

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Interactions as RecBole's, each with a drawn negative."""
        users = self.users[rows]
        return {USER: users, TARGET: self.items[rows], NEGATIVE + TARGET: self.negatives.draw(users)}

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def training_report(self) -> dict[str, Any]:
        return vars(self.report)


def pairwise_estimate(config: Any, per_step: float, n_users: int, n_items: int, n_interactions: int) -> Estimate:
    """All epochs, of steps that take ``per_step`` seconds; validation ranks 5e7 scores a second."""
    training = config.training
    steps = training.epochs * max(1.0, n_interactions / training.batch_size)
    seconds = steps * per_step + training.epochs / config.validate_every * n_users * n_items / 5e7
    return Estimate(
        training.capped(seconds), 6e8 + 16.0 * config.options.embedding_size * (n_users + n_items) + 2e4 * n_items
    )


@dataclass(frozen=True, kw_only=True)
class BPROptions:
    """RecBole's options and defaults."""

    embedding_size: int = 64


@dataclass(frozen=True, kw_only=True)
class LightGCNOptions:
    """RecBole's options and defaults."""

    embedding_size: int = 64
    n_layers: int = 2
    reg_weight: float = 1e-5
    require_pow: bool = False


@dataclass(frozen=True, kw_only=True)
class ItemKNNOptions:
    """RecBole's options and defaults."""

    k: int = 100
    shrink: float = 0.0
    knn_method: str = "item"


@dataclass(frozen=True, kw_only=True)
class PopOptions:
    """It has none."""


class BPR(Learned):
    """Matrix factorisation under the pairwise loss. Rendle et al., UAI 2009."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: BPROptions = BPROptions()
        drop_seen: bool = False
        validate_every: int = 1
        """Epochs from one validation to the next."""
        training: Training = DEFAULT_TRAINING

    model_name = "BPR"
    search = {"training.learning_rate": RATES, "options.embedding_size": WIDTHS}
    search_profiles = {"small": {"options.embedding_size": SMALL_WIDTHS}}
    profiles: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"training": {"epochs": 10, "batch_size": 256, "learning_rate": 1e-2, "patience": 5}},
        "small": {"validate_every": 5, "training": {"epochs": 150, "patience": 5, "max_minutes": 10.0}},
    }

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A step's optimiser passes over every embedding, 1.5e8 numbers a second."""
        per_step = 2e-3 + config.options.embedding_size * (n_users + n_items) / 1.5e8
        return pairwise_estimate(config, per_step, n_users, n_items, n_interactions)


class LightGCN(Learned):
    """Embeddings averaged over the neighbours in the graph of purchases. He et al., SIGIR 2020."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: LightGCNOptions = LightGCNOptions()
        drop_seen: bool = False
        validate_every: int = 1
        """Epochs from one validation to the next."""
        training: Training = DEFAULT_TRAINING

    model_name = "LightGCN"
    search = {
        "training.learning_rate": RATES,
        "options.embedding_size": WIDTHS,
        "options.n_layers": OneOf((1, 2, 3)),
    }
    search_profiles = {"small": {"options.embedding_size": SMALL_WIDTHS}}
    profiles: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"training": {"epochs": 10, "batch_size": 256, "learning_rate": 1e-2, "patience": 5}},
        "small": {
            "validate_every": 3,
            "training": {"epochs": 60, "learning_rate": 5e-3, "patience": 5, "max_minutes": 10.0},
        },
    }

    def _rank(self, cases: Cases, k: int, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        # The model keeps its propagated embeddings until the next loss: they may be of weights since replaced.
        self.model.restore_user_e = self.model.restore_item_e = None
        return super()._rank(cases, k, stage, candidates)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Every step propagates through the whole graph, there and back."""
        size, layers = config.options.embedding_size, config.options.n_layers
        per_step = size * (layers * 8 * n_interactions + 4 * layers * (n_users + n_items)) / 1.2e9
        return pairwise_estimate(config, per_step, n_users, n_items, n_interactions)


class ItemKNN(General):
    """Cosine similarity of the items' buyers, summed over what the user had in training. Aiolli, RecSys 2013."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: ItemKNNOptions = ItemKNNOptions()
        drop_seen: bool = False

    model_name = "ItemKNN"
    search = {"options.k": LogRange(10, 1000), "options.shrink": Range(0.0, 100.0)}

    def fit(self, view: TrainingView) -> Self:
        with self.run.stage("train"):
            self.build(view)
            self.model.pred_mat = self.model.pred_mat.tocsr()  # the same scores; its lists of lists are slow to read
        return self

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """One dense row of similarities an item; every interaction brings up to k scores, kept as Python numbers."""
        kept = config.options.k * n_interactions
        return Estimate(2.0 + n_items**2 / 2e7 + kept / 2e6 + n_users * n_items / 5e7, 6e8 + 100.0 * kept)


class Pop(General):
    """How often an item was bought. RecBole's Trainer also shows it drawn negatives, which it counts as purchases."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: PopOptions = PopOptions()
        drop_seen: bool = False

    model_name = "Pop"

    def fit(self, view: TrainingView) -> Self:
        with self.run.stage("train"):
            self.build(view)
            self._count(self.purchases.items)
        return self

    def _count(self, items: np.ndarray) -> None:
        """Show the model every purchase in batches of distinct items: what is twice in a batch it counts once."""
        order = np.argsort(items, kind="stable")
        _, starts, counts = np.unique(items[order], return_index=True, return_counts=True)
        nth = np.arange(len(items)) - np.repeat(starts, counts)  # (T,) the how manieth purchase of its item
        for batch in np.split(items[order][np.argsort(nth, kind="stable")], np.cumsum(np.bincount(nth))[:-1]):
            self.model.calculate_loss({TARGET: torch.from_numpy(batch).to(self.run.device)})

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        return Estimate(2.0 + n_interactions / 1e5 + n_users * n_items / 5e7, 6e8 + 2e4 * n_items)
