"""Records -> the folder of the site: ``index.html`` and, beside it, the files that it offers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import protocols
from benchmark.audits import KINDS
from benchmark.files import make_folder, write_atomically
from benchmark.records import Record
from leaderboards.cite import FILE as CITATIONS
from leaderboards.site import cards, data
from leaderboards.site.document import blocks
from leaderboards.site.page import page
from leaderboards.summary import Summary, summarise
from leaderboards.tables import file_name, plain

FORMATS = {"csv": "CSV", "tex": "LaTeX", "json": "JSON", "md": "Markdown", "bib": "BibTeX", "svg": "SVG", "png": "PNG"}
TABLES = "The tables"
PICTURES = ("svg", "png")
Key = tuple[Any, ...]


def write_site(
    found: Sequence[Record],
    folder: Path,
    *,
    tables: Path,
    ledger: Path | None = None,
    across: Path | None = None,
    summaries: Sequence[Summary] | None = None,
) -> list[str]:
    """Write the site of ``found`` into ``folder`` -> what to print.

    ``found`` are the newest runs (``publish.newest``) and ``tables`` the folder of the tables made of them and of
    their audits (``publish.tables``, ``audits.tables``): they are copied as downloads, and audits are shown from them.
    ``ledger`` and ``across`` are folders with ``ledger.md`` and ``across.md`` and what goes with them. ``summaries``
    are those of ``found``, where they were made already: that takes minutes for large tables.

    Raises ValueError as ``summarise`` does where runs are mixed that may not stand in one table.
    """
    groups: dict[Key, list[Record]] = defaultdict(list)
    for record in found:
        groups[_key(record.fields)].append(record)
    make_folder(folder)
    shown = []
    for one in _summaries(groups) if summaries is None else summaries:
        runs = [record for record in groups[_key(one.shared)] if record.dataset == one.dataset]
        shown.append(_table(one, runs, tables, folder))
    content = page(plain(data.rounded(_site(shown, folder, ledger, across)))).encode()
    write_atomically(folder / "index.html", content)
    return [f"site: {folder / 'index.html'} ({len(shown)} tables, {len(content) / 1e6:.1f} MB)"]


def _key(shared: Mapping[str, Any]) -> Key:
    """What the runs of a table share beside the dataset; the same for a record's fields and a summary's."""
    protocol = shared["protocol"]
    return protocol["name"], protocol["hash"], shared["track"], shared["profile"], shared["limit_users"]


def _summaries(groups: Mapping[Key, Sequence[Record]]) -> list[Summary]:
    made = []
    for (protocol, *_), group in groups.items():
        rules = protocols.load(protocol).rules
        made += summarise(group, reference=rules["reference"], primary=rules["primary"])
    return made


def _table(summary: Summary, runs: Sequence[Record], tables: Path, folder: Path) -> dict[str, Any]:
    """The data of one table, its files copied."""
    table = data.table(summary, runs)
    if not table["current"]:  # the folder of tables is that of the protocol's newest version
        return table | {"files": [], "audits": []}
    place, name = table["place"], file_name(summary.dataset)
    part = rf"(\.(?:{'|'.join(('settings', *KINDS))})(?:-[a-z-]+)?|-training)?\.(?:{'|'.join(FORMATS)})"
    offered = re.compile(f"{re.escape(name)}{part}|{re.escape(CITATIONS)}")
    paths = _own(tables / place, offered)
    files = [_copied(path, folder, f"files/{place}", _about(path, name)) for path in paths]
    files.sort(key=lambda file: (file["about"] != TABLES, file["about"], list(FORMATS.values()).index(file["format"])))
    audits = [
        {"kind": kind, "blocks": _shown(path, files)}
        for kind in KINDS
        if (path := tables / place / f"{name}.{kind}.md") in paths
    ]
    return table | {"files": files, "audits": audits}


def _own(folder: Path, offered: re.Pattern[str]) -> list[Path]:
    """The files of a folder that are offered by name; no links, which may lead to anything on this disk."""
    found = (path for path in sorted(folder.glob("*")) if offered.fullmatch(path.name))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _shown(path: Path, files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A document's blocks; a picture that is not among the copied ``files`` is left out."""
    places = {Path(file["href"]).name: file["href"] for file in files}
    found = blocks(path.read_text(encoding="utf-8"))
    kept = (block for block in found if block["kind"] != "picture" or block["file"] in places)
    return [block | ({"href": places[block["file"]]} if block["kind"] == "picture" else {}) for block in kept]


def _about(path: Path, name: str) -> str:
    """What a file of a table is, from what its name has beyond the dataset's: "", ".settings", ".ids-card", ..."""
    if path.name == CITATIONS:
        return "What to cite for the tables of this protocol"
    part = path.stem.removeprefix(name)
    known = {"": TABLES, ".settings": "Warm and cold, as a picture", "-training": "How validation scores rose"}
    kind, _, picture = part.removeprefix(".").partition("-")
    return known.get(part) or f"Audit of {kind}" + (f": {picture.replace('-', ' ')}" if picture else "")


def _copied(path: Path, folder: Path, place: str, about: str) -> dict[str, Any]:
    """Copy a file below ``folder`` -> how the page names it."""
    target = folder / place / path.name
    write_atomically(target, path.read_bytes())
    suffix = path.suffix.removeprefix(".")
    return {
        "href": f"{place}/{path.name}",
        "about": about,
        "format": FORMATS[suffix],
        "picture": suffix in PICTURES,
        "bytes": target.stat().st_size,
    }


def _site(shown: Sequence[Mapping[str, Any]], folder: Path, ledger: Path | None, across: Path | None) -> dict[str, Any]:
    asked = [protocols.load(name) for name in protocols.names()]
    named = {table["protocol"]["name"] for table in shown}
    return {
        "tables": sorted(shown, key=lambda table: table["id"]),
        "protocols": [
            {"name": one.name, "version": one.version, "hash": one.hash, "rules": one.rules}
            for one in asked
            if one.name in named
        ],
        "questions": KINDS,
        "families": cards.known()["families"],
        "methods": cards.method_cards(shown),
        "datasets": cards.dataset_cards(shown),
        "ledger": _document(ledger, "ledger", folder),
        "across": _document(across, "across", folder),
    }


def _document(source: Path | None, name: str, folder: Path) -> dict[str, Any] | None:
    """The file ``name``.md as blocks, with every file beside it whose name begins so; None without one.

    A picture is shown where the text names it, if its file is among them.
    """
    offered = re.compile(rf"{name}(?:[.-][A-Za-z0-9._-]*)?\.(?:{'|'.join(FORMATS)})")
    paths = [] if source is None else _own(source, offered)
    if source is None or source / f"{name}.md" not in paths:
        return None
    files = [_copied(path, folder, f"files/{name}", path.stem.replace(".", ", ", 1)) for path in paths]
    return {"blocks": _shown(source / f"{name}.md", files), "files": files}
