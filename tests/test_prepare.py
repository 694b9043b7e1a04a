"""`prepare` from the official files to a dataset that loads by name, over a web server on this machine."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest

import run_all
from benchmark.datasets import catalogue, command, folders, load, prepare, sources
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.datasets.command import Meter
from benchmark.datasets.sources import SOURCES, Remote
from tests.file_server import Sent, Server, running, status

ROOT = Path(__file__).resolve().parent.parent
HEADER = "user_id:token\titem_id:token\ttimestamp:float"
USERS, ITEMS = 6, 5
DAY = 86_400
START = 1_388_534_400  # 2014-01-01


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(started: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty server that stands for every official one, and no data anywhere but below ``tmp_path``."""
    started.scripts.clear()
    started.asked.clear()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("GENREC_MIRROR", started.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GENREC_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return started


def pairs() -> list[tuple[str, str, int]]:
    """Every user with every item, one a day."""
    return [(f"A{u}", f"B{i:09d}", START + (u + i) * DAY) for u in range(USERS) for i in range(ITEMS)]


def lines(rows: list[object]) -> bytes:
    return gzip.compress("\n".join(map(str, rows)).encode() + b"\n")


def amazon14() -> dict[str, bytes]:
    """Reviews (with a lone one that the 5-core drops) and Python-literal metadata of amazon14-beauty."""
    rows = [*pairs(), ("A99", "B000000000", START)]
    reviews = [json.dumps({"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": t}) for u, i, t in rows]
    meta = [{"asin": f"B{i:09d}", "title": f"Salve {i}", "categories": [["Beauty", "Skin"]]} for i in range(ITEMS - 1)]
    return {"reviews_Beauty_5.json.gz": lines(reviews), "meta_Beauty.json.gz": lines(meta)}


def amazon18() -> dict[str, bytes]:
    """Ratings and metadata of amazon18-games; one item has none."""
    rows = [*pairs(), *((f"A{u}", "B000000099", START) for u in range(USERS))]
    ratings = "".join(f"{i},{u},4.0,{t}\n" for u, i, t in rows).encode()
    meta = [json.dumps({"asin": f"B{i:09d}", "title": f"Game {i}", "category": ["Games", "PC"]}) for i in range(ITEMS)]
    return {"Video_Games.csv": ratings, "meta_Video_Games.json.gz": lines(meta)}


def steam() -> dict[str, bytes]:
    reviews = [{"username": u, "product_id": i, "date": f"2014-01-{(t - START) // DAY + 1:02d}"} for u, i, t in pairs()]
    games = [{"id": f"B{i:09d}", "app_name": f"Game {i}", "genres": ["Action"]} for i in range(ITEMS)]
    return {"steam_reviews.json.gz": lines(reviews), "steam_games.json.gz": lines(games)}


def movielens() -> dict[str, bytes]:
    """ml-100k.zip; the last user has rated one movie only."""
    rated = [(u + 1, i + 1, START + i) for u in range(3) for i in range(3)] + [(9, 1, START)]
    movies = [f"{i + 1}|Film {i} (1995)|01-Jan-1995||http://x|0|1{'|0' * 17}" for i in range(3)]
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("ml-100k/u.data", "".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in rated))
        archive.writestr("ml-100k/u.item", "\n".join(movies) + "\n")
    return {"ml-100k.zip": memory.getvalue()}


FILES = {"amazon14-beauty": amazon14, "amazon18-games": amazon18, "steam": steam, "ml-100k": movielens}


