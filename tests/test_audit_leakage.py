"""Leakage in methods: every leaky one is caught by the check that is named for it, and honest ones pass."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import cli, records
from benchmark.audits import audits_dir
from benchmark.datasets import atomic
from benchmark.protocol import Protocol
from leaderboards import audits
from methods.audits import command, leakage_dynamic
from methods.audits import leakage as audit
from methods.audits.leakage_checks import FAIL, NOT_APPLICABLE, PASS
from methods.audits.leakage_leaves import different
from methods.audits.leakage_static import NUMBERING, Subject
from methods.audits.leakage_world import as_tables, handed_round, live, permuted
from tests import leaky
from tests.leaky import LOADERS, LOO, scattered

ROOT = Path(__file__).resolve().parent.parent


def _opened(args: argparse.Namespace, jobs: int, profile: str | None) -> tuple[Protocol, str, list[str]]:
    assert profile is not None
    return LOO, profile, ["cpu"]


def _ask(
    folder: Path, *names: str, alive: audit.Live | None = live
) -> tuple[int, dict[str, dict[str, dict[str, Any]]]]:
    """``run_all.py audit leakage --methods NAMES``, in this process -> exit code, method -> check -> facts."""
    words = ["audit", "leakage", "--profile", "smoke", "--output-dir", str(folder), "--datasets", leaky.NAME]
    args = cli.parse([*words, *(["--methods", *names] if names else [])])
    code = audit.ask(args, LOO, "smoke", "cpu", LOADERS, audits.show, alive)
    found = records.read_all(audits_dir(folder.resolve(), "leakage"))
    return code, {r.method: {c["name"]: c for c in r.fields["audit"]["checks"]} for r in found}


@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("SequentialIds", {NUMBERING, "answers in rankings", "scores on permuted answers"}),
        ("UserNames", {"answers tied to user ids", "answers in rankings", "scores on permuted answers"}),
        ("CollaborativeIds", {"answers in artifacts", "answers in rankings", "scores on permuted answers"}),
        ("StopsOnTest", {"selection on test", "answers in rankings"}),
        ("OpensFiles", set()),
        ("InConstructor", {"answers tied to user ids", "answers in rankings", "scores on permuted answers"}),
        ("CountsAll", {"answers in rankings"}),
        ("KnowsWhen", {"answers in rankings"}),
    ],
)
def test_a_leaky_method_is_caught_by_the_check_of_its_name(
    name: str, caught: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / leaky.NAME).mkdir(parents=True)
    atomic.write(as_tables(scattered()), tmp_path / "data" / leaky.NAME)
    monkeypatch.setenv("GENREC_DATA", str(tmp_path / "data"))
    code, found = _ask(tmp_path, name)
    assert code == 1
    failed = {check for check, facts in found[name].items() if facts["verdict"] == FAIL}
    assert failed >= caught | {"data read past the view"}
    others = {NUMBERING, "answers tied to user ids", "answers in artifacts", "selection on test"}
    assert failed & others == caught & others, "and by no other of those names"
    assert not any(facts["verdict"] == FAIL for facts in found["data"].values()), "the data are honest"


def test_what_was_there_before_is_told_and_validation_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither passes for honest by the lists alone: a file of elsewhere is named, and the page says what it misses."""
    old = leaky.UserNames()
    monkeypatch.setattr(leaky, "everything", scattered)
    np.save(tmp_path / "old.npy", old.fit(LOO.split(scattered()).train).named)
    monkeypatch.setenv("LEAKY_CACHE", str(tmp_path / "old.npy"))
    _, found = _ask(tmp_path / "runs", "OldCache", "LearnsValidation")
    read = found["OldCache"]["data read past the view"]
    assert read["verdict"] == NOT_APPLICABLE and "old.npy" in read["says"] and read["numbers"]["elsewhere"] == 1
    assert found["LearnsValidation"]["data read past the view"]["verdict"] == PASS
    assert not any(check["verdict"] == FAIL for method in found.values() for check in method.values())


def test_cold_rows_of_artifacts_are_told_apart() -> None:
    counts = np.array([0, 3, 0, 2])
    table = np.arange(8.0).reshape(4, 2)
    moved, warm = table.copy(), table.copy()
    moved[2], warm[1] = -1, -1
    worlds = [_Left({"cf.npz": {"vectors": one}}) for one in (table, moved, warm)]
    assert leakage_dynamic.cold_rows(worlds[0], worlds[1], counts).verdict == FAIL
    assert leakage_dynamic.cold_rows(worlds[0], worlds[2], counts).verdict == PASS
    assert leakage_dynamic.cold_rows(worlds[0], worlds[1], counts + 1).verdict == NOT_APPLICABLE
    nothing = _Left({"cf.npz": {"vectors": np.where(counts[:, None] == 0, np.nan, table)}})
    assert leakage_dynamic.cold_rows(nothing, nothing, counts).verdict == PASS
    assert leakage_dynamic.cold_rows(nothing, worlds[0], counts).verdict == FAIL


class _Left(leakage_dynamic.Left):
    def __init__(self, artifacts: dict[str, Any]):
        super().__init__(Path())
        self.__dict__["artifacts"] = artifacts


