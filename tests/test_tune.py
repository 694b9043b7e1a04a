"""Tuning: validation alone decides, the test stays out of reach, and no interruption changes what is tried."""

import dataclasses
import fcntl
import json
import os
import signal
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import methods
import protocols
import run_all
from benchmark import grid, records
from benchmark import tune as tuning
from benchmark.method import Method, build_config, config_dict, replace_nested, search_space
from benchmark.run import Run
from benchmark.scoring import score
from benchmark.space import LogRange, OneOf, Range, inside, n_settings, nested, settings, tuned_name, values_at
from benchmark.study import Trial, suggest
from benchmark.validate import validate
from leaderboards import trials as board
from methods.sasrec import SASRec
from tests import tune_world
from tests.tune_world import LOADERS, Guess, run_here, without_test

pytest.importorskip("optuna")
METRIC = "valid:ndcg@10"


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(grid, "run_jobs", run_here)


def tune(name, n_trials, folder, seed=0, profile="smoke", **rest):
    return tuning.tune(
        name,
        "conveyor",
        n_trials,
        protocols.load("loo"),
        LOADERS,
        lambda: ["Guess", "Nested"],
        profile=profile,
        device="cpu",
        seed=seed,
        output_dir=folder,
        **rest,
    )


def tried(tuned):
    """All but the seconds, which no two runs share."""
    return [(t["values"], t["status"], t["score"]) for t in tuned.log["trials"]]


# --- the space ---


def test_paths_become_nested_overrides_and_back():
    values = {"step": 2, "knob.rate": 0.25}
    assert nested(values) == {"step": 2, "knob": {"rate": 0.25}}
    config = replace_nested(Guess.Config(), nested(values))
    assert (config.step, config.knob.rate, config.knob.shape) == (2, 0.25, (1,))
    assert values_at(config, dict.fromkeys(values, Range(0, 1))) == values


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OneOf((1,)),
        lambda: OneOf((1, 1)),
        lambda: Range(2, 1),
        lambda: Range(0.0, float("inf")),
        lambda: LogRange(0, 10),
    ],
)
def test_choices_without_a_choice_are_refused(wrong):
    with pytest.raises(ValueError, match=r"OneOf needs|needs two finite ends|LogRange needs"):
        wrong()


def test_what_lies_inside():
    space = {"a": OneOf(("x", (1, 2))), "b": Range(1, 4), "c": LogRange(1e-4, 1.0)}
    assert inside({"a": (1, 2), "b": 4, "c": 1.0}, space)
    for outside in ({"a": "y"}, {"b": 5}, {"b": 2.5}, {"b": True}, {"c": 1.1}, {"c": None}):
        assert not inside({"a": "x", "b": 1, "c": 0.5} | outside, space)
    assert not inside({"a": "x", "b": 1}, space)
    assert (
        n_settings({"a": OneOf((1, 2)), "b": Range(1, 4)})
        == 8
        == len(list(settings({"a": OneOf((1, 2)), "b": Range(1, 4)})))
    )
    assert n_settings(space) is None


def test_a_profile_replaces_choices_path_by_path():
    assert search_space(tune_world.Nested, "full")["knob.rate"] == Range(0.0, 1.0)
    small = search_space(tune_world.Nested, "small")
    assert small["knob.rate"] == Range(0.0, 0.25) and small["knob.shape"] == OneOf(((1,), (2, 3)))


def test_a_space_that_names_no_field_is_refused():
    class Typo(Guess):
        search = {"knob.rtae": Range(0.0, 1.0)}

    with pytest.raises(ValueError, match=r"field that the Config lacks.*rtae"):
        search_space(Typo, "full")


@pytest.mark.parametrize("spec", methods.tunable())
@pytest.mark.parametrize("profile", ["smoke", "small", "full"])
def test_every_choice_of_every_room_fits_its_config(spec, profile):
    entrant = methods.load(spec)
    config = build_config(entrant.cls, entrant.preset, profile)
    for path, choices in search_space(entrant.cls, profile).items():
        ends = choices.values if isinstance(choices, OneOf) else (choices.low, choices.high)
        for value in ends:
            changed = replace_nested(config, nested({path: value}))
            assert values_at(changed, {path: choices}) == {path: value}
            assert type(value) is type(values_at(config, {path: choices})[path]), f"{path} is of another type"


# --- what is tried next ---

SPACE = {"rate": LogRange(1e-4, 1e-1), "width": OneOf((32, 64, 128)), "layers": Range(1, 4)}


