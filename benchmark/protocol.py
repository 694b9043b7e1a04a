"""What a protocol is: pinned values with a content hash, and a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmark.types import Budget, Dataset, Split


@dataclass(frozen=True)
class Protocol:
    """One way of asking. Changing any rule changes the hash, and results of two hashes never share a table."""

    name: str
    version: int
    rules: Mapping[str, Any]
    """Every pinned value, as JSON: split, history length, metrics, slices, tie rule, decoding budget, reference."""
    split: Callable[[Dataset], Split]
    """Raises ValueError when the data cannot be asked this way."""

    @cached_property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of name, version and rules."""
        text = json.dumps({"name": self.name, "version": self.version, "rules": self.rules}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def budget(self) -> Budget:
        return Budget(**self.rules["budget"])