def test_honest_methods_pass(tmp_path: Path) -> None:
    names = ("popularity", "markov", "sasrec", "tiny")
    code, found = _ask(tmp_path, *names)
    assert code == 0 and set(found) == {"data", *names}
    for name in names:
        assert {facts["verdict"] for facts in found[name].values()} <= {PASS, NOT_APPLICABLE}, name
    assert found["tiny"]["answers in artifacts"]["verdict"] == found["tiny"][NUMBERING]["verdict"] == PASS
    assert found["tiny"]["answers in the saved model"]["verdict"] == PASS
    assert found["sasrec"]["selection on test"]["verdict"] == PASS
    text = next((tmp_path / "leaderboards").rglob("*.leakage.md")).read_text()
    assert all(f"| {name} " in text for name in names) and "0 failed" in text


def test_a_fit_that_does_not_repeat_itself_proves_nothing(tmp_path: Path) -> None:
    code, found = _ask(tmp_path, "Restless")
    assert code == 0
    assert found["Restless"]["answers in rankings"]["verdict"] == NOT_APPLICABLE
    assert found["Restless"]["scores on permuted answers"]["verdict"] == PASS


def test_in_processes_of_their_own_and_a_failing_fit_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, found = _ask(tmp_path, "Fails", alive=None)
    assert code == 1 and set(found) == {"data"}
    assert "Fails seed 0: the planted reason" in capfd.readouterr().err


SLEEPER = """
import os, time
from benchmark.method import Method
class Sleeper(Method):
    def fit(self, view):
        from pathlib import Path
        Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
        time.sleep(600)
    def recommend(self, cases, k, candidates=None): ...
METHOD = Sleeper
"""


def test_a_fit_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    """Also where that was killed and could say nothing."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    words = ["audit", "leakage", "--methods", str(tmp_path / "sleeper.py"), "--output-dir", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "run_all.py", *words], cwd=ROOT, stdout=subprocess.DEVNULL) as asking:
        try:
            _until((tmp_path / "sleeper.pid").exists)
        finally:
            asking.kill()
    child = int((tmp_path / "sleeper.pid").read_text())
    _until(lambda: not _runs(child))


def _until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # ended, and nobody has asked for its exit code: a Z behind the name
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_without_methods_only_the_data_are_asked_and_the_door_leads_here(tmp_path: Path) -> None:
    words = ["audit", "leakage", "--profile", "smoke", "--output-dir", str(tmp_path), "--datasets", leaky.NAME]
    assert command.ask(cli.parse(words), _opened, LOADERS, audits.show) == 0
    (only,) = records.read_all(audits_dir(tmp_path, "leakage"))
    assert only.method == "data" and list(tmp_path.glob("leaderboards/loo/*/scattered.leakage.csv"))


def test_lists_without_sight_of_the_answers_beat_the_others_by_chance_only() -> None:
    """Random lists beat 9 other permutations once in 10: 120 of them do 12 times, give or take 4 standard errors."""
    subject = Subject.of(scattered(), LOO)
    moved = LOO.split(permuted(subject.dataset, subject.split)).test
    pool = moved.targets.items
    null = [handed_round(subject.split.test, pool, leaky.N_ITEMS, seed) for seed in range(9)]
    rng = np.random.default_rng(0)
    first = failed = 0
    for _ in range(120):
        items = np.argsort(rng.random((len(moved), leaky.N_ITEMS)))[:, :20] + 1
        lists = {"users": moved.cases.users, "items": items}
        check = leakage_dynamic.scores("", lists, moved, null)
        first, failed = first + (check.numbers["p"] == 0.1), failed + (check.verdict == FAIL)
    assert 1 <= first <= 25 and failed <= 2
    oracle = {"users": moved.cases.users, "items": moved.targets.padded(20)}
    assert leakage_dynamic.scores("", oracle, moved, null).verdict == FAIL


def test_what_two_fits_share_is_found_and_times_are_not_compared() -> None:
    one = {"model": {"w": torch.ones(2)}, "report": '{"seconds": 1.5, "best": 2}', "x": np.arange(3)}
    assert not different(one, one | {"report": '{"best": 2, "seconds": 9.0}'})
    assert different(one, one | {"report": '{"best": 3, "seconds": 1.5}'}) == ["report/best"]
    assert different(one, one | {"model": {"w": torch.zeros(2)}}) == ["model/w"]
    assert different(one, one | {"x": np.arange(3, dtype=np.int32)}) == ["x"]
    banks = [{"time_bank": np.full(2, fill), "memory": {"w": torch.ones(2) * fill, "bytes": fill}} for fill in (1, 2)]
    assert different(*banks) == ["memory/w", "time_bank"], "arrays belong to models, whatever they are called"
    assert different(one, one | {"y": None, "z": "{no JSON"}) == ["y", "z"]


def test_hostile_names_stay_text_and_equal_audits_give_equal_files(tmp_path: Path) -> None:
    _ask(tmp_path, "OpensFiles")
    found = records.read_all(audits_dir(tmp_path, "leakage"))
    for name in ("a", "b"):
        audits.tables("leakage", found if name == "a" else found[::-1], tmp_path / name)
    files = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".md", ".tex", ".csv", ".json"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path
    text = next(tmp_path.glob("a/**/*.md")).read_text()
    assert "**OpensFiles: data read past the view.** FAIL: fit and recommend read scattered.inter." in text
