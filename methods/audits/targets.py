"""Whether a beam can reach the targets: the rank of every code of a target given the target's own prefix.

What SimGR estimates in section 4.1. Letters in shapes: B or T targets, C codes of a level, L levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.blocks.beam_search import Step
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds, Trie


def token_ranks(step: Step, ids: SemanticIds, trie: Trie, items: Tensor) -> Tensor:
    """(B, L, 2) rank from 1 of every code of an item (B,), each given the item's own codes before it.

    First among all codes of the level, as in a search without a trie; then among those that lead to an item of the
    trie, as in this search. A code that leads to none ranks after all others there.
    """
    tokens = ids.tokens(items)  # (B, L)
    fed, parents = torch.full((len(items), 1), PAD_TOKEN, device=items.device), None
    nodes = torch.zeros((len(items), 1), dtype=torch.long, device=items.device)
    ranks = []
    for depth in range(ids.levels):
        level = ids.level(depth)
        logits = step(fed, parents)[:, 0, level]  # (B, C)
        own = tokens[:, depth, None] - level.start  # (B, 1)
        children = trie.children(depth, nodes)[:, 0]  # (B, C), -1 = no item
        likelier = logits > logits.gather(1, own)
        among_children = 1 + (likelier & (children >= 0)).sum(1)
        nodes = children.gather(1, own).long()
        among_children = among_children.where(nodes[:, 0] >= 0, level.stop - level.start + 1)
        ranks.append(torch.stack([1 + likelier.sum(1), among_children], 1))
        fed, parents = tokens[:, depth, None], torch.zeros_like(nodes)
    return torch.stack(ranks, 1)


def retained(ranks: np.ndarray, beam_size: int) -> dict[str, dict[str, Any]]:
    """What SimGR estimates of the targets: ranks (T, L, 2) -> ``all codes`` and ``codes of items``, each with

    ``marginals`` (L,), the share of targets whose code of a level is among the ``beam_size`` likeliest given its own
    prefix; ``union_bound`` = 1 - sum of (1 - marginal), the paper's Equation 15, which can be below 0; and ``joint``,
    the share for which that holds at every level, which the union bound is a lower bound of.
    """
    within = ranks <= beam_size  # (T, L, 2)
    found = {}
    for place, among in enumerate(("all codes", "codes of items")):
        marginals = within[:, :, place].mean(0)
        found[among] = {
            "marginals": [float(q) for q in marginals],
            "union_bound": float(1 - (1 - marginals).sum()),
            "joint": float(within[:, :, place].all(1).mean()),
        }
    return found
