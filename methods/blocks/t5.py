"""T5 (Raffel et al., JMLR 2020) for item codes: tokens -> encoder -> memory -> decoder -> logits.

The same function as transformers' T5, with position bias and masks as arguments, and a decoder that keeps the
cross-attention keys once per user however many beams search (``Decoding``).
Letters: B users, S memory length, T target length, W beams, D width, H heads, E head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.dropout import dropout


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a T5; the defaults are the small T5 that the published semantic-ID methods share."""

    width: int = 128
    heads: int = 6
    head_width: int = 64
    feed: int = 1024
    encoder_layers: int = 4
    decoder_layers: int = 4
    dropout: float = 0.1
    buckets: int = 32
    max_distance: int = 128
    feed_kind: str = "relu"
    """``relu`` (T5) or ``gated-gelu`` (T5 1.1)."""
    tied: bool = True
    """One table for input and output embedding, the output scaled by width ** -0.5 (T5); T5 1.1 has two."""


class T5(nn.Module):
    """Encoder-decoder over ``vocab_size`` tokens.

    Masks are bool, True = may be attended: (B, S) for keys alone, or (B, Q, S) per query. A position bias is
    (1 or B, H, Q, S), added to the attention scores before the softmax; the stacks compute T5's own from relative
    positions when none is given.
    """

    def __init__(self, vocab_size: int, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocab_size, shape.width)
        self.encoder = Stack(shape, shape.encoder_layers, causal=False)
        self.decoder = Stack(shape, shape.decoder_layers, causal=True)
        self.head = None if shape.tied else nn.Linear(shape.width, vocab_size, bias=False)
        self._initialise()

    def encode(self, tokens: Tensor, mask: Tensor | None = None, *, position_bias: Tensor | None = None) -> Tensor:
        """tokens (B, S) -> memory (B, S, D)."""
        return self.encoder(self.embedding(tokens), mask=mask, position_bias=position_bias)

    def decode(
        self,
        tokens: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        position_bias: Tensor | None = None,
    ) -> Tensor:
        """Teacher forcing: tokens (B, T), the first being the start token -> logits (B, T, V)."""
        x = self.embedding(tokens)
        return self.decode_embedded(x, memory, memory_mask, mask=mask, position_bias=position_bias)

    def decode_embedded(
        self,
        x: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        position_bias: Tensor | None = None,
    ) -> Tensor:
        """The same from embeddings x (B, T, D) in place of tokens."""
        states = self.decoder(x, mask=mask, position_bias=position_bias, memory=memory, memory_mask=memory_mask)
        return self.logits(states)

    def decoding(self, memory: Tensor, memory_mask: Tensor | None = None) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The step function of beams over memory (B, S, D), see ``Decoding.step``."""
        return Decoding(self, memory, memory_mask).step

    def logits(self, states: Tensor) -> Tensor:
        """Decoder states (..., D) -> logits (..., V)."""
        if self.head is not None:
            return self.head(states)
        return F.linear(states * self.shape.width**-0.5, self.embedding.weight)

    def _initialise(self) -> None:
        """T5's rule: N(0, 1) embeddings, linear layers by fan-in, queries smaller by the head width's root."""
        nn.init.normal_(self.embedding.weight, std=1.0)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=self.shape.width**-0.5)
        initialise_layers(self, self.shape)


def initialise_layers(model: nn.Module, shape: Shape) -> None:
    """T5's rule for every attention, feed-forward layer and position bias in ``model``."""
    width, inner, feed = shape.width, shape.heads * shape.head_width, shape.feed
    for module in model.modules():
        if isinstance(module, Attention):
            nn.init.normal_(module.query.weight, std=(width * shape.head_width) ** -0.5)
            nn.init.normal_(module.key_value.weight, std=width**-0.5)
            nn.init.normal_(module.out.weight, std=inner**-0.5)
        elif isinstance(module, FeedForward):
            nn.init.normal_(module.inner.weight, std=width**-0.5)
            nn.init.normal_(module.out.weight, std=feed**-0.5)
        elif isinstance(module, Stack):
            nn.init.normal_(module.bias_table.weight, std=width**-0.5)


