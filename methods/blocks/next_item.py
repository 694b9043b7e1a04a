"""What generators are trained and compared on: every (prefix, next item) pair, and a fixed sample of questions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmark.types import Questions, TrainingView

VALIDATION_SEED = 20_231_210
"""Draws the users on whom checkpoints are compared, the same for every seed and method."""


class NextItemPairs:
    """Every (prefix, next item) pair of the training sequences, gathered on the device when asked for.

    A sequence of n items gives n - 1 pairs (METHODS 0.1; Beauty: 131,413). A history is cut to the last
    ``max_history`` items; the first item is never a target.
    """

    def __init__(self, view: TrainingView, device: torch.device):
        sequences = view.sequences
        within = np.arange(len(sequences.items)) - sequences.offsets[:-1][sequences.row_of]  # (T,)
        targets = np.flatnonzero(within > 0)  # (P,) places in the flat items
        self.items = torch.from_numpy(sequences.items.astype(np.int64)).to(device)  # (T,)
        self.users = torch.from_numpy(view.users[sequences.row_of[targets]].astype(np.int64)).to(device)
        self.targets = torch.from_numpy(targets).to(device)
        self.lengths = torch.from_numpy(np.minimum(within[targets], view.max_history))  # (P,)

    def take(self, rows: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of one history length -> users (B,), histories (B, length), next items (B,)."""
        target = self.targets[rows]
        places = target[:, None] + torch.arange(-length, 0, device=target.device)
        return self.users[rows], self.items[places], self.items[target]


def without_pairs(view: TrainingView) -> str | None:
    """Why nothing can be learned from the sequences, if so."""
    if (view.sequences.lengths > 1).any():
        return None
    return "no user has two training items, so no next item can be learned"


def sample(questions: Questions, n: int | None) -> Questions:
    """``n`` of the questions, drawn once and for all; None = all of them."""
    if n is None or n >= len(questions):
        return questions
    drawn = np.random.Generator(np.random.PCG64(VALIDATION_SEED)).permutation(len(questions))[:n]
    return questions.take(np.sort(drawn))
