"""Residual quantisation of plain vectors: codebooks by k-means level by level, codes, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from methods.blocks.semantic_ids import perplexity

LEAST_USAGE = 0.2
"""A level that uses a smaller share of the codes it could use has collapsed; healthy first levels use 0.58-0.78."""
LARGEST_BUCKET = 0.5
"""A first code that holds a larger share of the different items says nothing; a healthy one holds below 0.05."""
ALIKE = 1e-5
"""Vectors that differ by less than this share of the largest value count as equal: the noise of an encoder."""
SCALED_ROUNDS = 24
"""Sinkhorn rounds on plain factors between two rounds in the log domain: few enough never to overflow."""
SPARE_NOISE = 1e-2
"""Size of the noise on codes that no training vector asked for, relative to the spread of the vectors."""


def nearest(residual: Tensor, codebook: Tensor) -> Tensor:
    """residual (B, D), codebook (K, D) -> (B,) the nearest code of each row, the lowest index among equals."""
    squares = codebook.square().sum(1)  # (K,)
    # |r - e|^2 without |r|^2, which is the same for every code.
    return torch.addmm(squares, residual, codebook.T, alpha=-2.0).argmin(1)


def sinkhorn(distances: Tensor, epsilon: float, iterations: int = 50) -> Tensor:
    """Squared distances (B, K) -> transport plan (B, K) float64 with rows summing to 1 / B and columns to 1 / K.

    Distances are centred into [-1, 1] over the whole matrix, Q = exp(-distance / epsilon), and ``iterations`` rounds
    of row, then column normalisation follow (METHODS 0.3, LC-Rec). Columns are exact, rows converge. The code of a
    row is its argmax. Safe for any epsilon > 0: after a round in the log domain every row and column holds an entry
    of at least 1 / (B K^2), so a few dozen rounds can run on plain factors before these are folded back.
    """
    costs = distances.detach().double()
    n_rows, n_codes = costs.shape
    low, high = costs.aminmax()
    middle = (high + low) / 2
    log_plan = (middle - costs) / (high - middle + 1e-5) / epsilon  # (B, K)
    for start in range(0, iterations, SCALED_ROUNDS + 1):
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True) - math.log(n_rows)
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True) - math.log(n_codes)
        plan, by_row, by_code = log_plan.exp(), costs.new_ones(n_rows), costs.new_ones(n_codes)
        for _ in range(min(SCALED_ROUNDS, iterations - start - 1)):
            by_row = 1 / (n_rows * (plan @ by_code))
            by_code = 1 / (n_codes * (by_row @ plan))
        log_plan = log_plan + by_row.log()[:, None] + by_code.log()
    return log_plan.exp()


def kmeans(vectors: np.ndarray, n_codes: int, seed: int, rounds: int = 50) -> np.ndarray:
    """Centres (K, D) float32 of vectors (N, D): k-means++ and at most ``rounds`` Lloyd iterations, seeded.

    With fewer distinct vectors than codes each of them is a centre, and the codes left over are such centres with
    a little noise.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    distinct = np.unique(vectors, axis=0)
    if len(distinct) > n_codes:
        model = KMeans(n_codes, n_init=1, max_iter=rounds, random_state=seed)
        return model.fit(vectors).cluster_centers_.astype(np.float32)
    rng = np.random.default_rng(seed)
    spare = rng.choice(len(distinct), n_codes - len(distinct))
    spread = max(float(vectors.std()), 1e-6)
    noise = SPARE_NOISE * spread * rng.standard_normal((len(spare), vectors.shape[1]))
    return np.concatenate([distinct, distinct[spare] + noise]).astype(np.float32)


def residual_codebooks(
    vectors: Tensor, levels: int, n_codes: int, seed: int, progress: Callable[[int], None] = lambda _level: None
) -> Tensor:
    """Codebooks (L, K, D) fitted to vectors (N, D): each level's k-means sees the residuals of the level before.

    ``progress`` is called with the number of each level before it is fitted.
    """
    residual, codebooks = vectors, []
    for level in range(levels):
        progress(level)
        centres = kmeans(residual.cpu().numpy(), n_codes, seed + level)
        codebook = torch.from_numpy(centres).to(vectors.device)
        codebooks.append(codebook)
        residual = residual - codebook[nearest(residual, codebook)]
    return torch.stack(codebooks)