def offer(server: Server, name: str, monkeypatch: pytest.MonkeyPatch, statistics: tuple[int, int, int]) -> None:
    """Serve the made-up files of ``name`` where the official ones are, and expect these statistics of it."""
    contents = FILES[name]()
    for remote in SOURCES[name].files:
        server.scripts[urlsplit(remote.urls[0]).path] = [Sent(contents[remote.name])]
    counts = dict(zip(("users", "items", "interactions"), statistics, strict=True))
    changed = MappingProxyType({**CATALOGUE, name: replace(CATALOGUE[name], **counts)})
    for module in (catalogue, prepare, command, sys.modules["benchmark.datasets.assembly"]):
        monkeypatch.setattr(module, "CATALOGUE", changed)
    source = SOURCES[name]
    files = tuple(replace(remote, digest=None) for remote in source.files)
    monkeypatch.setattr(command, "SOURCES", {**SOURCES, name: replace(source, files=files)})


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a refused command says: one line on stderr."""
    capsys.readouterr()
    assert run_all.main(list(argv)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and sum(line.startswith("error") for line in said) == 1
    return said[-1]


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_named_dataset_has_a_source() -> None:
    assert set(SOURCES) == set(CATALOGUE) - {"demo"}
    designed = "amazon14-beauty amazon14-toys amazon14-sports amazon18-instruments amazon18-arts amazon18-games "
    designed += "amazon18-instruments-img amazon18-arts-img steam ml-100k ml-1m demo"
    assert set(CATALOGUE) == set(designed.split())
    for name, source in SOURCES.items():
        assert all(url.startswith("https://") for remote in source.files for url in remote.urls)
        assert all(len({url.rsplit("/", 1)[1] for url in remote.urls}) == 1 for remote in source.files), name
        assert source.k_core == (1 if name.startswith("ml-") else 5) and source.terms
    assert SOURCES["steam"].writes not in CATALOGUE


def test_a_name_is_downloaded_read_filtered_and_found(server: Server, monkeypatch, capsys, tmp_path: Path) -> None:
    offer(server, "amazon14-beauty", monkeypatch, (USERS, ITEMS, USERS * ITEMS))
    assert run_all.main(["prepare", "beauty"]) == 0
    said = capsys.readouterr()
    assert f"wrote {tmp_path / 'data' / 'amazon14-beauty'}: 6 users, 5 items, 30 interactions" in said.out
    assert "use it with: python run_all.py --datasets amazon14-beauty" in said.out
    assert "downloading reviews_Beauty_5.json.gz" in said.err and "1 of the 5 items have no text" in said.err
    raw = "raw/amazon14-beauty"
    assert tree(tmp_path / "data") == [
        *(f"amazon14-beauty/{name}" for name in ("amazon14-beauty.inter", "amazon14-beauty.item", "dataset.json")),
        *(
            f"{raw}/{name}{end}"
            for name in ("meta_Beauty.json.gz", "reviews_Beauty_5.json.gz")
            for end in ("", ".sha256")
        ),
    ]
    data = load("beauty")
    assert data.item_text[1] == "Salve 0. Beauty > Skin" and not data.order_only
    assert data.meta["setrec_cutoffs"] == {"T1": "2013-12-07", "T2": "2014-03-20"} and data.meta["k_core"] == 5
    assert set(data.meta["raw_sha256"]) == {"meta_Beauty.json.gz", "reviews_Beauty_5.json.gz"}
    assert len(server.asked) == 2


def test_raw_files_that_are_there_are_not_downloaded(server: Server, monkeypatch, capsys, tmp_path: Path) -> None:
    offer(server, "amazon14-beauty", monkeypatch, (USERS, ITEMS, USERS * ITEMS))
    assert run_all.main(["prepare", "beauty", "--raw-dir", "mine"]) == 0
    assert tree(tmp_path / "mine")[0] == "meta_Beauty.json.gz" and len(server.asked) == 2
    assert "exists already; remove it first" in refused(capsys, "prepare", "beauty", "--raw-dir", "mine")
    assert run_all.main(["prepare", "beauty", "--raw-dir", "mine", "--output-dir", "again"]) == 0
    assert "--datasets again" in capsys.readouterr().out and len(server.asked) == 2
    assert load("./again").sha256 == load("beauty").sha256


def test_the_amazon18_core_is_of_items_with_metadata(server: Server, monkeypatch, tmp_path: Path) -> None:
    offer(server, "amazon18-games", monkeypatch, (USERS, ITEMS, USERS * ITEMS))
    assert run_all.main(["prepare", "games", "--data-dir", "here"]) == 0
    assert load("games", "here").item_text[1] == "Game 0. Games > PC"
    assert tree(tmp_path / "here" / "raw")[0] == "amazon18-games/Video_Games.csv"


def test_movielens_keeps_everyone(server: Server, monkeypatch) -> None:
    offer(server, "ml-100k", monkeypatch, (4, 3, 10))
    assert run_all.main(["prepare", "ml-100k"]) == 0
    assert [len(row) for row in load("ml-100k").sequences] == [3, 3, 3, 1]


def test_a_movielens_archive_with_another_md5_is_not_kept(server: Server, capsys, tmp_path: Path) -> None:
    server.scripts["/datasets/movielens/ml-100k.zip"] = [Sent(movielens()["ml-100k.zip"])]
    said = refused(capsys, "prepare", "ml-100k")
    assert "does not have the md5 that its owner publishes and was not kept" in said
    assert tree(tmp_path / "data") == []


def test_steam_is_never_written_under_that_name(server: Server, monkeypatch, capsys, tmp_path: Path) -> None:
    offer(server, "steam", monkeypatch, (1, 1, 1))
    assert run_all.main(["prepare", "steam"]) == 0
    said = capsys.readouterr()
    assert "steam is SETRec's own preparation" in said.err and "--datasets steam-5core" in said.out
    data = load("steam-5core")
    assert (data.name, data.n_users, data.n_items) == ("steam-5core", USERS, ITEMS) and not data.order_only
    assert not (tmp_path / "data" / "steam").exists()
    again = refused(capsys, "prepare", "steam", "--name", "steam", "--output-dir", "forced")
    assert "gives 6 users, 5 items, 30 interactions where steam has 1 users" in again


def test_other_counts_are_refused_with_both(server: Server, monkeypatch, capsys, tmp_path: Path) -> None:
    offer(server, "amazon14-beauty", monkeypatch, (7, ITEMS, 31))
    said = refused(capsys, "prepare", "beauty")
    assert "gives 6 users, 5 items, 30 interactions where amazon14-beauty has 7 users, 5 items, 31 interactions" in said
    assert not (tmp_path / "data" / "amazon14-beauty").exists()
    assert run_all.main(["prepare", "beauty", "--name", "other"]) == 0
    assert load("other").n_users == USERS and len(server.asked) == 2


def test_a_source_out_of_reach_names_the_file_and_the_folder(server: Server, capsys, tmp_path: Path) -> None:
    said = refused(capsys, "prepare", "ml-1m")
    assert f"fetch {server.url}/datasets/movielens/ml-1m.zip by hand and put it into" in said
    assert str(tmp_path / "data" / "raw" / "ml-1m") in said and "HTTP 404" in said


def test_a_stop_in_the_middle_is_continued(server: Server, monkeypatch, capsys, tmp_path: Path) -> None:
    offer(server, "amazon14-beauty", monkeypatch, (USERS, ITEMS, USERS * ITEMS))
    path = next(iter(server.scripts))
    (whole,) = server.scripts[path]
    server.scripts[path] = [replace(whole, upto=100), status(404)]
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert "HTTP 404" in refused(capsys, "prepare", "beauty")
    assert (tmp_path / "data/raw/amazon14-beauty/reviews_Beauty_5.json.gz.part").stat().st_size == 100
    server.scripts[path] = [whole]
    assert run_all.main(["prepare", "beauty"]) == 0
    assert "bytes=100-" in server.ranges() and not list(tmp_path.rglob("*.part*"))


def test_a_data_folder_that_can_only_be_read_sends_new_files_to_the_cache(
    server: Server, monkeypatch, capsys, tmp_path: Path
) -> None:
    def make_folder(path: Path) -> None:
        if path.is_relative_to(tmp_path / "data"):
            raise OSError(errno.EROFS, f"{path} cannot be written (permission denied)")
        path.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(folders, "make_folder", make_folder)
    offer(server, "amazon14-beauty", monkeypatch, (USERS, ITEMS, USERS * ITEMS))
    assert run_all.main(["prepare", "beauty"]) == 0
    assert (tmp_path / "cache" / "genrec-bench" / "amazon14-beauty").is_dir() and load("beauty").n_items == ITEMS
    asked = refused(capsys, "prepare", "toys", "--data-dir", str(tmp_path / "data" / "mine"))
    assert "cannot be written" in asked  # a folder asked for is not passed over


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "/x", "", "a b", "beauty"])
def test_a_name_that_leads_elsewhere_is_refused(server: Server, capsys, tmp_path: Path, name: str) -> None:
    atomic = tmp_path / "mine"
    atomic.mkdir()
    (atomic / "mine.inter").write_text("\n".join([HEADER, "u\ti\t1"]) + "\n")
    for source in ("beauty", "mine"):
        said = refused(capsys, "prepare", source, f"--name={name}", "--k-core", "1")
        assert "cannot name a dataset" in said or "is short for amazon14-beauty" in said
    assert tree(tmp_path) == ["mine/mine.inter"] and server.asked == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["demo"], "demo is generated in memory"),
        (["beuaty"], "did you mean 'beauty'"),
        (["beauty", "--columns", "user_id=u,item_id=i"], "describe your own table"),
        (["table.csv", "--raw-dir", "x"], "--raw-dir is for datasets known by name"),
        (["table.csv", "--columns", "user_id=u"], "does not say which columns to read"),
        (["table.csv", "--columns", "user_id=u,item_id"], "does not say which columns to read"),
        (["table.csv", "--columns", "user_id=u,user_id=i,item_id=j"], "does not say which columns to read, each once"),
        (["table.csv", "--columns", "user_id=u,item_id=u"], "does not say which columns to read, each once"),
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["folder", "--items", "table.csv"], "describe a CSV or Parquet table"),
        (["a/../../b"], "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(server: Server, capsys, tmp_path: Path, argv, said) -> None:
    (tmp_path / "table.csv").write_text("u,i\n1,2\n")
    (tmp_path / "folder").mkdir()
    assert said in refused(capsys, "prepare", *argv)
    assert server.asked == []


def test_a_table_with_named_columns(server: Server, capsys, tmp_path: Path) -> None:
    rows = [f"{u},{i},2014-01-{(t - START) // DAY + 1:02d},5" for u, i, t in pairs()]
    (tmp_path / "mine.csv").write_text("\n".join(["who,what,day,stars", *rows]) + "\n")
    (tmp_path / "things.csv").write_text("what,label\nB000000000,שלום 👩‍👩‍👧\n", encoding="utf-8")
    columns = "user_id=who,item_id=what,timestamp=day,title=label"
    assert run_all.main(["prepare", "mine.csv", "--columns", columns, "--items", "things.csv"]) == 0
    said = capsys.readouterr()
    assert "are Unix seconds (UTC) now" in said.err and "4 of the 5 items have no text" in said.err
    data = load("mine")
    assert data.timestamps.min() == START and data.item_text[1] == "שלום 👩‍👩‍👧"


@pytest.mark.parametrize(
    ("write", "note"),
    [
        (lambda t: str(t * 1000 + 5), "timestamps were milliseconds and are seconds now"),
        (lambda t: str(t * 10**9), "timestamps were nanoseconds and are seconds now"),
        (lambda t: f"2014-01-{(t - START) // DAY + 1:02d}T00:00:00", "timestamps were dates and are Unix seconds"),
        (lambda t: f"2014-01-{(t - START) // DAY + 1:02d} 01:00:00+01:00", "timestamps were dates"),
    ],
)
def test_times_are_converted_with_a_note(tmp_path: Path, write, note) -> None:
    (tmp_path / "raw").mkdir()
    rows = [f"{u}\t{i}\t{write(t)}" for u, i, t in pairs()]
    (tmp_path / "raw" / "raw.inter").write_text("\n".join([HEADER, *rows]) + "\n")
    said: list[str] = []
    prepare.prepare(tmp_path / "raw", tmp_path / "made", say=said.append)
    assert [line for line in said if note in line] and "\n" not in said[0]
    times = load(str(tmp_path / "made")).timestamps
    assert times.min() == pytest.approx(START, abs=0.01) and times.max() - times.min() == (USERS + ITEMS - 2) * DAY


@pytest.mark.parametrize(
    ("bad", "said"),
    [("", "has no timestamp"), ("-5", "before 1970"), ("soon", "'soon', which is not a number")],
)
@pytest.mark.parametrize("good", ["1", "2014-01-31"])
def test_times_that_cannot_be_read_are_refused(tmp_path: Path, good: str, bad: str, said: str) -> None:
    if bad == "-5" and good != "1":
        bad, said = "1969-12-31", "'-86400.0', which is before 1970"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "raw.inter").write_text("\n".join([HEADER, f"u\ti\t{good}", f"u\tj\t{bad}"]) + "\n")
    with pytest.raises(ValueError, match=f"interaction 2 .*{said}"):
        prepare.prepare(tmp_path / "raw", tmp_path / "made", k_core=1)
    assert not (tmp_path / "made").exists()


ONE_OF_TWO = """
import sys, time
from pathlib import Path
from benchmark.datasets import atomic
from benchmark.datasets.prepare import prepare
whole = atomic.write
def slow(*args):
    print("writing", flush=True)
    for _ in range(6000):
        if Path("go").exists():
            break
        time.sleep(0.01)
    whole(*args)
