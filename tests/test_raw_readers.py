"""Official raw files -> Tables: what each format says, what is skipped, and what is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.datasets import atomic
from benchmark.datasets.atomic import MissingData, Tables
from benchmark.datasets.raw.amazon import read_amazon14, read_amazon18
from benchmark.datasets.raw.movielens import read_movielens
from benchmark.datasets.raw.steam import read_steam

DAY = 86_400
RTL = "قهوة \u200fعربية"
EMOJI = "👩‍👩‍👧 mug ☕"


def put(path: Path, *lines: Any) -> Path:
    """Lines as they stand, objects as JSON lines; gzipped when the name ends in .gz."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    content = text.encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def review(user: str, item: str, time: Any = 5 * DAY, **more: Any) -> dict[str, Any]:
    return {"reviewerID": user, "asin": item, "overall": 4.0, "unixReviewTime": time, "reviewText": "so 'so'", **more}


def product(item: str, **more: Any) -> dict[str, Any]:
    return {"category": [], "title": f"Title {item}", "brand": "", "asin": item, "description": [], "price": "", **more}


def rows(tables: Tables) -> list[tuple[str, ...]]:
    return list(tables.interactions.itertuples(index=False, name=None))


def described(tables: Tables) -> dict[str, dict[str, str]]:
    assert tables.items is not None
    return {row["item_id"]: {str(name): row[name] for name in row} for row in tables.items.to_dict("records")}


