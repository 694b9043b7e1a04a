"""Recall against chance, with intervals that know that the users and the target items are both a sample.

Per target: was it among the first K? -> mean over users - K / candidates -> pigeonhole bootstrap -> 95 % interval.

A method that only knows item ids has nothing to tell new items apart by, so it gives every user nearly the same few
of them; which ones is luck. A bootstrap over users alone takes the items of the data for granted and calls the luck of
ten items significant. The pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap") draws users and items anew,
each with replacement and independently, and a target counts as often as its user times its item were drawn.

Letters in shape comments: T targets, U users, I items, M methods, R resamples, B resamples of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000
SEED = 0
LEVEL = 0.95
ENOUGH_ITEMS = 30
"""Different items that must be hit before a low recall is called below chance and not bad luck."""
BLOCK_NUMBERS = 2_000_000
"""Resamples x targets worked on at a time: bounds memory to a few times 16 MB."""


@dataclass(frozen=True)
class AgainstChance:
    """One method in one setting: recall@K, how far it is from that of a random list, and how sure that is."""

    recall: float
    difference: float
    interval: tuple[float, float]
    """95 %, pigeonhole bootstrap over users and target items; not adjusted for the number of methods."""
    items_hit: int
    """Different items among its hits."""
    verdict: str
    """``above chance``, ``below chance`` or "", see ``verdict``."""


def against_chance(
    users: np.ndarray,
    items: np.ndarray,
    hits: np.ndarray,
    chance: float,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[AgainstChance]:
    """Every method of one setting. ``users`` and ``items`` (T,) name each target, ``hits`` (T, M) is the share of a
    method's seeds that found it among the first K.

    The draws depend on the targets and ``seed`` only: a method's interval does not move when another joins.
    """
    user, item = (np.unique(ids, return_inverse=True)[1] for ids in (users, items))  # (T,) each, from 0 on
    share = 1 / np.bincount(user)[user]  # (T,) a target's part in its user's recall
    recall = share @ hits / share.sum()  # (M,); shares add up to the number of users
    means = np.concatenate(list(_resampled(user, item, share, hits, resamples, seed)))  # (R, M)
    bounds = np.quantile(means - chance, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)  # (2, M)
    found = []
    for m, (low, high) in enumerate(bounds.T.tolist()):
        n = len(np.unique(item[hits[:, m] > 0]))
        value = float(recall[m])
        found.append(AgainstChance(value, value - chance, (low, high), n, verdict(low, high, n)))
    return found


def verdict(low: float, high: float, items_hit: int) -> str:
    """What an interval of the difference says: ``above chance``, ``below chance`` or "" where it holds 0.

    A bootstrap sees only the luck that shows in the data. A list of ten unpopular items earns next to nothing and
    leaves nothing to resample, so its interval is too short below; hence ``ENOUGH_ITEMS``.
    """
    return "above chance" if low > 0 else "below chance" if high < 0 and items_hit >= ENOUGH_ITEMS else ""


def _resampled(
    user: np.ndarray, item: np.ndarray, share: np.ndarray, hits: np.ndarray, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Blocks (B, M) of recall under resampled users and items: sum of w v share hit / sum of w v share."""
    of_users, of_items = np.random.SeedSequence(seed).spawn(2)
    drawn_users = _counts(int(user.max()) + 1, of_users)
    drawn_items = _counts(int(item.max()) + 1, of_items)
    size = max(1, BLOCK_NUMBERS // len(user))
    for start in range(0, resamples, size):
        n = min(size, resamples - start)
        weights = np.empty((n, len(user)))  # (B, T)
        for row in weights:
            row[:] = next(drawn_users)[user] * next(drawn_items)[item] * share
        total = weights.sum(1, keepdims=True)  # (B, 1), 0 only where all of few targets were missed
        yield weights @ hits / np.where(total > 0, total, 1)


def _counts(n: int, seed: np.random.SeedSequence) -> Iterator[np.ndarray]:
    """How often each of ``n`` is drawn in n draws with replacement (n,), again and again."""
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield np.bincount(rng.integers(0, n, n), minlength=n)
