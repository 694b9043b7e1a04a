"""Where the named datasets come from: official files, their readers, and how `prepare` makes each from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from benchmark.datasets.atomic import Tables
from benchmark.datasets.raw.amazon import read_amazon14, read_amazon18
from benchmark.datasets.raw.lines import Report
from benchmark.datasets.raw.movielens import read_movielens
from benchmark.datasets.raw.steam import read_steam

Reader = Callable[[Sequence[Path], str, Report], Tables]
"""The files in the order of `Source.files`, the dataset's name and the progress -> all that the files hold."""


@dataclass(frozen=True)
class Remote:
    """One official file."""

    urls: tuple[str, ...]
    """Its addresses, tried in this order."""
    digest: str | None = None
    """``algorithm:hex`` as its owner publishes it."""
    stand_in: str | None = None
    """Another official file from which the same dataset follows; used where it lies, never downloaded."""

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.urls[0]).path).name


@dataclass(frozen=True)
class Source:
    """How a dataset is made from its official files."""

    files: tuple[Remote, ...]
    read: Reader
    terms: str
    """On what conditions the files may be used."""
    folder: str
    """Its raw files lie in ``raw/FOLDER``; datasets made from the same files share one."""
    k_core: int = 5
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of dataset.json."""
    writes: str | None = None
    """The name of what the raw files give, where that is not the dataset of the name."""
    note: str = ""
    """What the user is told before."""


_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_UCSD18 = (f"{_MCAULEY}/amazon_v2", "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2")
_STEAM = (f"{_MCAULEY}/steam", "https://cseweb.ucsd.edu/~wckang")
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"

_FOR_RESEARCH = "for research; not to be passed on; cite the papers named at"
_AMAZON14_TERMS = f"{_FOR_RESEARCH} https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
_AMAZON18_TERMS = f"{_FOR_RESEARCH} https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/"
_STEAM_TERMS = f"{_FOR_RESEARCH} https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"
_MOVIELENS_TERMS = "for research; not to be passed on; see the README in the archive; cite Harper and Konstan 2015"


_IMAGES = (
    "the published subset also lacks items whose image could not be downloaded on the day, which no official file "
    "tells, so its counts may not be reached"
)


_PHRASES = (
    "the official files have titles and lack the key phrases that a model wrote for the copies in circulation, so item "
    "texts, and what is made from them, will differ from theirs"
)


def _reviews(read: Callable[..., Tables], files: Sequence[Path], name: str, report: Report) -> Tables:
    """Read a pair of reviews and descriptions of the items."""
    reviews, described = files
    return read(reviews, described, name, report=report)


def _archive(files: Sequence[Path], name: str, report: Report) -> Tables:
    return read_movielens(files[0], name, report=report)


def _amazon14(folder: str, category: str, t1: str, t2: str, note: str = "") -> Source:
    """The 5-core as published. ``t1`` and ``t2`` are the dates at which SETRec cut it."""
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    return Source(
        files=tuple(Remote((f"{_SNAP}/{name}", f"{_MCAULEY}/amazon/categoryFiles/{name}")) for name in names),
        read=partial(_reviews, read_amazon14),
        terms=_AMAZON14_TERMS,
        folder=folder,
        meta={"setrec_cutoffs": {"T1": t1, "T2": t2}},
        note=note,
    )


def _amazon18(folder: str, category: str, images_only: bool = False) -> Source:
    """As LC-Rec makes it: all ratings of items with metadata, first of duplicates, 5-core."""
    ratings, described = f"categoryFilesSmall/{category}.csv", f"metaFiles2/meta_{category}.json.gz"
    return Source(
        files=(
            Remote(tuple(f"{root}/{ratings}" for root in _UCSD18), stand_in=f"{category}_5.json.gz"),
            Remote(tuple(f"{root}/{described}" for root in _UCSD18)),
        ),
        read=partial(_reviews, partial(read_amazon18, images_only=images_only)),
        terms=_AMAZON18_TERMS,
        folder=folder,
        note=_IMAGES if images_only else "",
    )


def _movielens(name: str, md5: str) -> Source:
    """Every rating; MovieLens is used unfiltered."""
    archive = Remote((f"{_GROUPLENS}/{name}.zip",), digest=f"md5:{md5}")
    return Source(files=(archive,), read=_archive, terms=_MOVIELENS_TERMS, folder=name, k_core=1)


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "amazon14-beauty": _amazon14("amazon14-beauty", "Beauty", "2013-12-07", "2014-03-20"),
        "amazon14-toys": _amazon14("amazon14-toys", "Toys_and_Games", "2013-11-20", "2014-01-21"),
        "amazon14-sports": _amazon14("amazon14-sports", "Sports_and_Outdoors", "2013-09-12", "2014-01-27", _PHRASES),
        "amazon18-instruments": _amazon18("amazon18-instruments", "Musical_Instruments"),
        "amazon18-arts": _amazon18("amazon18-arts", "Arts_Crafts_and_Sewing"),
        "amazon18-games": _amazon18("amazon18-games", "Video_Games"),
        "amazon18-instruments-img": _amazon18("amazon18-instruments", "Musical_Instruments", images_only=True),
        "amazon18-arts-img": _amazon18("amazon18-arts", "Arts_Crafts_and_Sewing", images_only=True),
        "steam": Source(
            files=tuple(
                Remote(tuple(f"{root}/{name}" for root in _STEAM))
                for name in ("steam_reviews.json.gz", "steam_games.json.gz")
            ),
            read=partial(_reviews, read_steam),
            terms=_STEAM_TERMS,
            folder="steam",
            writes="steam-5core",
            note=(
                "steam is SETRec's own preparation with its split labels, which the raw files do not hold; "
                "they give steam-5core, all reviews filtered here, which is another dataset"
            ),
        ),
        "ml-100k": _movielens("ml-100k", "0e33842e24a9c977be4e0107933c0723"),
        "ml-1m": _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906"),
    }
)
