"""One official file over HTTP, whole or not at all: url -> NAME.part -> checked -> NAME and NAME.sha256."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from benchmark.datasets.locks import exclusive
from benchmark.datasets.wholeness import flaw
from benchmark.files import explained, json_bytes, make_folder, sentence, sha256_of, write_atomically
from benchmark.progress import duration

Report = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be, 0 = not known."""
Say = Callable[[str], None]

CHUNK = 1 << 18
RETRIES = 5
TIMEOUT = 30.0
PAUSE = 1.0
WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(ValueError):
    """The file cannot be had from this address; another attempt would not change that."""


class _Hiccup(Exception):
    """The attempt failed in a way that the next one may not."""


def obtain(urls: Sequence[str], target: Path, *, digest: str | None = None, report: Report, say: Say) -> str:
    """See that the file of ``urls`` lies at ``target`` and is the one first seen there -> its sha256.

    A file that is there already, put by hand perhaps, is not downloaded. ``digest`` is what its owner publishes, as
    ``md5:0123...``. Raises ValueError with one sentence for a file that cannot be had, is damaged or has changed.
    """
    if not target.exists():
        make_folder(target.parent)
        with exclusive(target, lambda: say(f"another process is downloading {target.name}; waiting for it")):
            if not target.exists():
                _from_any(urls, target, digest=digest, report=report, say=say)
    return _verified(target, digest)


def _from_any(urls: Sequence[str], target: Path, **how: Any) -> None:
    """Fetch from the first address that has the file, beginning with the one a part has come from."""
    begun = _Part(target).state.get("url")
    reasons = []
    for url in sorted(map(mirrored, urls), key=lambda url: url != begun):
        try:
            return fetch(url, target, **how)
        except DownloadError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
            if _Part(target).size:  # the same command goes on from there; another address would begin anew
                break
    raise DownloadError(
        f"{target.name} could not be downloaded ({'; '.join(reasons)}); run the same command again later, or fetch "
        f"{mirrored(urls[0])} by hand and put it into {target.parent}"
    )


def mirrored(url: str) -> str:
    """The same path at ``$GENREC_MIRROR`` where that is set."""
    mirror = os.environ.get("GENREC_MIRROR")
    return mirror.rstrip("/") + urlsplit(url).path if mirror else url


def fetch(
    url: str,
    target: Path,
    *,
    report: Report,
    say: Say,
    digest: str | None = None,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
    pause: float = PAUSE,
) -> None:
    """Download ``url`` to ``target``, going on from what an earlier call has left in ``NAME.part``.

    After a stall of ``timeout`` seconds, a cut-off or a server error it waits ``pause`` seconds, then twice as long
    and so on; ``retries`` counts failures in a row without a new byte. Raises DownloadError when that does not help,
    OSError with one clear sentence when the file cannot be written.
    """
    part = _Part(target)
    furthest, failures = part.size, 0
    while not part.complete(url):
        try:
            _attempt(url, part, report, timeout)
            break
        except _Hiccup as error:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures > retries:
                raise DownloadError(f"{error}, {failures} times in a row") from error
            wait = pause * 2 ** (failures - 1)
            say(f"{target.name}: {error}; trying again in {duration(max(wait, 1))}")
            time.sleep(wait)
    _accept(url, part, target, digest)