def search(space, n_trials, seed, objective):
    trials = []
    for _ in range(n_trials):
        values = suggest(space, trials, seed)
        if values is None:
            break
        found = objective(values)
        trials.append(Trial(values, "failed" if found is None else "ok", found, 1.0))
    return trials


@examples(max_examples=15, deadline=None)
@given(
    st.tuples(st.floats(1e-6, 10, allow_subnormal=False), st.floats(1.5, 1e4)),
    st.tuples(st.integers(-5, 5), st.integers(1, 30)),
    st.integers(0, 2**31 - 1),
)
def test_suggestions_lie_inside_and_never_repeat(scale, whole, seed):
    low, factor = scale
    space = {"a": LogRange(low, low * factor), "b": Range(whole[0], whole[0] + whole[1]), "c": OneOf(("x", "y"))}
    trials = search(space, 14, seed, lambda values: float(values["b"]))
    assert all(inside(trial.values, space) for trial in trials)
    assert len({tuple(trial.values.items()) for trial in trials}) == len(trials) == 14


def test_a_countable_space_is_tried_to_its_last_setting():
    space = {"a": OneOf((1, 2, 3)), "b": Range(1, 4)}
    trials = search(space, 50, 0, lambda values: float(values["a"] == 2))
    assert sorted(tuple(t.values.values()) for t in trials) == [(a, b) for a in (1, 2, 3) for b in (1, 2, 3, 4)]


def test_the_search_learns_from_the_scores():
    """The first ten are random. Were it blind, later ones would be as far from the best width as those are."""
    trials = search(SPACE, 40, 0, lambda values: -abs(values["width"] - 128) - values["layers"])
    scores = [trial.score for trial in trials]
    assert sum(scores[20:]) / 20 > sum(scores[:10]) / 10 + 20


def test_settings_that_failed_are_avoided():
    trials = search(SPACE, 40, 1, lambda values: None if values["width"] == 128 else values["rate"])
    assert sum(trial.score is None for trial in trials[10:]) < sum(trial.score is None for trial in trials[:10]) * 1.5


def test_another_seed_tries_other_settings():
    assert suggest(SPACE, [], 0) == suggest(SPACE, [], 0) != suggest(SPACE, [], 1)


# --- a trial never sees the test ---


def job_of(name, folder, **changes):
    loaders, protocol = LOADERS, protocols.load("loo")
    (default,) = tuning.plan_grid(
        ["conveyor"], [name], [0], protocol, loaders, profile="smoke", track="unified", output_dir=folder
    )
    tuner = tuning.Tuner(default, loaders.method(name), search_space(Guess, "smoke"), loaders, "cpu", None)
    return tuner.job(**changes)


def test_a_trial_cannot_reach_the_test(tmp_path):
    """Of the split nothing but the training view is there: a trial does not notice, an ordinary job falls."""
    blind = dataclasses.replace(LOADERS, protocol=without_test)
    fields, arrays = validate(job_of("Guess", tmp_path, values={"step": 1}, asked="valid"), blind, Run())
    assert fields["metrics"] == {METRIC: 1.0} and fields["status"] == "ok" and not arrays
    with pytest.raises(Exception, match="NoneType"):
        score(job_of("Guess", tmp_path, values={"step": 1}), blind, Run())


def test_a_trial_asks_the_validation_cases_and_no_other(tmp_path):
    asked = []

    class Listens(Guess):
        def recommend(self, cases, k, **rest):
            asked.append((cases, k))
            return super().recommend(cases, k, **rest)

    loaders = dataclasses.replace(LOADERS, method=lambda name: dataclasses.replace(LOADERS.method(name), cls=Listens))
    validate(job_of("Guess", tmp_path, values={"step": 1}, asked="valid"), loaders, Run())
    view = protocols.load("loo").split(LOADERS.dataset("conveyor", None)).train
    ((cases, k),) = asked
    assert k == 20 and cases.users.tolist() == view.valid.cases.users.tolist()
    assert cases.histories.items.tolist() == view.valid.cases.histories.items.tolist()


def test_a_trial_is_another_run_in_another_place(tmp_path):
    test = job_of("Guess", tmp_path, values={"step": 3})
    valid = dataclasses.replace(test, asked="valid")
    assert test.config == config_dict(Guess.Config())  # the default values leave the default run
    assert test.config_hash != valid.config_hash != job_of("Guess", tmp_path, values={"step": 1}).config_hash
    assert ".tuning" in valid.folder.parts and ".tuning" not in test.folder.parts


# --- the whole command ---


