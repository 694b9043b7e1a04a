"""A small web server on this machine that answers as it is told: stalls, cut-offs, changed files, errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a request with the next answer of its path's script; the last one stays."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        script = self.server.scripts.get(self.path) or [status(404)]
        answer = script.pop(0) if len(script) > 1 else script[0]
        answer(self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self) -> list[str | None]:
        """The Range of every request so far."""
        return [headers.get("Range") for _, headers in self.asked]


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def status(code: int) -> Answer:
    """An error without a file."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@dataclass(frozen=True)
class Sent:
    """A file as a server sends it."""

    content: bytes
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    """False: Range is ignored, as some servers do."""
    conditions: bool = True
    """False: If-Range is ignored, so a changed file is continued."""
    upto: int | None = None
    """Cut the connection (or stall) after so many bytes of the body."""
    stall: bool = False
    length: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: Handler) -> None:
        start = self._start(handler)
        if start is not None and start >= len(self.content):
            return status(416)(handler)
        handler.send_response(200 if start is None else 206)
        body = self.content[start or 0 :]
        if start is not None:
            span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            handler.send_header("Content-Range", span)
        for name, value in self._headers(body).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: self.upto])
        handler.wfile.flush()
        if self.stall:
            handler.server.over.wait(30)

    def _start(self, handler: Handler) -> int | None:
        """First byte wanted, None for the whole file."""
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        changed = self.conditions and condition not in (None, self.etag, self.modified)
        return int(wanted[1]) if wanted and self.ranges and not changed else None

    def _headers(self, body: bytes) -> dict[str, str]:
        found = {"ETag": self.etag, "Last-Modified": self.modified, **self.headers}
        found["Content-Length"] = str(len(body)) if self.length else None
        return {name: value for name, value in found.items() if value is not None}
