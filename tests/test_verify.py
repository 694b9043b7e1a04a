"""Sound runs pass, with and without their data; whatever is edited in one fails with the reason that names it."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmark import records
from benchmark.files import sha256_of
from benchmark.metrics import coverage, entropy, parse
from leaderboards import verify as verification
from leaderboards.publish import compact
from leaderboards.verify import record as verify_record
from leaderboards.verify import report, verify
from tests.verify_world import finish, tamper_arrays, tamper_record, write_data

PUBLISHED = Path(__file__).resolve().parent.parent / "leaderboards" / "published"
RANKING, PER_USER = "ranking.npz", "per_user.npz"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Results of both protocols, and the folder of their data."""
    root = tmp_path_factory.mktemp("verify")
    data = write_data(root / "data")
    for protocol in ("loo", "warmcold"):
        finish(root / "results", data, protocol=protocol)
    return root / "results", data


@pytest.fixture
def results(world, tmp_path, monkeypatch):
    """A copy to tamper with: protocol -> record folder."""
    monkeypatch.delenv("GENREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(world[0], tmp_path / "results")
    return {record.protocol["name"]: record.folder for record in records.read_all(tmp_path / "results")}


def hit_row(folder):
    """The first user whose list has a hit among the first ten, but not at the top."""
    scores = records.read(folder).per_user()
    return int(np.flatnonzero((scores["ndcg@10"] > 0) & (scores["ndcg@10"] < 1))[0])


def only(folder, data_dir):
    (verdict,) = verify(folder, data_dir=data_dir)
    return verdict


def test_sound_runs_are_scored_again_to_the_same_bits(world, results):
    verdicts = verify(results["loo"].parents[4], data_dir=world[1])
    assert [one.passed for one in verdicts] == [True, True]
    assert not any(one.reasons for one in verdicts)
    for one in verdicts:
        assert "per-user scores from the lists, to the bit" in one.checked
        assert one.not_checked == (verification.NOT_TOLD,)
    assert report(verdicts)[-1] == "2 passed, 0 failed"


@pytest.mark.parametrize("protocol", ["loo", "warmcold"])
def test_demo_runs_are_scored_again_wherever_they_are_verified(protocol, results, tmp_path):
    record = finish(tmp_path / "demo", None, "popularity", protocol, name="demo")
    verdict = only(record.folder, None)
    assert verdict.passed
    assert "data and their hash" in verdict.checked


def test_without_data_the_verdict_says_what_was_left_out(results):
    verdicts = verify(results["loo"].parents[4], data_dir=None)
    for one in verdicts:
        assert one.passed
        assert "not re-scored: the data of arrivals are not at hand" in one.not_checked
        assert not any("from the lists" in what for what in one.checked)
    assert "not checked (2 of 2): not re-scored: the data of arrivals are not at hand" in report(verdicts)


def test_a_sample_of_users_is_scored_again(world, results, tmp_path):
    record = finish(tmp_path / "few", world[1], limit_users=7)
    assert only(record.folder, world[1]).passed
    assert len(record.per_user()["users"]) == 7


def test_published_copies_with_half_precision_scores_pass(world, results, tmp_path):
    for folder in results.values():
        record = records.read(folder)
        place = tmp_path / "copies" / folder.relative_to(tmp_path / "results")
        records.write(place, record.fields, compact(record), None)
        assert only(place, world[1]).passed
        assert only(place, None).passed


# --- one thing edited, one reason -----------------------------------------------------------------------------


def put(name, row, values):
    def edit(arrays):
        arrays[name][row] = values(arrays[name][row]) if callable(values) else values

    return edit


def drop(arrays):
    return {name: np.delete(values, 2, 0) for name, values in arrays.items()}


def duplicate(arrays):
    return {name: np.concatenate([values, values[2:3]]) for name, values in arrays.items()}


def twice(items):
    items[1] = items[0]
    return items


def hole(items):
    items[0] = 0
    return items


LISTS = {
    "an item outside the catalogue": (put("items", 3, lambda r: np.where(r == r[0], 999, r)), "names an unknown item"),
    "an item twice": (put("items", 3, twice), "the list of user 4 names an item twice"),
    "PAD before an item": (put("items", 3, hole), "the list of user 4 has PAD before an item"),
    "scores in another order": (put("scores", 3, lambda r: r[::-1].copy()), "the list of user 4 has scores that incr"),
    "a score that is no number": (put("scores", 3, np.nan), "the list of user 4 has a score that is not a number"),
    "a user left out": (drop, "leaves out 1 users that were asked, e.g. user 3"),
    "a user twice": (duplicate, "answers user 3 more than once"),
    "a user nobody asked": (put("users", 0, 4000), "answers 1 users that were not asked, e.g. user 4000"),
}


@pytest.mark.parametrize("name", LISTS)
def test_tampered_lists_fail_even_with_a_new_checksum(name, world, results):
    edit, reason = LISTS[name]
    tamper_arrays(results["loo"], RANKING, edit)
    verdict = only(results["loo"], world[1])
    assert not verdict.passed
    assert reason in verdict.reasons[0]
    assert not only(results["loo"], None).passed


@pytest.mark.parametrize("name", LISTS)
def test_tampered_lists_with_the_old_checksum_are_seen_at_once(name, world, results):
    tamper_arrays(results["loo"], RANKING, LISTS[name][0], repair=False)
    assert only(results["loo"], world[1]).reasons == (
        "ranking.npz is not the file that was written: its SHA-256 differs from the one in record.json",
    )


def swapped(items):
    """The first ten the other way round: the same items are named as often among ten and twenty."""
    items[:10] = items[9::-1].copy()
    return items


def test_one_list_edited_earns_other_scores(world, results):
    row = hit_row(results["loo"])
    before = records.read(results["loo"]).per_user()
    tamper_arrays(results["loo"], RANKING, put("items", row, swapped))
    verdict = only(results["loo"], world[1])
    assert not verdict.passed
    reason = verdict.reasons[0]
    assert f"of user {before['users'][row]} is " in reason and "in per_user.npz but" in reason
    assert only(results["loo"], None).passed  # nobody can see this without the data


def test_a_users_score_edited_contradicts_its_mean_and_its_list(world, results):
    row = hit_row(results["loo"])
    before = records.read(results["loo"]).per_user()["ndcg@10"][row].item()
    tamper_arrays(results["loo"], PER_USER, put("ndcg@10", row, 1.0))
    mean, sliced, user = only(results["loo"], world[1]).reasons
    assert mean.startswith("ndcg@10 is ") and "in record.json but" in mean
    assert sliced.startswith("in slice ") and "more like it" in sliced
    assert user == f"ndcg@10 of user {row + 1} is 1.0 in per_user.npz but {before!r} by the lists and the data"
    assert only(results["loo"], None).reasons == (mean, sliced)
    tamper_record(results["loo"], lambda fields: fields["files"].update({PER_USER: "0" * 64}))
    assert "per_user.npz is not the file that was written" in only(results["loo"], world[1]).reasons[0]


def test_a_users_score_edited_with_all_its_means_contradicts_its_list(world, results):
    """The careful cheat: everything in the record agrees with itself."""
    folder, row = results["loo"], hit_row(results["loo"])
    tamper_arrays(folder, PER_USER, put("ndcg@10", row, 1.0))
    arrays = records.read(folder).per_user()

    def mend(fields):
        fields["metrics"]["ndcg@10"] = float(arrays["ndcg@10"].mean())
        for name, labels in fields["slice_labels"].items():
            for code, label in enumerate(labels):
                rows = arrays[f"slice:{name}"] == code
                if rows.any():
                    fields["slices"][name][label]["ndcg@10"] = float(arrays["ndcg@10"][rows].mean())

    tamper_record(folder, mend)
    assert only(folder, None).passed
    (reason,) = only(folder, world[1]).reasons
    assert reason.startswith(f"ndcg@10 of user {row + 1} is 1.0 in per_user.npz")


def test_users_dropped_from_lists_and_scores_alike_are_missed(world, results):
    tamper_arrays(results["loo"], RANKING, drop)
    tamper_arrays(results["loo"], PER_USER, drop)
    reasons = only(results["loo"], world[1]).reasons
    assert "the ranking leaves out 1 users that were asked, e.g. user 3" in reasons
    assert any(reason.startswith("in slice ") for reason in only(results["loo"], None).reasons)


def edit(*path, to):
    def change(fields):
        inner = fields
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to

    return change


SPEND = {"rule": "raw", "items_scored": 5.0, "forward_passes": 1.0, "beam_size": 50, "decoder_tokens": 0.0}
FIELDS = {
    "a metric": (edit("metrics", "ndcg@10", to=0.9), "ndcg@10 is 0.9 in record.json but 0."),
    "a metric that is text": (edit("metrics", "ndcg@10", to="0.9"), "ndcg@10 is '0.9' in record.json, not a number"),
    "a metric of nobody": (edit("metrics", "ndcg@7", to=0.9), "ndcg@7 is only in record.json"),
    "coverage": (edit("metrics", "coverage@10", to=0.123), "coverage@10 is 0.123 in record.json but"),
    "a slice": (edit("slices", "target", "warm", "ndcg@10", to=0.9), "in slice target, warm: ndcg@10 is 0.9"),
    "the users of a slice": (edit("slices", "target", "warm", "users", to=1), "in slice target, warm: users is 1 in"),
    "a slice's name": (edit("slices", "x", to={}), "slices and slice_labels in record.json are not those"),
    "a fact": (edit("facts", "cold_items", to=1), "cold_items is 1 in facts of record.json but"),
    "the seed": (edit("seed", to=1), "the record lies in a folder 'seed=0' but record.json says 'seed=1'"),
    "a seed that is text": (edit("seed", to="0"), "the seed '0' is not a whole number"),
    "the method": (edit("method", to="sasrec"), "the record lies in a folder 'markov' but record.json says 'sasrec'"),
    "a method that leads elsewhere": (edit("method", to="../../evil"), "is not a method name of the form"),
    "a method of markup": (edit("method", to="<script>alert(1)</script>"), "is not a method name of the form"),
    "a dataset that leads elsewhere": (edit("dataset", to="../evil"), "'../evil' cannot name a dataset"),
    "the protocol's version": (edit("protocol", "version", to=0), "made under loo version 0"),
    "the protocol's hash": (edit("protocol", "hash", to="0" * 12), "made under loo version 1 (000000000000)"),
    "the protocol": (edit("protocol", "name", to="loop"), "unknown protocol 'loop'; did you mean 'loo'?"),
    "the dataset's hash": (edit("dataset_hash", to="f" * 64), "made from other data than the arrivals at hand"),
    "the configuration": (edit("config", "decay", to=0.5), "one of them was edited"),
    "the profile": (edit("profile", to="full"), "one of them was edited"),
    "a beam above the budget": (edit("spend", to=SPEND), "the ranking spent a beam of 50; the protocol allows 20"),
    "no spend": (edit("spend", to=None), "the ranking does not say what it spent"),
    "a file that leads elsewhere": (
        edit("files", "../x.npz", to="0"),
        "record.json names a file '../x.npz' that no run",
    ),
    "a file less": (lambda fields: fields["files"].pop(RANKING), "'ranking.npz' is not named in record.json"),
    "another schema": (edit("schema", to=99), "damaged or of another schema than 1"),
    "metrics of another kind": (edit("metrics", to=[1, 2]), "record.json is not of the form that this suite writes"),
}


FIELDS |= {
    "a track that leads elsewhere": (edit("track", to="../../evil"), "track is '../../evil', not one of submitted"),
    "letters that steer": (edit("provenance", "commit", to="\x1b[2J"), "holds the control character '\\x1b' in prov"),
    "no number at all": (edit("training", to={"loss": float("nan")}), "holds the number nan in training.loss"),
    "no provenance": (edit("provenance", to={}), "provenance.commit is missing from record.json"),
    "seconds of text": (edit("timings", "train", to="fast"), "timings.train is 'fast', not a number of at least 0"),
    "parameters of markup": (edit("parameters", to="<b>"), "parameters is '<b>', which is not what a run writes"),
    "a metric of no protocol": (edit("metrics", "coverage@7", to=0.5), "the protocol has no metric coverage@7"),
    "users limited to true": (edit("limit_users", to=True), "limit_users is True, neither null nor"),
    "a number beyond all": (edit("facts", "items", to=10**400), "facts.items is 1000"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_edited_field_of_the_record_fails_by_its_name(name, world, results):
    change, reason = FIELDS[name]
    tamper_record(results["loo"], change)
    verdict = only(results["loo"], world[1])
    assert not verdict.passed
    assert any(reason in told for told in verdict.reasons), verdict.reasons


def test_a_cut_off_record_fails(world, results):
    path = results["loo"] / "record.json"
    path.write_bytes(path.read_bytes()[:200])
    assert "damaged (not JSON)" in only(results["loo"], world[1]).reasons[0]


def test_missing_and_additional_files_fail(world, results):
    (results["loo"] / "extra.sh").write_text("echo")
    (results["loo"] / RANKING).unlink()
    assert only(results["loo"], world[1]).reasons == (
        "'extra.sh' is not named in record.json",
        "ranking.npz is missing",
    )


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(world, results, monkeypatch):
    monkeypatch.setattr(verify_record, "LARGEST", 1000)
    assert "per_user.npz cannot be read: it unpacks to" in only(results["loo"], world[1]).reasons[0]


def test_a_file_that_is_no_archive_fails(world, results):
    (results["loo"] / RANKING).write_bytes(b"no archive")
    tamper_record(results["loo"], lambda f: f["files"].update({RANKING: sha256_of(results["loo"] / RANKING)}))
    assert "ranking.npz cannot be read" in only(results["loo"], world[1]).reasons[0]


# --- arrays that only look like scores -----------------------------------------------------------------------------


def nobody_lost(arrays):
    """The mean over users who are asked rises when those who missed are called unasked."""
    values = arrays["ndcg@10"]
    values[values == 0] = np.nan


def as_type(name, kind):
    def edit(arrays):
        arrays[name] = arrays[name].astype(kind)

    return edit


SCORES = {
    "losers left out": (nobody_lost, "ndcg@10 of user 2 is missing in per_user.npz"),
    "a user twice": (duplicate, "per_user.npz is not of every user once, in order: see user 3"),
    "a user less": (drop, "per_user.npz is of 59 users, facts in record.json say that 60 were asked"),
    "a score above 1": (put("ndcg@10", 3, 1.5), "ndcg@10 in per_user.npz is not a score from 0 to 1"),
    "a score below 0": (put("ndcg@10", 3, -0.5), "ndcg@10 in per_user.npz is not a score from 0 to 1"),
    "complex scores": (as_type("ndcg@10", complex), "ndcg@10 in per_user.npz is not a score from 0 to 1"),
    "users with a point": (as_type("users", float), "per_user.npz does not say whose scores it holds"),
    "pickled scores": (as_type("ndcg@10", object), "per_user.npz cannot be read: Object arrays cannot be loaded"),
    "a part of no slice": (put("slice:target", 0, 99), "slice:target in per_user.npz names parts that slice_labels"),
    "a metric less": (lambda arrays: {n: a for n, a in arrays.items() if n != "mrr@20"}, "mrr@20 is missing from per"),
    "a metric more": (lambda arrays: arrays | {"ndcg@7": arrays["ndcg@10"]}, "the protocol has no metric ndcg@7"),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_that_are_none_fail_without_the_data(name, results):
    edit, reason = SCORES[name]
    tamper_arrays(results["loo"], PER_USER, edit)
    verdict = only(results["loo"], None)
    assert not verdict.passed
    assert any(reason in told for told in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda a: a | {"items": np.where(np.arange(20) == 3, 2**40, a["items"].astype(np.int64))}, "an unknown item"),
        (lambda a: a | {"items": np.where(np.arange(20) == 3, -5, a["items"].astype(np.int64))}, "an unknown item"),
        (lambda a: a | {"items": a["items"].astype(float)}, "items must be a numpy array of signed integers"),
        (lambda a: a | {"hidden": np.zeros(5)}, "ranking.npz holds hidden, items, scores, users; lists are"),
        (lambda a: a | {"items": np.minimum(a["items"], 3) * (np.arange(20) == 0)}, "a score other than -inf where"),
    ],
)
def test_lists_of_odd_numbers_fail_with_and_without_the_data(edit, reason, world, results):
    tamper_arrays(results["loo"], RANKING, edit)
    for data in (world[1], None):
        assert any(reason in told for told in only(results["loo"], data).reasons)


def test_an_archive_with_more_than_arrays_fails(results):
    with zipfile.ZipFile(results["loo"] / PER_USER, "a") as archive:
        archive.writestr("../../evil.txt", "x")
    digest = sha256_of(results["loo"] / PER_USER)
    tamper_record(results["loo"], lambda fields: fields["files"].update({PER_USER: digest}))
    (reason,) = only(results["loo"], None).reasons
    assert reason == "per_user.npz cannot be read: it holds '../../evil.txt', which is no array"


# --- records that are no plain folders ---------------------------------------------------------------------------


def test_an_audit_is_believed_only_among_audits(world, results, tmp_path):
    """Else a run could call itself one: its numbers stand in tables and nobody would look at them."""
    tamper_record(results["loo"], lambda f: (f.update(audit={"settings": {}}), f["metrics"].update({"ndcg@10": 0.9})))
    reason, more = only(results["loo"], world[1]).reasons
    assert more == "it has some all the same"
    assert reason.startswith("record.json tells of an audit, but its folder is not audits/<question>")
    place = tmp_path / "audits" / "ids" / results["loo"].relative_to(tmp_path / "results") / "0123456789"
    shutil.copytree(results["loo"], place)
    assert only(place, None).reasons == ("it has some all the same",)
    (place / RANKING).unlink()
    tamper_record(place, lambda fields: fields["files"].pop(RANKING))
    assert only(place, None).reasons == ("it has some all the same",)
    tamper_record(place, lambda fields: fields.update(metrics={}))
    assert only(place, None).passed
    tamper_record(place, edit("provenance", "python", to="\x1b[2J"))  # its tables tell it
    assert "the control character '\\x1b' in provenance.python" in only(place, None).reasons[0]


@pytest.mark.parametrize("name", [RANKING, "record.json"])
def test_links_are_refused(name, results, tmp_path):
    shutil.move(results["loo"] / name, tmp_path / name)
    (results["loo"] / name).symlink_to(tmp_path / name)
    (reason,) = only(results["loo"], None).reasons
    assert "is a link" in reason or "is not a file" in reason


def test_a_pipe_is_not_waited_for_and_endless_brackets_are_no_record(results):
    path = results["loo"] / "record.json"
    path.write_text("[" * 200_000)
    assert "not of the form" in only(results["loo"], None).reasons[0]
    path.unlink()
    os.mkfifo(path)
    (verdict,) = [one for one in verify(results["loo"].parents[4]) if not one.passed]
    assert verdict.reasons[0].startswith("record.json is not a file of at most")


def test_a_run_without_numbers_keeps_no_files(results):
    tamper_record(results["loo"], lambda fields: fields.update(status="failed", metrics={}))
    assert only(results["loo"], None).reasons == ("it has files all the same",)


# --- what records say of each other -------------------------------------------------------------------------------


def test_runs_that_were_asked_otherwise_than_the_others_are_named(world, tmp_path):
    """Users who are left out everywhere in one record: nothing in it contradicts itself."""
    first, *_ = [finish(tmp_path / "results", world[1], method) for method in ("markov", "popularity", "itemknn")]
    for file in (PER_USER, RANKING):
        tamper_arrays(first.folder, file, drop)
    arrays = records.read(first.folder).per_user()

    def mend(fields):
        fields["facts"]["users_asked"] = 59
        for name in fields["metrics"].keys() & arrays.keys():
            fields["metrics"][name] = float(arrays[name].mean())
        items = records.read(first.folder).ranking()["items"].astype(int)
        for metric in ("coverage@10", "coverage@20", "item_entropy@10", "item_entropy@20"):
            name, k = parse(metric)
            fields["metrics"][metric] = coverage(items, 45, k) if name == "coverage" else entropy(items, k)
        for name, labels in fields["slice_labels"].items():
            for code, label in enumerate(labels):
                rows = arrays[f"slice:{name}"] == code
                old = {n: float(arrays[n][rows].mean()) for n in fields["slices"][name][label] if n != "users"}
                fields["slices"][name][label] = {"users": int(rows.sum())} | old

    tamper_record(first.folder, mend)
    wrong = [one for one in verify(tmp_path / "results") if not one.passed]
    assert [one.place for one in wrong] == [str(first.folder)]
    assert wrong[0].reasons[-1].startswith("it was asked otherwise than 2 runs beside it on the same data: see ")


def test_of_several_seeds_the_lowest_keeps_its_lists(world, results, tmp_path):
    for seed in (4, 5):
        record = finish(tmp_path / "seeds", world[1], seed=seed)
        records.write(record.folder, record.fields, {PER_USER: record.per_user()}, None)
    first, second = verify(tmp_path / "seeds", data_dir=world[1])
    assert first.reasons == ("no seed below 4 is here, so it must keep its lists, and ranking.npz is missing",)
    assert second.passed


def test_a_run_that_stands_twice_is_named(world, results, tmp_path):
    shutil.copytree(results["loo"], tmp_path / "results" / "copy" / "seed=0")
    wrong = [one for one in verify(tmp_path / "results", data_dir=world[1]) if not one.passed]
    assert len(wrong) == 1 and "the same run stands in " in wrong[0].reasons[0]


def test_a_seed_without_lists_is_held_to_users_slices_and_budget(world, tmp_path):
    record = finish(tmp_path / "seeds", world[1], seed=1)
    records.write(record.folder, record.fields, {PER_USER: record.per_user()}, None)
    assert only(record.folder, world[1]).passed
    tamper_record(record.folder, edit("spend", to=SPEND))
    assert "the ranking spent a beam of 50; the protocol allows 20" in only(record.folder, None).reasons
    tamper_record(record.folder, edit("spend", to=record.fields["spend"]))
    tamper_arrays(record.folder, PER_USER, put("users", -1, 4000))
    reasons = only(record.folder, world[1]).reasons
    assert "per_user.npz is not of the users that the protocol asks, each once and in its order" in reasons


# --- settings ---------------------------------------------------------------------------------------------------


def test_lists_among_warm_items_are_held_to_their_candidates(world, results):
    record = records.read(results["warmcold"])
    cold = int(record.ranking("cold")["items"][0, 0])
    tamper_arrays(results["warmcold"], "ranking.warm.npz", put("items", (0, 0), cold))
    reason = only(results["warmcold"], world[1]).reasons[0]
    assert reason.startswith("among warm items only, the list of user ") and reason.endswith("outside the candidates")


def test_lists_of_a_setting_cannot_be_left_out(world, results):
    tamper_record(results["warmcold"], lambda fields: fields["files"].pop("ranking.warm.npz"))
    (results["warmcold"] / "ranking.warm.npz").unlink()
    assert "the lists among warm items only are missing" in only(results["warmcold"], world[1]).reasons


def test_the_place_of_a_target_is_looked_up_again(world, results):
    tamper_arrays(results["warmcold"], "per_target.npz", put("rank", 0, 9))
    (reason,) = only(results["warmcold"], world[1]).reasons
    assert reason.startswith("rank of user ") and "is 9 in per_target.npz but" in reason
    reason = only(results["warmcold"], None).reasons[0]  # what the answers were is said beside the lists
    assert reason.startswith("rank of user ") and "is 9 in per_target.npz but" in reason


def test_answers_that_are_said_tie_lists_and_scores_together_without_the_data(results):
    folder = results["warmcold"]
    row = hit_row(folder)
    tamper_arrays(folder, RANKING, put("items", row, swapped))
    assert any(" in per_target.npz but " in reason for reason in only(folder, None).reasons)
    before = records.read(folder).per_target()
    tamper_arrays(folder, "per_target.npz", lambda arrays: {n: a for n, a in arrays.items() if n != "rank/warm"})
    assert "per_target.npz is not one user, item and rank per target" in only(folder, None).reasons[0]
    assert before.keys() > records.read(folder).per_target().keys()


def test_a_metric_of_a_setting_is_the_mean_of_those_asked_there(world, results):
    tamper_record(results["warmcold"], edit("metrics", "ndcg@10/cold", to=0.5))
    (reason,) = only(results["warmcold"], None).reasons
    assert reason.startswith("ndcg@10/cold is 0.5 in record.json but")


# --- what is not a run of lists --------------------------------------------------------------------------------


def test_seeds_after_the_first_may_come_without_lists(world, results, tmp_path):
    for seed, passes in ((0, False), (1, True)):
        record = finish(tmp_path / "seeds", world[1], seed=seed)
        place = tmp_path / "without" / record.folder.relative_to(tmp_path / "seeds")
        records.write(place, record.fields, {PER_USER: record.per_user()}, None)
        verdict = only(place, world[1])
        assert verdict.passed == passes
        assert verification.NO_LISTS in verdict.not_checked


def test_a_run_that_failed_may_have_no_numbers(results):
    folder = results["loo"]
    for name in (RANKING, PER_USER):
        (folder / name).unlink()
    tamper_record(folder, lambda fields: fields.update(status="failed", files={}))
    assert only(folder, None).reasons == ("it has metrics all the same",)
    tamper_record(folder, lambda fields: fields.update(metrics={}))
    assert only(folder, None).passed


def test_words_of_what_broke_off_a_run_or_a_trial_may_hold_anything(world, results):
    """A library's own words, with its colours."""
    folder, words = results["loo"], "\x1b[31mno memory\x1b[0m"
    tamper_record(folder, edit("tuning", to={"trials": [{"status": "failed", "reason": words, "score": None}]}))
    assert only(folder, world[1]).passed
    tamper_record(folder, edit("tuning", to={"trials": [{"status": words}]}))
    assert "the control character '\\x1b' in tuning.trials.status" in only(folder, world[1]).reasons[0]


def test_damage_in_one_record_leaves_the_others_their_verdict(world, results):
    (results["loo"] / "record.json").write_text("{")
    verdicts = verify(results["loo"].parents[4], data_dir=world[1])
    assert [one.passed for one in verdicts] == [False, True]


def test_a_record_copied_out_of_its_folders_is_believed_its_own_name(world, results, tmp_path):
    shutil.copytree(results["loo"], tmp_path / "elsewhere" / "mine")
    assert only(tmp_path / "elsewhere" / "mine", world[1]).passed


def test_a_file_of_a_record_stands_for_the_record(results):
    for name in ("record.json", RANKING):
        assert only(results["loo"] / name, None).place == str(results["loo"])


def test_nothing_to_verify_is_said(tmp_path):
    with pytest.raises(ValueError, match="there is no record at or below"):
        verify(tmp_path)


def test_control_characters_do_not_reach_the_terminal(world, results):
    tamper_record(results["loo"], edit("dataset", to="x\x1b[2Jy"))
    assert all(line.isprintable() for line in report(verify(results["loo"], data_dir=world[1])))


@pytest.mark.skipif(not PUBLISHED.exists(), reason="nothing is published yet")
def test_one_published_run_of_every_protocol_passes():
    """Without data, which the repository has not: means of per-user scores, form of lists, hashes."""
    for protocol in sorted((PUBLISHED / "records").iterdir()):
        folder = next(iter(sorted(protocol.glob("*/popularity/*/seed=0"))))
        verdict = only(folder, None)
        assert verdict.passed, json.dumps(verdict.reasons)
