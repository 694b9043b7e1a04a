"""MovieLens 100K and 1M (GroupLens), read within their zip archive or from the unpacked folder -> Tables."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from benchmark.datasets.atomic import MissingData, Tables
from benchmark.datasets.raw.cleaning import key, one_line
from benchmark.datasets.raw.lines import Report, Tally, counted, read_lines, silent, size_of
from benchmark.datasets.raw.tables import Log, Row, collect, item_table, numbered_texts, tables
from benchmark.datasets.raw.times import whole_seconds

ENCODING = "latin-1"
FIELDS = ("title", "release_year", "categories")
LICENCE = "GroupLens terms: research only, no redistribution without permission; cite Harper and Konstan (2015)"
GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
"""The flags that end a line of u.item, in their order (u.genre), written as MovieLens 1M writes genres."""

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$", re.ASCII)


@dataclass(frozen=True)
class Release:
    """How one release names and separates what it holds."""

    source: str
    ratings: str
    ratings_separator: str
    movies: str
    movies_separator: str
    cells: int  # of a movie
    flags: bool  # genres as one 0/1 cell each, or as names in the last cell


RELEASES = (
    Release("MovieLens 100K (GroupLens)", "u.data", "\t", "u.item", "|", 5 + GENRES.count("|") + 1, True),
    Release("MovieLens 1M (GroupLens)", "ratings.dat", "::", "movies.dat", "::", 3, False),
)


def read_movielens(archive: Path, name: str, *, report: Report = silent) -> Tables:
    """``ml-100k.zip`` or ``ml-1m.zip``, of which nothing is unpacked, or the folder it was unpacked to.

    Titles lose their year, which becomes ``release_year``; categories are the genres, separated by spaces as in
    the public atomic files. ``report`` hears of the ratings and the movies, one after the other. Raises
    MissingData when the path or a file in it is missing, ValueError for one that is damaged or of another format.
    """
    places = _in_folder(archive) if archive.is_dir() else _in_zip(archive)
    release = next((known for known in RELEASES if {known.ratings, known.movies} <= places.keys()), None)
    if release is None:
        wanted = " nor ".join(f"{known.ratings} with {known.movies}" for known in RELEASES)
        raise MissingData(f"{archive} holds neither {wanted}; give ml-100k.zip, ml-1m.zip or the unpacked folder")
    tally = Tally(archive / release.ratings)
    rows = _lines(archive, places[release.ratings], report)
    log = collect(rows, tally, partial(_rating, separator=release.ratings_separator), ENCODING)
    movies, skipped = _movies(archive, places[release.movies], release, log, report)
    meta = {"source": release.source, "time": "unix seconds", "licence": LICENCE}
    return tables(name, log.frame(), item_table(movies, FIELDS), tally, skipped, **meta)


def _rating(line: str, separator: str) -> Row | None:
    cells = line.strip().split(separator)
    if len(cells) != 4:
        return None
    user, item, seconds = key(cells[0]), key(cells[1]), whole_seconds(cells[3])
    try:
        rating = float(cells[2])
    except ValueError:
        return None
    return (user, item, seconds, rating) if user and item and seconds is not None else None


def _movies(
    archive: Path, place: str, release: Release, log: Log, report: Report
) -> tuple[dict[str, tuple[str, ...]], Tally]:
    """Texts of the rated movies; of one described twice the first line counts."""
    tally = Tally(archive / release.movies)
    movies: dict[str, tuple[str, ...]] = {}
    for number, line in numbered_texts(_lines(archive, place, report), tally, ENCODING):
        cells = line.strip("\r\n").split(release.movies_separator)
        if len(cells) != release.cells or not key(cells[0]):
            tally.skip(number)
        elif cells[0] in log.items:
            movies.setdefault(cells[0], _describe(cells, release.flags))
    tally.close()
    return movies, tally


def _describe(cells: list[str], flags: bool) -> tuple[str, ...]:
    title = one_line(cells[1])
    year = _YEAR.search(title)
    names = GENRES.split("|") if flags else cells[2].split("|")
    genres = [genre for genre, flag in zip(names, cells[5:], strict=True) if flag == "1"] if flags else names
    return _YEAR.sub("", title), year.group(1) if year else "", one_line(" ".join(genres))


def _in_folder(folder: Path) -> dict[str, str]:
    """File name -> its path in the folder, or in a folder of it."""
    found = sorted([*folder.glob("*"), *folder.glob("*/*")], key=lambda path: -len(path.parts))
    return {path.name: path.relative_to(folder).as_posix() for path in found}


def _in_zip(archive: Path) -> dict[str, str]:
    """File name -> name of the entry; nothing is written anywhere, so where an entry points does not matter."""
    size_of(archive)
    try:
        with zipfile.ZipFile(archive) as content:
            return {PurePosixPath(entry).name: entry for entry in content.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive} is cut short or no zip archive ({error}); download it again") from error


def _lines(archive: Path, place: str, report: Report) -> Iterator[bytes]:
    """The lines of one file of a folder or archive."""
    if archive.is_dir():
        yield from read_lines(archive / place, report)
        return
    try:
        with archive.open("rb") as raw, zipfile.ZipFile(raw) as content, content.open(place) as stream:
            yield from counted(stream, raw, size_of(archive), report)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}); download it again") from error