def test_the_best_by_validation_takes_the_test_under_its_own_name(tmp_path, here, capsys):
    tuned = tune("Guess", 4, tmp_path)
    (record,) = records.read_all(tmp_path)
    assert record.method == "Guess@tuned" and record.fields["config"]["step"] == 1
    assert record.metrics["ndcg@10"] == 1.0 and tuned.grid.exit_code == 0
    told = record.fields["tuning"]
    assert told["trials"][0]["values"] == {"step": 3}, "the default comes first"
    assert sorted(t["values"]["step"] for t in told["trials"]) == [0, 1, 2, 3]
    assert told["trials"][told["chosen"]]["score"] == 1.0 and told["values"] == {"step": 1}
    assert told["metric"] == METRIC and told["sampler"] == "TPE" and told["seed"] == 0 and told["optuna"]
    said = capsys.readouterr().out
    assert "trial 0 (1 of 4): 0." in said and f"1.0000 in trial {told['chosen']}; about " in said


def test_the_default_wins_a_draw(tmp_path, here):
    tuned = tune("Nested", 3, tmp_path)
    assert tuned.log["chosen"] == 0 and len({t["score"] for t in tuned.log["trials"]}) == 1
    assert tuned.log["values"] == {"knob.rate": 0.5, "knob.shape": (1,)}


def test_a_larger_total_adds_and_redoes_nothing(tmp_path, here, monkeypatch):
    first = tune("Nested", 3, tmp_path)
    record = first.planned[0].job.folder / "record.json"
    before = json.loads(record.read_text())
    ran = []
    monkeypatch.setattr(grid, "run_jobs", lambda planned, *a, **k: ran.extend(planned) or run_here(planned, *a, **k))
    second = tune("Nested", 5, tmp_path)
    assert [item.job.asked for item in ran] == ["valid", "valid"], "the default still wins: its test is not run again"
    assert second.log["trials"][:3] == first.log["trials"]
    after = json.loads(record.read_text())
    assert len(after["tuning"]["trials"]) == 5
    assert {k: v for k, v in after.items() if k != "tuning"} == {k: v for k, v in before.items() if k != "tuning"}
    assert records.read(record.parent).per_user()["users"].size, "the checksums still hold"
    with pytest.raises(ValueError, match="has 5 trials already; ask for --trials 5 or more"):
        tune("Nested", 2, tmp_path)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_study_killed_anywhere_ends_as_an_undisturbed_one(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(grid, "run_jobs", run_here)
    whole = tune("Nested", 6, tmp_path / "whole", seed=seed)

    def killed(before):
        def run(planned, *args, **rest):
            if not before:
                run_here(planned, *args, **rest)  # its record is there, but nobody has read it
            raise KeyboardInterrupt

        return run

    for n_trials, before in ((1, True), (3, False), (4, True)):
        tune("Nested", n_trials, tmp_path / "killed", seed=seed)
        monkeypatch.setattr(grid, "run_jobs", killed(before))
        with pytest.raises(KeyboardInterrupt):
            tune("Nested", n_trials + 1, tmp_path / "killed", seed=seed)
        monkeypatch.setattr(grid, "run_jobs", run_here)
    assert tried(tune("Nested", 6, tmp_path / "killed", seed=seed)) == tried(whole)


def test_another_seed_or_profile_is_another_study(tmp_path, here):
    folders = {
        tune("Nested", 2, tmp_path, seed=s, profile=p).folder for s, p in ((0, "smoke"), (1, "smoke"), (0, "small"))
    }
    assert len(folders) == 3
    (at_small,) = [f for f in folders if "0.25" in (f / "study.json").read_text()]
    told = json.loads((at_small / "study.json").read_text())["trials"]
    assert told[0]["values"]["knob.rate"] == 0.5 and told[1]["values"]["knob.rate"] <= 0.25


def test_failed_trials_count_and_keep_their_reasons(tmp_path, here):
    tuned = tune("Fragile", 4, tmp_path)
    ended = {t["values"]["step"]: (t["status"], t["reason"]) for t in tuned.log["trials"]}
    assert ended[0] == ("oom", "the planted shortage") and ended[2] == ("failed", "the planted reason")
    assert ended[1] == ended[3] == ("ok", None) and tuned.log["values"] == {"step": 1}
    assert tuned.grid.exit_code == 0
    assert not list((tmp_path / ".work").rglob("log.txt")), "a trial that is not tried again leaves nothing behind"


def test_when_every_trial_fails_nothing_is_chosen(tmp_path, here, capsys):
    tuned = tune("Hopeless", 2, tmp_path)
    assert tuned.log is None and tuned.grid.exit_code == 1 and not records.read_all(tmp_path)
    assert "none of the 2 trials succeeded" in capsys.readouterr().err


def test_a_method_that_does_not_suit_the_data_is_refused(tmp_path, here):
    with pytest.raises(ValueError, match="Unsuited cannot be tuned on conveyor: needs pictures"):
        tune("Unsuited", 2, tmp_path)


def test_a_small_space_ends_before_its_trials_do(tmp_path, here, capsys):
    assert len(tune("Guess", 9, tmp_path).log["trials"]) == 4
    assert "the whole search space was tried, so 5 trials have nothing left to try" in capsys.readouterr().out


def test_a_method_without_a_space_is_refused_naming_those_that_have_one(tmp_path):
    with pytest.raises(ValueError, match=r"^Fixed has no search space; known methods that have one: Guess, Nested$"):
        tune("Fixed", 2, tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[:-20], "is damaged; delete it and run the same command"),
        (lambda text: "", "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "of another study"),
        (lambda text: text.replace('"seed": 0', '"seed": 5'), "of another study"),
        (lambda text: text.replace('"status": "ok"', '"status": "failed"'), "of another study"),
        (lambda text: text.replace('"step": 0', '"step": 17'), "trial . of the tuning log .* lies outside"),
    ],
)
def test_a_damaged_log_is_named_and_can_be_deleted(tmp_path, here, monkeypatch, damage, sentence):
    first = tune("Guess", 4, tmp_path)
    log = first.folder / "study.json"
    assert damage(log.read_text()) != log.read_text()
    log.write_text(damage(log.read_text()))
    with pytest.raises(ValueError, match=sentence) as refused:
        tune("Guess", 4, tmp_path)
    assert str(log) in str(refused.value)
    log.unlink()
    monkeypatch.setattr(grid, "run_jobs", None)  # every trial has its record: nothing is run
    assert tried(tune("Guess", 4, tmp_path)) == tried(first)


