"""Amazon reviews of 2014 and 2018 (McAuley, UCSD): reviews or ratings, and the products' metadata -> Tables."""

from __future__ import annotations

import re
from collections.abc import Callable, KeysView, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmark.datasets.atomic import Tables
from benchmark.datasets.raw.cleaning import clean, key, levels, price
from benchmark.datasets.raw.lines import Report, Tally, read_lines, silent
from benchmark.datasets.raw.objects import parse_object
from benchmark.datasets.raw.tables import DAYS, NO_RATING, Log, Row, collect, item_table, numbered_texts, tables
from benchmark.datasets.raw.times import whole_seconds

REVIEW = ("reviewerID", "asin", "unixReviewTime", "overall")
PRODUCT = ("asin", "title", "brand", "categories", "category", "price", "description", "imageURLHighRes")
FIELDS = ("title", "brand", "categories", "price", "description")
LICENCE = "public for research (McAuley et al., UCSD; cite the papers they name); redistribution is not granted"

_ASIN = re.compile(r"""["']asin["']: *u?["']([^"']*)["']""")
_BY = re.compile(r"\s*by\s*\n")

Describe = Callable[[Mapping[str, Any]], tuple[str, ...] | None]
"""One object of the metadata -> its texts in the order of FIELDS, None when the item is not admissible."""


def read_amazon14(reviews: Path, metadata: Path | None, name: str, *, report: Report = silent) -> Tables:
    """Amazon 2014: ``reviews_X_5.json.gz`` (or ``ratings_X.csv``: user, item, rating, time) and ``meta_X.json.gz``.

    An item keeps its interactions whether or not it is described. Of several category paths the first is taken.
    ``report`` hears of one file after the other. Raises MissingData for a missing file, ValueError for one that
    is empty, cut short, of another format or of another category.
    """
    log, tally = _reviews(reviews, report, user_first=True)
    meta = {"source": "Amazon review data 2014 (McAuley, UCSD)", "time": DAYS, "licence": LICENCE}
    if metadata is None:
        return tables(name, log.frame(), None, tally, **meta)
    described, skipped = _metadata(metadata, log.items, _describe14, report)
    return tables(name, log.frame(), item_table(described, FIELDS), tally, skipped, **meta)


def read_amazon18(
    reviews: Path, metadata: Path | None, name: str, *, images_only: bool = False, report: Report = silent
) -> Tables:
    """Amazon 2018: ``X_5.json.gz`` (or the ratings ``X.csv``: item, user, rating, time) and ``meta_X.json.gz``.

    With metadata, only the items they describe are admissible, with or without a title: the rule of LC-Rec
    (RUCAIBox/LC-Rec, data_process/amazon18_data_process.py), whose data LETTER and SimGR use. Its 24,772 users,
    9,922 items and 206,153 interactions (instruments) are the 5-core of distinct pairs after that rule. Ratings
    and 5-core reviews lead to the same core, for the core of the pairs lies within the core of the reviews.

    ``images_only`` admits only items with an ``imageURLHighRes``: the rule of MQL4GRec (zhaijianyang/MQL4GRec,
    data_process/load_all_figures.py), the source of GenPlugin's with-image subsets. It also dropped items whose
    images could not be downloaded on the day, which no metadata tell: its 17,112 users, 6,250 items and 136,226
    interactions (instruments) are the 5-core of a part of what is admitted here.

    ``report`` and errors as in `read_amazon14`.
    """
    if images_only and metadata is None:
        raise ValueError(f"{name}: only the metadata tell which items have an image; give meta_X.json.gz too")
    log, tally = _reviews(reviews, report, user_first=False)
    meta = {"source": "Amazon review data 2018 (Ni and McAuley, UCSD)", "time": DAYS, "licence": LICENCE}
    if metadata is None:
        return tables(name, log.frame(), None, tally, **meta)
    describe = partial(_describe18, images_only=images_only)
    described, skipped = _metadata(metadata, log.items, describe, report)
    frame = log.frame(described)
    dropped = {"items": len(log.items) - len(described), "interactions": len(log) - len(frame)}
    return tables(name, frame, item_table(described, FIELDS), tally, skipped, not_admissible=dropped, **meta)


def _reviews(file: Path, report: Report, user_first: bool) -> tuple[Log, Tally]:
    tally = Tally(file)
    return collect(read_lines(file, report), tally, partial(_review, user_first=user_first)), tally


def _review(line: str, user_first: bool) -> Row | None:
    """A JSON review, or a line of ratings with the user or the item first; None for anything else."""
    if line.startswith("{"):
        found = parse_object(line, REVIEW) or {}
        user, item, time, rating = map(found.get, REVIEW)
    else:
        cells = line.strip().split(",")
        if len(cells) != 4:
            return None
        (user, item), (rating, time) = (cells[:2] if user_first else cells[1::-1]), cells[2:]
    seconds, user, item = whole_seconds(time), key(user), key(item)
    try:
        stars = NO_RATING if rating is None else float(rating)
    except (TypeError, ValueError):
        return None
    return (user, item, seconds, stars) if user and item and seconds is not None else None


def _metadata(
    file: Path, wanted: KeysView[str], describe: Describe, report: Report
) -> tuple[dict[str, tuple[str, ...]], Tally]:
    """Texts of the ``wanted`` items that ``describe`` admits; of an item described twice the first line counts.

    Only lines that name a wanted item are parsed, for most lines of these files describe others.
    """
    tally = Tally(file)
    described: dict[str, tuple[str, ...] | None] = {}
    for number, line in numbered_texts(read_lines(file, report), tally):
        named = _ASIN.findall(line)
        if named and wanted.isdisjoint(named):
            continue
        product = parse_object(line, PRODUCT) or {}
        item = key(product.get("asin"))
        if not item:
            tally.skip(number)
        elif item in wanted and item not in described:
            described[item] = describe(product)
    tally.close()
    admitted = {item: texts for item, texts in described.items() if texts is not None}
    if not admitted:
        raise ValueError(f"{file} describes no item of the reviews; give the metadata of the same category")
    return admitted, tally


def _describe14(product: Mapping[str, Any]) -> tuple[str, ...]:
    paths = product.get("categories")
    first = paths[0] if isinstance(paths, list) and paths and isinstance(paths[0], list) else []
    return (clean(product.get("title")), clean(product.get("brand")), levels(first), *_sold(product))


def _describe18(product: Mapping[str, Any], images_only: bool) -> tuple[str, ...] | None:
    """As in the files of 2014, but one path, which ends where page markup begins, and ``by`` before the brand."""
    if images_only and not product.get("imageURLHighRes"):
        return None
    path = product.get("category")
    names = [str(level) for level in path] if isinstance(path, list) else []
    brand = product.get("brand")
    brand = _BY.sub("", brand, count=1) if isinstance(brand, str) else brand
    kept = takewhile(lambda level: "</span>" not in level, names)
    return (clean(product.get("title")), clean(brand), levels(kept), *_sold(product))


def _sold(product: Mapping[str, Any]) -> tuple[str, str]:
    """Price and description; the description is one text, or a list of paragraphs."""
    texts = product.get("description")
    paragraphs = texts if isinstance(texts, list) else [texts]
    return price(product.get("price")), " ".join(filter(None, map(clean, paragraphs)))
