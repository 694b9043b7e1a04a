"""K-means whose clusters keep to size limits, with an exact assignment: no cluster starves, none takes everything.

The assignment of N vectors to K centres is a minimum-cost flow. Its network is contracted to the K clusters and one
sink, because of all the vectors that could move from a cluster to another only the cheapest matters. Flow starts at
every vector's cheapest centre and is repaired along shortest paths, one vector too many or too few at a time
(Ahuja, Magnanti & Orlin, *Network Flows*, 9.7), so it costs next to nothing where the limits hardly bind.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from methods.blocks.kmeans import kmeans, nearest

STEPS = 2.0**40
"""Costs are rounded to this fraction of the largest, so that path lengths are exact integers."""
NEVER = 2**60
"""Length of an arc that is not there; half of it is more than any path, and three of them fit into 64 bits."""


def balanced_kmeans(
    vectors: np.ndarray,
    n_codes: int,
    size_min: int,
    size_max: int,
    seed: int,
    n_init: int = 1,
    rounds: int = 10,
    *,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, D) float32 and labels (N,) int64 of vectors (N, D), ``size_min`` to ``size_max`` vectors a cluster.

    The best of ``n_init`` k-means++ starts, or the one that goes on from the centres ``start`` (K, D); each at most
    ``rounds`` Lloyd iterations. Raises ValueError when no clustering keeps to the limits.
    """
    if not n_codes * size_min <= len(vectors) <= n_codes * size_max:
        raise ValueError(
            f"{len(vectors)} vectors cannot be put into {n_codes} clusters of {size_min} to {size_max}; "
            "change the number of clusters or their limits"
        )
    vectors = np.asarray(vectors, np.float64)
    random = np.random.RandomState(seed)
    starts = [kmeans_plusplus(vectors, n_codes, random_state=random)[0] for _ in range(n_init)] if start is None else []
    found = [_lloyd(vectors, centres, size_min, size_max, rounds) for centres in starts or [start]]
    _, centres, labels = min(found, key=lambda one: one[0])
    return centres.astype(np.float32), labels


