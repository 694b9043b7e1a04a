"""Content-addressed cache of what several jobs need: computed once, checked on every read, never pickled."""

from __future__ import annotations

import fcntl
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmark.files import content_hash, read_sealed, write_sealed

WAIT_SECONDS = 1.0


def cached(
    folder: Path | None,
    key: Mapping[str, Any],
    compute: Callable[[], dict[str, np.ndarray]],
    waiting: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """The arrays named by ``key`` from ``folder``, computing and storing them when they are not there.

    ``key`` names everything the result depends on: input hashes, settings, a version of the stage. Jobs that run
    side by side wait for one another, so the work is done once; one that waits calls ``waiting`` every second, which
    may raise. ``folder`` None computes and keeps nothing.
    Raises ValueError naming the file when a stored artifact is damaged.
    """
    if folder is None:
        return compute()
    path = folder / f"{key.get('stage', 'artifact')}-{content_hash(key, 20)}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{path.name}.lock").open("w") as lock:
        _acquire(lock, waiting)
        if path.exists():
            return _read(path)
        arrays = compute()
        _write(path, arrays)
        return arrays


def _acquire(lock: TextIO, waiting: Callable[[], None]) -> None:
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            time.sleep(WAIT_SECONDS)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_sealed(path, buffer.getvalue())


def _read(path: Path) -> dict[str, np.ndarray]:
    payload = read_sealed(path)
    if payload is None:
        raise ValueError(f"the cached artifact {path} is damaged (checksum differs); delete it and run again")
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
