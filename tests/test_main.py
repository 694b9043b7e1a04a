"""The command line as a user meets it: what is wrong is one clear sentence, an exit code, and no damage."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import methods
import run_all
from benchmark import records
from methods.itemknn import ItemKNN
from tests.backbone_world import save_causal, save_tokenizer

ROOT = Path(__file__).resolve().parent.parent
MY_METHOD = '''
"""Answers with the most frequent items, a third party's way."""
import numpy as np
from benchmark.lists import top_k
from benchmark.method import Method
from benchmark.types import Ranking, Spend


class Mine(Method):
    def fit(self, view):
        self.counts = view.item_counts.astype(np.float32)
        return self

    def recommend(self, cases, k, *, candidates=None, budget=None):
        items, scores = top_k(np.where(self.counts > 0, self.counts, -np.inf)[None], k, cases.tie_order)
        return Ranking(cases.users, items.repeat(len(cases), 0), scores.repeat(len(cases), 0), Spend("scores", 1))


METHOD = Mine
'''


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("GENREC_DATA", "GENREC_TEXT_ENCODER", "GENREC_LANGUAGE_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def refused(capsys, *argv):
    """Run, expect exit code 2, and return the one sentence said."""
    assert run_all.main(argv) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ")
    return said[0]


def write_toy(folder, rows=None, header="user_id:token\titem_id:token\ttimestamp:float"):
    """A tiny valid dataset by path: 12 users on a ring of 8 items."""
    rows = rows or [f"u{u}\ti{(u + t) % 8}\t{t}" for u in range(12) for t in range(6)]
    folder.mkdir()
    path = folder / f"{folder.name}.inter"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--datasets", "beuty"], "beauty"),
        (["--methods", "sasrek"], "sasrec"),
        (["--methods", "sasrec@sampeld"], "@sampled"),
        (["--methods", "recbole:SASRek"], "SASRec"),
        (["--protocol", "lo"], "loo"),
        (["--methods", "nowhere/mine.py"], "there is no method file"),
        (["--datasets", "beauty"], "amazon14-beauty.inter"),
    ],
)
def test_unknown_names_suggest_the_nearest(in_tmp, capsys, argv, sentence):
    assert sentence in refused(capsys, *argv)
    assert not (in_tmp / "results").exists()


def test_missing_data_is_the_same_sentence_without_a_network(in_tmp, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "socket", unreachable)
    said = refused(capsys, "--datasets", "toys")
    assert "amazon14-toys.inter" in said and "GENREC_DATA" in said


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: p.write_text("user\titem\n1\t2\n"), "header"),
        (lambda p: p.write_bytes(p.read_bytes()[:-6]), "cut off"),
        (lambda p: p.write_text(""), "empty"),
        (lambda p: p.write_text(p.read_text().replace("\t3\n", "\tyesterday\n")), "timestamp"),
        (lambda p: p.unlink(), "no"),
    ],
)
def test_broken_data_files_are_named(in_tmp, capsys, damage, sentence):
    path = write_toy(in_tmp / "mine")
    damage(path)
    said = refused(capsys, "--datasets", "./mine", "--methods", "popularity")
    assert sentence in said and "mine" in said
    assert not (in_tmp / "results").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["--seeds", "one"],
        ["--jobs", "0"],
        ["--time-limit", "soon"],
        ["--limit-users", "-3"],
        ["--profile", "huge"],
        ["--track", "fair"],
        ["--datasets"],
        ["--nonsense"],
        ["nonsense"],
    ],
)
def test_wrong_flags_end_with_code_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_all.main(argv)
    assert stopped.value.code == 2 and "error" in capsys.readouterr().err


def test_cuda_that_is_not_there_is_refused(in_tmp, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "--device cpu" in refused(capsys, "--device", "cuda")


def test_dry_run_prints_a_plan_and_runs_nothing(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    assert run_all.main(["--datasets", "./mine", "--methods", "popularity,markov", "--seeds", "0 1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("mine markov") == 2 and "seed 1" in said and "GiB" in said and "0 of 4 jobs" in said
    assert not (in_tmp / "results").exists()


def test_an_external_method_runs_is_recorded_and_not_redone(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    (in_tmp / "third.py").write_text(MY_METHOD)
    argv = ["--datasets", "./mine", "--methods", "./third.py", "popularity", "--profile", "smoke"]
    assert run_all.main(argv) == 0
    printed = capsys.readouterr().out
    assert "third" in printed and "popularity" in printed
    third, popularity = sorted(records.read_all(in_tmp / "results"), key=lambda r: r.method, reverse=True)
    assert (third.method, popularity.method) == ("third", "popularity")
    assert third.metrics["ndcg@10"] == pytest.approx(popularity.metrics["ndcg@10"])
    before = (third.folder / "record.json").stat().st_mtime_ns
    assert run_all.main(argv) == 0
    assert "2 of 2 jobs are finished" in capsys.readouterr().out
    assert (third.folder / "record.json").stat().st_mtime_ns == before
    (in_tmp / "third.py").write_text(MY_METHOD + "\n# edited\n")
    run_all.main([*argv, "--dry-run"])
    assert "1 of 2 jobs are finished" in capsys.readouterr().out


def reader_of_text(folder):
    """A toy dataset and a third party's method that reads text -> the flags that name them."""
    write_toy(folder / "mine")
    (folder / "reader.py").write_text(
        MY_METHOD.replace("class Mine(Method):", "class Mine(Method):\n    reads_text = True\n")
    )
    return ["--datasets", "./mine", "--methods", "./reader.py", "popularity"]


def test_the_encoder_is_the_flag_then_the_variable_then_the_profiles(in_tmp, capsys, monkeypatch):
    argv = [*reader_of_text(in_tmp), "--dry-run"]

    def told(*more):
        assert run_all.main([*argv, *more]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("text encoder: ")]

    assert told("--profile", "smoke") == ["text encoder: lsa"]
    assert told("--profile", "small") == ["text encoder: sentence-transformers/all-MiniLM-L6-v2"]
    monkeypatch.setenv("GENREC_TEXT_ENCODER", "hub/variable")
    assert told("--profile", "smoke") == ["text encoder: hub/variable"]
    assert told("--text-encoder", "hub/flag") == ["text encoder: hub/flag"]
    assert told("--methods", "popularity") == ["text encoder: hub/variable"]
    argv[argv.index("./reader.py")] = "markov"
    assert told() == []


def test_a_folder_that_is_no_encoder_is_refused_before_anything_runs(in_tmp, capsys):
    argv = reader_of_text(in_tmp)
    (in_tmp / "encoder").mkdir()
    assert "config.json" in refused(capsys, *argv, "--text-encoder", "./encoder")
    assert not (in_tmp / "results").exists()


def test_another_encoder_needs_another_folder_of_results(in_tmp, capsys):
    argv = reader_of_text(in_tmp)
    assert run_all.main([*argv, "--profile", "smoke"]) == 0
    (record,) = [r for r in records.read_all(in_tmp / "results") if r.method == "reader"]
    assert record.fields["text_encoder"] == {"name": "lsa", "sha256": None}
    assert "text encoder: lsa" in (in_tmp / "results/leaderboards/loo/unified-smoke/mine.md").read_text()
    capsys.readouterr()
    other = [*argv, "--profile", "smoke", "--text-encoder", "hub/other"]
    assert "choose another --output-dir" in refused(capsys, *other)
    assert run_all.main([*other, "--dry-run", "--output-dir", "elsewhere"]) == 0


def test_a_folder_of_language_models_that_is_not_there_is_refused_before_anything_runs(in_tmp, capsys, monkeypatch):
    write_toy(in_tmp / "mine")
    argv = ["--datasets", "./mine", "--methods", "popularity"]
    (in_tmp / "file").write_text("")
    for name in ("nowhere", "file"):
        assert f"there is no folder {name}, which --language" in refused(capsys, *argv, "--language-models", name)
    monkeypatch.setenv("GENREC_LANGUAGE_MODELS", "from/the/variable")
    assert "there is no folder from/the/variable" in refused(capsys, *argv)
    assert not (in_tmp / "results").exists()
    assert run_all.main([*argv, "--language-models", "mine", "--dry-run"]) == 0


def test_language_models_are_read_from_their_folder_and_an_audit_wants_the_same(in_tmp, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_toy(in_tmp / "mine")
    save_causal(in_tmp / "models/gpt2", "gpt2", limit=200)
    argv = ["--datasets", "./mine", "--methods", "setrec@gpt2", "--profile", "smoke", "--device", "cpu"]
    assert run_all.main([*argv, "--language-models", "models"]) == 0
    (record,) = records.read_all(in_tmp / "results")
    assert record.fields["training"]["language_model"]["weights"] == "openai-community/gpt2"
    assert str(in_tmp) not in (record.folder / "record.json").read_text(), "what was read counts, not where it lay"
    (in_tmp / "models").rename(in_tmp / "moved")
    monkeypatch.setenv("GENREC_LANGUAGE_MODELS", "moved")
    capsys.readouterr()
    assert run_all.main([*argv, "--dry-run"]) == 0 and "1 of 1 jobs are finished" in capsys.readouterr().out
    assert run_all.main(["audit", "decoding", *argv, "--users", "6"]) == 0
    save_tokenizer(in_tmp / "moved/gpt2", ["other", "words"])
    assert run_all.main(["audit", "decoding", *argv, "--users", "7"]) == 1
    assert "are not those that the model was trained with (openai-community/gpt2, " in capsys.readouterr().err
    shutil.rmtree(in_tmp / "results/.models")
    assert run_all.main(["audit", "decoding", *argv]) == 1
    assert "--language-models moved --output-dir" in capsys.readouterr().err


def test_a_track_no_named_method_has_is_refused(in_tmp, capsys):
    argv = ["--track", "paper", "--methods", "popularity", "--dry-run"]
    assert "Popularity has no settings for track paper; leave --track out" in refused(capsys, *argv)


def test_the_paper_track_runs_the_methods_that_have_it(in_tmp, capsys, monkeypatch):
    classes = {methods.load(name).cls for name in methods.lineup()}
    for cls in classes:
        monkeypatch.setattr(cls, "tracks", {"paper": {}} if cls is ItemKNN else {})
    assert run_all.main(["--track", "paper", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(methods.lineup()) - 3} methods without settings for track paper are left out" in said
    assert said.count("demo itemknn") == 3 and "0 of 3 jobs" in said
    monkeypatch.setattr(ItemKNN, "tracks", {})
    assert "no method has settings for track paper" in refused(capsys, "--track", "paper")


def test_a_damaged_record_stops_the_command_by_name(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    argv = ["--datasets", "./mine", "--methods", "popularity"]
    assert run_all.main(argv) == 0
    (record,) = records.read_all(in_tmp / "results")
    (record.folder / "record.json").write_text("{")
    capsys.readouterr()
    assert "record.json is damaged" in refused(capsys, *argv)
    assert "record.json is damaged" in refused(capsys, "leaderboard")


def test_results_of_another_protocol_hash_are_refused(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    argv = ["--datasets", "./mine", "--methods", "popularity"]
    assert run_all.main(argv) == 0
    (record,) = records.read_all(in_tmp / "results")
    path = record.folder / "record.json"
    fields = json.loads(path.read_text())
    fields["protocol"]["hash"] = "0" * 12
    path.write_text(json.dumps(fields))
    capsys.readouterr()
    assert "choose another --output-dir" in refused(capsys, *argv)


def test_a_later_run_of_one_method_keeps_the_others_in_the_tables(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    run_all.main(["--datasets", "./mine", "--methods", "popularity,markov"])
    run_all.main(["--datasets", "./mine", "--methods", "popularity", "--overwrite", "always"])
    (table,) = (in_tmp / "results" / "leaderboards").rglob("mine.csv")
    assert {"popularity", "markov"} <= {line.split(",")[1] for line in table.read_text().splitlines()}


def test_two_things_of_one_name_are_refused_before_anything_runs(in_tmp, capsys):
    for folder, shift in (("a", 0), ("b", 1)):
        (in_tmp / folder).mkdir()
        write_toy(in_tmp / folder / "mine", [f"u{u}\ti{(u + t) % 8}\t{t + shift}" for u in range(12) for t in range(6)])
        (in_tmp / folder / "third.py").write_text(MY_METHOD + f"# {folder}\n")
    assert "two datasets called mine" in refused(capsys, "--datasets", "a/mine,b/mine", "--methods", "popularity")
    methods = ["--methods", "a/third.py", "b/third.py"]
    assert "two methods called third" in refused(capsys, "--datasets", "a/mine", *methods)
    assert run_all.main(["--datasets", "a/mine", "a/mine/mine.inter", "--methods", "popularity", "--dry-run"]) == 0
    assert "0 of 1 jobs" in capsys.readouterr().out


def test_a_failed_job_is_told_even_when_the_tables_cannot_be_written(in_tmp, capsys, monkeypatch):
    write_toy(in_tmp / "mine")
    (in_tmp / "third.py").write_text(MY_METHOD.replace("return self", "raise RuntimeError('planted')"))

    def full(*_):
        raise OSError(28, "no space left while writing tables")

    monkeypatch.setattr(run_all.publish, "tables", full)
    assert run_all.main(["--datasets", "./mine", "--methods", "./third.py"]) == 2
    said = capsys.readouterr().err
    assert "failed: mine third seed 0: planted" in said and "error: no space left" in said


def test_a_failure_left_as_it_is_still_counts(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    (in_tmp / "third.py").write_text(MY_METHOD.replace("return self", "raise RuntimeError('planted')"))
    argv = ["--datasets", "./mine", "--methods", "./third.py"]
    assert run_all.main(argv) == 1
    assert run_all.main([*argv, "--overwrite", "never"]) == 1


def test_no_runs_to_make_tables_of_is_said(in_tmp, capsys):
    assert "no finished runs in nowhere" in refused(capsys, "leaderboard", "--output-dir", "nowhere")


def test_a_path_with_a_space_can_be_given(in_tmp, capsys):
    write_toy(in_tmp / "my data")
    assert run_all.main(["--datasets", "./my data", "--methods", "popularity", "--dry-run"]) == 0


def test_an_output_folder_that_cannot_be_written_is_refused_before_anything_runs(in_tmp, capsys):
    write_toy(in_tmp / "mine")
    (in_tmp / "results").write_text("a file where a folder is wanted")
    assert "results" in refused(capsys, "--datasets", "./mine", "--methods", "popularity")


def test_lists_and_status(in_tmp, capsys):
    for what, word in (("methods", "recbole:SASRec"), ("datasets", "amazon14-beauty"), ("protocols", "tie_seed")):
        assert run_all.main(["list", what]) == 0
        assert word in capsys.readouterr().out
    assert run_all.main(["status"]) == 0
    assert "no runs in results" in capsys.readouterr().out


def test_prepare_filters_once_and_the_result_loads(in_tmp, capsys):
    rows = [f"u{u}\ti{(u + t) % 8}\t{t}" for u in range(12) for t in range(6)]
    write_toy(in_tmp / "raw", [*rows, "u0\ti0\t99", "lone\ti0\t1"])
    assert "prepare" in refused(capsys, "--datasets", "./raw", "--methods", "popularity")
    assert run_all.main(["prepare", "raw", "--output-dir", "clean"]) == 0
    assert "72 interactions" in capsys.readouterr().out
    assert run_all.main(["--datasets", "./clean", "--methods", "popularity", "--dry-run"]) == 0
    assert "12 users, 8 items, 72 interactions" in capsys.readouterr().out


def start(folder, *argv):
    """The command in a process group of its own, as a terminal would start it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "run_all.py"), *argv]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


SLOW_SASREC = '''
"""SASRec that takes its time and checkpoints often, so that a test can stop it in the middle."""
import time
from methods.blocks import training
from methods.sasrec import SASRec