def test_two_processes_do_not_share_a_study(tmp_path, here):
    folder = tune("Guess", 2, tmp_path).folder
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is tuning this very study"):
            tune("Guess", 3, tmp_path)
    tune("Guess", 3, tmp_path)


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, here, capsys):
    tuned = tune("Guess", 4, tmp_path / "results", dry_run=True)
    said = capsys.readouterr().out
    assert "step: OneOf(values=(0, 1, 2))" in said and "0 of 4 trials are finished" in said
    assert tuned.log is None and not (tmp_path / "results").exists()
    tune("Guess", 1, tmp_path / "results")
    tune("Guess", 4, tmp_path / "results", dry_run=True)
    assert "1 of 4 trials are finished" in capsys.readouterr().out


# --- processes of their own ---


def test_out_of_time_starts_nothing_more(tmp_path):
    stopped = tune("Guess", 2, tmp_path, time_limit=1e-6)
    assert stopped.grid.exit_code == 3 and stopped.log is None and not list(tmp_path.rglob("record.json"))


def test_a_stopped_study_goes_on_with_the_same_trial_and_its_checkpoint(tmp_path):
    started = tmp_path / ".artifacts" / "started"

    def stop():
        while not started.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop)
    watcher.start()
    stopped = tune("OnceSlow", 2, tmp_path)
    watcher.join()
    assert stopped.grid.exit_code == 143 and stopped.log is None
    (told,) = json.loads((stopped.folder / "study.json").read_text())["trials"]
    assert told["status"] == "running" and told["values"] == {"step": 3}
    tuned = tune("OnceSlow", 2, tmp_path)
    assert [t["status"] for t in tuned.log["trials"]] == ["ok", "ok"] and tuned.grid.exit_code == 0
    logs = [path.read_text() for path in (tmp_path / ".tuning").rglob("log.txt")]
    assert sum("continued half way" in text for text in logs) == 1


def test_a_process_that_dies_is_a_failed_trial(tmp_path):
    tuned = tune("Dies", 4, tmp_path)
    (dead,) = [t for t in tuned.log["trials"] if t["status"] != "ok"]
    assert dead["values"] == {"step": 0} and "exit code 7" in dead["reason"]
    assert tuned.log["values"] == {"step": 1}


