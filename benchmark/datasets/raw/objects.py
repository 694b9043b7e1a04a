"""One line -> one object: JSON, or the Python literal that the older files hold; nothing is ever evaluated."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection
from typing import Any

_STRING = r"""u?(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")"""
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?"
_PAIR = re.compile(rf"({_STRING}): ({_STRING}|{_NUMBER}|True|False|None)(?:, |\}}\Z)", re.ASCII)
_PUNCTUATION = 4  # characters around each pair: the colon, the comma and two spaces; the braces end the last one


def parse_object(line: str, fields: Collection[str]) -> dict[str, Any] | None:
    """The object a line holds, with at least those of ``fields`` that it has; None when it holds none."""
    line = line.strip()
    if not line.startswith("{"):
        return None
    if not line.startswith(("{'", "{u")):
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            pass  # a Python literal may begin like JSON
    found = _flat(line, fields)
    return _literal(line) if found is None else found


def _flat(line: str, fields: Collection[str]) -> dict[str, Any] | None:
    """A Python dict of strings and numbers, read ten times faster than by its syntax tree; None for any other.

    The pairs cover the whole line exactly when their lengths say so, hence nothing between them is overlooked.
    """
    pairs = _PAIR.findall(line)
    covered = sum(len(name) + len(value) + _PUNCTUATION for name, value in pairs)
    if covered != len(line) or not line.endswith("}"):
        return None
    try:
        named = ((_text(name), value) for name, value in pairs)
        return {name: _value(value) for name, value in named if name in fields}
    except (ValueError, SyntaxError):
        return None


def _text(token: str) -> str:
    """A string token's value."""
    return _evaluated(token) if "\\" in token else token[token.index(token[-1]) + 1 : -1]


def _value(token: str) -> Any:
    return _text(token) if token[-1] in "'\"" else _evaluated(token)


def _literal(line: str) -> dict[str, Any] | None:
    try:
        value = _evaluated(line)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _evaluated(literal: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown escapes, in damaged lines
        return ast.literal_eval(literal)
