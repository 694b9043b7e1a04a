"""The data of a site -> one HTML page that holds its own style, code and data.

No string of the data can end its block: every ``<``, ``>`` and ``&`` in it is written as an escape, and the code puts
it into the page as text only. A content security policy allows the page's own style and code, by their hashes,
pictures beside it, and nothing else: no request can leave the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).with_name("assets")
_ORDER = "dom format address table charts ranking panels detail cards main"
SCRIPTS = tuple(f"{name}.js" for name in _ORDER.split())
"""In the order in which they are put together."""
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def page(site: Mapping[str, Any]) -> str:
    """The whole of ``index.html``."""
    style = _asset("site.css")
    code = '"use strict";\n' + "\n".join(map(_asset, SCRIPTS))
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash_of(style)}; script-src {_hash_of(code)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "style": style, "data": embedded(site), "code": code}
    text = _asset("index.html")
    for name in parts:
        assert text.count(f"[[{name}]]") == 1, f"index.html must name {name} once"
    head, *rest = text.split("[[")
    return head + "".join(parts[name] + tail for name, _, tail in (piece.partition("]]") for piece in rest))


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_ESCAPES.get(character, character) for character in text)


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    """How a content security policy names a style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
