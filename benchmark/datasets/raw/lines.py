"""Official files as streams of lines, compressed or not, and the count of the lines that could not be read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmark.datasets.atomic import MissingData

Report = Callable[[int, int], None]
"""Called now and then with the bytes of a (compressed) file that were read so far, and its size."""

STRIDE = 8192  # lines between two reports
MAX_SKIPPED = 0.01  # of a file's lines; more means that it is another file than the reader takes it for
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


def silent(read: int, size: int) -> None:
    """The Report that says nothing."""


def read_lines(path: Path, report: Report = silent) -> Iterator[bytes]:
    """The lines of ``path``, with their line ends; gzip is known by its first bytes, not by the name.

    Raises MissingData when there is no such file, ValueError for an empty, damaged or cut-short one.
    """
    size = size_of(path)
    with path.open("rb") as raw:
        magic = raw.read(len(_GZIP))
        raw.seek(0)
        if path.suffix == ".gz" and magic != _GZIP:
            raise ValueError(f"{path} is not a gzip file (an error page, perhaps); download it again")
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if magic == _GZIP else raw  # type: ignore[assignment]
        try:
            yield from counted(stream, raw, size, report)
        except EOFError as error:
            raise ValueError(f"{path} is cut short (the gzip stream ends early); download it again") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error}); download it again") from error


def size_of(path: Path) -> int:
    """Bytes of a file. Raises MissingData where there is none, ValueError when it is a folder or empty."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the file itself")
    if not path.exists():
        raise MissingData(f"{path} is missing; put it there")
    if not (size := path.stat().st_size):
        raise ValueError(f"{path} is empty; give a file with rows, or download it again")
    return size


def counted(stream: IO[bytes], raw: IO[bytes], size: int, report: Report) -> Iterator[bytes]:
    """The lines of ``stream``, which decompresses ``raw``; a byte order mark is dropped, progress reported."""
    for number, line in enumerate(stream):
        if number == 0:
            line = line.removeprefix(_BOM)
        elif number % STRIDE == 0:
            report(raw.tell(), size)
        yield line
    report(size, size)


@dataclass
class Tally:
    """How many lines of a file were read, and how many of them could not be understood."""

    path: Path
    read: int = 0
    skipped: int = 0
    first: int = 0  # number of the first skipped line, counted from 1

    def skip(self, number: int) -> None:
        self.first = self.first or number
        self.skipped += 1

    def close(self) -> None:
        """Raises ValueError when the file held no line, or too many that could not be understood."""
        if not self.read:
            raise ValueError(f"{self.path} is empty; give a file with rows, or download it again")
        if self.skipped > MAX_SKIPPED * self.read:
            raise ValueError(
                f"{self.path} is not in the expected format: {self.skipped:,} of {self.read:,} lines cannot be read, "
                f"the first is line {self.first}; check that it is the right file and download it again"
            )


def skipped_meta(*tallies: Tally) -> dict[str, Any]:
    """The entries of ``Tables.meta`` that tell what was skipped: the sum, and a sentence where there is something."""
    notes = [
        f"{tally.skipped:,} of {tally.read:,} lines of {tally.path.name} could not be read and were skipped, "
        f"the first is line {tally.first}"
        for tally in tallies
        if tally.skipped
    ]
    count = sum(tally.skipped for tally in tallies)
    return {"skipped_lines": count, **({"skipped_note": "; ".join(notes)} if notes else {})}
