"""What can be asked of semantic IDs beside reconstruction: to follow collaborative vectors, and to use all codes alike.

Both are LETTER's (Wang et al., CIKM 2024), as terms of the RQ-VAE's loss. Letters in shapes: B items of a batch,
L levels, K codes of a level, D width, M most mates of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.balanced import balanced_kmeans
from methods.blocks.rqvae import Outputs, Quantizer

FIRST_RESTARTS = 10
"""k-means starts of the clusters before the first epoch."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """How the codes of a level are grouped."""

    count: int = 10
    smallest: int = 10
    largest: int = 60
    """Codes of a cluster."""
    restarts: int = 0
    """k-means starts after every epoch; 0 = go on from the clusters of the epoch before."""
    rounds: int = 10
    """Lloyd iterations after every epoch, of every start."""


def alignment_loss(quantized: Tensor, collaborative: Tensor) -> Tensor:
    """Cross-entropy of finding each item's row of ``collaborative`` (B, D) among those of the batch by its code.

    ``quantized`` (B, D) asks by inner product, without temperature and in this direction only. Straight-through
    vectors carry the gradient to the encoder alone; codebooks follow their encoder.
    """
    scores = quantized @ collaborative.T  # (B, B)
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def diversity_loss(codebooks: Tensor, codes: Tensor, partners: Tensor) -> Tensor:
    """-log softmax of each code's partner among all other codes, by inner product, mean over (B, L).

    ``codebooks`` (L, K, D); ``codes`` and ``partners`` (B, L); a partner of -1 = the code has none and adds nothing.
    Chosen code vectors are rows of their codebook, so K x K scores serve any batch, and only codebooks get gradients.
    """
    n_codes = codebooks.shape[1]
    itself = torch.eye(n_codes, dtype=torch.bool, device=codebooks.device)
    scores = (codebooks @ codebooks.transpose(1, 2)).masked_fill(itself, -torch.inf)  # (L, K, K)
    log_p = scores.log_softmax(-1).flatten()
    levels = torch.arange(len(codebooks), device=codebooks.device)
    alone = partners < 0
    # The next code stands in for a partner that is not there, since a code's own place holds -inf.
    named = torch.where(alone, (codes + 1) % n_codes, partners)
    losses = -log_p[(levels * n_codes + codes) * n_codes + named]  # (B, L)
    return losses.masked_fill(alone, 0.0).mean()


class Alignment(nn.Module):
    """``alignment_loss`` against frozen vectors (N + 1, D) by item id."""

    def __init__(self, weight: float, vectors: np.ndarray):
        super().__init__()
        self.weight = weight
        self.vectors: Tensor
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)

    def forward(self, outputs: Outputs) -> Tensor:
        return self.weight * alignment_loss(outputs.quantized, self.vectors[outputs.items])


class Diversity(nn.Module):
    """``diversity_loss`` with a random partner from the code's cluster.

    ``recluster`` draws the clusters anew. They are buffers, so a training that was stopped goes on with them.
    """

    def __init__(self, weight: float, clusters: Clusters, quantizer: Quantizer, seed: int):
        super().__init__()
        self.weight, self.clusters, self.seed = weight, clusters, seed
        levels, n_codes = quantizer.levels, quantizer.codes
        most = max(1, min(clusters.largest, n_codes) - 1)
        self.centres: Tensor
        self.mates: Tensor
        self.n_mates: Tensor
        self.register_buffer("centres", torch.zeros(levels, clusters.count, quantizer.width))
        self.register_buffer("mates", torch.zeros(levels, n_codes, most, dtype=torch.long))
        """The other codes of every code's cluster, of which the first ``n_mates`` (L, K) are filled."""
        self.register_buffer("n_mates", torch.zeros(levels, n_codes, dtype=torch.long))

    @torch.no_grad()
    def recluster(self, epoch: int, codebooks: Tensor) -> None:
        """Group the codes of every level of ``codebooks`` (L, K, D), after ``epoch`` epochs."""
        how = self.clusters
        afresh = epoch == 0 or how.restarts > 0
        for level, codebook in enumerate(codebooks.cpu().numpy()):
            centres, labels = balanced_kmeans(
                codebook,
                how.count,
                how.smallest,
                how.largest,
                seed=(self.seed * 1_000_003 + epoch * len(codebooks) + level) % 2**32,
                n_init=how.restarts or FIRST_RESTARTS,
                rounds=how.rounds,
                start=None if afresh else self.centres[level].cpu().numpy(),
            )
            mates, n_mates = mates_of(labels, self.mates.shape[2])
            self.centres[level] = torch.from_numpy(centres)
            self.mates[level] = torch.from_numpy(mates)
            self.n_mates[level] = torch.from_numpy(n_mates)

    def forward(self, outputs: Outputs) -> Tensor:
        return self.weight * diversity_loss(outputs.codebooks, outputs.codes, self.partners(outputs.codes))

    def partners(self, codes: Tensor) -> Tensor:
        """codes (B, L) -> another code of the same cluster each (B, L), drawn uniformly; -1 where there is none."""
        levels = torch.arange(codes.shape[1], device=codes.device)
        available = self.n_mates[levels, codes]  # (B, L)
        places = (torch.rand(codes.shape, device=codes.device) * available).long()
        return torch.where(available > 0, self.mates[levels, codes, places], -1)


def mates_of(labels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster labels (K,) -> the other members (K, width) of each one's cluster, ascending, and how many (K,)."""
    together = labels[:, None] == labels
    np.fill_diagonal(together, False)
    return np.argsort(~together, axis=1, kind="stable")[:, :width], together.sum(1)