atomic.write = slow
try:
    prepare(Path("raw"), Path("made"), k_core=1, say=lambda text: print(text, flush=True))
except ValueError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def test_two_processes_at_once_leave_one_whole_dataset(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    rows = [f"{u}\t{i}\t{t}" for u, i, t in pairs()]
    (tmp_path / "raw" / "raw.inter").write_text("\n".join([HEADER, *rows]) + "\n")

    def start() -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", ONE_OF_TWO]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    first = start()
    assert first.stdout is not None and "writing\n" in iter(first.stdout.readline, "")
    second = start()
    assert (
        second.stdout is not None and second.stdout.readline() == "another process is preparing made; waiting for it\n"
    )
    (tmp_path / "go").touch()
    first.communicate(timeout=60)
    said = second.communicate(timeout=60)[0]
    assert said == "made was prepared by another process in the meantime and is whole; use it\n"
    assert (first.returncode, second.returncode) == (0, 2)
    assert load(str(tmp_path / "made")).n_users == USERS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["go", "made", "raw"]


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "raw.inter").write_text("\n".join([HEADER, "u\ti\t1"]) + "\n")
    (tmp_path / ".made.tmp").mkdir()
    (tmp_path / ".made.tmp" / "made.inter").write_text("half a f")
    (tmp_path / ".made.lock").touch()
    prepare.prepare(tmp_path / "raw", tmp_path / "made", k_core=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "raw"]


