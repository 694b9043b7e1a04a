"""The life of one job's own process: signals, log, progress, and a record for every way it can end."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

from benchmark import records
from benchmark.files import content_hash, sentence
from benchmark.job import Job, Loaders, base_fields
from benchmark.run import Interrupted, Run
from benchmark.scoring import score
from benchmark.validate import validate

LOCK_SECONDS = 30.0


def main(job: Job, loaders: Loaders, device: str, connection: Connection) -> None:
    """Entry of the child process. Messages to the parent: ("progress", ...), then ("end", status, reason)."""
    started, stop = time.time(), _stop_flag()
    job.work_dir.mkdir(parents=True, exist_ok=True)
    _log_to(job.work_dir / "log.txt")
    run = Run(
        seed=job.seed,
        device=device,
        work_dir=job.work_dir,
        artifacts_dir=job.output_dir / ".artifacts",
        text_encoder=job.text_encoder or Run.text_encoder,
        language_models=job.language_models,
        report=lambda *what: _send(connection, ("progress", *what)),
        should_stop=stop.is_set,
    )
    with lock_of(job).open("w") as lock:
        if not _locked(lock):
            _send(connection, ("end", "failed", "another process is running this very job; wait for it to end"))
            sys.exit(1)
        _send(connection, ("end", *(_finished_since(job, started) or _run_to_record(job, loaders, run))))


def lock_of(job: Job) -> Path:
    """The job's lock file. It outlives the work folder: a lock on a deleted file would exclude nobody."""
    path = job.output_dir / ".work" / "locks" / content_hash(str(job.folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _finished_since(job: Job, started: float) -> tuple[str, str | None] | None:
    """How another process ended this job while we waited for its lock, or None."""
    record = job.folder / "record.json"
    if not record.exists() or record.stat().st_mtime < started:
        return None
    fields = records.read(job.folder).fields
    return fields["status"], fields["reason"]


def _locked(lock: TextIO) -> bool:
    """Take the job's lock; a process whose parent was killed gets a while to write its checkpoint and let go."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)


def _run_to_record(job: Job, loaders: Loaders, run: Run) -> tuple[str, str | None]:
    """Run the job and write its record, whatever happens -> (status, reason)."""
    try:
        fields, arrays = (score if job.asked == "test" else validate)(job, loaders, run)
    except Interrupted as stop:
        return "interrupted", str(stop)
    except Exception as error:
        traceback.print_exc()
        status = "oom" if _out_of_memory(error) else "failed"
        fields = base_fields(job, loaders.protocol(job.protocol)) | {"status": status, "reason": sentence(error)}
        arrays = {}
    return finish(job, fields, arrays)


def finish(job: Job, fields: dict[str, Any], arrays: dict[str, Any]) -> tuple[str, str | None]:
    """Write the record; of a job that ended well nothing else is kept, else its checkpoint stays for a retry."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        records.write(job.folder, fields, arrays, job.work_dir / "log.txt")
    except OSError as error:
        return "failed", sentence(error)
    if fields["status"] in records.SETTLED:
        shutil.rmtree(job.work_dir, ignore_errors=True)
    return fields["status"], fields["reason"]


def _stop_flag() -> threading.Event:
    """Set by SIGTERM or by the death of the parent. Ctrl-C is the parent's to pass on."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_set_after, args=(parent, stop), daemon=True).start()
    return stop


def _set_after(parent: BaseProcess, stop: threading.Event) -> None:
    parent.join()
    stop.set()


def _log_to(path: Path) -> None:
    """Everything the job prints, down to native libraries, goes into its log."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _send(connection: Connection, message: tuple[Any, ...]) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the stop flag says so too
        connection.send(message)


def _out_of_memory(error: BaseException) -> bool:
    """Python's, CUDA's and torch's CPU allocator's ways to say it, without importing torch."""
    name, text = type(error).__name__, str(error).lower()
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in text
