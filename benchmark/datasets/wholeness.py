"""Is a file what its name says, from its first byte to its last: digests, gzip and zip checksums, web pages."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from pathlib import Path

CHUNK = 1 << 20
WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")


def flaw(path: Path, name: str, digest: str | None) -> str | None:
    """What is wrong with the content of ``path`` for a file called ``name``, None when nothing is.

    ``digest`` is ``algorithm:hex``. The answer continues a sentence: "ends in the middle".
    """
    if path.stat().st_size == 0:
        return "is empty"
    if digest is not None and not _has_digest(path, digest):
        return f"does not have the {digest.partition(':')[0]} that its owner publishes"
    if name.endswith(".gz"):
        return _gzip_flaw(path)
    if name.endswith(".zip"):
        return _zip_flaw(path)
    with path.open("rb") as file:
        page = file.read(512).lstrip().lower().startswith(WEB_PAGE)
    return "is a web page, no data file" if page else None


def _has_digest(path: Path, digest: str) -> bool:
    algorithm, _, expected = digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def _gzip_flaw(path: Path) -> str | None:
    try:
        with gzip.open(path) as file:
            while file.read(CHUNK):
                pass
    except EOFError:
        return "ends in the middle"
    except (gzip.BadGzipFile, zlib.error):
        return "is no gzip file, or a damaged one"
    return None


def _zip_flaw(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return "is a damaged zip file" if archive.testzip() else None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return "is no zip file, or one cut short"