@pytest.mark.slow
def test_a_learned_method_is_tuned_and_stands_beside_its_default(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"training.learning_rate": OneOf((1e-3, 1e-2)), "dropout": OneOf((0.1, 0.4))}
    monkeypatch.setattr(SASRec, "search", space)
    monkeypatch.setattr(SASRec, "search_profiles", {})
    assert run_all.main(["--methods", "sasrec"]) == 0
    assert run_all.main(["tune", "sasrec", "--dataset", "demo", "--trials", "2", "--profile", "smoke"]) == 0
    said = capsys.readouterr().out
    found = {record.method: record for record in records.read_all(tmp_path / "results")}
    assert found.keys() == {"sasrec", "sasrec@tuned"}
    default, other = found["sasrec@tuned"].fields["tuning"]["trials"]
    assert default["score"] == pytest.approx(found["sasrec"].fields["training"]["best_score"]) != other["score"]
    if found["sasrec@tuned"].fields["tuning"]["chosen"] == 0:
        assert found["sasrec@tuned"].metrics == found["sasrec"].metrics
    table = said[said.rindex("Protocol loo") :]
    assert "sasrec@tuned" in table and "sasrec " in table
    assert len(list((tmp_path / "results" / ".tuning").rglob("tuning.svg"))) == 1


# --- the command line and what it says ---


def refused(capsys, *argv):
    assert run_all.main(argv) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    return said


def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'sasrec'?" in refused(capsys, "tune", "sasrek", "--dataset", "demo")
    assert "beauty" in refused(capsys, "tune", "markov", "--dataset", "beuty")
    assert "known methods that have one: " in refused(capsys, "tune", "popularity", "--dataset", "demo")
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = refused(capsys, "tune", "markov", "--dataset", "demo", "--profile", "smoke")
    assert "install it with: pip install 'optuna" in said
    for argv in (["tune", "markov"], ["tune", "markov", "--dataset", "demo", "--trials", "0"]):
        with pytest.raises(SystemExit) as stopped:
            run_all.main(argv)
        assert stopped.value.code == 2
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize(
    ("spec", "command"), [("markov@tuned", "'tune markov --"), ("itemknn@recency-tuned", "'tune itemknn@recency --")]
)
def test_a_tuned_row_is_not_run_by_name(spec, command):
    with pytest.raises(ValueError, match="is made by tuning, not by name: run the command") as said:
        methods.load(spec)
    assert command in str(said.value)


def test_no_room_may_pass_for_a_tuned_one(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tests.tune_world import Guess\n"
        "class Mine(Guess):\n    presets = {'best-tuned': {'step': 1}}\n"
        "METHOD = Mine\n"
    )
    with pytest.raises(ValueError, match="Mine has a preset 'best-tuned', but such names are kept"):
        methods.load(str(path))


def test_tuned_names_are_names_of_records():
    for name, tuned in (("a", "a@tuned"), ("a:B", "a:B@tuned"), ("a:B@c", "a:B@c-tuned")):
        assert tuned_name(name) == tuned and records.escape(tuned)


def test_the_contract_starts_without_a_search():
    assert Method.search == {} == Method.search_profiles


LOG = {
    "metric": METRIC,
    "chosen": 2,
    "space": {"knob.rate": {}},
    "trials": [
        {"values": {"knob.rate": 0.5}, "status": "ok", "score": 0.25, "seconds": 1.0},
        {"values": {"knob.rate": 0.1}, "status": "oom", "score": None, "seconds": 75.0},
        {"values": {"knob.rate": 0.7}, "status": "ok", "score": 0.375, "seconds": 2.0},
    ],
}


def test_the_table_of_trials():
    lines = [line.split() for line in board.table(LOG).splitlines()]
    assert lines[0] == ["trial", METRIC, "time", "rate"]
    assert lines[2:] == [
        ["0", "0.2500", "1.0s", "0.5", "default"],
        ["1", "oom", "1m15s", "0.1"],
        ["2*", "0.3750", "2.0s", "0.7"],
    ]


def test_the_same_trials_give_the_same_picture(tmp_path):
    drawn = [board.draw(LOG, tmp_path, "conveyor Nested"), (tmp_path / "tuning.svg").read_bytes()]
    assert drawn == [board.draw(LOG, tmp_path, "conveyor Nested"), (tmp_path / "tuning.svg").read_bytes()]
    assert b"best so far" in drawn[1] and b"conveyor Nested" in drawn[1]
    assert (tmp_path / "tuning.png").stat().st_size > 1000
    assert board.draw(LOG | {"chosen": 0, "trials": LOG["trials"][:1]}, tmp_path, "one trial") == []
    assert board.show((), tmp_path) == []
