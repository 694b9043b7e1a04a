"""Graph recency: rank items by the transitions, near and far, that lead to them from the user's latest items.

Nothing is trained. Our own construction after the finding that a graph of training transitions, started from the
latest items, rivals trained models (Han et al., arXiv 2605.07125); their heuristic itself, which reads item texts, is
the room ``tgh``. This one reads ids only: an edge from every item to those that came up to ``window`` steps after
it, the more the nearer, a weaker edge back, and a history whose older items weigh less.

Presets: ``@drop-seen`` never recommends what the user already had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmark.method import Estimate
from benchmark.space import Range
from benchmark.types import Cases, Sequences, TrainingView
from methods.blocks.ranking import Scorer


class Graph(Scorer):
    """score(i) = sum over history items j of recency^(steps since j) * (W + two_hop * W P)[j, i].

    W[j, i] = e[j, i] / (out[j]^source_norm in[i]^target_norm): e sums nearness^(d - 1) over all i that came d <=
    window steps after j, and ``backward`` times that over all before it; out and in are its row and column sums.
    P = e / out makes the second hop a random step.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Constants by the mean validation ndcg@10 of amazon14-beauty and amazon14-toys, 5,000 users of each, seen
        items dropped, one constant changed at a time."""

        window: int = 5
        """Of 1, 2, 3, 5 and 10; 10 is as good."""
        nearness: float = 0.7
        """Weight of an edge relative to one a step shorter; of .3, .5 and .7."""
        backward: float = 0.25
        """Of 0, .25, .35, .5, .75 and 1."""
        recency: float = 0.6
        """Weight of a history item relative to the one after it; of .4 to .8. Toys prefers .7."""
        source_norm: float = 0.4
        """Of 0, .25, .3, .4, .5, .6, .75 and 1: from counts alone to shares alone, both of which are worse."""
        target_norm: float = 0.1
        """Of 0, .1, .25 and .5: how much less a popular item is worth."""
        two_hop: float = 0.0
        """Of 0, .1, .2 and .3: Toys gains from .2 (.0767 to .0787) what Beauty loses (.0693 to .0664)."""
        drop_seen: bool = False

    config: Config
    forward_passes = 0
    presets = {"drop-seen": {"drop_seen": True}}
    lineup = ("", "@drop-seen")
    search = {
        "window": Range(1, 10),
        "nearness": Range(0.3, 1.0),
        "backward": Range(0.0, 1.0),
        "recency": Range(0.2, 1.0),
        "source_norm": Range(0.0, 1.0),
        "target_norm": Range(0.0, 0.5),
        "two_hop": Range(0.0, 0.5),
    }

    def fit(self, view: TrainingView) -> Self:
        with self.run.stage("train"):
            edges = transitions(view.sequences, view.n_items, self.config)
            self.weights = _normalised(edges, self.config.source_norm, self.config.target_norm)  # (N + 1, N + 1)
            self.steps = _normalised(edges, 1.0, 0.0)
        return self

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        histories = cases.histories
        steps_ago = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.items))
        asked = sparse.csr_matrix(
            (np.float32(self.config.recency) ** steps_ago, histories.items, histories.offsets),
            shape=(len(cases), self.weights.shape[0]),
            dtype=np.float32,
        )
        near = asked @ self.weights
        scores = (near + self.config.two_hop * (near @ self.steps) if self.config.two_hop else near).toarray()
        if self.config.drop_seen:
            scores[cases.seen.row_of, cases.seen.items] = -np.inf
        return torch.from_numpy(scores).to(self.run.device)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Filling and ranking one score per user and item, 1e8 of them a second."""
        edges = 2.0 * config.window * n_interactions
        return Estimate(seconds=1.0 + edges / 1e6 + n_users * n_items / 1e8, memory_bytes=40.0 * edges + 3e4 * n_items)


def transitions(sequences: Sequences, n_items: int, config: Graph.Config) -> sparse.csr_matrix:
    """(N + 1, N + 1): the edges e of ``Graph``, never from one user to the next."""
    size = n_items + 1
    forward = sparse.csr_matrix((size, size), dtype=np.float32)
    for distance in range(1, config.window + 1):
        pairs = sequences.apart(distance)
        weights = np.full(len(pairs[0]), config.nearness ** (distance - 1), np.float32)
        forward = forward + sparse.csr_matrix((weights, pairs), shape=(size, size))  # equal pairs add up
    return (forward + config.backward * forward.T).tocsr()


def _normalised(edges: sparse.csr_matrix, source: float, target: float) -> sparse.csr_matrix:
    """Every edge divided by its row's sum to the power ``source`` and its column's to the power ``target``."""
    rows, columns = (np.asarray(edges.sum(axis)).ravel() for axis in (1, 0))
    by_row, by_column = (
        sparse.diags(np.where(sums > 0, np.maximum(sums, 1e-30) ** -power, 0.0).astype(np.float32))
        for sums, power in ((rows, source), (columns, target))
    )
    return (by_row @ edges @ by_column).tocsr()


METHOD = Graph
