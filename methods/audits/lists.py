"""What is measured of lists of 20: the codes behind them, what they share, their scores, and how well they are filled.

Letters in shapes: B or U users, D decoders, K list lengths.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmark import metrics
from benchmark.evaluate import find_hits
from benchmark.types import INVALID, PAD, Questions
from methods.blocks.beam_search import Beams
from methods.blocks.exact import best_codes

KS = (5, 10, 20)
LENGTH = max(KS)


def code_list(found: Beams) -> Tensor:
    """(B, LENGTH) leaves of a search, best first, equal scores by leaf number, INVALID where there are no more."""
    leaves, scores = best_codes(found.leaves, found.scores, LENGTH)
    leaves = leaves.masked_fill(scores.isneginf(), INVALID)
    return torch.nn.functional.pad(leaves, (0, LENGTH - leaves.shape[1]), value=INVALID)


def shared(lists: Tensor, reference: Tensor, nothing: int) -> list[list[Tensor]]:
    """Lists (B, D, LENGTH) and one to compare with (B, LENGTH) -> for every D and K the shared part (B,) of the latter.

    ``nothing`` fills the end of a list and is shared by none.
    """
    shares = []
    for one in lists.unbind(1):
        alike = (reference[:, :, None] == one[:, None, :]) & (reference != nothing)[:, :, None]  # (B, LENGTH, LENGTH)
        named = [(reference[:, :k] != nothing).sum(1).clamp(min=1) for k in KS]
        shares.append([alike[:, :k, :k].any(-1).sum(1) / n for k, n in zip(KS, named, strict=True)])
    return shares


def scored_by(items: np.ndarray, questions: Questions, metric: str) -> np.ndarray:
    """Lists (U, D + 1, LENGTH) -> (U, D + 1) of one metric."""
    name, k = metrics.parse(metric)
    lengths = questions.targets.lengths
    columns = [
        metrics.PER_USER[name](find_hits(lists, questions.targets), lengths, k) for lists in items.swapaxes(0, 1)
    ]
    return np.stack(columns, 1)


def quality(lists: np.ndarray) -> dict[str, float]:
    """Of the places of lists (U, LENGTH): filled with an item, naming one a second time, naming what is no item."""
    real = np.sort(np.where(lists > PAD, lists, PAD), axis=1)
    twice = (real[:, 1:] == real[:, :-1]) & (real[:, 1:] > PAD)
    return {
        "fill": float((lists > PAD).mean()),
        "duplicate": float(twice.sum() / lists.size),
        "invalid": float((lists == INVALID).mean()),
    }
