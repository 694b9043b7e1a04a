"""Items as sets of tokens: one of collaborative filtering and n of the item's text, made anew in every step.

collaborative vectors -> linear -> 1 token;  text vectors -> auto-encoder -> n tokens;  states -> scores of all items.
A token is linear in what lies before the last layer, so states are carried back through that layer and compared
there: the scores are the inner products with all tokens, but no items-by-width table of tokens is ever made.
Letters: N items, T tokens of an item (1 + n), D width, C collaborative width, F text width, H bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.item_softmax import Rivals


@dataclass(frozen=True)
class Features:
    """What every item's tokens are a linear image of; None = the set has no token of the kind."""

    collaborative: Tensor | None  # (N + 1, C)
    semantic: Tensor | None  # (N + 1, H)


@dataclass(frozen=True)
class Sought:
    """Generated tokens as vectors beside ``Features``: inner products there are those of the tokens.

    A bias adds the same number to all items, changes neither the softmax nor any ranking, and is left out.
    """

    collaborative: Tensor | None  # (..., C)
    semantic: Tensor | None  # (..., n, H)

    @classmethod
    def joined(cls, parts: Sequence[Sought]) -> Sought:
        """All rows of the parts, one part after the other."""
        columns = zip(*((part.collaborative, part.semantic) for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))

    def take(self, rows: np.ndarray) -> Sought:
        """The given rows, in the given order."""
        return Sought(*(None if part is None else part[rows] for part in (self.collaborative, self.semantic)))

    def scores(self, features: Features, beta: float) -> Tensor:
        """(..., N + 1): (1 - beta) times the collaborative inner product plus beta times the sum of the semantic ones.

        A set of one kind is scored by that kind alone, whatever ``beta``.
        """
        parts = []
        if self.collaborative is not None and features.collaborative is not None:
            weight = 1.0 if self.semantic is None else 1.0 - beta
            parts.append(weight * (self.collaborative @ features.collaborative.T).float())
        if self.semantic is not None and features.semantic is not None:
            weight = 1.0 if self.collaborative is None else beta
            parts.append(weight * (self.semantic.sum(-2) @ features.semantic.T).float())
        return torch.stack(parts).sum(0)


class ItemTokens(nn.Module):
    """The tokenizers of both kinds and the grounding of generated tokens.

    ``collaborative`` (N + 1, C) and ``text`` (N + 1, F) are frozen inputs, with None for a kind that the set lacks.
    Tokens stand in the order collaborative, semantic 1..n, which no part of the model depends on. Raises ValueError
    when both kinds are missing.
    """

    collaborative: Tensor | None
    text: Tensor | None

    def __init__(
        self,
        collaborative: Tensor | None,
        text: Tensor | None,
        *,
        width: int,
        semantic: int,
        hidden: Sequence[int],
        bottleneck: int,
    ):
        super().__init__()
        self.width, self.semantic = width, 0 if text is None else semantic
        self.per_item = self.semantic + (collaborative is not None)
        if not self.per_item:
            raise ValueError("an item without collaborative and semantic tokens has none at all; keep one of the two")
        # Inputs, known to whoever saves a model: a checkpoint need not repeat them.
        self.register_buffer("collaborative", collaborative, persistent=False)
        self.register_buffer("text", text if self.semantic else None, persistent=False)
        if collaborative is not None:
            self.projection = nn.Linear(collaborative.shape[1], width)
        if self.text is not None:
            outer = [self.text.shape[1], *hidden, bottleneck]
            self.encoder = nn.Sequential(perceptron(outer), nn.ReLU())
            self.expansion = _xavier(nn.Linear(bottleneck, semantic * width))
            self.decoder = perceptron([semantic * width, *reversed(outer)])

    def features(self) -> Features:
        """Of all items, with gradient."""
        return Features(self.collaborative, None if self.text is None else self.encoder(self.text))

    def tokens(self, items: Tensor, features: Features) -> Tensor:
        """items (...) -> (..., T, D)"""
        parts = []
        if features.collaborative is not None:
            parts.append(self.projection(features.collaborative[items])[..., None, :])  # (..., 1, D)
        if features.semantic is not None:
            parts.append(self.expansion(features.semantic[items]).unflatten(-1, (self.semantic, self.width)))
        return torch.cat(parts, -2)

    def reconstruction_error(self, items: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean squared error between the texts of items (...) and what their tokens (..., T, D) say of them.

        The mean is over dimensions and over items, weighed by ``weights`` (...) where given; 0 without semantic tokens.
        """
        if self.text is None:
            return tokens.new_zeros(())
        rebuilt = self.decoder(tokens[..., -self.semantic :, :].flatten(-2))  # (..., F)
        errors = (rebuilt - self.text[items]).float().square().mean(-1)  # (...)
        if weights is None:
            return errors.mean() if errors.numel() else errors.sum()
        return (errors * weights).sum() / weights.sum()

    def sought(self, states: Tensor) -> Sought:
        """Generated tokens (..., T, D), in the order of the set, carried back to the features."""
        first = self.collaborative is not None
        collaborative = states[..., 0, :] @ self.projection.weight if first else None  # (..., C)
        if self.text is None:
            return Sought(collaborative, None)
        maps = self.expansion.weight.unflatten(0, (self.semantic, self.width))  # (n, D, H)
        return Sought(collaborative, (states[..., int(first) :, None, :] @ maps).squeeze(-2))  # (..., n, H)

    def generation_loss(self, states: Tensor, targets: Tensor, features: Features, rivals: Rivals) -> Tensor:
        """Generated tokens (P, T, D) and target items (P,) -> cross-entropy among the rivals, mean over tokens."""
        sought, places = self.sought(states), rivals.places[targets]
        total = states.new_zeros((), dtype=torch.float32)
        if sought.collaborative is not None and features.collaborative is not None:
            total = total + _cross_entropy(sought.collaborative, features.collaborative[rivals.items], places)
        if sought.semantic is not None and features.semantic is not None:
            asked = places.repeat_interleave(self.semantic)  # (P * n,)
            loss = _cross_entropy(sought.semantic.flatten(0, 1), features.semantic[rivals.items], asked)
            total = total + self.semantic * loss
        return total / self.per_item


def _cross_entropy(states: Tensor, items: Tensor, places: Tensor) -> Tensor:
    """states (P, D), items (M, D) and the rows (P,) of the right ones -> mean."""
    with torch.autocast(states.device.type, enabled=False):  # half precision tells too few logits apart
        return F.cross_entropy(states.float() @ items.float().T, places)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [_xavier(nn.Linear(before, after)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _xavier(layer: nn.Linear) -> nn.Linear:
    """Xavier-normal weights and no bias to start with, as the released code has it."""
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