def balanced_codebooks(latents: Tensor, levels: int, n_codes: int, seed: int) -> Tensor:
    """Codebooks (L, K, D) fitted to latents (M, D), each level's by balanced k-means of what the one before left.

    Limits are LETTER's: at least n / 512 vectors for 256 codes (at most 50), at most four times as many; raised where
    so few would not hold all. They count different vectors: equal ones cannot be told apart by any codebook.
    """
    residual, codebooks = latents, []
    for level in range(levels):
        distinct = np.unique(residual.cpu().numpy(), axis=0)
        if len(distinct) <= n_codes:
            centres = kmeans(distinct, n_codes, seed + level)
        else:
            size_min = min(len(distinct) // (2 * n_codes), 50)
            size_max = max(4 * size_min, -(-len(distinct) // n_codes))
            centres, _ = balanced_kmeans(distinct, n_codes, size_min, size_max, seed + level)
        codebook = torch.from_numpy(centres).to(latents)
        codebooks.append(codebook)
        residual = residual - codebook[nearest(residual, codebook)]
    return torch.stack(codebooks)


def balanced_assignment(
    costs: np.ndarray, size_min: int, size_max: int, prices: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest labels (N,) for costs (N, K), finite, with ``size_min`` to ``size_max`` rows each, and prices (K,).

    Prices prove it: every row has its least ``costs + prices``; a price is above 0 only at ``size_max``, below 0 only
    at ``size_min``. Those of similar costs are a head start. Exact up to 2^-40 of the range of the costs per row.
    """
    assert len(costs) and costs.shape[1] * size_min <= len(costs) <= costs.shape[1] * size_max
    step = max(float(np.ptp(costs)), np.finfo(float).tiny * STEPS) / STEPS
    exact = np.rint((costs - costs.min()) / step).astype(np.int64)  # (N, K)
    starts = [np.zeros(costs.shape[1])] + ([] if prices is None else [prices / step])
    flows = [_Flow(exact, size_min, size_max, np.rint(start).astype(np.int64)) for start in starts]
    flow = min(flows, key=lambda one: one.excess.clip(0).sum())  # prices of very different costs set it back
    flow.repair()
    return flow.labels, flow.prices() * step


def _lloyd(
    vectors: np.ndarray, centres: np.ndarray, size_min: int, size_max: int, rounds: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Inertia, centres (K, D) and labels (N,): assign and average in turn until nothing changes."""
    labels, prices = np.full(len(vectors), -1), None
    for _ in range(rounds):
        costs = cdist(vectors, centres, "sqeuclidean")  # (N, K)
        before, (labels, prices) = labels, balanced_assignment(costs, size_min, size_max, prices)
        if (labels == before).all():
            break
        centres = _means(vectors, labels, centres)
    return float(((vectors - centres[labels]) ** 2).sum()), centres, labels


def _means(vectors: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean (K, D) of every cluster; one without vectors, where the limits allow it, stays where it was."""
    sums = np.zeros_like(centres, dtype=np.float64)
    np.add.at(sums, labels, vectors)
    counts = np.bincount(labels, minlength=len(centres))[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), centres)


class _Flow:
    """One unit from every row to a cluster, and from every cluster ``size_min`` to ``size_max`` to the sink, node K.

    Labels and flow to the sink are optimal for what the nodes have at every moment; ``repair`` evens out their
    excess, which is what enters a node and does not leave it.
    """

    def __init__(self, costs: np.ndarray, size_min: int, size_max: int, prices: np.ndarray):
        self.costs, self.size_min, self.size_max = costs, size_min, size_max
        self.labels = (costs + prices).argmin(1)
        n_clusters = costs.shape[1]
        counts = np.bincount(self.labels, minlength=n_clusters)
        at_zero = counts.clip(size_min, size_max)
        self.sent = np.where(prices > 0, size_max, np.where(prices < 0, size_min, at_zero))  # (K,) to the sink
        self.excess = np.append(counts - self.sent, self.sent.sum() - len(costs))  # (K + 1,)
        self.lengths = np.full((n_clusters + 1, n_clusters + 1), NEVER)  # [to, from]
        self.movers = np.zeros((n_clusters, n_clusters), np.int64)  # [to, from] the row that is cheapest to move

    def repair(self) -> None:
        """Move one unit along a shortest path from a node with too much to one with too little, until none has."""
        for cluster in range(len(self.sent)):
            self._measure(cluster)
        while (self.excess > 0).any():
            lengths, parents = self._shortest(np.where(self.excess > 0, 0, NEVER))
            node = int(np.where(self.excess < 0, lengths, 2 * NEVER).argmin())
            assert lengths[node] < NEVER // 2
            path = [node]
            while parents[path[-1]] >= 0:
                path.append(int(parents[path[-1]]))
            self._send(path[::-1])

    def prices(self) -> np.ndarray:
        """(K,) integers under which the labels are everybody's choice: shortest paths as potentials."""
        lengths, _ = self._shortest(np.zeros(len(self.excess), np.int64))
        return lengths[-1] - lengths[:-1]

    def _send(self, path: list[int]) -> None:
        sink = len(self.sent)
        self.excess[path[0]] -= 1
        self.excess[path[-1]] += 1
        for start, end in pairwise(path):
            if end == sink:
                self.sent[start] += 1
            elif start == sink:
                self.sent[end] -= 1
            else:
                self.labels[self.movers[end, start]] = end
        for cluster in path:
            if cluster != sink:
                self._measure(cluster)

    def _measure(self, cluster: int) -> None:
        """The lengths of the arcs out of a cluster, and of those between it and the sink."""
        rows = np.flatnonzero(self.labels == cluster)
        if len(rows):
            extra = self.costs[rows] - self.costs[rows, cluster, None]  # (R, K)
            best = extra.argmin(0)  # (K,)
            self.movers[:, cluster] = rows[best]
            self.lengths[:-1, cluster] = extra[best, np.arange(len(best))]
        else:
            self.lengths[:-1, cluster] = NEVER
        self.lengths[-1, cluster] = 0 if self.sent[cluster] < self.size_max else NEVER
        self.lengths[cluster, -1] = 0 if self.sent[cluster] > self.size_min else NEVER

    def _shortest(self, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bellman-Ford: path lengths (K + 1,) from nodes at ``start`` (K + 1,), and the node before each, -1 = none."""
        lengths, parents = start, np.full(len(start), -1)
        while True:
            through = self.lengths + lengths  # (K + 1, K + 1) [to, from]
            best = through.argmin(1)
            shorter = through[np.arange(len(best)), best]
            better = (shorter < lengths) & (shorter < NEVER // 2)
            if not better.any():
                return lengths, parents
            lengths, parents = np.where(better, shorter, lengths), np.where(better, best, parents)
