"""A record exists whole or not at all, and damage is named."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmark import artifacts, files, provenance, records
from benchmark.types import Ranking, Spend

FIELDS = {
    "status": "ok",
    "method": "recbole:SASRec@x",
    "dataset": "demo",
    "dataset_hash": "d",
    "seed": 0,
    "protocol": {"name": "loo", "version": 1, "hash": "p"},
    "track": "unified",
    "profile": "smoke",
    "config_hash": "c",
    "limit_users": None,
    "provenance": {"commit": None},
    "metrics": {"ndcg@10": 0.5},
}
ARRAYS = {"per_user.npz": {"users": np.arange(3), "ndcg@10": np.array([0.0, 0.5, 1.0])}}


@pytest.fixture
def folder(tmp_path):
    return records.folder_of(tmp_path, "loo", "demo", "recbole:SASRec@x", "abc", 0)


def test_round_trip(folder, tmp_path):
    written = records.write(folder, FIELDS, ARRAYS, None)
    assert folder == tmp_path / "loo" / "demo" / "recbole~SASRec@x" / "abc" / "seed=0"
    (found,) = records.read_all(tmp_path)
    assert found.fields == written.fields and found.metrics == {"ndcg@10": 0.5}
    np.testing.assert_array_equal(found.per_user()["ndcg@10"], [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"ranking\.npz is missing"):
        found.ranking()


def test_a_new_record_replaces_the_old_one_and_leaves_nothing_behind(folder):
    records.write(folder, FIELDS, ARRAYS, None)
    records.write(folder, FIELDS | {"seed": 7}, {}, None)
    assert records.read(folder).seed == 7
    assert [p.name for p in folder.parent.iterdir()] == ["seed=0"]
    assert [p.name for p in folder.iterdir()] == ["record.json"]


@pytest.mark.parametrize("fails_at", range(1, 5))
def test_a_crash_at_any_moment_leaves_the_old_record_or_the_new(folder, monkeypatch, fails_at):
    records.write(folder, FIELDS, ARRAYS, None)
    calls = {"n": 0}

    def failing(original):
        def call(*args, **kwargs):
            calls["n"] += 1
            if calls["n"] == fails_at:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return call

    for owner, name in ((records, "sha256_of"), (records, "json_bytes"), (os, "chmod"), (os, "replace")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    with pytest.raises(KeyboardInterrupt):
        records.write(folder, FIELDS | {"seed": 7}, ARRAYS, None)
    monkeypatch.undo()
    assert records.read(folder).seed == 0
    assert records.read(folder).per_user().keys() == {"users", "ndcg@10"}
    assert len(records.read_all(folder.parent)) == 1


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b'{"schema": 99, "status": "ok"}', b'{"schema": 1, "status": "ok"}', b"\xff\xfe"]
)
def test_a_damaged_record_is_refused_by_name(folder, content):
    records.write(folder, FIELDS, ARRAYS, None)
    (folder / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json is damaged.*delete the folder"):
        records.read_all(folder.parent)


def test_changed_scores_are_refused(folder):
    records.write(folder, FIELDS, ARRAYS, None)
    path = folder / "per_user.npz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"per_user\.npz is damaged"):
        records.read(folder).per_user()


def test_no_space_left_is_one_sentence_and_no_damage(folder, monkeypatch):
    records.write(folder, FIELDS, ARRAYS, None)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"no space left while writing .* run the same command again"):
        records.write(folder, FIELDS | {"seed": 7}, ARRAYS, None)
    monkeypatch.undo()
    assert records.read(folder).seed == 0
    assert [p.name for p in folder.parent.iterdir()] == ["seed=0"]


def test_atomic_write_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    files.write_atomically(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left while writing"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a/b", "..", "x:y:z", "", "a@b@c", "a b", "~"])
def test_names_that_are_no_method_names_never_become_folders(name):
    with pytest.raises(ValueError, match="is not a method name"):
        records.escape(name)


def test_json_has_no_nan_and_is_stable():
    with pytest.raises(ValueError):
        files.json_bytes({"x": float("nan")})
    assert files.json_bytes({"b": 1, "a": 2}) == files.json_bytes({"a": 2, "b": 1})
    assert json.loads(files.json_bytes({"é": 1})) == {"é": 1}


def test_an_encoder_is_known_by_its_content_and_told_by_its_name():
    local = {"name": "minilm", "sha256": "0123456789abcdef"}
    hub = {"name": "minilm", "sha256": None}
    assert [records.encoder_label(one) for one in (local, hub)] == ["minilm (0123456789ab)", "minilm"]
    assert records.encoder_key(local) == records.encoder_key(local | {"name": "copy"}) != records.encoder_key(hub)


def test_rankings_are_stored_in_the_smallest_type_that_holds_them():
    spend = Spend("scores", 1)
    small = Ranking(np.array([1]), np.array([[65_535, 0]]), np.zeros((1, 2), np.float32), spend)
    large = Ranking(np.array([1]), np.array([[65_536, 0]]), np.zeros((1, 2), np.float32), spend)
    invalid = Ranking(np.array([1]), np.array([[-1, 3]]), np.zeros((1, 2), np.float32), spend)
    stored = [records.ranking_arrays(r)["items"] for r in (small, large, invalid)]
    assert [a.dtype for a in stored] == [np.uint16, np.int32, np.int32]
    assert stored[2].tolist() == [[-1, 3]]


def test_artifacts_are_computed_once_and_checked(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(4)}

    for _ in range(2):
        np.testing.assert_array_equal(artifacts.cached(tmp_path, {"stage": "s", "v": 1}, compute)["x"], range(4))
    assert len(calls) == 1
    artifacts.cached(tmp_path, {"stage": "s", "v": 2}, compute)
    assert len(calls) == 2
    artifacts.cached(None, {"stage": "s", "v": 1}, compute)
    assert len(calls) == 3
    (first, _) = sorted(tmp_path.glob("s-*.npz"))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is damaged \(checksum differs\); delete it"):
        for version in (1, 2):
            artifacts.cached(tmp_path, {"stage": "s", "v": version}, compute)


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("4,2", 4), ("", None), ("many", None)])
def test_provenance_names_the_threads_of_the_process(said, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    found = provenance.provenance.__wrapped__()
    assert found["threads"] == (found["hardware"]["cores"] if threads is None else threads)
