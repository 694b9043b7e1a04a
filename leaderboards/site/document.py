"""The suite's own Markdown files -> blocks that the page shows as text: headings, paragraphs, lists and tables.

Only what this suite's files use is understood; everything else stays the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

_SEPARATOR = re.compile(r"\|[\s:|-]+\|?")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
_CELL = re.compile(r"(?<!\\)\|")


def blocks(text: str) -> list[dict[str, Any]]:
    """Each block has a ``kind``: heading (level, text), text, list (items), notes (first, items), table (header, rows,
    numeric) or picture (file, text). Notes are items with numbers, as tables refer to them."""
    found: list[dict[str, Any]] = []
    lines = (line.rstrip() for line in text.split("\n"))
    for kind, group in groupby(lines, _kind):
        some = list(group)
        if kind == "heading":
            found += [{"kind": kind, "level": _level(line), "text": _plain(line.lstrip("# "))} for line in some]
        elif kind == "picture":
            found += [
                {"kind": kind, "text": _plain(m[1]), "file": m[2]} for line in some if (m := _PICTURE.match(line))
            ]
        elif kind == "table":
            found += _table(some)
        elif kind == "list":
            found.append({"kind": kind, "items": [_plain(item) for item in _items(some)]})
        elif kind == "notes":
            first, items = int(some[0].partition(".")[0]), [_plain(line.partition(". ")[2]) for line in some]
            found.append({"kind": kind, "first": first, "items": items})
        elif kind == "text":
            found.append({"kind": kind, "text": _plain(" ".join(some))})
    return found


def _kind(line: str) -> str:
    if not line.strip():
        return "blank"
    if re.match(r"#{1,6} ", line):
        return "heading"
    if line.startswith("|"):
        return "table"
    if re.match(r"\d{1,4}\. ", line):
        return "notes"
    if _PICTURE.fullmatch(line):
        return "picture"
    return "list" if line.startswith(("- ", "  ")) else "text"


def _level(line: str) -> int:
    return len(line) - len(line.lstrip("#"))


def _items(lines: list[str]) -> Iterator[str]:
    """List items, continuation lines joined to the item they belong to."""
    item = ""
    for line in lines:
        if line.startswith("- ") and item:
            yield item
            item = ""
        item = f"{item} {line.removeprefix('- ').strip()}".strip()
    yield item


def _table(lines: list[str]) -> list[dict[str, Any]]:
    """A pipe table; columns whose separator ends with a colon hold numbers."""
    if len(lines) < 2 or not _SEPARATOR.fullmatch(lines[1]):
        return [{"kind": "text", "text": _plain(" ".join(lines))}]
    header, separator, *rows = (_split(line) for line in lines)
    numeric = [cell.endswith(":") for cell in separator]
    return [{"kind": "table", "header": header, "rows": rows, "numeric": numeric}]


def _split(line: str) -> list[str]:
    return [_plain(cell.replace("\\|", "|").strip()) for cell in _CELL.split(line.strip().removeprefix("|"))[:-1]]


def _plain(text: str) -> str:
    """Text without the marks for bold, italics and code, and links as their labels."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text.replace("**", "").replace("`", ""))
    return re.sub(r"\*(\S(?:[^*]*\S)?)\*", r"\1", words)