def refusal(read: Callable[..., Tables], *files: Any, **options: Any) -> str:
    """What the reader says, which must be one sentence."""
    with pytest.raises(ValueError) as error:
        read(*files, "toy", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def written(tables: Tables, folder: Path) -> Tables:
    """Through the atomic files and back, which refuses what they cannot say."""
    (folder / "toy").mkdir()
    atomic.write(tables, folder / "toy")
    return atomic.read(folder / "toy")


# Amazon 2014


def test_amazon14_reviews_and_python_literal_metadata(tmp_path: Path) -> None:
    reviews = put(
        tmp_path / "reviews_5.json.gz", review("U2", "B"), review("U1", "A", 9 * DAY), review("U2", "B", 3 * DAY)
    )
    metadata = put(
        tmp_path / "meta.json.gz",
        "{'asin': 'Z', 'title': 'Never reviewed'}",
        "{'asin': 'B', 'categories': [['Beauty', 'Make\\'up', 'Nails'], ['Toys']], 'title': \"Bob's &amp; Co\", "
        "'price': 12.5, 'salesRank': {'Beauty': 3}, 'related': {'also_viewed': ['A', 'Z']}, 'imUrl': None}",
        "{u'asin': u'A', u'title': u'Caf\\xe9', u'brand': u'Acme', u'description': u'warm\\nand <b>dark</b>'}",
    )
    tables = read_amazon14(reviews, metadata, "toy")
    assert list(tables.interactions) == ["user_id", "item_id", "rating", "timestamp"]
    assert rows(tables) == [("U2", "B", "4", "432000"), ("U1", "A", "4", "777600"), ("U2", "B", "4", "259200")]
    assert described(tables) == {
        "B": {
            "item_id": "B",
            "title": "Bob's & Co",
            "brand": "",
            "categories": "Beauty > Make'up > Nails",
            "price": "12.50",
            "description": "",
        },
        "A": {
            "item_id": "A",
            "title": "Café",
            "brand": "Acme",
            "categories": "",
            "price": "",
            "description": "warm and dark",
        },
    }
    assert tables.meta["skipped_lines"] == 0 and "skipped_note" not in tables.meta
    assert tables.meta["time"] == "unix seconds, day resolution" and "2014" in tables.meta["source"]
    assert tables.types["timestamp"] == tables.types["rating"] == "float" and tables.types["title"] == "token_seq"


def test_amazon14_keeps_items_without_metadata_and_reads_ratings_user_first(tmp_path: Path) -> None:
    ratings = put(tmp_path / "ratings.csv", "U1,A,5.0,100", "U2,B,1.5,200")
    assert rows(read_amazon14(ratings, None, "toy")) == [("U1", "A", "5", "100"), ("U2", "B", "1.5", "200")]
    metadata = put(tmp_path / "meta.json.gz", "{'asin': 'A', 'title': 'x'}")
    tables = read_amazon14(ratings, metadata, "toy")
    assert len(tables.interactions) == 2 and list(described(tables)) == ["A"]


# Amazon 2018


def test_amazon18_ratings_put_the_item_first(tmp_path: Path) -> None:
    ratings = put(tmp_path / "Gift.csv.gz", "A,U1,5.0,100", "B,U2,1.0,200")
    tables = read_amazon18(ratings, None, "toy")
    assert rows(tables) == [("U1", "A", "5", "100"), ("U2", "B", "1", "200")]
    assert tables.items is None and "not_admissible" not in tables.meta


def test_amazon18_admits_only_items_with_metadata_even_without_title(tmp_path: Path) -> None:
    reviews = put(
        tmp_path / "r_5.json.gz", review("U", "A"), review("U", "gone"), review("U", "B"), review("V", "gone")
    )
    metadata = put(tmp_path / "meta.json.gz", product("B", title=""), product("A"), product("Z"))
    tables = read_amazon18(reviews, metadata, "toy")
    assert [row[1] for row in rows(tables)] == ["A", "B"]
    assert described(tables)["B"]["title"] == ""
    assert tables.meta["not_admissible"] == {"items": 1, "interactions": 2}


def test_amazon18_with_images_only(tmp_path: Path) -> None:
    reviews = put(tmp_path / "r_5.json.gz", review("U", "A"), review("U", "B"), review("U", "C"))
    image = {"imageURLHighRes": ["https://images.example/1.jpg"]}
    metadata = put(
        tmp_path / "meta.json.gz",
        product("A", imageURLHighRes=[]),
        product("B", **image),
        product("C"),
        product("A", **image),
    )
    tables = read_amazon18(reviews, metadata, "toy", images_only=True)
    assert [row[1] for row in rows(tables)] == ["B"] and list(described(tables)) == ["B"]  # the first line of A counts
    assert len(read_amazon18(reviews, metadata, "toy").interactions) == 3
    assert "have an image" in refusal(read_amazon18, reviews, None, images_only=True)


def test_amazon18_fields_are_cleaned_and_the_first_of_duplicates_stays(tmp_path: Path) -> None:
    reviews = put(tmp_path / "r_5.json.gz", review("U", "A"))
    first = product(
        "A",
        title="Line\tone\n&quot;two&quot; <span class='a-size'>three</span>\u0000",
        brand="by\n    Acme",
        category=["Shop", "Tea &amp; Coffee", "a > b", "</span></span>", "not a level"],
        price="$1,234.50",
        description=["<p>One</p>", "", "Two.<br/>Three"],
    )
    tables = read_amazon18(reviews, put(tmp_path / "meta.json.gz", first, product("A")), "toy")
    assert described(tables)["A"] == {
        "item_id": "A",
        "title": 'Line one "two" three',
        "brand": "Acme",
        "categories": "Shop > Tea & Coffee > a - b",
        "price": "1234.50",
        "description": "One Two. Three",
    }


def test_metadata_of_another_category_are_refused(tmp_path: Path) -> None:
    reviews = put(tmp_path / "r_5.json.gz", review("U", "A"))
    for read in (read_amazon14, read_amazon18):
        said = refusal(read, reviews, put(tmp_path / "meta.json.gz", product("Z")))
        assert "meta.json.gz describes no item of the reviews" in said


def test_a_line_that_names_a_wanted_item_elsewhere_describes_its_own(tmp_path: Path) -> None:
    reviews = put(tmp_path / "r_5.json.gz", review("U", "A"))
    decoy = product("Z", description=["""it says "asin": "A" here"""])
    late = {"description": "see 'asin': 'Q'", "asin": "A", "title": "mine"}
    tables = read_amazon18(reviews, put(tmp_path / "meta.json.gz", decoy, late), "toy")
    assert {item: row["title"] for item, row in described(tables).items()} == {"A": "mine"}


# Lines


BROKEN = [
    "{'reviewerID': broken",
    "[1, 2]",
    "no object",
    '{"reviewerID": "U", "asin": "A"}',
    '{"reviewerID": "", "asin": "A", "unixReviewTime": 5}',
    '{"reviewerID": "U", "unixReviewTime": 5}',
    '{"reviewerID": "U", "asin": "A", "unixReviewTime": -5}',
    '{"reviewerID": "U", "asin": "A", "unixReviewTime": "soon"}',
    '{"reviewerID": "U", "asin": "A", "unixReviewTime": 1394000000000}',
    '{"reviewerID": "U", "asin": "A", "unixReviewTime": true}',
    '{"reviewerID": "U", "asin": "A", "unixReviewTime": 5, "overall": "good"}',
    "U,A,5.0",
    "U,A,five,5",
    "[" * 100_000,
    "{'a': " + "(" * 100_000,
    '{"a":' * 100_000,
]


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_line_without_user_item_or_time_is_counted_and_skipped(tmp_path: Path, line: str) -> None:
    good = [review("U", f"I{place}") for place in range(99)]
    path = put(tmp_path / "r_5.json.gz", *good[:7], line, "", *good[7:])  # the blank line counts for nothing
    tables = read_amazon14(path, None, "toy")
    assert len(tables.interactions) == 99
    assert tables.meta["skipped_lines"] == 1
    assert tables.meta["skipped_note"] == (
        "1 of 100 lines of r_5.json.gz could not be read and were skipped, the first is line 8"
    )
    said = refusal(read_amazon14, put(tmp_path / "r_5.json.gz", *good[:7], line, *good[7:98]), None)
    assert "r_5.json.gz" in said and "1 of 99 lines" in said and "line 8" in said


def test_the_first_of_several_skipped_lines_is_named(tmp_path: Path) -> None:
    good = [review("U", f"I{place}") for place in range(300)]
    tables = read_amazon14(put(tmp_path / "r.json", *good[:5], "bad", *good[5:], "bad"), None, "toy")
    assert tables.meta["skipped_lines"] == 2 and tables.meta["skipped_note"].endswith("the first is line 6")


def test_broken_metadata_lines_count_too(tmp_path: Path) -> None:
    reviews = put(tmp_path / "r.json.gz", *[review("U", f"I{place}") for place in range(200)], "broken")
    products = [product(f"I{place}") for place in range(200)]
    tables = read_amazon18(reviews, put(tmp_path / "m.json.gz", "<html>", *products), "toy")
    assert tables.meta["skipped_lines"] == 2
    assert "r.json.gz" in tables.meta["skipped_note"] and "m.json.gz" in tables.meta["skipped_note"]
    assert "line 1" in refusal(read_amazon18, reviews, put(tmp_path / "m.json.gz", "<html>", *products[:50]))


def test_bytes_that_are_no_text_are_skipped_and_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    lines = [json.dumps(review("U", f"I{place}")).encode() for place in range(120)]
    path = tmp_path / "r.json"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*lines, b'{"asin": "\xff"}']))
    tables = read_amazon14(path, None, "toy")
    assert len(tables.interactions) == 120 and tables.meta["skipped_lines"] == 1


