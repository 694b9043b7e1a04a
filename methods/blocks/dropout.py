"""Dropout whose random numbers do not dominate a small model's step on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 1 << 16
"""The drop probability is rounded to a multiple of 1/65536."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each value with probability ``p`` and scale the others by 1 / (1 - p), as ``F.dropout`` does.

    On a CPU, torch draws one Bernoulli number per value, which costs more than the matrix products of a narrow
    transformer. Here one 64-bit draw of the same generator decides four values.
    """
    if not training or p == 0:
        return x
    dropped = round(p * _STEPS)
    if x.device.type != "cpu" or not 0 <= dropped < _STEPS:  # F.dropout also refuses what is no probability
        return F.dropout(x, p, True)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()] >= dropped - _STEPS // 2  # int16 is uniform over -32768..32767
    return x * keep.to(x.dtype).mul_(_STEPS / (_STEPS - dropped)).view(x.shape)
