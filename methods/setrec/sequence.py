"""Where everything stands in the sequence that the language model reads: what may see what, and at which position.

Decoder only: instruction, history (T tokens an item), then one block of response and queries for every prefix asked
about. An item's tokens share one position and do not see one another, and neither do the queries of a block, so no
order is told within a set. Blocks see the items of their own prefix alone: one pass asks about all prefixes at once.
Encoder-decoder: instruction, history and response are encoded together; the queries are the decoder's whole input.
Letters: S places in the sequence, P instruction, L items, T tokens of an item, R response, K queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Parts:
    """How long the parts of a sequence are."""

    instruction: int
    items: int
    tokens: int
    """Of an item."""
    response: int
    queries: int

    @property
    def history_end(self) -> int:
        return self.instruction + self.items * self.tokens

    @property
    def block(self) -> int:
        """Places of one prefix: response and queries."""
        return self.response + self.queries


@dataclass(frozen=True)
class Layout:
    """One for all rows of a batch, whose histories have one length."""

    mask: Tensor  # (S, S) bool, True = the row's place may see the column's
    positions: Tensor  # (S,) int64


def causal_layout(parts: Parts, prefixes: Sequence[int], *, sparse: bool, device: torch.device | None = None) -> Layout:
    """For a decoder-only model, with one block for each of the ``prefixes``: how many items it may see.

    ``sparse`` False lets an item's token see its siblings before it, as a plain causal mask does.
    """
    ends = torch.tensor(prefixes, device=device).repeat_interleave(parts.block)  # prefix of every place in the blocks
    n, total = parts.history_end, parts.history_end + len(ends)
    place = torch.arange(total, device=device)
    item = (place[:n] - parts.instruction).div(parts.tokens, rounding_mode="floor")  # below 0 in the instruction
    causal = place[:, None] >= place  # (S, S)
    mask = causal.clone()
    if sparse:
        siblings = (item[:, None] == item) & (item >= 0)  # (n, n)
        mask[:n, :n] &= ~siblings | (place[:n, None] == place[:n])
    mask[n:, :n] = item < ends[:, None]
    within = (place[n:] - n) % max(1, parts.block)  # place in its block
    query = within >= parts.response
    same_block = (place[n:, None] - n).div(parts.block, rounding_mode="floor") == (place[n:] - n).div(
        parts.block, rounding_mode="floor"
    )
    mask[n:, n:] = same_block & causal[n:, n:] & (~query | (place[n:, None] == place[n:]))
    before = torch.where(item < 0, place[:n], parts.instruction + item)
    after = parts.instruction + ends + within.clamp(max=parts.response)
    return Layout(mask, torch.cat([before, after]))


def encoder_layout(parts: Parts, *, sparse: bool, device: torch.device | None = None) -> Layout:
    """For the encoder of an encoder-decoder: all places see one another, with ``sparse`` but for siblings."""
    n = parts.history_end
    place = torch.arange(n + parts.response, device=device)
    item = (place - parts.instruction).div(parts.tokens, rounding_mode="floor")
    history = (item >= 0) & (place < n)
    positions = torch.where(history, parts.instruction + item, place)
    positions = torch.where(place >= n, parts.instruction + parts.items + place - n, positions)
    mask = torch.ones(len(place), len(place), dtype=torch.bool, device=device)
    if sparse:
        siblings = (item[:, None] == item) & history & history[:, None]
        mask = ~siblings | (place[:, None] == place)
    return Layout(mask, positions)


def identity_layout(queries: int, *, device: torch.device | None = None) -> Layout:
    """For the decoder of an encoder-decoder: each query sees itself alone, and all stand at one position."""
    mask = torch.eye(queries, dtype=torch.bool, device=device)
    return Layout(mask, torch.zeros(queries, dtype=torch.long, device=device))
