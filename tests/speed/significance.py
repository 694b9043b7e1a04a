"""How much faster the sign-flip test is than scipy's loop; run as ``python -m tests.speed.significance``.

Ours: 100,000 permutations of 45 comparisons at once over 22,363 users (Beauty), no user dropped. scipy:
``permutation_test`` on one comparison with fewer resamples in batches of 200 (one by one it is some 40 times
slower), scaled per resample and comparison.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.stats import permutation_test

from leaderboards.compare import sign_flip

USERS, COMPARISONS, PERMUTATIONS = 22_363, 45, 100_000
SCIPY_RESAMPLES, SCIPY_BATCH = 2_000, 200


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis)


def main() -> None:
    differences = np.random.default_rng(0).normal(size=(USERS, COMPARISONS))
    start = time.perf_counter()
    sign_flip(differences, PERMUTATIONS)
    ours = time.perf_counter() - start
    print(f"ours:  {PERMUTATIONS:,} permutations x {COMPARISONS} comparisons x {USERS:,} users: {ours:.2f} s")

    start = time.perf_counter()
    one = (differences[:, 0],)
    settings = {"n_resamples": SCIPY_RESAMPLES, "batch": SCIPY_BATCH, "vectorized": True}
    permutation_test(one, mean, permutation_type="samples", **settings)
    scipy = time.perf_counter() - start
    print(f"scipy: {SCIPY_RESAMPLES:,} resamples x 1 comparison x {USERS:,} users: {scipy:.2f} s")
    scaled = scipy / SCIPY_RESAMPLES * PERMUTATIONS * COMPARISONS
    print(f"scipy scaled to the same work: {scaled:,.0f} s")
    print(f"ratio {scaled / ours:.0f}x")


if __name__ == "__main__":
    main()
