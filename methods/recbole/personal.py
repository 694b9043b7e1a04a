"""RecBole's models with a vector for every user, Caser and HGN; both read histories at one width, PAD included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.method import Estimate
from benchmark.types import TrainingView
from methods.blocks.training import Training
from methods.recbole.sequential import (
    DEFAULT_TRAINING,
    DROPOUTS,
    RATES,
    SHORT_TRAINING,
    SMALL_WIDTHS,
    SMOKE_TRAINING,
    WIDTHS,
    Sequential,
    pairwise_estimate,
)

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"options": {"embedding_size": 32}, "training": SMOKE_TRAINING},
    "small": {"training": SHORT_TRAINING},
}


@dataclass(frozen=True, kw_only=True)
class CaserOptions:
    """RecBole's options and defaults."""

    embedding_size: int = 64
    nv: int = 4
    """Vertical filters: weighted sums over the history."""
    nh: int = 8
    """Horizontal filters of every height from 1 to the history length."""
    dropout_prob: float = 0.4
    reg_weight: float = 1e-4
    loss_type: str = "CE"


class Caser(Sequential):
    """Tang and Wang, WSDM 2018: convolutions over the history, seen as an image."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: CaserOptions = CaserOptions()
        training: Training = DEFAULT_TRAINING

    model_name = "Caser"
    search = {"training.learning_rate": RATES, "options.embedding_size": WIDTHS, "options.dropout_prob": DROPOUTS}
    search_profiles = {"small": {"options.embedding_size": SMALL_WIDTHS}}
    full_width = True
    profiles = {
        **PROFILES,  # a step costs 20 small convolutions whatever its size, so few large ones
        "smoke": {"options": {"embedding_size": 32}, "training": {**SMOKE_TRAINING, "epochs": 6, "batch_size": 512}},
    }

    def build(self, view: TrainingView) -> None:
        super().build(view)
        for convolution in self.model.conv_h:
            convolution.__class__ = RowFilters

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        sizes = config.options
        windows = 1540  # rows under all filters of heights 1 to 20 at all places of 20 items
        per_pair = 2 * sizes.embedding_size * (windows * sizes.nh + n_items)
        return pairwise_estimate(per_pair, config.training, n_users, n_items, n_interactions)


class RowFilters(nn.Conv2d):
    """Filters as wide as their input, so that they move along one axis only: two to three times faster on a CPU."""

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 1, S, D) -> (B, filters, places, 1)"""
        rows, filters = image[:, 0].transpose(1, 2), self.weight[:, 0].transpose(1, 2)
        return F.conv1d(rows, filters, self.bias)[..., None]


@dataclass(frozen=True, kw_only=True)
class HGNOptions:
    """RecBole's options and defaults."""

    embedding_size: int = 64
    pooling_type: str = "average"
    reg_weight: tuple[float, float] = (0.0, 0.0)
    """L2 of the gates and of the embeddings."""
    loss_type: str = "CE"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reg_weight", tuple(self.reg_weight))  # JSON brings a list back


class HGN(Sequential):
    """Ma et al., KDD 2019: the user decides which features and which items of the history count."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: HGNOptions = HGNOptions()
        training: Training = DEFAULT_TRAINING

    model_name = "HGN"
    search = {"training.learning_rate": RATES, "options.embedding_size": WIDTHS}
    search_profiles = {"small": {"options.embedding_size": SMALL_WIDTHS}}
    full_width = True
    profiles = PROFILES

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        width = config.options.embedding_size
        per_pair = 2 * width * (20 * width + n_items)
        return pairwise_estimate(per_pair, config.training, n_users, n_items, n_interactions)