training.CHECKPOINT_SECONDS = 0.3


class Slow(SASRec):
    profiles = {"smoke": {"width": 16, "layers": 1, "training": {"epochs": 12, "batch_size": 256}}}

    def _loss(self, *batch):
        time.sleep(0.05)
        return super()._loss(*batch)


METHOD = Slow
'''
SLOW = ["--datasets", "./ring", "--methods", "./slow.py", "--profile", "smoke"]


def slow_job(folder):
    """The command that trains for some seconds on a ring of 40 items, with its files in ``folder``."""
    rows = [f"u{u:03d}\ti{(u + t) % 40:02d}\t{t}" for u in range(200) for t in range(7)]
    write_toy(folder / "ring", rows)
    (folder / "slow.py").write_text(SLOW_SASREC)
    return SLOW


def wait_for_checkpoint(folder, process):
    """Until training is under way and has left something behind."""
    deadline = time.monotonic() + 120
    while not list(folder.rglob("train.checkpoint")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, *slow_job(folder))
    assert process.wait(timeout=240) == 0, process.communicate()[0]
    (record,) = records.read_all(folder / "results")
    return record


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGKILL, True, -9), (signal.SIGKILL, False, -9)],
)
def test_an_interrupted_run_continues_to_the_same_bits(tmp_path, undisturbed, number, whole_group, code):
    """Ctrl-C reaches the whole group, kill only the parent; SIGKILL once on all and once on the parent alone."""
    process = start(tmp_path, *slow_job(tmp_path))
    wait_for_checkpoint(tmp_path, process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == code, said
    if code > 0:
        assert "the same command continues" in said
        assert list(tmp_path.rglob("train.checkpoint"))
    assert not records.read_all(tmp_path / "results")
    again = start(tmp_path, *SLOW)
    assert again.wait(timeout=240) == 0, again.communicate()[0]
    (record,) = records.read_all(tmp_path / "results")
    expected, found = undisturbed.ranking(), record.ranking()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert record.fields["training"] == undisturbed.fields["training"]
    assert not list((tmp_path / "results" / ".work").rglob("*.checkpoint"))
