"""Causal self-attention over item histories: the network of SASRec, and how it is trained and read.

Two callers: the method SASRec itself, and ``collaborative``, which gives other methods item and user vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.run import Run
from benchmark.types import PAD, Cases, Sequences
from methods.blocks.training import Report, Training, train


class Size(Protocol):
    """What the network reads of a Config."""

    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def dropout(self) -> float: ...


class Network(nn.Module):
    """history (B, L) -> states (B, L, D); state t has seen items 0..t only."""

    def __init__(self, n_items: int, max_history: int, size: Size):
        super().__init__()
        self.item = nn.Embedding(n_items + 1, size.width, padding_idx=PAD)
        self.position = nn.Embedding(max_history, size.width)
        self.dropout = nn.Dropout(size.dropout)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.apply(_initialise)

    def forward(self, history: Tensor) -> Tensor:
        positions = self.position.weight[: history.shape[1]]  # (L, D)
        x = self.dropout(self.item(history) + positions)  # (B, L, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each behind a norm and a residual."""

    def __init__(self, size: Size):
        super().__init__()
        self.heads, self.drop = size.heads, size.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.feed = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, H, D/H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, L, D/H)
        drop = self.drop if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))  # (B, L, D)
        return x + self.dropout(self.feed(self.feed_norm(x)))


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) weights, zero biases and a zero PAD row."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def train_windows(
    model: Network,
    sequences: Sequences,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    training: Training,
    validate: Callable[[], float],
    run: Run,
    **how: Any,
) -> Report:
    """Train on every next item of ``sequences``; ``training.batch_size`` counts target positions.

    ``loss(inputs, targets, wanted)`` reads windows (B, L) of one length; ``how`` goes on to ``training.train``.
    Raises ValueError when no sequence has a next item.
    """
    windows = Windows(sequences, model.position.num_embeddings, run.device)
    return train(
        model,
        windows.lengths,
        lambda rows, length: loss(*windows.take(rows, length)),
        training,
        validate,
        run,
        rows_per_batch=rows_of_targets(training.batch_size),
        **how,
    )


class Windows:
    """``training_windows`` on the device: what models that read every prefix in one pass are trained on.

    Raises ValueError when no sequence has a next item.
    """

    def __init__(self, sequences: Sequences, width: int, device: str):
        inputs, targets, wanted = training_windows(sequences, width)
        if not len(inputs):
            raise ValueError("no training sequence holds two items, so no next item can be learned; check the split")
        self.lengths = torch.from_numpy((inputs != PAD).sum(1))  # (R,)
        self.tensors = [torch.from_numpy(a).to(device) for a in (inputs, targets, wanted)]

    def take(self, rows: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of one length -> inputs, targets, wanted positions, each (B, length)."""
        inputs, targets, wanted = (tensor[rows, :length] for tensor in self.tensors)
        return inputs, targets, wanted


def rows_of_targets(batch_size: int) -> Callable[[int], int]:
    """Rows per batch by length, so that a batch holds about ``batch_size`` targets, whatever the length."""
    return lambda length: max(1, batch_size // length)


def full_softmax(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of targets (P,) among all items, by states (P, D) and item vectors (N + 1, D)."""
    return F.cross_entropy((states @ items[1:].T).float(), targets - 1)


def training_windows(sequences: Sequences, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets (R, width) int64 and the wanted positions (R, width) bool: each next item asked once.

    A sequence of n items gives n - 1 positions. When they do not fit into ``width``, overlapping windows that start
    half a width apart cover them, and a position already asked in an earlier window is not asked again, so the
    number of wanted positions is the number of (prefix, next item) pairs (Beauty: 131,413).
    """
    rows: list[np.ndarray] = []
    fresh_from: list[int] = []
    stride = max(1, width // 2)
    for sequence in sequences:
        n = len(sequence) - 1
        if n < 1:
            continue
        asked = 0
        for end in [n] if n <= width else [*range(width, n, stride), n]:
            start = max(0, end - width)
            if end > asked:
                rows.append(sequence[start : end + 1])
                fresh_from.append(asked - start)
            asked = max(asked, end)
    padded = Sequences.from_rows(rows).padded(width + 1).astype(np.int64)  # (R, width + 1)
    inputs, targets = padded[:, :-1].copy(), padded[:, 1:].copy()
    inputs[targets == PAD] = PAD
    wanted = (targets != PAD) & (np.arange(width) >= np.array(fresh_from)[:, None])
    return inputs, targets, wanted


def last_states(model: Network, device: str, histories: Sequences) -> Tensor:
    """States (B, D) at the end of each history; causal attention makes right padding harmless."""
    histories = histories.tail(model.position.num_embeddings)
    lengths = np.maximum(histories.lengths, 1)  # an empty history is read as one PAD
    history = torch.from_numpy(histories.padded(int(lengths.max())).astype(np.int64)).to(device)  # (B, L)
    last = torch.from_numpy(lengths - 1).to(device)
    return model(history)[torch.arange(len(history), device=history.device), last]


def score_last(model: Network, device: str, cases: Cases) -> Tensor:
    """Scores (B, N + 1) of every item after each history."""
    return last_states(model, device, cases.histories) @ model.item.weight.T
