"""Any table with named columns -> Tables: separators, times, texts, and what is refused in one sentence."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmark.datasets.atomic import MissingData, Tables
from benchmark.datasets.raw.columns import read_columns
from benchmark.datasets.raw.times import any_seconds, iso_seconds, whole_seconds

PLAIN = {"user_id": "who", "item_id": "what"}
TIMED = {**PLAIN, "timestamp": "when"}
MARCH = 1_393_632_000  # 2014-03-01, UTC


def put(path: Path, *lines: str) -> Path:
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def rows(tables: Tables) -> list[tuple[str, ...]]:
    return list(tables.interactions.itertuples(index=False, name=None))


def texts(tables: Tables) -> list[list[str]]:
    assert tables.items is not None
    return tables.items.to_numpy().tolist()


def refusal(path: Path, **options: Any) -> str:
    """What the reader says, which must be one sentence."""
    with pytest.raises(ValueError) as error:
        read_columns(path, "toy", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def timed(folder: Path, *times: str) -> Tables:
    lines = [f"U,I{place},{time}" for place, time in enumerate(times)]
    return read_columns(put(folder / "a.csv", "who,what,when", *lines), "toy", columns=TIMED)


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "noname"])
def test_the_separator_is_the_one_that_gives_the_columns(tmp_path: Path, name: str, separator: str) -> None:
    lines = [
        separator.join(cells)
        for cells in (["when", "other", "what", "who"], ["5", "x", "B", "U 1"], ["3", "", "A", "U"])
    ]
    tables = read_columns(put(tmp_path / name, *lines), "toy", columns=TIMED)
    assert list(tables.interactions) == ["user_id", "item_id", "timestamp"]
    assert rows(tables) == [("U 1", "B", "5"), ("U", "A", "3")]
    assert tables.items is None and tables.meta["time"] == "unix seconds" and tables.meta["skipped_lines"] == 0


def test_without_times_the_order_of_the_rows_is_told(tmp_path: Path) -> None:
    tables = read_columns(put(tmp_path / "a.csv", "who,what", "U,B", "U,A", "U,B"), "toy", columns=PLAIN)
    assert rows(tables) == [("U", "B"), ("U", "A"), ("U", "B")]  # nothing sorted, nothing dropped
    assert tables.meta["time"] == "order only (file order)"


def test_quotes_count_in_csv_and_are_characters_in_tsv(tmp_path: Path) -> None:
    named = {**PLAIN, "title": "name"}
    quoted = put(tmp_path / "a.csv", "who,what,name", 'U,A,"a ""b"", c', 'd"', 'U,"x,y",plain')
    assert texts(read_columns(quoted, "toy", columns=named)) == [["A", 'a "b", c d'], ["x,y", "plain"]]
    plain = put(tmp_path / "a.tsv", "who\twhat\tname", 'U\tA\t"open', 'U\tB\t5" wide')
    assert texts(read_columns(plain, "toy", columns=named)) == [["A", '"open'], ["B", '5" wide']]


def test_dates_are_utc_and_the_conversion_is_told(tmp_path: Path) -> None:
    tables = timed(
        tmp_path, "2014-03-01", "2014-03-01T10:00:00", "2014-03-01 10:00:00+02:00", " 2014-03-01T00:00:00.5Z"
    )
    assert [row[2] for row in rows(tables)] == [str(MARCH), str(MARCH + 36_000), str(MARCH + 28_800), f"{MARCH}.5"]
    assert tables.meta["time_note"] == "4 timestamps were dates and are Unix seconds (UTC) now"


def test_milliseconds_become_seconds_and_the_conversion_is_told(tmp_path: Path) -> None:
    tables = timed(tmp_path, f"{MARCH}123", f"{MARCH}", "1393632000.25")
    assert [row[2] for row in rows(tables)] == [f"{MARCH}.123", str(MARCH), f"{MARCH}.25"]
    assert tables.meta["time_note"] == "1 timestamps were milliseconds and are Unix seconds now"
    assert "time_note" not in timed(tmp_path, "0", "1").meta


@pytest.mark.parametrize(
    "time", ["-1", "soon", "nan", "inf", "1e400", "2014-13-01", "1969-12-31", "03/01/2014", "2014-03-01T25:00:00"]
)
def test_a_time_that_is_none_is_refused_with_its_row(tmp_path: Path, time: str) -> None:
    path = put(tmp_path / "a.csv", "who,what,when", "U,A,5", f"U,B,{time}", "U,C,7")
    said = refusal(path, columns=TIMED)
    assert said.startswith(f"{path}: row 3 has the timestamp {time!r}; times are Unix seconds")


def test_a_missing_time_is_refused_with_its_row(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "who,what,when", "U,A,5", "U,B,7", "U,B,")
    assert refusal(path, columns=TIMED).startswith(f"{path}: row 4 has no timestamp")


def test_columns_that_are_not_there_are_named_beside_those_that_are(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "user,what,when", "U,A,5")
    assert refusal(path, columns=TIMED) == f"{path} has no column 'who'; its columns are 'user', 'what', 'when'"
    assert "'isbn' is no field" in refusal(path, columns={**PLAIN, "isbn": "x"})
    assert "no column is named for item_id" in refusal(path, columns={"user_id": "user"})
    items = put(tmp_path / "i.csv", "what,name", "A,x")
    titled = {"user_id": "user", "item_id": "what", "title": "title"}
    assert (
        refusal(path, columns=titled, items=items) == f"{items} has no column 'title'; its columns are 'what', 'name'"
    )
    assert "name one for title" in refusal(path, columns={"user_id": "user", "item_id": "what"}, items=items)


def test_texts_beside_the_interactions(tmp_path: Path) -> None:
    lines = ["who,what,name,maker", "U,B,,", "U,B,Bee,", "U,A,  Ay\u0085x ,Acme", "V,B,Other,Late"]
    columns = {**PLAIN, "title": "name", "brand": "maker"}
    tables = read_columns(put(tmp_path / "a.csv", *lines), "toy", columns=columns)
    assert tables.items is not None and list(tables.items) == ["item_id", "title", "brand"]
    assert texts(tables) == [["B", "Bee", ""], ["A", "Ay x", "Acme"]]
    assert len(tables.interactions) == 4 and list(tables.interactions) == ["user_id", "item_id"]


def test_texts_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "who,what,stars", "U,B,4.50", "U,A,", "U,B,2")
    items = put(tmp_path / "i.tsv.gz", "name\tkind\twhat", "Ghost\t\tZ", "Bee\tShop > Tea\tB", "Again\t\tB")
    columns = {**PLAIN, "rating": "stars", "title": "name", "categories": "kind"}
    tables = read_columns(path, "toy", columns=columns, items=items)
    assert rows(tables) == [("U", "B", "4.5"), ("U", "A", ""), ("U", "B", "2")]
    assert texts(tables) == [["B", "Bee", "Shop > Tea"]]
    assert tables.types["rating"] == "float" and tables.types["categories"] == "token_seq"


@pytest.mark.parametrize("row", ["U,A", "U,A,5,6", ",A,5", "U, ,5", "U"])
def test_a_row_without_user_or_item_or_of_another_width_is_skipped(tmp_path: Path, row: str) -> None:
    good = [f"U,I{place},5" for place in range(99)]
    tables = read_columns(put(tmp_path / "a.csv", "who,what,when", *good, row, ""), "toy", columns=TIMED)
    assert len(tables.interactions) == 99 and tables.meta["skipped_lines"] == 1
    assert tables.meta["skipped_note"].endswith("the first is line 101")
    said = refusal(put(tmp_path / "a.csv", "who,what,when", *good[:98], row), columns=TIMED)
    assert "1 of 99 lines" in said and "line 100" in said


def test_damaged_files(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "who,what", "U,A", 'U,"open')
    assert "damaged" in refusal(path, columns=PLAIN)
    path.write_bytes(b"who,what\nU,A\nU,\xff\n")
    assert refusal(path, columns=PLAIN) == f"{path} is not UTF-8 text (line 3); convert it"
    assert "is empty" in refusal(put(path), columns=PLAIN)
    assert "is empty" in refusal(put(path, "who,what"), columns=PLAIN)
    with pytest.raises(MissingData):
        read_columns(tmp_path / "b.csv", "toy", columns=PLAIN)
    whole = put(tmp_path / "a.csv.gz", "who,what", *[f"U{place},A" for place in range(500)])
    whole.write_bytes(whole.read_bytes()[:-20])
    assert "cut short" in refusal(whole, columns=PLAIN)


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    moment = datetime(2014, 3, 1, 10, tzinfo=UTC)
    cells = {
        "who": [7, 8, 7],
        "what": ["A", "B", "A"],
        "when": [moment, moment, moment],
        "name": ["Ay", None, "x"],
        "kind": [["Shop", "Tea"], [], None],
    }
    path, heard = tmp_path / "a.parquet", []
    parquet.write_table(arrow.table(cells), path)
    columns = {**TIMED, "title": "name", "categories": "kind"}
    tables = read_columns(path, "toy", columns=columns, report=lambda *step: heard.append(step))
    assert rows(tables) == [(user, item, str(MARCH + 36_000)) for user, item in (("7", "A"), ("8", "B"), ("7", "A"))]
    assert texts(tables) == [["A", "Ay", "Shop > Tea"], ["B", "", ""]]
    assert heard == [(path.stat().st_size,) * 2] and "time_note" in tables.meta
    assert "has no column 'x'; its columns are 'who'" in refusal(path, columns={**PLAIN, "title": "x"})
    path.write_bytes(path.read_bytes()[:-30])
    assert "damaged or cut short" in refusal(path, columns=TIMED)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "install pyarrow" in refusal(tmp_path / "a.parquet", columns=PLAIN)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), (5, 5), (5.0, 5), ("0", 0), (10**11, 10**11), (10**11 + 1, None), ("9" * 5000, None)]
    + [(value, None) for value in (5.5, -1, "-1", "5.0", "1_0", "٣", "", None, True, float("nan"), float("inf"), [5])],
)
def test_whole_seconds(value: object, seconds: int | None) -> None:
    assert whole_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (date(2014, 3, 1), (MARCH, "dates")),
        (datetime(2014, 3, 1, 10), (MARCH + 36_000, "dates")),
        (f"{MARCH}000000", (MARCH, "microseconds")),
        (MARCH * 10**9, (MARCH, "nanoseconds")),
        (True, None),
        (None, None),
        (date(1960, 1, 1), None),
        (10**400, None),
    ],
)
def test_any_seconds(value: object, seconds: tuple[float, str] | None) -> None:
    assert any_seconds(value) == seconds


def test_iso_seconds_reads_only_dates_written_with_dashes() -> None:
    assert iso_seconds("1970-01-02") == 86_400
    assert [
        iso_seconds(text)
        for text in ("20140301", "2014-W09", "2014-03", "2014-03-01x", "\u0662\u0660\u0661\u0664-03-01")
    ] == [None] * 5