def residual_codes(vectors: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """vectors (B, D), codebooks (L, K, D) -> codes (B, L), and the residuals (L, B, D) that each level quantised."""
    residual, codes, residuals = vectors, [], []
    for codebook in codebooks:
        chosen = nearest(residual, codebook)
        codes.append(chosen)
        residuals.append(residual)
        residual = residual - codebook[chosen]
    return torch.stack(codes, 1), torch.stack(residuals)


def scaling(fitted: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Shift (D,) and scale (D,) for ``(x - shift) * scale``, from the vectors (M, D) of training items.

    ``standardize`` gives every dimension mean 0 and variance 1, ``uniform`` mean 0 and one common scale, so that the
    mean variance is 1 and distances keep their proportions; ``none`` changes nothing. A dimension in which
    training items do not differ is dropped (scale 0), for nothing is known of it.
    """
    zeros, ones = torch.zeros_like(fitted[0]), torch.ones_like(fitted[0])
    if kind == "none":
        return zeros, ones
    variance, mean = torch.var_mean(fitted, 0, correction=0)
    if kind == "uniform":
        variance = variance.mean().expand_as(mean)
    elif kind != "standardize":
        raise ValueError(f"unknown scaling '{kind}'; use standardize, uniform or none")
    return mean, torch.where(variance > 1e-10 * variance.max(), variance.rsqrt(), zeros)


def deviation(x: Tensor) -> Tensor:
    """Squared deviation of x (N, D) from its mean, summed: what errors are relative to; 1 where nothing deviates."""
    total = (x - x.mean(0)).square().sum()
    return torch.where(total > 0, total, torch.ones_like(total))


def code_report(codes: np.ndarray, n_codes: int) -> dict[str, Any]:
    """What codes (N, L) of N items look like, before collisions are resolved.

    ``usage`` (share of codes used) and ``perplexity`` (exp of the entropy) per level; ``largest_bucket``, the share
    of items on the commonest first code; ``distinct_codes``; ``collision_rate``, the share of items whose whole
    code another item has too.
    """
    counts = [np.bincount(level, minlength=n_codes) for level in codes.T]
    _, copies = np.unique(codes, axis=0, return_counts=True)
    return {
        "usage": [round(float((c > 0).mean()), 4) for c in counts],
        "perplexity": [round(perplexity(c), 2) for c in counts],
        "largest_bucket": round(float(counts[0].max() / len(codes)), 4),
        "distinct_codes": len(copies),
        "collision_rate": round(float(copies[copies > 1].sum() / len(codes)), 6),
    }


def refuse_collapse(codes: np.ndarray, vectors: np.ndarray, n_codes: int) -> None:
    """Raises ValueError when the codes (M, L) of different training vectors (M, D) do not tell them apart.

    Items with equal vectors count once. A level is only asked to separate what the levels before it left together.
    """
    steps = np.round(vectors / max(float(np.abs(vectors).max()), ALIKE) / ALIKE)
    _, different = np.unique(steps, axis=0, return_index=True)
    codes, advice = codes[different], "use more epochs, another scaling or a lower learning rate, or kind=rq-kmeans"
    largest = int(np.bincount(codes[:, 0]).max())
    if len(codes) > 2 and largest > LARGEST_BUCKET * len(codes):
        raise ValueError(
            f"the tokenizer collapsed: {largest} of {len(codes)} different items share their first code; {advice}"
        )
    together = len(codes)
    for level in range(codes.shape[1]):
        used, possible = len(np.unique(codes[:, level])), min(n_codes, together)
        if used < LEAST_USAGE * possible:
            raise ValueError(
                f"the tokenizer collapsed: level {level + 1} uses {used} of {possible} possible codes; {advice}"
            )
        _, copies = np.unique(codes[:, : level + 1], axis=0, return_counts=True)
        together = int(copies[copies > 1].sum())
