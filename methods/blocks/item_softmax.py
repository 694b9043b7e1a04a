"""Softmax over every item of a catalogue without a row of logits per position: exact, a chunk of items at a time.

``rivals`` says which items take part. Items that are new after training are unknown to it, unless it is told otherwise.
An item is known by its tokens. Where its vector is the mean of its token vectors, its logit is the mean of its token
logits, so no item has a vector at all (``mean_softmax``); any other way to make vectors goes through
``chunked_softmax``. Both are computed in the precision of their input, never in that of autocast.
Letters in shapes: P positions, D width, V tokens, N items, L tokens of an item, M items of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from benchmark.types import TrainingView

NEGATIVES = ("training", "catalogue")


@dataclass(frozen=True)
class Rivals:
    """Items among which the softmax of a training finds the next one."""

    items: Tensor  # (M,) int64, ascending
    places: Tensor  # (N + 1,) int64: row of an item among them; of no meaning for one that does not take part

    @classmethod
    def of(cls, taking_part: np.ndarray, device: str = "cpu") -> Rivals:
        """``taking_part`` (N + 1,) bool, PAD at 0, which never does."""
        items = torch.from_numpy(np.flatnonzero(taking_part[1:]) + 1)
        places = torch.from_numpy(taking_part[1:].cumsum() - 1)
        return cls(items.to(device), F.pad(places, (1, 0)).to(device))


def rivals(view: TrainingView, negatives: str, device: str) -> Rivals:
    """The items that compete: ``training``, those with an interaction there, or ``catalogue``, all of them.

    Raises ValueError for another word.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"unknown negatives '{negatives}'; use {' or '.join(NEGATIVES)}")
    return Rivals.of(view.item_counts > 0 if negatives == "training" else np.ones(view.n_items + 1, bool), device)


def mean_softmax(states: Tensor, table: Tensor, tokens: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Cross-entropy (P,) of the targets among N items whose vectors are the means of their tokens' vectors.

    states (P, D), table (V, D), tokens (N, L) int64, targets (P,) rows of ``tokens``. Costs V * D and N * L a
    position, and memory for V + ``chunk`` logits of it, forwards and backwards.
    """
    with torch.autocast(states.device.type, enabled=False):
        return _MeanSoftmax.apply(table @ states.T, tokens, targets, chunk)


def mean_scores(states: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
    """The logits (P, N) behind ``mean_softmax``; rows of ``tokens`` that are equal have equal logits."""
    with torch.autocast(states.device.type, enabled=False):
        return _item_logits(table @ states.T, tokens).T


def chunked_softmax(
    states: Tensor, vectors_of: Callable[[slice], Tensor], n_items: int, targets: Tensor, chunk: int
) -> Tensor:
    """Cross-entropy (P,) of the targets (P,) in 0..N - 1 among N items by inner product with states (P, D).

    ``vectors_of(slice)`` makes the vectors (M, D) of some items, the same each time; gradients reach whatever it
    reads. With more items than ``chunk`` it is called again in the backward pass, so that vectors and logits of one
    chunk exist at a time.
    """

    def part(states: Tensor, places: slice) -> tuple[Tensor, Tensor]:
        logits = vectors_of(places) @ states.T  # (M, P)
        within = (targets - places.start).clamp(0, len(logits) - 1)
        return logits.logsumexp(0), logits.gather(0, within[None])[0]

    summed: list[Tensor] = []
    target_logits = torch.zeros_like(states[:, 0])
    with torch.autocast(states.device.type, enabled=False):
        for places in _chunks(n_items, chunk):
            if chunk < n_items:
                log_sum, found = checkpoint(part, states, places, use_reentrant=False, preserve_rng_state=False)
            else:
                log_sum, found = part(states, places)
            summed.append(log_sum)
            inside = (targets >= places.start) & (targets < places.stop)
            target_logits = target_logits + torch.where(inside, found, 0.0)
        return torch.stack(summed).logsumexp(0) - target_logits


class _MeanSoftmax(torch.autograd.Function):
    """token logits (V, P), tokens (N, L), targets (P,) -> losses (P,); keeps no more than the token logits."""

    @staticmethod
    def forward(ctx: Any, token_logits: Tensor, tokens: Tensor, targets: Tensor, chunk: int) -> Tensor:
        log_sum = token_logits.new_full((token_logits.shape[1],), -torch.inf)
        for places in _chunks(len(tokens), chunk):
            log_sum = log_sum.logaddexp(_item_logits(token_logits, tokens[places]).logsumexp(0))
        ctx.save_for_backward(token_logits, tokens, targets, log_sum)
        ctx.chunk = chunk
        return log_sum - token_logits.gather(0, tokens[targets].T).mean(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        token_logits, tokens, targets, log_sum = ctx.saved_tensors
        share = gradients[0] / tokens.shape[1]  # (P,) of each of an item's tokens
        found = torch.zeros_like(token_logits)
        for places in _chunks(len(tokens), ctx.chunk):
            some = tokens[places]  # (M, L)
            pushed = _item_logits(token_logits, some).sub_(log_sum).exp_().mul_(share)  # (M, P)
            for column in some.T:
                found.index_add_(0, column, pushed)
        wanted = tokens[targets].T  # (L, P)
        found.scatter_add_(0, wanted, -share.expand(wanted.shape))
        return found, None, None, None


def _item_logits(token_logits: Tensor, tokens: Tensor) -> Tensor:
    """token logits (V, P), tokens (M, L) -> (M, P)."""
    return F.embedding_bag(tokens, token_logits, mode="mean")


def _chunks(n_items: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, n_items)) for start in range(0, n_items, chunk))