class _Part:
    """What has come so far of a file, and of which version of it: NAME.part and NAME.part.json."""

    def __init__(self, target: Path):
        self.path = target.with_name(f"{target.name}.part")
        self.state_path = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def state(self) -> dict[str, Any]:
        """``url``, ``validator`` and ``total`` of the version the bytes belong to; {} when that is not known."""
        try:
            state = json.loads(self.state_path.read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def complete(self, url: str) -> bool:
        return self.size > 0 and self.state.get("url") == url and self.state.get("total") == self.size

    def usable(self, url: str) -> int:
        """Bytes that may be kept: none without a mark that tells one version of the file from the next."""
        state = self.state
        known = state.get("url") == url and state.get("validator") and state.get("total")
        return self.size if known and self.size < state["total"] else 0

    def begin(self, url: str, validator: str, total: int) -> None:
        self.discard()
        write_atomically(self.state_path, json_bytes({"url": url, "validator": validator, "total": total}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.state_path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Answer:
    """A response that is about to be read: where its bytes belong, and how many there will be in the end."""

    stream: http.client.HTTPResponse
    start: int
    total: int  # 0 = not said, the body tells its own end


def _attempt(url: str, part: _Part, report: Report, timeout: float) -> None:
    """One request; what it brings is in the part, however it ends. Raises _Hiccup, DownloadError or OSError."""
    start = part.usable(url)
    headers = {"User-Agent": "genrec-bench", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": part.state["validator"]}
    with _opened(Request(url, headers=headers), part, timeout) as stream:
        answer = _placed(url, stream, part, start)
        try:
            file = part.path.open("ab", buffering=0)
        except OSError as error:
            raise explained(error, part.path) from error
        with file:
            done = _copy(answer, file, part.path, report)
    if answer.total and done < answer.total:
        raise _Hiccup(f"the connection was cut after {done:,} of {answer.total:,} bytes")


def _opened(request: Request, part: _Part, timeout: float) -> http.client.HTTPResponse:
    try:
        return urlopen(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            part.discard()
        elif error.code not in WORTH_RETRYING:
            raise DownloadError(f"HTTP {error.code} {error.reason}") from error
        raise _Hiccup(f"the server said HTTP {error.code} {error.reason}") from error
    except URLError as error:
        reason = error.reason if isinstance(error.reason, str) else sentence(error.reason)
        if part.size and not isinstance(error.reason, ValueError):
            raise _Hiccup(f"no connection ({reason})") from error
        raise DownloadError(f"no connection, {reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Hiccup(f"the server does not answer ({sentence(error)})") from error


def _placed(url: str, stream: http.client.HTTPResponse, part: _Part, start: int) -> _Answer:
    """Match an answer with the part: the rest of it, or the whole file anew."""
    validator = _validator(stream.headers)
    if start and stream.status == 206:
        state = part.state
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", stream.headers.get("Content-Range", ""))
        same = validator in ("", state["validator"])
        if not (same and span and int(span[1]) == start and int(span[2]) == state["total"]):
            part.discard()
            raise _Hiccup("the file has changed at its source")
        return _Answer(stream, start, state["total"])
    length = stream.headers.get("Content-Length", "")
    if stream.status != 200 or not (length.isdigit() or stream.chunked):
        raise DownloadError(f"HTTP {stream.status} without the length of the file")
    total = 0 if stream.chunked else int(length)
    part.begin(url, validator, total)
    return _Answer(stream, 0, total)


def _validator(headers: Message) -> str:
    """What tells this version of the file from any other; "" when the server does not say."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _copy(answer: _Answer, file: IO[bytes], path: Path, report: Report) -> int:
    """Append what comes -> bytes in the part. Raises _Hiccup for the network's faults, OSError for the disk's."""
    done = answer.start
    report(done, answer.total)
    while not answer.total or done < answer.total:
        try:
            chunk = answer.stream.read1(min(CHUNK, answer.total - done) if answer.total else CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Hiccup(f"the connection broke after {done:,} bytes ({sentence(error)})") from error
        if not chunk:
            break
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise explained(error, path) from error
        done += len(chunk)
        report(done, answer.total)
    return done


def _accept(url: str, part: _Part, target: Path, digest: str | None) -> None:
    """Give a complete part its name, or remove it when it is not what it should be."""
    wrong = flaw(part.path, target.name, digest)
    if not wrong and _recorded(target) not in (None, sha256_of(part.path)):
        wrong = f"is not the one first downloaded (remove {_record(target)} to accept the new one)"
    if wrong:
        part.discard()
        raise DownloadError(f"the file it sent {wrong} and was not kept")
    try:
        with part.path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part.path, target)
    except OSError as error:
        raise explained(error, target) from error
    part.discard()


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    """The sha256 written down when the file was first seen."""
    record = _record(target)
    return record.read_text().split(" ")[0].strip() if record.exists() else None


def _verified(target: Path, digest: str | None) -> str:
    """The sha256 of ``target``, written down at its first sight as ``sha256sum`` writes it and held against after."""
    found, recorded = sha256_of(target), _recorded(target)
    if recorded is None:
        if wrong := flaw(target, target.name, digest):
            raise ValueError(f"{target} {wrong}; remove it, and the same command downloads it again")
        with contextlib.suppress(OSError):  # a folder that can only be read has no record
            write_atomically(_record(target), f"{found}  {target.name}\n".encode())
    elif found != recorded:
        raise ValueError(
            f"{target} is not the file first seen here: its sha256 is not the one in {_record(target).name}; "
            f"remove it, and the same command downloads it again"
        )
    return found
