"""Jobs in their own processes: every way to end becomes a row, nothing finished is redone, nothing is lost."""

import dataclasses
import fcntl
import io
import threading
import time
from pathlib import Path

import pytest

import protocols
from benchmark import grid, records
from benchmark.job import base_fields, plan_grid
from benchmark.progress import Display, Stage, duration
from benchmark.worker import lock_of
from tests.grid_world import LOADERS, planned


def statuses(result):
    return {outcome.job.method_name: outcome.status for outcome in result.outcomes}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One grid with every way to end."""
    folder = tmp_path_factory.mktemp("results")
    names = ["Raises", "OutOfMemory", "Dies", "Killed", "Unsuited", "Cheats", "Counting"]
    return folder, grid.run_jobs(planned(names, folder), LOADERS, ["cpu", "cpu"])


def test_data_that_a_protocol_cannot_split_end_the_plan_before_any_job(tmp_path, capsys):
    order_only = dataclasses.replace(LOADERS.dataset("conveyor", None), order_only=True)
    loaders = dataclasses.replace(LOADERS, dataset=lambda name, folder: order_only)
    with pytest.raises(ValueError, match="only the order of each user's items"):
        plan_grid(
            ["conveyor"],
            ["Counting"],
            [0],
            protocols.load("warmcold"),
            loaders,
            profile="smoke",
            track="unified",
            output_dir=tmp_path,
        )
    assert "users asked" not in capsys.readouterr().out


def test_every_way_to_end_becomes_a_record_with_its_reason(mixed):
    folder, result = mixed
    assert statuses(result) == {
        "Raises": "failed",
        "OutOfMemory": "oom",
        "Dies": "failed",
        "Killed": "oom",
        "Unsuited": "skipped",
        "Cheats": "failed",
        "Counting": "ok",
    }
    found = {record.method: record for record in records.read_all(folder)}
    assert {name: record.status for name, record in found.items()} == statuses(result)
    reasons = {name: record.fields["reason"] for name, record in found.items()}
    assert reasons["Raises"] == "the planted reason"
    assert "exit code 7" in reasons["Dies"]
    assert "signal 9" in reasons["Killed"]
    assert reasons["Unsuited"] == "needs pictures"
    assert "names an item twice" in reasons["Cheats"]
    assert reasons["Counting"] is None


def test_a_failing_grid_says_so_in_its_exit_code(mixed):
    _, result = mixed
    assert result.exit_code == 1
    assert {o.job.method_name for o in result.failures} == {"Raises", "OutOfMemory", "Dies", "Killed", "Cheats"}
    assert grid.Grid(stopped_by="time limit").exit_code == 3
    assert grid.Grid(stopped_by="signal 15").exit_code == 143
    assert grid.Grid().exit_code == 0


def test_the_record_of_a_good_job_is_complete(mixed):
    folder, _ = mixed
    (record,) = [r for r in records.read_all(folder) if r.method == "Counting"]
    assert record.fields["protocol"]["hash"] == protocols.load("loo").hash
    assert record.fields["spend"]["rule"] == "scores"
    per_user, ranking = record.per_user(), record.ranking()
    assert per_user["ndcg@10"].mean() == pytest.approx(record.metrics["ndcg@10"])
    assert len(per_user["users"]) == len(ranking["users"]) == record.fields["facts"]["users_asked"]
    assert "counted" in (record.folder / "log.txt").read_text()
    assert not list((folder / ".work").rglob("lock")) or all(
        "Counting" not in str(path) for path in (folder / ".work").rglob("lock")
    )


def test_a_traceback_is_in_the_log_of_a_failed_job(mixed):
    folder, _ = mixed
    (record,) = [r for r in records.read_all(folder) if r.method == "Raises"]
    assert "RuntimeError: the planted reason" in (record.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("overwrite", "again"),
    [
        ("never", set()),
        ("failed", {"Raises", "OutOfMemory", "Dies", "Killed", "Cheats"}),
        ("always", {"Raises", "OutOfMemory", "Dies", "Killed", "Cheats", "Unsuited", "Counting"}),
    ],
)
def test_what_is_run_again(mixed, overwrite, again):
    _, result = mixed
    jobs = [outcome.job for outcome in result.outcomes]
    assert {job.method_name for job in jobs if not grid.is_finished(job, overwrite)} == again


def test_a_job_over_its_limit_is_a_timeout_even_when_it_does_not_listen(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "GRACE_SECONDS", 1.0)
    result = grid.run_jobs(planned(["Slow", "Deaf"], tmp_path), LOADERS, ["cpu", "cpu"], job_limit=6.0)
    assert statuses(result) == {"Slow": "timeout", "Deaf": "timeout"}
    assert {r.fields["reason"] for r in records.read_all(tmp_path)} == {"still running after its limit of 6s"}


def test_out_of_time_leaves_no_record_and_finished_work_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "GRACE_SECONDS", 5.0)
    result = grid.run_jobs(planned(["Counting", "Slow", "Raises"], tmp_path), LOADERS, ["cpu"], time_limit=8.0)
    assert result.stopped_by == "time limit" and result.exit_code == 3
    assert [r.method for r in records.read_all(tmp_path)] == ["Counting"]
    assert statuses(result) == {"Counting": "ok", "Slow": "interrupted"}


def test_the_first_failure_stops_the_grid_when_asked(tmp_path):
    result = grid.run_jobs(planned(["Raises", "Counting"], tmp_path), LOADERS, ["cpu"], exit_on_error=True)
    assert statuses(result) == {"Raises": "failed"} and result.exit_code == 1


def test_a_job_that_another_process_is_finishing_is_not_done_twice(tmp_path):
    (item,) = planned(["Raises"], tmp_path)
    lock = lock_of(item.job).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def finish():
        """The other process: once ours waits for the lock, write the record and let go."""
        while not (item.job.work_dir / "log.txt").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        fields = base_fields(item.job, protocols.load("loo")) | {"status": "ok", "reason": "theirs"}
        records.write(item.job.folder, fields, {}, None)
        lock.close()

    other = threading.Thread(target=finish)
    other.start()
    result = grid.run_jobs([item], LOADERS, ["cpu"])
    other.join()
    assert statuses(result) == {"Raises": "ok"}
    assert records.read(item.job.folder).fields["reason"] == "theirs"


def test_results_of_another_protocol_hash_are_refused(tmp_path):
    grid.run_jobs(planned(["Counting"], tmp_path), LOADERS, ["cpu"])
    protocol = protocols.load("loo")
    grid.refuse_other_protocols(tmp_path, protocol)
    other = dataclasses.replace(protocol, rules=dict(protocol.rules) | {"list_length": 10})
    assert other.hash != protocol.hash
    with pytest.raises(ValueError, match="results of two protocols never mix: choose another --output-dir"):
        grid.refuse_other_protocols(tmp_path, other)


def test_the_identity_of_a_job_is_what_decides_its_numbers(tmp_path):
    (base,) = [item.job for item in planned(["Counting"], tmp_path)]
    same = dataclasses.replace(base, data_dir="elsewhere", output_dir=tmp_path / "other")
    assert same.config_hash == base.config_hash
    for change in (
        {"dataset_hash": "x"},
        {"protocol_hash": "x"},
        {"config": {"width": 1}},
        {"profile": "full"},
        {"limit_users": 5},
        {"method_source": "x"},
    ):
        assert dataclasses.replace(base, **change).config_hash != base.config_hash


def job_of(*names, **settings):
    """The one job, planned below a folder that need not exist."""
    (one,) = planned(list(names), Path("results"), **settings)
    return one.job


def test_a_method_that_reads_no_text_keeps_its_identity():
    """Pinned: with another hash every finished run of such methods would be run again."""
    fixed = {"dataset_hash": "d", "protocol_hash": "p"}
    for encoder in (None, "usual-encoder"):
        job = dataclasses.replace(job_of("Counting", text_encoder=encoder), **fixed)
        assert job.text_encoder is None and job.config_hash == "8d05640cf6"


def test_the_encoder_is_part_of_a_readers_identity_and_its_place_is_not():
    def hash_of(spec):
        return job_of("Reader", text_encoder=spec).config_hash

    assert hash_of("here/minilm") == hash_of("there/below/minilm") != hash_of("here/other")
    job = job_of("Reader", text_encoder="here/minilm")
    renamed = dict(job.text_encoder_identity) | {"name": "another folder's name"}
    edited = dict(job.text_encoder_identity) | {"sha256": "0" * 64}
    assert dataclasses.replace(job, text_encoder_identity=renamed).config_hash == job.config_hash
    assert dataclasses.replace(job, text_encoder_identity=edited).config_hash != job.config_hash
    by_name = [dataclasses.replace(job, text_encoder_identity={"name": n, "sha256": None}) for n in ("lsa", "hub/x")]
    assert by_name[0].config_hash != by_name[1].config_hash


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("Reader", {}, "lsa"),
        ("Reader", {"profile": "small"}, "usual-encoder"),
        ("Reader", {"profile": "small", "track": "paper"}, "paper-encoder"),
        ("Reader", {"track": "paper"}, "lsa"),
        ("Plain", {"profile": "full", "track": "paper"}, "usual-encoder"),
        ("Reader", {"text_encoder": "mine"}, "mine"),
        ("Reader", {"text_encoder": "mine", "profile": "full", "track": "paper"}, "mine"),
        ("Counting", {"text_encoder": "mine"}, None),
    ],
)
def test_which_encoder_a_method_reads_with(method, settings, expected):
    assert job_of(method, **settings).text_encoder == expected


def test_the_encoder_is_told_once_and_only_when_something_reads(tmp_path, capsys):
    planned(["Counting", "Reader", "Plain"], tmp_path, text_encoder="some/where/minilm")
    assert capsys.readouterr().out.count("text encoder: minilm (6d696e696c6d)\n") == 1
    planned(["Reader"], tmp_path)
    assert "text encoder: lsa\n" in capsys.readouterr().out
    planned(["Counting"], tmp_path)
    assert "text encoder" not in capsys.readouterr().out


def test_the_room_gets_the_encoder_and_the_record_says_which(tmp_path):
    grid.run_jobs(planned(["Reader", "Counting"], tmp_path, text_encoder="some/where/minilm"), LOADERS, ["cpu"])
    found = {record.method: record for record in records.read_all(tmp_path)}
    assert {record.status for record in found.values()} == {"ok"}
    assert "read by some/where/minilm" in (found["Reader"].folder / "log.txt").read_text()
    assert found["Reader"].fields["text_encoder"] == {"name": "minilm", "sha256": b"minilm".hex().ljust(64, "0")}
    assert "some/where" not in (found["Reader"].folder / "record.json").read_text()
    assert found["Counting"].fields["text_encoder"] is None and found["Counting"].text_encoder is None
    grid.refuse_other_encoders(planned(["Reader", "Plain"], tmp_path, text_encoder="moved/minilm"))
    grid.refuse_other_encoders(planned(["Counting"], tmp_path, text_encoder="other"))
    grid.refuse_other_encoders(planned(["Reader"], tmp_path, text_encoder="other", profile="small"))
    grid.refuse_other_encoders(planned(["Reader"], tmp_path, text_encoder="other", track="paper"))
    with pytest.raises(ValueError, match=r"Reader on conveyor was run with the text encoder minilm \(6d.*--output-dir"):
        grid.refuse_other_encoders(planned(["Plain"], tmp_path, text_encoder="other"))


def test_a_profile_lies_between_track_and_preset_field_by_field():
    """The preset wins over the profile, the profile over the track; what none of them names stays."""
    config = job_of("Reader@deep", profile="small", track="paper").config
    assert config == {"width": 4, "layers": 3, "optimiser": {"epochs": 3, "rate": 0.5}}
    assert job_of("Reader@deep", profile="full", track="paper").config["width"] == 16
    assert job_of("Reader@wide", profile="small", track="paper").config["width"] == 32
    assert job_of("Reader", profile="small").config == {
        "width": 4,
        "layers": 1,
        "optimiser": {"epochs": 3, "rate": 0.1},
    }


def test_a_track_that_a_method_lacks_is_refused():
    with pytest.raises(ValueError, match=r"^Counting has no settings for track paper; leave --track out or choose"):
        job_of("Counting", track="paper")


def test_the_paper_track_is_another_run_and_runs_with_its_own_settings(tmp_path):
    (paper,) = planned(["Reader"], tmp_path, track="paper", profile="full")
    assert paper.job.config_hash != job_of("Reader").config_hash
    assert statuses(grid.run_jobs([paper], LOADERS, ["cpu"])) == {"Reader": "ok"}
    (record,) = records.read_all(tmp_path)
    assert record.fields["track"] == "paper" and record.fields["config"]["width"] == 16
    assert "width 16" in (record.folder / "log.txt").read_text()


def test_durations_read_as_people_write_them():
    assert [duration(s) for s in (0.4, 59, 75, 3600, 7380)] == ["0s", "59s", "1m15s", "1h00m", "2h03m"]


def test_the_eta_of_the_grid_scales_with_what_the_finished_jobs_took(monkeypatch):
    now = {"t": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["t"])
    stream = io.StringIO()
    display = Display(1, {"a": 10.0, "b": 30.0, "c": 60.0}, stream)
    display.begin(0, "a")
    now["t"] = 20.0  # twice its estimate
    display.end(0, "ok")
    display.begin(0, "b")
    display.refresh()
    assert "[1/3] a: ok in 20s" in stream.getvalue()
    assert "grid 1/3, 20s spent, about 3m00s left" in stream.getvalue()  # 2 x (30 + 60)


def test_a_stage_tells_its_own_eta(monkeypatch):
    now = {"t": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["t"])
    stage = Stage("demo sasrec")
    stage.update("train", 0, 100, "epoch 1")
    now["t"] = 10.0
    stage.update("train", 25, 100, "epoch 2")
    assert str(stage) == "demo sasrec: train  25% (epoch 2), at most 30s left"


def test_a_validation_between_two_epochs_does_not_reset_the_eta_of_training(monkeypatch):
    now = {"t": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["t"])
    stage = Stage("demo sasrec")
    for moment, name, done in ((0, "train", 0), (10, "train", 10), (12, "validate", 0), (18, "validate", 90)):
        now["t"] = moment
        stage.update(name, done, 100, "")
    assert str(stage).endswith("validate  90%, at most 1s left")
    now["t"] = 20.0
    stage.update("train", 20, 100, "")
    assert str(stage).endswith("train  20%, at most 1m20s left")
    for moment, done in ((22, 10), (24, 50)):  # the next validation starts anew
        now["t"] = moment
        stage.update("validate", done, 100, "")
    assert str(stage).endswith("validate  50%, at most 2s left")
