"""What was found out about a record or a file, in the making and as lines to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    """What was found out about one record or one foreign file."""

    place: str
    passed: bool
    reasons: tuple[str, ...]
    """Why it failed: one sentence each."""
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]


@dataclass
class Notes:
    """A verdict in the making."""

    reasons: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def hold(self, what: str, wrong: list[str]) -> bool:
        """Note ``what`` as checked, and what is ``wrong`` with it as reasons to fail."""
        self.checked.append(what)
        self.reasons += wrong
        return not wrong

    def verdict(self, place: Path) -> Verdict:
        shown = tuple(printable(reason) for reason in self.reasons)
        return Verdict(printable(str(place)), not shown, shown, tuple(self.checked), tuple(self.not_checked))


def report(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines to print: one per record, the reasons of those that failed, and what nobody could check."""
    lines = []
    for one in verdicts:
        lines.append(f"{'PASS' if one.passed else 'FAIL'} {one.place}")
        lines += [f"     {reason}" for reason in one.reasons]
    for word, told in (("checked", "checked"), ("not checked", "not_checked")):
        counts = Counter(what for one in verdicts for what in getattr(one, told))
        lines += [f"{word} ({count} of {len(verdicts)}): {what}" for what, count in counts.items()]
    passed = sum(one.passed for one in verdicts)
    return [*lines, f"{passed} passed, {len(verdicts) - passed} failed"]


def printable(text: str) -> str:
    """Without control characters, which could rewrite a terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
