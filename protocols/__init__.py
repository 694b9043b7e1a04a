"""How it is asked: one file of this folder is one protocol, found by its name, and ends with ``PROTOCOL``."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from benchmark.protocol import Protocol


def names() -> list[str]:
    """Every protocol there is, without importing any."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError that suggests the nearest one."""
    if name not in names():
        near = get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names())}"
        raise ValueError(f"unknown protocol '{name}'; {hint}")
    protocol = import_module(f"protocols.{name}").PROTOCOL
    assert isinstance(protocol, Protocol) and protocol.name == name, (
        f"protocols/{name}.py names another protocol"
    )
    return protocol
