"""SimGR's network: history tokens -> states after each item; item tokens -> item vectors by one of five aggregators.

Letters in shapes: B users, L items of history, C tokens of an item, P prompt vectors, D width, M items.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.blocks.causal_lm import SPREAD, Causal, Prompt
from methods.blocks.semantic_ids import SemanticIds


class Mean(nn.Module):
    """An aggregator: the token vectors (M, C, D) of items -> their vectors (M, D)."""

    def __init__(self, levels: int, width: int):
        super().__init__()

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.mean(1)


class Concat(nn.Module):
    """A linear layer of all token vectors side by side."""

    def __init__(self, levels: int, width: int):
        super().__init__()
        self.linear = nn.Linear(levels * width, width)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(vectors.flatten(1))


class Projection(nn.Module):
    """The mean after a linear layer."""

    def __init__(self, levels: int, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(vectors).mean(1)


class Attention(Projection):
    """A learned query says how much of each token vector is taken: softmax over the tokens of <q, W e>."""

    def __init__(self, levels: int, width: int):
        super().__init__(levels, width)
        self.query = nn.Parameter(SPREAD * torch.randn(width))

    def forward(self, vectors: Tensor) -> Tensor:
        weights = (self.linear(vectors) @ self.query).softmax(1)  # (M, C)
        return (weights[:, :, None] * vectors).sum(1)


class Gating(Projection):
    """Each dimension of each token vector has a gate, sigmoid(W e + b); the gated sum over the sum of the gates."""

    def forward(self, vectors: Tensor) -> Tensor:
        gates = self.linear(vectors).sigmoid()  # (M, C, D)
        return (gates * vectors).sum(1) / gates.sum(1)


AGGREGATORS: dict[str, Callable[[int, int], nn.Module]] = {
    "mean": Mean,
    "concat": Concat,
    "proj": Projection,
    "attention": Attention,
    "gating": Gating,
}


class Network(nn.Module):
    """A language model behind a prompt, and one table of code tokens for what it reads and what it is compared with."""

    def __init__(self, lm: Causal, prompt: Prompt, aggregator: str, ids: SemanticIds):
        super().__init__()
        self.lm, self.prompt = lm, prompt
        self.embedding = nn.Embedding(ids.vocab_size, lm.width, _weight=lm.new_rows(ids.vocab_size))
        self.aggregate = AGGREGATORS[aggregator](ids.levels, lm.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, C) of histories -> states (B, L, D), each after an item's last token and all before it."""
        prompt = self.prompt().expand(len(tokens), -1, -1)  # (B, P, D)
        states = self.lm(torch.cat([prompt, self.embedding(tokens.flatten(1))], 1))  # (B, P + L * C, D)
        return states[:, prompt.shape[1] :].unflatten(1, tokens.shape[1:])[:, :, -1]

    def vectors(self, tokens: Tensor) -> Tensor:
        """Tokens (M, C) of items -> their vectors A(E) (M, D)."""
        return self.aggregate(self.embedding(tokens))
