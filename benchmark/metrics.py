"""Metrics as array expressions: hits (U, K) give one value per user, lists (U, K) one value per run.

A metric is named ``<name>@<k>``, the same in code, records and tables.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np

from benchmark.types import PAD


def recall(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Hits among the first k / targets. With one target this is hr@k.

    ``hits`` (U, K) bool, True where the list names a target; ``n_targets`` (U,) at least 1; result (U,).
    """
    return hits[:, :k].sum(1) / n_targets


def hit_rate(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """recall@k by its other names, hr@k and hit@k. Raises ValueError where they are not the same: several targets."""
    if (n_targets != 1).any():
        raise ValueError(
            f"hr@{k} and hit@{k} are other names of recall@{k} only where every user has one target, and here somebody "
            f"has {n_targets.max()}; ask for recall@{k}"
        )
    return recall(hits, n_targets, k)


def ndcg(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Sum of 1 / log2(rank + 1) over hits among the first k / that sum of min(targets, k) leading hits."""
    discount = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discount)[np.minimum(n_targets, k) - 1]  # (U,)
    return hits[:, :k] @ discount / ideal


def mrr(hits: np.ndarray, n_targets: np.ndarray, k: int) -> np.ndarray:
    """1 / rank of the first hit among the first k, 0 without one. ``n_targets`` does not matter."""
    first = hits[:, :k].argmax(1)
    return np.where(hits[:, :k].any(1), 1 / (first + 1), 0.0)


def coverage(items: np.ndarray, n_items: int, k: int) -> float:
    """Distinct items among the first k of all lists (U, K) / items that could be named."""
    return _counts(items[:, :k]).size / n_items


def entropy(values: np.ndarray, k: int) -> float:
    """Shannon entropy, natural logarithm, of the values > 0 among the first k columns of (U, K).

    On item ids it is item_entropy@k, on the items' categories category_entropy@k. 0 when there is no value.
    """
    counts = _counts(values[:, :k])
    share = counts / counts.sum() if counts.size else counts
    return abs(float(share @ np.log(share)))  # every term is <= 0


def _counts(values: np.ndarray) -> np.ndarray:
    """How often each value > PAD occurs, zeros left out."""
    counts = np.bincount(values[values > PAD])
    return counts[counts > 0]


PER_USER: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "hr": hit_rate,
    "hit": hit_rate,
}
PER_RUN = ("coverage", "item_entropy", "category_entropy")


def parse(metric: str) -> tuple[str, int]:
    """``"ndcg@10"`` -> ``("ndcg", 10)``. Raises ValueError for an unknown name or a k that is no length."""
    name, _, k = metric.partition("@")
    known = (*PER_USER, *PER_RUN)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        raise ValueError(f"unknown metric '{metric}'; {hint}")
    if not (k.isascii() and k.isdigit() and int(k) > 0):
        raise ValueError(f"metric '{metric}' needs a positive list length, e.g. '{name}@10'")
    return name, int(k)
