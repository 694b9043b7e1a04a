"""Sound runs pass, with and without their data; whatever is edited in one fails with the reason that names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark import records
from benchmark.files import sha256_of
from leaderboards import verify as verification
from leaderboards import verify_record
from leaderboards.publish import compact
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
    alone = only(results["loo"], None)
    assert alone.passed == (name == "an item outside the catalogue")  # the catalogue is known from the data alone


@pytest.mark.parametrize("name", LISTS)
def test_tampered_lists_with_the_old_checksum_are_seen_at_once(name, world, results):
    tamper_arrays(results["loo"], RANKING, LISTS[name][0], repair=False)
    assert only(results["loo"], world[1]).reasons == (
        "ranking.npz is not the file that was written: its SHA-256 differs from the one in record.json",
    )


def test_one_list_edited_earns_other_scores(world, results):
    row = hit_row(results["loo"])
    before = records.read(results["loo"]).per_user()
    tamper_arrays(results["loo"], RANKING, put("items", row, lambda r: np.roll(r, 1)))
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


def test_damage_in_one_record_leaves_the_others_their_verdict(world, results):
    (results["loo"] / "record.json").write_text("{")
    verdicts = verify(results["loo"].parents[4], data_dir=world[1])
    assert [one.passed for one in verdicts] == [False, True]


def test_a_record_copied_out_of_its_folders_is_believed_its_own_name(world, results, tmp_path):
    shutil.copytree(results["loo"], tmp_path / "elsewhere" / "mine")
    assert only(tmp_path / "elsewhere" / "mine", world[1]).passed


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
