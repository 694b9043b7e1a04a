"""Files that exist whole or not at all, and the sentences said when the disk will not have them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write through a temporary sibling and a rename; a reader sees the old file or the new one, never a part.

    Raises OSError with one clear sentence when the disk is full or the folder cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise explained(error, path) from error


def write_sealed(path: Path, payload: bytes) -> None:
    """Write atomically, behind a line with the SHA-256 of the payload."""
    write_atomically(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def read_sealed(path: Path) -> bytes | None:
    """The payload of a sealed file, None when it is not what was written."""
    digest, _, payload = path.read_bytes().partition(b"\n")
    return payload if hashlib.sha256(payload).hexdigest().encode() == digest else None


def make_folder(path: Path) -> None:
    """Make ``path`` and try to write into it. Raises OSError with one clear sentence when that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path) -> OSError:
    """The same error with a sentence that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"no space left while writing {path}; free some space and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"{path} cannot be written (permission denied); choose another --output-dir"
    else:
        reason = f"{path} cannot be written: {error.strerror or error}"
    return OSError(error.errno, reason)


def sentence(error: BaseException) -> str:
    """What to tell the user of an exception: its own words, without Python's decoration."""
    if isinstance(error, OSError) and error.args and len(error.args) > 1:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.args[1]}{where}"
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__


def json_bytes(value: Any) -> bytes:
    """Readable, key-sorted JSON with a final newline: the same value gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def content_hash(value: Any, digits: int = 12) -> str:
    """First hex digits of the SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:digits]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
