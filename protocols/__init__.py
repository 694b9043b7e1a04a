"""How it is asked: one file of this folder is one protocol, found by its name, and ends with ``PROTOCOL``.

A hyphen in a protocol's name is an underscore in its file's.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from benchmark.names import hint
from benchmark.protocol import Protocol


def names() -> list[str]:
    """Every protocol there is, without importing any."""
    return sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError that suggests the nearest one."""
    if name not in names():
        raise ValueError(f"unknown protocol '{name}'; {hint(name, names(), 'protocols')}")
    protocol = import_module(f"{__name__}.{name.replace('-', '_')}").PROTOCOL
    assert isinstance(protocol, Protocol) and protocol.name == name, f"the file of {name} names another protocol"
    return protocol


def describe() -> list[str]:
    """Every protocol with all its rules, as lines to print."""
    found = [load(name) for name in names()]
    return [f"{p.name} version {p.version} ({p.hash})\n{json.dumps(p.rules, indent=2)}" for p in found]
