"""A download is whole or not there, whatever the server does: every misbehaviour of a real one, on this machine."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import random
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.datasets import download
from benchmark.datasets.download import DownloadError, fetch, obtain
from tests.file_server import Sent, Server, running, status

CONTENT = random.Random(0).randbytes(300_000)
GOOD = Sent(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(started: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("GENREC_MIRROR", raising=False)
    started.scripts.clear()
    started.asked.clear()
    return started


class Log:
    """What the downloader reported and said, and how long it would have waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.progress: list[tuple[int, int]] = []
        self.said: list[str] = []
        self.waits: list[float] = []
        monkeypatch.setattr(download.time, "sleep", self.waits.append)

    def report(self, done: int, total: int) -> None:
        self.progress.append((done, total))

    def fetch(self, server: Server, target: Path, *answers: object, **how: object) -> None:
        """Fetch a file that the server answers for with ``answers``."""
        server.scripts[f"/{target.name}"] = list(answers)
        timeout = how.pop("timeout", 5.0)
        url = f"{server.url}/{target.name}"
        fetch(url, target, report=self.report, say=self.said.append, timeout=timeout, **how)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_with_progress_and_nothing_else(server: Server, log: Log, tmp_path: Path) -> None:
    log.fetch(server, tmp_path / "data.bin", GOOD)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and left(tmp_path) == ["data.bin"]
    done = [at for at, _ in log.progress]
    assert done[0] == 0 and done[-1] == len(CONTENT) and done == sorted(done)
    assert {total for _, total in log.progress} == {len(CONTENT)}
    assert server.asked[0][1]["Accept-Encoding"] == "identity"  # else a server may pack the file once more


@pytest.mark.parametrize(
    "broken",
    [Sent(CONTENT, upto=70_000), Sent(CONTENT, upto=70_000, stall=True)],
    ids=["cut off", "stalled"],
)
def test_what_came_before_a_fault_is_kept_and_the_rest_asked_for(
    server: Server, log: Log, tmp_path: Path, broken: Sent
) -> None:
    log.fetch(server, tmp_path / "data.bin", broken, broken, GOOD, timeout=0.3)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and left(tmp_path) == ["data.bin"]
    assert server.ranges() == [None, "bytes=70000-", "bytes=140000-"]
    assert all("trying again in 1s" in line for line in log.said) and log.waits == [1.0, 1.0]  # bytes came: no doubling


def test_pauses_grow_until_it_gives_up(server: Server, log: Log, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"HTTP 503 .*, 4 times in a row"):
        log.fetch(server, tmp_path / "data.bin", status(503), retries=3)
    assert log.waits == [1, 2, 4] and len(server.asked) == 4 and left(tmp_path) == []


def test_errors_that_pass_are_waited_for(server: Server, log: Log, tmp_path: Path) -> None:
    log.fetch(server, tmp_path / "data.bin", status(503), status(502), status(429), GOOD)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and log.waits == [1, 2, 4]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_errors_that_stay_are_not(server: Server, log: Log, tmp_path: Path, code: int) -> None:
    with pytest.raises(DownloadError, match=f"HTTP {code} "):
        log.fetch(server, tmp_path / "data.bin", status(code))
    assert len(server.asked) == 1 and log.waits == [] and left(tmp_path) == []


