"""SASRec (Kang & McAuley, ICDM 2018): causal self-attention over the history, the next item by inner product.

All positions of a sequence are trained in one pass. The default loss is full cross-entropy over the catalogue,
which is what makes SASRec a strong baseline (Klenitskiy & Vasilev, RecSys 2023); the paper's own loss is a preset.

Presets: ``@sampled`` softmax over 256 uniform negatives (eSASRec's loss, for catalogues where the full softmax does
not fit); ``@bce`` binary cross-entropy with one uniform negative (the paper's loss, the one behind most published
"SASRec" rows); ``@gbce`` binary cross-entropy with 256 uniform negatives and the positive's probability raised to a
power that takes back the over-confidence they cause (gSASRec: Petrov & Macdonald, RecSys 2023); ``@drop-seen`` never
recommends what the user already had.

Track ``paper`` reads 50 items and trains as the published logs that ``docs/sasrec.md`` compares with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.method import Estimate, later
from benchmark.space import OneOf
from benchmark.types import Cases, TrainingView
from methods.blocks.ranking import Scorer
from methods.blocks.self_attention import Network, full_softmax, score_last, train_windows
from methods.blocks.training import Training, seed_everything


class SASRec(Scorer):
    """Pre-norm blocks, GELU, tied item embedding, learned positions counted from the start of the window."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 64
        layers: int = 2
        heads: int = 2
        dropout: float = 0.5
        loss: str = "cross-entropy"
        """``cross-entropy`` over all items; ``sampled-softmax``, ``bce``, ``gbce`` over ``negatives`` uniform items."""
        negatives: int = 0
        """Drawn for every position under ``bce``, for every row of the batch under the other two."""
        calibration: float = later(0.75)
        """The t of gSASRec, for ``gbce``: from 0, plain binary cross-entropy, to 1, scores as if nothing were drawn."""
        history: int | None = later(None)
        """Items of history read; None = as many as the protocol shows."""
        drop_seen: bool = later(False)
        validate_every: int = later(1)
        """Epochs from one validation to the next."""
        training: Training = field(
            default_factory=lambda: Training(
                epochs=200,
                batch_size=512,
                learning_rate=1e-3,
                warmup_steps=100,
                schedule="constant",
                patience=20,
            )
        )
        """``batch_size`` counts target positions, so that every position weighs the same."""

    config: Config
    presets = {
        "sampled": {"loss": "sampled-softmax", "negatives": 256},
        # One negative a position is a faint signal; Beauty's validation prefers less dropout under it (.018 to .017).
        "bce": {"loss": "bce", "negatives": 1, "dropout": 0.2},
        # It lies at the level of popularity for its first 7 (Beauty) to 15 (Toys) epochs, which patience must outlast.
        "gbce": {"loss": "gbce", "negatives": 256, "training": {"patience": 30}},
        "drop-seen": {"drop_seen": True},
    }
    profiles = {
        "smoke": {
            "layers": 1,
            "dropout": 0.2,
            "training": {"epochs": 16, "batch_size": 256, "learning_rate": 3e-3, "patience": 4},
        },
        "small": {"training": {"epochs": 200, "patience": 10, "max_minutes": 25.0}},
    }
    tracks = {
        "paper": {
            "history": 50,
            "heads": 1,
            "dropout": 0.6,
            "drop_seen": True,
            "validate_every": 5,
            # 512 sequences of Beauty hold 3,000 targets; all epochs are run and the best is kept.
            "training": {"epochs": 300, "batch_size": 3000, "learning_rate": 5e-4, "warmup_steps": 0, "patience": 300},
        }
    }
    lineup = ("", "@sampled", "@bce", "@gbce")
    search = {
        "training.learning_rate": OneOf((5e-4, 1e-3, 3e-3)),
        "width": OneOf((64, 128, 256)),
        "layers": OneOf((1, 2)),
        "dropout": OneOf((0.1, 0.2, 0.3, 0.5)),
    }
    search_profiles = {"small": {"width": OneOf((32, 64, 128))}}

    def fit(self, view: TrainingView) -> Self:
        seed_everything(self.run.seed)
        width = self.config.history or view.max_history
        self.model = Network(view.n_items, width, self.config).to(self.run.device)
        self.report = train_windows(
            self.model,
            view.sequences,
            self._loss,
            self.config.training,
            lambda: self._validate(view),
            self.run,
            validate_every=self.config.validate_every,
        )
        return self

    def _loss(self, inputs: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
        """Mean loss over the wanted positions of inputs and targets (B, L)."""
        states, items = self.model(inputs), self.model.item.weight  # (B, L, D), (N + 1, D)
        if self.config.loss == "cross-entropy":
            return full_softmax(states[wanted], items, targets[wanted])
        losses: dict[str, Callable[..., Tensor]] = {
            "sampled-softmax": sampled_softmax,
            "bce": binary_cross_entropy,
            "gbce": partial(binary_cross_entropy, power=self._power(len(items) - 1)),
        }
        if self.config.loss not in losses:
            raise ValueError(f"unknown loss '{self.config.loss}'; use cross-entropy, {', '.join(losses)}")
        places = inputs.shape[1] if self.config.loss == "bce" else 1
        shape = (len(inputs), places, self._drawn(len(items) - 1))
        negatives = torch.randint(1, len(items), shape, device=inputs.device)  # (B, L or 1, M)
        positive = (states * items[targets]).sum(-1).float()  # (B, L)
        if self.config.loss == "bce":  # the paper draws anew for every position
            negative = (states[:, :, None] * items[negatives]).sum(-1).float()  # (B, L, M)
        else:  # so many that the positions of a row share them
            negative = (states @ items[negatives[:, 0]].transpose(1, 2)).float()  # (B, L, M)
        drawn = targets[:, :, None] == negatives  # (B, L, M)
        return losses[self.config.loss](positive[wanted], negative[wanted], drawn[wanted])

    def _drawn(self, n_items: int) -> int:
        """Negatives of a position; under ``gbce``, where each weighs as much as the next, no more than other items."""
        return min(self.config.negatives, n_items - 1) if self.config.loss == "gbce" else self.config.negatives

    def _power(self, n_items: int) -> float:
        """gSASRec's beta = a (t (1 - 1/a) + 1/a), where a is the share of the other items that is drawn."""
        share = self._drawn(n_items) / max(1, n_items - 1)
        return 1.0 - self.config.calibration * (1.0 - share)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        scores = score_last(self.model, self.run.device, self._asked(cases))
        if self.config.drop_seen:
            scores[cases.seen.row_of, cases.seen.items] = -torch.inf
        return scores

    def _asked(self, cases: Cases) -> Cases:
        """The cases with as much history as the Config asks for, more than the protocol shows if need be."""
        if self.config.history is None:
            return cases
        return replace(cases, histories=cases.seen.tail(self.config.history))

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def training_report(self) -> dict[str, Any]:
        return vars(self.report)

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Three times the forward FLOPs of blocks and softmax, 40 epochs until patience, 20 GFLOP/s a core."""
        scored = n_items if config.loss == "cross-entropy" else config.negatives + 1
        per_position = 2 * config.width * scored + 24 * config.layers * config.width**2
        flops = 3 * n_interactions * per_position + 2 * n_users * n_items * config.width
        seconds = min(40, config.training.epochs) * flops / 20e9
        return Estimate(config.training.capped(seconds), 6e8 + 12.0 * config.training.batch_size * n_items)


def sampled_softmax(positive: Tensor, negative: Tensor, is_positive: Tensor) -> Tensor:
    """Cross-entropy of positive (P,) among itself and negative (P, M); drawn positives do not count against it."""
    logits = torch.cat([positive[:, None], negative.masked_fill(is_positive, -torch.inf)], 1)  # (P, 1 + M)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def binary_cross_entropy(positive: Tensor, negative: Tensor, is_positive: Tensor, power: float = 1.0) -> Tensor:
    """The paper's eq. 8: -log s(positive)^power - sum log(1 - s(negative)), mean over positions."""
    pushed = F.softplus(negative).masked_fill(is_positive, 0.0).sum(1)
    return (power * F.softplus(-positive) + pushed).mean()


METHOD = SASRec
