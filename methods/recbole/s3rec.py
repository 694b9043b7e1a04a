"""RecBole's S3Rec (Zhou et al., CIKM 2020): pre-training on items' attributes, items and segments, then fine-tuning.

Four tasks are pre-trained on every prefix: the attributes of the items shown (aap), the hidden items (mip), the
attributes of the hidden items (map), and which segment was cut out (sp). RecBole makes these rows in Python lists;
here they are made on the device, by the same law.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.datasets.text import LEVELS
from benchmark.method import Estimate
from benchmark.types import TrainingView
from methods.blocks.training import Report, Training, train
from methods.recbole.library import Catalogue
from methods.recbole.sequential import (
    DEFAULT_TRAINING,
    RATES,
    SHORT_TRAINING,
    SMALL_WIDTHS,
    SMOKE_TRAINING,
    SASRecOptions,
    Sequential,
    attention_space,
    pairwise_estimate,
)

ATTRIBUTES = "class"
"""RecBole's name for the column of attributes."""


@dataclass(frozen=True, kw_only=True)
class S3RecOptions(SASRecOptions):
    """RecBole's options and defaults."""

    mask_ratio: float = 0.2
    """Probability of an item to be hidden."""
    aap_weight: float = 0.2
    mip_weight: float = 1.0
    map_weight: float = 1.0
    sp_weight: float = 0.5


