"""What every check for leakage says: a name, a verdict, one sentence with counts; and the null they are held against.

Wherever something could look like a leak by chance or because alike items stand together, the two items of a pair are
exchanged: what is alike is alike both ways, but only a leak points from the history to the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

PASS, FAIL, NOT_APPLICABLE = "PASS", "FAIL", "NOT APPLICABLE"
ALPHA = 1e-3
"""Below it a direction is no chance; small, since a page holds many checks."""


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    verdict: str
    says: str
    """One sentence with the counts."""
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)


def judged(name: str, leaks: bool, says: str, **numbers: float | int | None) -> Check:
    return Check(name, FAIL if leaks else PASS, says, numbers)


def not_applicable(name: str, why: str, **numbers: float | int | None) -> Check:
    return Check(name, NOT_APPLICABLE, why, numbers)


def one_way(forward: int, backward: int) -> float:
    """One-sided p of so many more pairs one way than the other, when exchanging the two of a pair changes nothing.

    The permutation test over all 2 ** (forward + backward) exchanges, in closed form: a binomial with a half.
    """
    both = forward + backward
    return float(stats.binomtest(forward, both, 0.5, alternative="greater").pvalue) if both else 1.0


def chance(p: float) -> str:
    """A p-value in words of a sentence."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