def test_progress_is_one_line_that_is_redrawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    for stream in (plain, terminal):
        clock[0] = 0.0
        report = Meter("beauty", stream).report("downloading")
        for done in (0, 2_500_000, 5_000_000, 10_000_000):
            report(done, 10_000_000)
            clock[0] += 8.0
    assert "beauty: downloading  50% (5.0 of 10.0 MB), at most" in terminal.getvalue()
    assert "\n" not in terminal.getvalue() and terminal.getvalue().count("\r") == 3
    assert plain.getvalue() == "beauty: downloading  50% (5.0 of 10.0 MB), at most 16s left\n"


def test_a_stand_in_is_used_where_it_lies(tmp_path: Path) -> None:
    remote = Remote(("https://x/a.csv",), stand_in="b.json.gz")
    assert command._place(remote, tmp_path).name == "a.csv"
    (tmp_path / "b.json.gz").touch()
    assert command._place(remote, tmp_path).name == "b.json.gz"
    (tmp_path / "a.csv").touch()
    assert command._place(remote, tmp_path).name == "a.csv"


def test_the_mirror_of_the_tests_covers_every_official_path() -> None:
    """Two files of one source must not share a path once hosts are replaced."""
    for source in sources.SOURCES.values():
        paths = [url.split("/", 3)[3] for remote in source.files for url in remote.urls]
        assert len(set(paths)) == len(paths)