class S3Rec(Sequential):
    """The checkpoint to fine-tune is the last of the pre-training: nothing in it could be validated."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: S3RecOptions = S3RecOptions()
        min_items: int = 1
        """Items that must share an attribute for it to be predicted."""
        pretraining: Training = Training(epochs=500, batch_size=2048, learning_rate=1e-3, schedule="constant")
        """``patience`` plays no part: all epochs are done, or those that fit under the cap."""
        training: Training = DEFAULT_TRAINING

    model_name = "S3Rec"
    search = {"training.learning_rate": RATES, **attention_space("options")}
    search_profiles = {"small": {"options.hidden_size": SMALL_WIDTHS}}
    profiles = {
        "smoke": {
            "options": {"n_layers": 1, "hidden_size": 32, "inner_size": 64},
            "pretraining": {"epochs": 2, "batch_size": 128, "learning_rate": 3e-3},
            "training": SMOKE_TRAINING,
        },
        "small": {
            "min_items": 5,
            "pretraining": {"epochs": 5, "batch_size": 512, "learning_rate": 2e-3, "max_minutes": 2.0},
            "training": {**SHORT_TRAINING, "max_minutes": 6.0},
        },
    }

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        if any(attribute_names(view.item_fields)):
            return None
        return "it is pre-trained on the items' categories and brands, and these data have neither"

    def fit(self, view: TrainingView) -> Self:
        self.start(view)
        self.pretraining = self._pretrain()
        self.begin_fine_tuning()
        self.report = self.learn(view)
        return self

    def catalogue(self, view: TrainingView) -> Catalogue:
        table = attribute_table(view.item_fields, self.config.min_items)
        self.attributes = torch.from_numpy(table).to(self.run.device)  # (N + 1, A)
        return Described(view.n_users, view.n_items, table.shape[1])

    def begin_fine_tuning(self) -> None:
        """All that RecBole's second model differs in from the first, whose weights it loads."""
        self.model.train_stage, self.model.loss_fct = "finetune", nn.CrossEntropyLoss()

    def options(self) -> dict[str, Any]:
        stage = {"item_attribute": ATTRIBUTES, "train_stage": "pretrain", "pre_model_path": ""}
        return super().options() | stage

    def _pretrain(self) -> Report:
        training = self.config.pretraining
        with right_aligned(self.model.position_embedding, self.max_history):
            return train(
                self.model,
                self.pairs.lengths,
                self.pretraining_loss,
                training,
                lambda: 0.0,
                self.run,
                validate_every=training.epochs,
                name="pretrain",
            )

    def pretraining_loss(self, rows: Tensor, length: int) -> Tensor:
        """RecBole's sum over a batch of prefixes of one length."""
        _, histories, _ = self.pairs.take(rows, length)
        return self.model.pretrain(self.attributes[histories], *self.puzzles(histories))

    def puzzles(self, histories: Tensor) -> tuple[Tensor, ...]:
        """histories (B, S) -> six times (B, S): hidden items shown as the mask, the items, items that are not in the
        history; histories with a segment cut out, the segment alone, another segment of the batch in its place."""
        mask = self.model.mask_token
        hidden = torch.rand(histories.shape, device=histories.device) < self.config.options.mask_ratio
        cut, other = segments(histories)
        return (
            histories.masked_fill(hidden, mask),
            histories,
            torch.where(hidden, items_outside(histories, mask), histories),
            histories.masked_fill(cut, mask),
            histories if histories.shape[1] < 2 else histories.masked_fill(~cut, mask),
            other if histories.shape[1] < 2 else other.masked_fill(~cut, mask),
        )

    def training_report(self) -> dict[str, Any]:
        capped = self.pretraining.stopped_by == "cap"
        both = super().training_report() | {"pretraining": vars(self.pretraining)}
        return both | ({"stopped_by": "cap"} if capped else {})

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A prefix has 7 items on average; pre-training reads it four times and knows some 300 attributes."""
        sizes = config.options
        layers = 7 * sizes.n_layers * (8 * sizes.hidden_size**2 + 4 * sizes.hidden_size * sizes.inner_size)
        last = pairwise_estimate(
            layers + 2 * sizes.hidden_size * n_items, config.training, n_users, n_items, n_interactions
        )
        first = pairwise_estimate(
            4 * layers + 28 * sizes.hidden_size * 300, config.pretraining, 0, n_items, n_interactions
        )
        return Estimate(first.seconds + last.seconds, last.memory_bytes)


class Described(Catalogue):
    """A catalogue whose items have attributes; S3Rec is handed the attributes of a batch by us."""

    def __init__(self, n_users: int, n_items: int, n_attributes: int):
        super().__init__(n_users, n_items)
        self.sizes[ATTRIBUTES] = n_attributes + 1

    def get_item_feature(self) -> None:
        """Read by the data path that ``puzzles`` stands in for."""


def attribute_names(fields: Mapping[str, np.ndarray]) -> list[set[str]]:
    """(N + 1,) what S3-Rec calls an item's attributes: its brand, and its categories below the widest.

    Categories without levels (MovieLens genres) are words, and each is one.
    """
    names: list[set[str]] = []
    categories, brands = fields.get("categories", np.empty(0)), fields.get("brand", np.empty(0))
    is_path = any(LEVELS in path for path in categories)
    for item in range(max(len(categories), len(brands))):
        path = categories[item] if len(categories) else ""
        parts = path.split(LEVELS)[1:] if is_path else path.split()
        brand = [brands[item]] if len(brands) else []
        names.append({name.strip() for name in [*parts, *brand]} - {""})
    return names


def attribute_table(fields: Mapping[str, np.ndarray], min_items: int) -> np.ndarray:
    """(N + 1, A) bool: which items have which of the attributes that at least ``min_items`` items share."""
    names = attribute_names(fields)
    counts = Counter(name for of_item in names for name in of_item)
    column = {name: at for at, name in enumerate(sorted(name for name in counts if counts[name] >= min_items))}
    if not column:
        raise ValueError(f"no category or brand is shared by {min_items} items; leave recbole:S3Rec out")
    table = np.zeros((len(names), len(column)), bool)
    for item, of_item in enumerate(names):
        table[item, [column[name] for name in of_item if name in column]] = True
    return table


@contextmanager
def right_aligned(positions: nn.Embedding, width: int) -> Iterator[None]:
    """Within, histories of n items use the last n of ``width`` positions.

    RecBole pads at the left to pre-train (and at the right to fine-tune); here nothing is padded.
    """
    shift = positions.register_forward_pre_hook(lambda _, ids: (ids[0] + width - ids[0].shape[-1],))
    try:
        yield
    finally:
        shift.remove()


def items_outside(histories: Tensor, n_items: int) -> Tensor:
    """(B, S) uniform draws from 1..n_items, none of which is in its row of ``histories`` (B, S)."""
    held = histories.sort(dim=1).values
    again = F.pad(held[:, 1:] == held[:, :-1], (1, 0))
    free = n_items - (~again).sum(dim=1, keepdim=True)  # (B, 1)
    drawn = 1 + below(free.expand_as(histories))  # the d-th item that is not held ...
    for item in held.masked_fill(again, n_items + 1).unbind(1):
        drawn += drawn >= item[:, None]  # ... found by stepping over those that are
    return drawn


def segments(histories: Tensor) -> tuple[Tensor, Tensor]:
    """A segment of at most half of each history -> where it lies, and as many items from anywhere in the batch.

    Both (B, S); the items stand at the segment's places, what is elsewhere has no meaning. A history of one item
    has no segment and is its own stand-in.
    """
    n_rows, length = histories.shape
    if length < 2:
        return torch.zeros_like(histories, dtype=torch.bool), histories
    size = 1 + below(torch.full((n_rows, 1), length // 2, device=histories.device))
    start = below(length - size + 1)
    elsewhere = below(n_rows * length - size + 1)
    places = torch.arange(length, device=histories.device) - start  # (B, S) counted from the segment's start
    inside = (places >= 0) & (places < size)
    return inside, histories.flatten()[(elsewhere + places).clamp(0, n_rows * length - 1)]


def below(bounds: Tensor) -> Tensor:
    """Uniform integers from 0 to ``bounds`` - 1, of the shape of ``bounds``."""
    return (torch.rand(bounds.shape, dtype=torch.float64, device=bounds.device) * bounds).long()
