"""One process at a time for one file or folder, and no trace of it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def exclusive(target: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Be the only process that makes ``target`` -> whether another one was first; ``waiting`` is called meanwhile."""
    path = target.with_name(f".{target.name}.lock")
    waited = False
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    waiting()
                waited = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_still(path, lock):
                continue  # its holder removed it when it was done
            try:
                yield waited
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
