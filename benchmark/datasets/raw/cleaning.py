"""Keys and texts as people and scrapers left them -> one line of readable text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from benchmark.datasets.text import LEVELS

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMES = (
    "a|abbr|b|big|blockquote|br|button|center|cite|code|dd|div|dl|dt|em|embed|font|form|h[1-6]|hr|i|iframe|img|input|"
    "label|li|link|meta|object|ol|option|p|param|pre|q|s|script|section|select|small|span|strike|strong|style|sub|sup|"
    "table|tbody|td|th|thead|tr|tt|u|ul"
)
# Only real tag names, and a tag that never ends only if it has an attribute: "ages <3", "size <M" are text.
_TAG = re.compile(
    rf"<(script|style)\b.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)|</?(?:{_NAMES})\b[^<>]*>|<(?:{_NAMES})\s[^<>=]*=[^<>]*$",
    re.IGNORECASE | re.DOTALL,
)
_SCRIPT = re.compile(r"getTime\(|\(function\s*\(|\bvar [\w$]+ ?=")
# The bounds keep the work linear in the length of a hostile text.
_STYLE = re.compile(r"(?:[.#@:][\w-]{1,60}[\s,>]{0,20}){1,12}\{[^{}]*\}")
_PRICE = re.compile(r"\$?(\d[\d,]*(?:\.\d+)?)(?:\s*-\s*\$?(\d[\d,]*(?:\.\d+)?))?", re.ASCII)


def one_line(text: str) -> str:
    """Control characters and runs of white space become one space; halves of a surrogate pair are joined."""
    return " ".join(_CONTROL.sub(" ", _paired(text)).split())


def _paired(text: str) -> str:
    """Old Python literals write an emoji as two halves; a half without its other half cannot be encoded."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def key(value: object) -> str:
    """A user or item key as text, "" where there is none; only what a table cannot hold is changed."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        return ""
    return value if value.isprintable() else _CONTROL.sub(" ", _paired(value))


def clean(value: object) -> str:
    """Text of a web page's field: entities resolved, tags and style rules out, "" for a script or no text.

    Entities are resolved twice, because the files hold ``&amp;quot;`` too.
    """
    if not isinstance(value, str):
        return ""
    text = html.unescape(html.unescape(value)) if "&" in value else value
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "{" in text:
        text = _STYLE.sub(" ", text)
    return "" if _SCRIPT.search(text) else one_line(text)


def levels(names: Iterable[object]) -> str:
    """Category levels, widest first, as ``A > B > C``; empty levels are left out."""
    cleaned = (clean(name).replace(LEVELS, " - ") for name in names)
    return LEVELS.join(filter(None, cleaned))


def price(value: object) -> str:
    """``12.99`` or ``5.00 - 10.00`` in the currency of the shop, "" where the field holds something else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.2f}" if 0 < value < 1e9 else ""
    found = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    return " - ".join(part.replace(",", "") for part in found.groups() if part) if found else ""
