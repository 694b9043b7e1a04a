"""Steam reviews and games (Kang and McAuley, UCSD), one Python literal per line -> Tables."""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from pathlib import Path
from typing import Any

from benchmark.datasets.atomic import Tables
from benchmark.datasets.raw.cleaning import clean, key, levels
from benchmark.datasets.raw.lines import Report, Tally, read_lines, silent
from benchmark.datasets.raw.objects import parse_object
from benchmark.datasets.raw.tables import DAYS, NO_RATING, Row, collect, item_table, numbered_texts, tables
from benchmark.datasets.raw.times import iso_seconds

REVIEW = ("username", "user_id", "product_id", "date")
GAME = ("id", "app_name", "title", "developer", "genres", "tags")
FIELDS = ("title", "brand", "categories")
ROOT = "Games"
LICENCE = "public for research (Kang and McAuley, UCSD; cite the papers they name); redistribution is not granted"


def read_steam(reviews: Path, games: Path | None, name: str, *, report: Report = silent) -> Tables:
    """``steam_reviews.json.gz`` and ``steam_games.json.gz``.

    A user is a ``username``, as in SASRec's data, or the ``user_id`` where there is none. A game's title is its
    ``app_name`` (else ``title``), its brand the ``developer``, its categories ``Games > genre > genre ...`` in the
    order of the file, so that the second level, which category measures use, is the first genre; a game without
    genres gets its most voted tag. Games without reviews are left out; reviews say nothing like a rating.
    ``report`` hears of one file after the other. Raises MissingData for a missing file, ValueError for one that
    is empty, cut short or of another format.
    """
    tally = Tally(reviews)
    log = collect(read_lines(reviews, report), tally, _review)
    meta = {"source": "Steam reviews (Kang and McAuley, UCSD)", "time": DAYS, "licence": LICENCE}
    if games is None:
        return tables(name, log.frame(), None, tally, **meta)
    described, skipped = _games(games, log.items, report)
    return tables(name, log.frame(), item_table(described, FIELDS), tally, skipped, **meta)


def _review(line: str) -> Row | None:
    found = parse_object(line, REVIEW) or {}
    user = key(found.get("username")) or key(found.get("user_id"))
    item, date = key(found.get("product_id")), found.get("date")
    seconds = iso_seconds(date) if isinstance(date, str) else None
    return (user, item, seconds, NO_RATING) if user and item and seconds is not None else None


def _games(file: Path, wanted: KeysView[str], report: Report) -> tuple[dict[str, tuple[str, ...]], Tally]:
    """Texts of the ``wanted`` games; of one described twice the first line counts."""
    tally = Tally(file)
    described: dict[str, tuple[str, ...]] = {}
    for number, line in numbered_texts(read_lines(file, report), tally):
        game = parse_object(line, GAME)
        if game is None:
            tally.skip(number)
        elif (item := key(game.get("id"))) in wanted and item not in described:
            described[item] = _describe(game)
    tally.close()
    if not described:
        raise ValueError(f"{file} describes no game of the reviews; give the steam_games.json.gz that belongs to them")
    return described, tally


def _describe(game: Mapping[str, Any]) -> tuple[str, ...]:
    genres, tags = (value if isinstance(value, list) else [] for value in (game.get("genres"), game.get("tags")))
    classes = genres or tags[:1]
    title = clean(game.get("app_name")) or clean(game.get("title"))
    return title, clean(game.get("developer")), levels([ROOT, *classes]) if classes else ""
