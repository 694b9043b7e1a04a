"""What to say to a name nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def hint(word: str, known: Iterable[str], noun: str, prefix: str = "") -> str:
    """``did you mean 'X'?`` for the nearest known word whatever its case, else the list of all."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.5)
    if close:
        return f"did you mean '{prefix}{by_lower[close[0]]}'?"
    everything = ", ".join(prefix + name for name in sorted(by_lower.values()) if name)
    return f"known {noun}: {everything or 'none'}"