def test_a_gzip_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = put(tmp_path / "whole.json.gz", *[review("U", f"I{place}") for place in range(500)]).read_bytes()
    path = tmp_path / "r_5.json.gz"
    for end in (5, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        said = refusal(read_amazon14, path, None)
        assert said == f"{path} is cut short (the gzip stream ends early); download it again"
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    assert "is damaged" in refusal(read_amazon14, path, None)
    path.write_bytes(b"<html>not found</html>")
    assert "is not a gzip file" in refusal(read_amazon14, path, None)


@pytest.mark.parametrize("read", [read_amazon14, read_amazon18, read_steam])
def test_empty_missing_and_misplaced_files(tmp_path: Path, read: Callable[..., Tables]) -> None:
    for content in (b"", gzip.compress(b""), gzip.compress(b"\n\n")):
        (tmp_path / "r.json.gz").write_bytes(content)
        assert "r.json.gz is empty" in refusal(read, tmp_path / "r.json.gz", None)
    with pytest.raises(MissingData, match=r"other\.json\.gz is missing"):
        read(tmp_path / "other.json.gz", None, "toy")
    assert "is a folder" in refusal(read, tmp_path, None)


def test_progress_counts_compressed_bytes_up_to_the_size(tmp_path: Path) -> None:
    lines = [f"U{place},A{place * 7919 % 30_011},5.0,{place}" for place in range(30_000)]
    path, heard = put(tmp_path / "r.csv.gz", *lines), []
    tables = read_amazon14(path, None, "toy", report=lambda *step: heard.append(step))
    size = path.stat().st_size
    assert len(tables.interactions) == 30_000
    assert len(heard) == 4 and heard[-1] == (size, size)
    assert all(total == size for _, total in heard)
    assert [read for read, _ in heard] == sorted(read for read, _ in heard) and 0 < heard[0][0] < size


# Steam


def steam(user: str | None, item: str, date: str = "2017-12-17", **more: Any) -> str:
    named = {} if user is None else {"username": user}
    return repr(
        {**named, "hours": 0.1, "product_id": item, "page_order": 0, "date": date, "text": "it's\n'ok'", **more}
    )


def test_steam_reviews_and_games(tmp_path: Path) -> None:
    reviews = put(
        tmp_path / "steam_reviews.json.gz",
        steam("Chaos Syren", "725280").replace("'username'", "u'username'"),
        steam(None, "10", "1970-01-02", user_id="7656", early_access=False),
        steam("Chaos Syren", "20", text="'date': '2001-01-01', \"product_id\": '9'"),
    )
    games = put(
        tmp_path / "steam_games.json.gz",
        "{u'app_name': u'Rogue\\u2122', u'title': u'Other', u'id': u'10', u'developer': u'Acme', "
        "u'genres': [u'Action', u'Massively Multiplayer'], u'tags': [u'Indie']}",
        "{'title': 'Only', 'id': '20', 'tags': ['Puzzle', 'Indie']}",
        "{'app_name': 'No id'}",
        "{'app_name': 'Nobody played', 'id': '30'}",
        "{'app_name': 'Bare', 'id': '725280'}",
    )
    tables = read_steam(reviews, games, "toy")
    assert list(tables.interactions) == ["user_id", "item_id", "timestamp"]
    assert rows(tables) == [
        ("Chaos Syren", "725280", "1513468800"),
        ("7656", "10", str(DAY)),
        ("Chaos Syren", "20", "1513468800"),
    ]
    assert tables.items is not None and tables.items.to_numpy().tolist() == [
        ["10", "Rogue™", "Acme", "Games > Action > Massively Multiplayer"],
        ["20", "Only", "", "Games > Puzzle"],
        ["725280", "Bare", "", ""],
    ]
    assert read_steam(reviews, None, "toy").items is None


@pytest.mark.parametrize("date", ["2017-13-17", "20171217", "Posted 2017", "", "1969-12-31", "2017-W50-7"])
def test_a_steam_review_without_a_date_is_skipped(tmp_path: Path, date: str) -> None:
    path = put(tmp_path / "r.json.gz", *[steam("U", str(place)) for place in range(100)], steam("U", "bad", date))
    tables = read_steam(path, None, "toy")
    assert len(tables.interactions) == 100 and tables.meta["skipped_lines"] == 1
    wrong = put(tmp_path / "games.json.gz", "{'id': 'other'}")
    assert "describes no game" in refusal(read_steam, path, wrong)


# MovieLens


def movie(item: int, title: str, *genres: int) -> str:
    flags = "|".join("1" if place in genres else "0" for place in range(19))
    return f"{item}|{title}|01-Jan-1995||http://imdb.example|{flags}"


OLD = {
    "u.data": "196\t242\t3\t881250949\n186\t302\t4\t891717742\n196\t302\t1\t881250950\n",
    "u.item": "\n".join([movie(242, "Misérables, Les (1995)", 8, 12), movie(302, "unknown", 0), movie(7, "x")]),
}
NEW = {
    "ratings.dat": "1::1193::5::978300760\n2::661::3::978302109\n",
    "movies.dat": "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Été, L' (1975)::Drama\n",
}


def zipped(path: Path, files: dict[str, str], folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(folder + name, text.encode("latin-1"))
    return path


def unpacked(path: Path, files: dict[str, str]) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_bytes(text.encode("latin-1"))
    return path


def test_movielens_100k(tmp_path: Path) -> None:
    tables = read_movielens(zipped(tmp_path / "ml-100k.zip", OLD, "ml-100k/"), "toy")
    assert rows(tables) == [
        ("196", "242", "3", "881250949"),
        ("186", "302", "4", "891717742"),
        ("196", "302", "1", "881250950"),
    ]
    assert tables.items is not None and tables.items.to_numpy().tolist() == [
        ["242", "Misérables, Les", "1995", "Drama Musical"],
        ["302", "unknown", "", "unknown"],
    ]
    assert list(tables.items) == ["item_id", "title", "release_year", "categories"]


def test_movielens_1m(tmp_path: Path) -> None:
    tables = read_movielens(zipped(tmp_path / "ml-1m.zip", NEW, "ml-1m/"), "toy")
    assert rows(tables) == [("1", "1193", "5", "978300760"), ("2", "661", "3", "978302109")]
    assert tables.items is not None and tables.items.to_numpy().tolist() == [
        ["661", "James and the Giant Peach", "1996", "Animation Children's"],
        ["1193", "Été, L'", "1975", "Drama"],
    ]


@pytest.mark.parametrize("files", [OLD, NEW])
def test_the_unpacked_folder_says_the_same(tmp_path: Path, files: dict[str, str]) -> None:
    inside = read_movielens(zipped(tmp_path / "a.zip", files, "ml/"), "toy")
    whole = unpacked(tmp_path / "out" / "ml", files)
    unpacked(whole / "old", dict.fromkeys(files, "of no use"))  # deeper files never win
    for folder in (whole, tmp_path / "out"):
        outside = read_movielens(folder, "toy")
        assert outside.interactions.equals(inside.interactions) and outside.meta == inside.meta
        assert described(outside) == described(inside)


def test_a_zip_entry_that_points_elsewhere_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = zipped(tmp_path / "in" / "a.zip", {"../../u.data": OLD["u.data"], "/u.item": OLD["u.item"]})
    assert len(read_movielens(path, "toy").interactions) == 3
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.zip"]


def test_movielens_archives_that_cannot_be_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", OLD)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short or no zip archive" in refusal(read_movielens, path)
    path.write_bytes(whole.replace(whole[45:60], bytes(15), 1))
    assert "is damaged" in refusal(read_movielens, path)
    with pytest.raises(MissingData, match=r"holds neither u\.data with u\.item nor"):
        read_movielens(zipped(tmp_path / "b.zip", {"readme": "x"}), "toy")
    with pytest.raises(MissingData, match=r"c\.zip is missing"):
        read_movielens(tmp_path / "c.zip", "toy")
    broken = {**OLD, "u.data": OLD["u.data"].replace("\t", "::")}
    assert "u.data is not in the expected format" in refusal(read_movielens, zipped(tmp_path / "d.zip", broken))


# Everything that text can be


def test_any_text_survives_the_way_into_atomic_files(tmp_path: Path) -> None:
    title = "t" * 10_000
    users = ["tab\tuser", "line\nuser", "zero\0user", RTL, EMOJI, "NA", '"quoted', "\ud83d\ude00\ud83d"]
    reviews = put(tmp_path / "r.json.gz", *[review(user, f"I{place}") for place, user in enumerate(users)])
    titles = [title, "a\tb\r\nc\0", RTL, EMOJI, "\ud83d", "'NA'"]
    metadata = put(
        tmp_path / "m.json.gz", *[repr(product(f"I{place}", title=text)) for place, text in enumerate(titles)]
    )
    tables = read_amazon14(reviews, metadata, "toy")
    back = written(tables, tmp_path)
    assert back.interactions.equals(tables.interactions)
    assert back.items is not None and tables.items is not None and back.items.equals(tables.items)
    assert back.items["title"].tolist() == [title, "a b c", RTL, EMOJI, "\ufffd", "'NA'"]
    assert back.interactions["user_id"].tolist()[-3:] == ["NA", '"quoted', "😀\ufffd"]