def interrupted(log: Log, server: Server, target: Path, answer: Sent, at: int = 70_000) -> None:
    """Leave a part of ``at`` bytes or more behind, as Ctrl-C does."""

    def press(done: int, _: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    server.scripts[f"/{target.name}"] = [answer]
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/{target.name}", target, report=press, say=log.said.append)
    assert not target.exists()


def test_ctrl_c_keeps_the_part_and_the_next_call_goes_on(server: Server, log: Log, tmp_path: Path) -> None:
    target = tmp_path / "data.bin"
    interrupted(log, server, target, GOOD)
    size = (tmp_path / "data.bin.part").stat().st_size
    assert 70_000 <= size < len(CONTENT)
    log.fetch(server, target, GOOD)
    assert target.read_bytes() == CONTENT and left(tmp_path) == ["data.bin"]
    assert server.ranges()[-1] == f"bytes={size}-" and log.progress[0] == (size, len(CONTENT))


def test_a_part_that_is_all_there_needs_no_request(server: Server, log: Log, tmp_path: Path) -> None:
    interrupted(log, server, tmp_path / "data.bin", GOOD, at=len(CONTENT))
    server.asked.clear()
    log.fetch(server, tmp_path / "data.bin", status(500))
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and server.asked == []


CHANGED = Sent(CONTENT[::-1] + b"more", etag='"2"')


@pytest.mark.parametrize(
    ("first", "then", "requests"),
    [
        (GOOD, CHANGED, 1),
        (GOOD, replace(CHANGED, conditions=False), 2),
        (GOOD, replace(CHANGED, conditions=False, content=CONTENT[::-1]), 2),  # told by its tag alone
        (GOOD, replace(CHANGED, conditions=False, etag=None), 2),  # told by its length alone
        (replace(GOOD, etag=None, modified="Mon, 01 Jan 2024 00:00:00 GMT"), CHANGED, 1),
        (replace(GOOD, etag='W/"1"'), CHANGED, 1),  # a weak tag does not vouch for bytes
        # nothing tells the versions apart
        (replace(GOOD, etag=None), replace(CHANGED, content=CONTENT[::-1], etag=None, conditions=False), 1),
        (GOOD, replace(CHANGED, ranges=False), 1),
        (GOOD, replace(CHANGED, content=CONTENT[:9], conditions=False), 2),  # HTTP 416
    ],
)
def test_two_versions_of_a_file_are_never_glued(
    server: Server, log: Log, tmp_path: Path, first: Sent, then: Sent, requests: int
) -> None:
    interrupted(log, server, tmp_path / "data.bin", first)
    server.asked.clear()
    log.fetch(server, tmp_path / "data.bin", then)
    assert (tmp_path / "data.bin").read_bytes() == then.content and left(tmp_path) == ["data.bin"]
    assert len(server.asked) == requests


def test_last_modified_is_enough_to_go_on(server: Server, log: Log, tmp_path: Path) -> None:
    dated = replace(GOOD, etag='W/"1"', modified="Mon, 01 Jan 2024 00:00:00 GMT")
    interrupted(log, server, tmp_path / "data.bin", dated)
    log.fetch(server, tmp_path / "data.bin", dated)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.asked[-1][1]["If-Range"] == dated.modified and server.ranges()[-1] is not None


def test_a_file_without_length_or_end_is_refused(server: Server, log: Log, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="without the length of the file"):
        log.fetch(server, tmp_path / "data.bin", replace(GOOD, length=False))
    assert left(tmp_path) == []


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def zipped(content: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u.data", content)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.gz", packed(CONTENT)[:-10], "ends in the middle"),
        ("a.gz", packed(CONTENT)[:-8] + b"\0" * 8, "is no gzip file, or a damaged one"),
        ("a.gz", b"<!doctype html>" + CONTENT, "is no gzip file"),
        ("a.zip", zipped(CONTENT)[:-30], "is no zip file, or one cut short"),
        ("a.zip", zipped(CONTENT).replace(CONTENT[:100], CONTENT[1:101], 1), "is a damaged zip file"),
        ("a.csv", b"\n <!DOCTYPE html><title>Moved</title>", "is a web page"),
        ("a.csv", b"", "is empty"),
    ],
)
def test_wrong_bytes_are_not_kept(
    server: Server, log: Log, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(DownloadError, match=f"{said}.* and was not kept"):
        log.fetch(server, tmp_path / name, Sent(content))
    assert left(tmp_path) == []


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_published_digest_is_held_against_the_file(server: Server, log: Log, tmp_path: Path, algorithm: str) -> None:
    digest = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    log.fetch(server, tmp_path / "data.bin", GOOD, digest=digest)
    with pytest.raises(DownloadError, match=f"does not have the {algorithm} that its owner publishes"):
        log.fetch(server, tmp_path / "other.bin", Sent(CONTENT[:-1] + b"?"), digest=digest)
    assert left(tmp_path) == ["data.bin"]


def test_a_full_disk_is_one_sentence_and_the_part_stays(
    server: Server, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(answer: object, file: object, path: Path, report: object) -> int:
        return real(answer, Full(), path, report)

    class Full:
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    real = download._copy
    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(OSError, match=r"no space left while writing .*data\.bin\.part; free some space"):
        log.fetch(server, tmp_path / "data.bin", GOOD)
    assert left(tmp_path) == ["data.bin.part", "data.bin.part.json"] and log.waits == []


class TestObtain:
    """Files by several addresses, with their sha256 beside them."""

    @pytest.fixture(autouse=True)
    def setup(self, server: Server, log: Log, tmp_path: Path) -> None:
        self.server, self.log, self.target = server, log, tmp_path / "raw" / "data.bin"
        server.scripts["/data.bin"] = [GOOD]

    def obtain(self, *addresses: str, digest: str | None = None) -> str:
        urls = [f"{self.server.url}/{address}" for address in addresses or ["data.bin"]]
        return obtain(urls, self.target, digest=digest, report=self.log.report, say=self.log.said.append)

    def refusal(self, *addresses: str, digest: str | None = None) -> str:
        with pytest.raises(ValueError) as error:
            self.obtain(*addresses, digest=digest)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_the_hash_is_written_down_once_and_verified_ever_after(self) -> None:
        assert self.obtain() == SHA256
        assert left(self.target.parent) == ["data.bin", "data.bin.sha256"]
        assert (self.target.parent / "data.bin.sha256").read_text() == f"{SHA256}  data.bin\n"
        assert self.obtain() == SHA256 and len(self.server.asked) == 1
        self.target.write_bytes(CONTENT + b"!")
        assert self.refusal() == (
            f"{self.target} is not the file first seen here: its sha256 is not the one in data.bin.sha256; "
            f"remove it, and the same command downloads it again"
        )
        self.target.unlink()
        assert self.obtain() == SHA256

    def test_another_file_at_the_source_is_refused_until_the_record_goes(self) -> None:
        self.obtain()
        self.target.unlink()
        self.server.scripts["/data.bin"] = [CHANGED]
        said = self.refusal()
        record = self.target.parent / "data.bin.sha256"
        assert f"is not the one first downloaded (remove {record} to accept the new one) and was not kept" in said
        record.unlink()
        assert self.obtain() == hashlib.sha256(CHANGED.content).hexdigest()

    def test_a_file_put_by_hand_is_used_and_checked(self) -> None:
        self.target.parent.mkdir()
        self.target.write_bytes(CONTENT[:5])
        digest = f"sha256:{SHA256}"
        assert f"{self.target} does not have the sha256 that its owner publishes" in self.refusal(digest=digest)
        self.target.write_bytes(CONTENT)
        assert self.obtain(digest=digest) == SHA256 and self.server.asked == []

    def test_the_next_address_helps_and_all_are_named_when_none_does(self) -> None:
        assert self.obtain("gone", "data.bin") == SHA256
        self.target.unlink()
        host = self.server.url.removeprefix("http://")
        assert self.refusal("gone", "lost") == (
            f"data.bin could not be downloaded ({host}: HTTP 404 Not Found; {host}: HTTP 404 Not Found); run the same "
            f"command again later, or fetch {self.server.url}/gone by hand and put it into {self.target.parent}"
        )

    def test_a_part_is_continued_from_where_it_came(self) -> None:
        self.target.parent.mkdir()
        interrupted(self.log, self.server, self.target, GOOD)
        assert self.obtain("other.bin", "data.bin") == SHA256
        assert self.server.asked[-1][0] == "/data.bin" and self.server.ranges()[-1] is not None

    def test_without_a_network_it_says_at_once_what_to_fetch_by_hand(self) -> None:
        target = self.target
        with running() as gone:
            url = f"{gone.url}/a/data.bin"
        with pytest.raises(ValueError) as error:
            obtain([url], target, report=self.log.report, say=self.log.said.append)
        said = str(error.value)
        assert "no connection" in said and f"fetch {url} by hand and put it into {target.parent}" in said
        assert self.log.waits == []

    def test_a_mirror_stands_for_every_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GENREC_MIRROR", f"{self.server.url}/")
        obtain(["https://nowhere.invalid/data.bin"], self.target, report=self.log.report, say=self.log.said.append)
        assert self.target.read_bytes() == CONTENT


@pytest.mark.parametrize("owner", [None, 0])
def test_a_folder_that_can_only_be_read_needs_no_record(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, owner: int | None
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "data.bin").write_bytes(CONTENT)
    if owner is None:
        monkeypatch.setattr(download, "write_atomically", read_only)
    assert obtain([], tmp_path / "data.bin", report=log.report, say=log.said.append) == SHA256
    assert (tmp_path / "data.bin.sha256").exists() is (owner is not None)