class Stack(nn.Module):
    """Encoder, or decoder when ``causal``: pre-norm layers that share one position-bias table."""

    def __init__(self, shape: Shape, n_layers: int, causal: bool):
        super().__init__()
        self.shape, self.causal = shape, causal
        self.bias_table = nn.Embedding(shape.buckets, shape.heads)
        self.layers = nn.ModuleList(Layer(shape, cross=causal) for _ in range(n_layers))
        self.norm = RMSNorm(shape.width)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Embeddings x (B, Q, D), of a decoder with memory (B, S, D) -> states (B, Q, D)."""
        positions = torch.arange(x.shape[1], device=x.device)
        bias: Tensor | None = self.position_bias(positions, positions) if position_bias is None else position_bias
        if self.causal:
            mask = _joined(mask, positions[:, None] >= positions)
        bias, memory_bias = _masked(bias, mask), _masked(None, memory_mask)
        x = self._drop(x)
        for layer in self.layers:
            x = layer(x, bias, memory, memory_bias)
        return self._drop(self.norm(x))

    def position_bias(self, queries: Tensor, keys: Tensor) -> Tensor:
        """T5's relative bias (1, H, Q, S) between integer positions (Q,) and (S,)."""
        distance = keys - queries[:, None]  # (Q, S)
        bucket = _bucket(distance, self.causal, self.shape.buckets, self.shape.max_distance)
        return self.bias_table(bucket).permute(2, 0, 1)[None]

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.shape.dropout, self.training)


