"""RecBole's BERT4Rec (Sun et al., CIKM 2019): items are hidden from both sides and guessed (a cloze test).

RecBole hides items in a transform of its data loader; here that is done on the device, by the same law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.method import Estimate
from benchmark.types import TrainingView
from methods.blocks.next_item import NextItemPairs
from methods.blocks.training import Training
from methods.recbole.library import ITEMS, TARGET
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

MASKED, ANSWERS, PLACES = f"Mask_{ITEMS}", f"Pos_{TARGET}", "MASK_INDEX"
"""The columns that RecBole's transform ``mask_itemseq`` adds."""


@dataclass(frozen=True, kw_only=True)
class BERT4RecOptions(SASRecOptions):
    """RecBole's options and defaults. Of its losses only the cross-entropy is here."""

    hidden_dropout_prob: float = 0.2
    attn_dropout_prob: float = 0.2
    mask_ratio: float = 0.2
    """Probability of an item to be hidden."""
    ft_ratio: float = 0.5
    """Probability of a batch in which only the last item of every history is hidden, as when recommending."""


class BERT4Rec(Sequential):
    """Trained on what it hides of every prefix; the item after the prefix is not used, as in RecBole."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        options: BERT4RecOptions = BERT4RecOptions()
        training: Training = DEFAULT_TRAINING

    model_name = "BERT4Rec"
    search = {"training.learning_rate": RATES, **attention_space("options")}
    search_profiles = {"small": {"options.hidden_size": SMALL_WIDTHS}}
    profiles = {
        "smoke": {"options": {"n_layers": 1, "hidden_size": 32, "inner_size": 64}, "training": SMOKE_TRAINING},
        "small": {"training": SHORT_TRAINING},
    }

    def options(self) -> dict[str, Any]:
        columns = {"MASK_ITEM_SEQ": MASKED, "POS_ITEMS": ANSWERS, "NEG_ITEMS": f"Neg_{TARGET}", "MASK_INDEX": PLACES}
        return super().options() | columns

    def examples(self, view: TrainingView) -> NextItemPairs:
        """Prefixes of at least two items: in RecBole's loss a hidden first item weighs nothing."""
        pairs = super().examples(view)
        long = pairs.lengths > 1
        pairs.lengths = pairs.lengths[long]
        pairs.users, pairs.targets = (one[long.to(one.device)] for one in (pairs.users, pairs.targets))
        return pairs

    def batch(self, rows: Tensor, length: int) -> dict[str, Tensor]:
        """Prefixes of one length, items hidden by RecBole's law: each at random, or in half of the batches the last.

        RecBole's loss is 0 / 0 when nothing is asked of a batch; such a batch is asked for its last items.
        """
        _, histories, _ = self.pairs.take(rows, length)
        hidden = torch.rand(histories.shape, device=histories.device) < self.config.options.mask_ratio  # (B, S)
        last = torch.arange(length, device=histories.device) == length - 1  # (S,)
        coin = torch.rand((), device=histories.device)
        only_last = (coin < self.config.options.ft_ratio) | ~hidden[:, 1:].any()
        return self.masked(histories, torch.where(only_last, last, hidden))

    def masked(self, histories: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """RecBole's interaction of histories (B, S) of which ``hidden`` (B, S) is to be guessed.

        Of the hidden items the last ``mask_ratio`` times the history length are asked for; place 0 fills up.
        """
        slots = max(1, int(self.config.options.mask_ratio * self.max_history))
        places = torch.arange(histories.shape[1], device=histories.device)
        asked = torch.where(hidden, places, 0).sort(dim=1).values[:, -slots:]  # (B, M)
        masked = histories.masked_fill(hidden, self.model.mask_token)
        return {MASKED: masked, ANSWERS: histories.gather(1, asked), PLACES: asked}

    def loss(self, rows: Tensor, length: int) -> Tensor:
        return self.cloze_loss(self.batch(rows, length))

    def cloze_loss(self, made: dict[str, Tensor]) -> Tensor:
        """RecBole's ``calculate_loss``, without scoring the catalogue for slots that only fill up."""
        row, slot = torch.where(made[PLACES] > 0)
        states = self.model(made[MASKED])[row, made[PLACES][row, slot]]  # (T, D)
        items = self.model.item_embedding.weight[: self.model.n_items]  # without the mask
        return F.cross_entropy(states @ items.T + self.model.output_bias, made[ANSWERS][row, slot])

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A prefix has 7 items on average."""
        sizes = config.options
        layer = 8 * sizes.hidden_size**2 + 4 * sizes.hidden_size * sizes.inner_size
        per_pair = 7 * sizes.n_layers * layer + 2 * sizes.hidden_size * n_items
        return pairwise_estimate(per_pair, config.training, n_users, n_items, n_interactions)