class Layer(nn.Module):
    """Self-attention, cross-attention in a decoder, feed-forward: each behind a norm, with a residual."""

    def __init__(self, shape: Shape, cross: bool):
        super().__init__()
        self.drop = shape.dropout
        self.self_norm, self.self_attention = RMSNorm(shape.width), Attention(shape)
        if cross:
            self.cross_norm, self.cross_attention = RMSNorm(shape.width), Attention(shape)
        self.feed_norm, self.feed = RMSNorm(shape.width), FeedForward(shape)

    def forward(self, x: Tensor, bias: Tensor | None, memory: Tensor | None, memory_bias: Tensor | None) -> Tensor:
        normed = self.self_norm(x)
        x = x + self._drop(self.self_attention(normed, normed, bias))
        if memory is not None:
            x = x + self._drop(self.cross_attention(self.cross_norm(x), memory, memory_bias))
        return x + self._drop(self.feed(self.feed_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.drop, self.training)


class Attention(nn.Module):
    """Multi-head attention without biases and, as T5 has it, without scaling of the scores."""

    def __init__(self, shape: Shape):
        super().__init__()
        inner = shape.heads * shape.head_width
        self.heads, self.drop = shape.heads, shape.dropout
        self.query = nn.Linear(shape.width, inner, bias=False)
        self.key_value = nn.Linear(shape.width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, shape.width, bias=False)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """x (B, Q, D) attends to memory (B, S, D); bias broadcasts to (B, H, Q, S)."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q, E)
        key, value = self.keys_values(memory)  # (B, H, S, E)
        return self.out(attend(query, key, value, bias, self.drop if self.training else 0.0).transpose(1, 2).flatten(2))

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, S, D) -> keys and values, each (B, H, S, E)."""
        both = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return both[0], both[1]


class FeedForward(nn.Module):
    """D -> feed -> D; the gated kind computes gate and value in one product."""

    def __init__(self, shape: Shape):
        super().__init__()
        if shape.feed_kind not in ("relu", "gated-gelu"):
            raise ValueError(f"unknown feed_kind '{shape.feed_kind}'; use relu or gated-gelu")
        self.gated, self.drop = shape.feed_kind == "gated-gelu", shape.dropout
        self.inner = nn.Linear(shape.width, shape.feed * (2 if self.gated else 1), bias=False)
        self.out = nn.Linear(shape.feed, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        if self.gated:
            gate, value = inner.chunk(2, -1)
            inner = F.gelu(gate, approximate="tanh") * value
        else:
            inner = F.relu(inner)
        return self.out(dropout(inner, self.drop, self.training))


class RMSNorm(nn.Module):
    """T5's layer norm: no mean, no bias."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-6)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, drop: float) -> Tensor:
    """softmax(query key^T + bias) value: (B, H, Q, E), (B, H, S, E) twice -> (B, H, Q, E)."""
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, bias, dropout_p=drop, scale=1.0)
    scores = query @ key.transpose(-1, -2)  # (B, H, Q, S)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return dropout(weights, drop, drop > 0) @ value


def _joined(mask: Tensor | None, causal: Tensor) -> Tensor:
    """A key mask (B, S) or (B, Q, S) and the causal mask (Q, S) -> (1 or B, Q, S)."""
    if mask is None:
        return causal[None]
    return (mask[:, None] if mask.dim() == 2 else mask) & causal


def _masked(bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """The bias with the most negative number where the mask (B, S) or (B, Q, S) forbids; None = nothing to add.

    Not -inf: a row that may attend to nothing then gets equal weights, as in transformers, instead of NaN. The number
    is bf16's, which autocast does not round to -inf.
    """
    if mask is None:
        return bias
    mask = mask[:, None, None] if mask.dim() == 2 else mask[:, None]  # (B, 1, 1 or Q, S)
    zero = torch.zeros((), device=mask.device) if bias is None else bias
    return torch.where(mask, zero, torch.finfo(torch.bfloat16).min)


def _bucket(distance: Tensor, causal: bool, buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of key position - query position: exact when near, logarithmic up to ``max_distance``."""
    offset = torch.zeros_like(distance)
    if causal:
        distance = (-distance).clamp(min=0)
    else:
        buckets //= 2
        offset = (distance > 0) * buckets
        distance = distance.abs()
    exact = buckets // 2
    far = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + far.long()).clamp(max=buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


class Decoding:
    """Step-by-step decoding of B users with up to W beams each.

    Cross-attention keys and values are computed once per user and shared by the beams. The self-attention cache
    holds the beams' own few tokens, (B * W, T, 2, H, E) a layer, and follows the beams by whole rows. A
    ``position_bias`` (1, H, T, T) for the longest target replaces the decoder's own.
    """

    def __init__(
        self,
        model: T5,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        *,
        position_bias: Tensor | None = None,
    ):
        assert not model.training, "decoding has no dropout; call model.eval() first"
        self.model, self.position_bias = model, position_bias
        self.memory_bias = _masked(None, memory_mask)  # (B, 1, 1, S)
        self.layers = cast(list[Layer], list(model.decoder.layers))
        self.cross = [layer.cross_attention.keys_values(memory) for layer in self.layers]
        self.cache: list[Tensor] = []
        self.length = 0

    def step(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """The next token of every beam, tokens (B, W) -> logits (B, W, V).

        ``parents`` (B, W) says which beam of the previous step each beam continues; None at the first step.
        """
        return self.model.logits(self.states(tokens, parents))

    def states(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """``step`` up to the head: (B, W, D), for those who want the logits of some beams at a time."""
        bias = self._bias(tokens.device)  # (H, T)
        x = self.model.embedding(tokens)  # (B, W, D)
        cache = self.cache or [x.new_empty(0)] * len(self.cross)
        rows = None if parents is None else self._rows(parents)
        for place, (layer, cross) in enumerate(zip(self.layers, self.cross, strict=True)):
            past = cache[place] if rows is None else cache[place].index_select(0, rows)
            attended, cache[place] = self._own(layer, x, past, bias)  # one layer's old rows go before the next's come
            x = x + attended
            x = x + self._cross(layer, x, *cross)
            x = x + layer.feed(layer.feed_norm(x))
        self.cache = cache
        self.length += 1
        return self.model.decoder.norm(x)

    def _rows(self, parents: Tensor) -> Tensor:
        """Parents (B, W) -> (B * W,) rows of the cache."""
        users = len(parents)
        first = torch.arange(users, device=parents.device)[:, None] * (self.cache[0].shape[0] // users)
        return (first + parents).flatten()

    def _bias(self, device: torch.device) -> Tensor:
        """(H, T): what the newest position adds to its scores of all positions so far."""
        if self.position_bias is not None:
            return self.position_bias[0, :, self.length, : self.length + 1]
        positions = torch.arange(self.length + 1, device=device)
        return self.model.decoder.position_bias(positions[-1:], positions)[0, :, 0]

    def _own(self, layer: Layer, x: Tensor, past: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Self-attention of each beam's newest token to its own tokens, and the cache with that token."""
        attention, normed = layer.self_attention, layer.self_norm(x).flatten(0, 1)  # (B * W, D)
        heads = attention.heads
        new = attention.key_value(normed).unflatten(-1, (1, 2, heads, -1))  # (B * W, 1, 2, H, E)
        kept = new if self.length == 0 else torch.cat([past, new], 1)  # (B * W, T, 2, H, E)
        query = attention.query(normed).unflatten(-1, (1, heads, -1))  # (B * W, 1, H, E)
        weights = ((query * kept[:, :, 0]).sum(-1) + bias.T).softmax(1)  # (B * W, T, H)
        attended = (weights[..., None] * kept[:, :, 1]).sum(1)  # (B * W, H, E)
        return attention.out(attended.flatten(1)).view_as(x), kept

    def _cross(self, layer: Layer, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Cross-attention; the beams of a user are the queries of one product."""
        attention = layer.cross_attention
        query = attention.query(layer.cross_norm(x)).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        return attention.out(attend(query, key, value, self.memory_bias, 0.0).transpose(1, 2).flatten(2))
