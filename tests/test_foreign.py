"""Runs made elsewhere: read line by line, refused with the line that is wrong, scored as the same lists made here."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import protocols
from benchmark import datasets, records
from benchmark.files import sha256_of
from leaderboards import publish
from leaderboards.foreign import import_run, sidecar_of
from leaderboards.foreign.lists import read_lists
from leaderboards.foreign.sidecar import read_sidecar
from leaderboards.verify import verify
from tests import toys
from tests.verify_world import finish, tamper_record, write_data

SAID = {"method": "mine", "protocol": "loo", "dataset": "arrivals", "seed": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder of the data, and finished runs of the house by protocol."""
    root = tmp_path_factory.mktemp("foreign")
    data = write_data(root / "data")
    return data, {name: finish(root / "results", data, protocol=name) for name in ("loo", "warmcold")}


@pytest.fixture
def arrivals(world):
    return datasets.load("arrivals", world[0])


def lines_of(record, dataset, setting="", separator="\t"):
    """The lists of a record as a foreigner would write them."""
    ranking = record.ranking(setting)
    return [
        separator.join((dataset.user_keys[user - 1], dataset.item_keys[item - 1], str(rank), repr(float(score))))
        for user, items, scores in zip(*(ranking[name] for name in ("users", "items", "scores")), strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
        if item
    ]


def written(folder: Path, lines, said=SAID, name="run.tsv") -> Path:
    path = folder / name
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (folder / f"{name}.json").write_text(json.dumps(said))
    return path


def imported(folder, path, data):
    return import_run(path, sidecar_of(path), output_dir=folder / "out", data_dir=data)


def refused(tmp_path, world, lines, match, said=SAID, name="run.tsv"):
    with pytest.raises(ValueError, match=match):
        imported(tmp_path, written(tmp_path, lines, said, name), world[0])
    assert not list(tmp_path.glob("out/**/record.json"))


# --- the same lists earn the same scores -------------------------------------------------------------------------

FORMS = {
    "run.tsv": ("\t", []),
    "run.csv": (",", ["user,item,rank,score"]),
    "run.txt": (" ", []),
    "run.tsv.gz": ("\t", ["user\titem\trank\tscore"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_lists_written_out_and_read_again_earn_the_same(name, world, arrivals, tmp_path):
    separator, header = FORMS[name]
    ours = world[1]["loo"]
    lines = lines_of(ours, arrivals, separator=separator)
    record = imported(tmp_path, written(tmp_path, header + lines[::-1], name=name), world[0])
    assert record.metrics == ours.metrics
    assert record.fields["slices"] == ours.fields["slices"]
    for array, values in ours.ranking().items():
        np.testing.assert_array_equal(record.ranking()[array], values)
    assert (record.method, record.seed) == ("submitted:mine", 3)
    assert record.fields["foreign"]["lines"] == {"test": len(lines)}
    (verdict,) = verify(record.folder, data_dir=world[0])
    assert verdict.passed, verdict.reasons
    assert "spend: not stated" in verdict.not_checked


def test_named_columns_stand_anywhere_and_trec_has_its_own_places(world, arrivals, tmp_path):
    cells = [line.split("\t") for line in lines_of(world[1]["loo"], arrivals)]
    named = ["score,tag,ITEM,user,rank", *(f"{s},x,{i},{u},{r}" for u, i, r, s in cells)]
    trec = [f"{u} Q0 {i} {r} {s} mine" for u, i, r, s in cells]
    for folder, name, lines in (("a", "run.csv", named), ("b", "run.trec", trec)):
        (tmp_path / folder).mkdir()
        record = imported(tmp_path / folder, written(tmp_path / folder, lines, name=name), world[0])
        assert record.metrics == world[1]["loo"].metrics


def test_lists_among_some_items_come_in_files_of_their_own(world, arrivals, tmp_path):
    ours = world[1]["warmcold"]
    for setting in ("warm", "cold"):
        (tmp_path / f"{setting}.tsv").write_text("\n".join(lines_of(ours, arrivals, setting)))
    said = SAID | {"protocol": "warmcold", "lists": {"warm": "warm.tsv", "cold": "cold.tsv"}}
    record = imported(tmp_path, written(tmp_path, lines_of(ours, arrivals), said), world[0])
    assert record.metrics == ours.metrics
    for name, values in ours.per_target().items():
        np.testing.assert_array_equal(record.per_target()[name], values)
    (verdict,) = verify(record.folder, data_dir=world[0])
    assert verdict.passed, verdict.reasons
    for number, lists in enumerate(({}, {"warm": "warm.tsv"})):
        (tmp_path / str(number)).mkdir()
        match = r'asks for 2 more files of lists \("cold": "FILE"'
        refused(tmp_path / str(number), world, GOOD, match, said | {"lists": lists})


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None])
def test_lists_among_some_items_that_are_no_file_are_refused(make, world, arrivals, tmp_path):
    lines = lines_of(world[1]["warmcold"], arrivals)
    said = SAID | {"protocol": "warmcold", "lists": {"warm": "warm.tsv", "cold": "cold.tsv"}}
    make(tmp_path / "cold.tsv")
    (tmp_path / "warm.tsv").write_text("\n".join(lines_of(world[1]["warmcold"], arrivals, "warm")))
    refused(tmp_path, world, lines, "cold.tsv is no file beside its sidecar", said)


def test_who_has_no_line_scores_nothing_and_is_counted(world, arrivals, tmp_path):
    user = arrivals.user_keys[0]
    lines = [line for line in lines_of(world[1]["loo"], arrivals) if not line.startswith(user)]
    record = imported(tmp_path, written(tmp_path, lines), world[0])
    assert record.fields["foreign"]["users_without_list"] == {"test": 1}
    assert record.per_user()["recall@20"][0] == 0
    assert len(record.per_user()["users"]) == 60
    assert verify(record.folder, data_dir=world[0])[0].passed


def test_ranks_beyond_the_list_length_are_left_out_and_counted(world, arrivals, tmp_path):
    lines = lines_of(world[1]["loo"], arrivals)
    user = arrivals.user_keys[0]
    missing = set(arrivals.item_keys) - {line.split("\t")[1] for line in lines if line.startswith(user)}
    extra = [f"{user}\t{item}\t{rank}\t-1e9" for rank, item in enumerate(sorted(missing), 21)]
    record = imported(tmp_path, written(tmp_path, lines + extra), world[0])
    assert extra
    assert record.metrics == world[1]["loo"].metrics
    assert record.fields["foreign"]["beyond_list_length"] == {"test": len(extra)}


def test_quotes_group_between_commas_and_are_letters_between_tabs(tmp_path):
    keys = np.array(['a"b', "c,d"])
    world = replace(toys.dataset("odd", [[1, 2], [2, 1]], ["", "x", "y"]), user_keys=keys, item_keys=keys)
    users = np.array([1, 2], np.int32)
    (tmp_path / "run.csv").write_text('"c,d","a""b",1,0.5\n"a""b","c,d",1,0.5\n')
    (tmp_path / "run.tsv").write_text('c,d\ta"b\t1\t0.5\na"b\tc,d\t1\t0.5\n')
    for name in ("run.csv", "run.tsv"):
        assert read_lists(tmp_path / name, world, users, None, 2).items.tolist() == [[2, 0], [1, 0]]


def test_a_run_says_that_it_was_not_run_here_and_stands_in_tables(world, arrivals, tmp_path):
    said = SAID | {"notes": '<b>مرحبا</b> & "quotes" \\input{x}', "track": "unified", "profile": "smoke"}
    record = imported(tmp_path, written(tmp_path, lines_of(world[1]["loo"], arrivals), said), world[0])
    assert record.fields["provenance"]["not_run_here"]
    assert record.fields["provenance"]["hardware"]["cpu"] == "not run here"
    assert record.fields["foreign"]["notes"] == said["notes"]
    assert record.fields["foreign"]["sha256"] == {"test": sha256_of(tmp_path / "run.tsv")}
    (text,) = publish.tables([record, world[1]["loo"]], tmp_path / "tables")
    assert "submitted:mine" in text


def test_a_file_is_verified_as_it_lies(world, arrivals, tmp_path):
    path = written(tmp_path, lines_of(world[1]["loo"], arrivals))
    (verdict,) = verify(path, data_dir=world[0])
    assert verdict.passed and verdict.place == str(path)
    written(tmp_path, ["u00001\ti00001\t2\t1.0"])
    (verdict,) = verify(path, data_dir=world[0])
    assert verdict.reasons == ("run.tsv line 1: user 'u00001' has rank 2 but no rank 1",)


def test_a_spend_that_is_told_is_held_to_the_budget(world, arrivals, tmp_path):
    spend = {"rule": "raw", "items_scored": 20, "beam_size": 20}
    lines = lines_of(world[1]["loo"], arrivals)
    record = imported(tmp_path, written(tmp_path, lines, SAID | {"spend": spend}), world[0])
    assert record.fields["spend"]["beam_size"] == 20
    assert "spend: not stated" not in verify(record.folder, data_dir=world[0])[0].not_checked
    (tmp_path / "over").mkdir()
    more = SAID | {"spend": spend | {"beam_size": 50}}
    refused(tmp_path / "over", world, lines, "spent a beam of 50; the protocol allows 20", more)


def test_only_foreign_runs_may_leave_their_spend_unsaid(world, arrivals, tmp_path):
    record = imported(tmp_path, written(tmp_path, lines_of(world[1]["loo"], arrivals)), world[0])
    tamper_record(record.folder, lambda fields: fields.update(method="markov"))
    assert any("what it spent" in reason for reason in verify(record.folder, data_dir=world[0])[0].reasons)


def test_one_name_is_one_run(world, arrivals, tmp_path):
    lines = lines_of(world[1]["loo"], arrivals)
    first = imported(tmp_path, written(tmp_path, lines), world[0])
    assert imported(tmp_path, written(tmp_path, lines), world[0]).folder == first.folder
    with pytest.raises(ValueError, match="another run called submitted:mine with seed 3 lies in"):
        imported(tmp_path, written(tmp_path, lines[:-1]), world[0])
    other = imported(tmp_path, written(tmp_path, lines[:-1], SAID | {"seed": 4}), world[0])
    assert other.fields["config_hash"] == first.fields["config_hash"]
    assert len(records.read_all(tmp_path / "out")) == 2


# --- what is wrong, and where ------------------------------------------------------------------------------------

GOOD = ["u00001\ti00001\t1\t3.0", "u00001\ti00002\t2\t2.0", "u00002\ti00001\t1\t3.0"]
WRONG = {
    "user nobody knows": (["ghost\ti00001\t1\t1.0"], "line 4: user 'ghost' is not in arrivals"),
    "item nobody knows": (["u00003\tghost\t1\t1.0"], "line 4: item 'ghost' is not in arrivals"),
    "rank twice": (["u00001\ti00003\t2\t2.0"], "line 4: user 'u00001' has rank 2 already in line 2"),
    "gap": (["u00001\ti00003\t4\t1.0"], "line 4: user 'u00001' has rank 4 but no rank 3"),
    "item twice": (["u00001\ti00001\t3\t1.0"], "line 4: user 'u00001' names the item of rank 3 twice"),
    "rising": (["u00001\ti00003\t3\t9.0"], "line 4: user 'u00001' has a higher score at rank 3 than at rank 2"),
    "rank from 0": (["u00003\ti00003\t0\t9.0"], "line 4: rank '0' is not a whole number from 1 on"),
    "rank of text": (["u00003\ti00003\tone\t9.0"], "line 4: rank 'one' is not a whole number"),
    "score of text": (["u00003\ti00003\t1\thigh"], "line 4: score 'high' is not a finite number"),
    "no number": (["u00003\ti00003\t1\tnan"], "line 4: score 'nan' is not a finite number"),
    "infinite": (["u00003\ti00003\t1\tinf"], "line 4: score 'inf' is not a finite number"),
    "a column less": (["u00003\ti00003\t1"], "line 4 has 3 columns where the first line has 4"),
    "a line end within a line": (['"u\r00003","i00003",1,2.0'], "line 4 has 1 columns where"),
    "a long line": (["u" * 5000], "line 4 is longer than 4096 bytes"),
    "lines beyond the list only": (["u00003\ti00003\t30\t1.0"], "user 'u00003' has lines but no rank 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_named(name, world, tmp_path):
    more, match = WRONG[name]
    refused(tmp_path, world, GOOD + more, match)


def test_users_and_items_that_are_not_asked_for_are_told_from_unknown_ones(world, arrivals, tmp_path):
    users = np.array([1], np.int32)
    for lines, match in (
        (["u00002\ti00001\t1\t1.0"], "line 1: user 'u00002' is not asked here"),
        (["u00001\ti00009\t1\t1.0"], "line 1: item 'i00009' is not among the candidates here"),
    ):
        path = written(tmp_path, lines)
        with pytest.raises(ValueError, match=match):
            read_lists(path, arrivals, users, np.array([1, 2]), 20)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"user\titem\trank\tscore\n", "holds a header but no line"),
        (b"a b c d e\n", "line 1 has 5 columns"),
        (b"u00001\ti00001\t1\t1.0\n\xff\xfe\t\t\t\n", "line 2 is not UTF-8"),
    ],
)
def test_what_is_no_run_file_is_said(content, match, world, tmp_path):
    path = written(tmp_path, [])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        imported(tmp_path, path, world[0])


def test_a_cut_off_archive_is_said(world, tmp_path):
    path = written(tmp_path, GOOD, name="run.tsv.gz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"run\.tsv\.gz is damaged or cut off after line"):
        imported(tmp_path, path, world[0])


SIDECARS = {
    "no method": ({"method": None}, "the entry 'method' is missing"),
    "a folder in the name": ({"method": "../../etc/x"}, "method '../../etc/x' is no plain name"),
    "markup in the name": ({"method": "<img src=x>"}, "is no plain name"),
    "a room's form": ({"method": "recbole:GRU4Rec"}, "is no plain name"),
    "a control character": ({"method": "a\x1b[2J"}, "is no plain name"),
    "control characters in notes": ({"notes": "a\x1b[2J"}, "notes hold the control character"),
    "letters that turn a line around": ({"notes": "a\u202eb"}, "notes hold the control character"),
    "long notes": ({"notes": "x" * 6000}, "notes of 6,000 characters are too long"),
    "an unknown entry": ({"metod": "x"}, "unknown entry 'metod'; did you mean 'method'?"),
    "an unknown protocol": ({"protocol": "lou"}, "unknown protocol 'lou'; did you mean 'loo'?"),
    "another version": ({"protocol_hash": "0" * 12}, "names protocol loo with hash 000000000000; this suite asks by"),
    "an unknown dataset": ({"dataset": "beautty"}, "unknown dataset 'beautty'"),
    "a dataset that leads elsewhere": ({"dataset": "../data"}, "is no plain name"),
    "control characters in the config": (
        {"config": {"a": ["\x1b[2J"]}},
        "holds the control character '.x1b' in config.a",
    ),
    "a seed of text": ({"seed": "3"}, "seed must be a whole number, not '3'"),
    "a seed that is true": ({"seed": True}, "seed must be a whole number, not True"),
    "a seed below 0": ({"seed": -1}, "seed must be a whole number from 0"),
    "a track of its own": ({"track": "best"}, "track must be one of submitted, unified, paper, not 'best'"),
    "lists elsewhere": ({"lists": {"warm": "../x"}}, "lists: 'warm' must name a file beside the run"),
    "lists nobody asks for": ({"lists": {"warm": "x"}}, "protocol loo asks for 0 more files of lists"),
    "half a spend": ({"spend": {"rule": "raw"}}, "spend needs items_scored"),
    "a spend of text": ({"spend": {"rule": "raw", "items_scored": "1"}}, "items_scored of spend must be a number"),
    "a rule nobody knows": ({"spend": {"rule": "magic", "items_scored": 1}}, "unknown scoring rule 'magic'"),
}


@pytest.mark.parametrize("name", SIDECARS)
def test_a_wrong_sidecar_is_refused_by_its_entry(name, world, tmp_path):
    change, match = SIDECARS[name]
    said = {key: value for key, value in (SAID | change).items() if value is not None}
    refused(tmp_path, world, GOOD, match, said)


@pytest.mark.parametrize("text", ["{", '{"config": {"x": NaN}}', "[1]", "[" * 100_000])
def test_a_sidecar_that_is_no_plain_object_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"^x.json: it (is not plain JSON|must hold one object)"):
        read_sidecar(tmp_path / "x.json")


def test_sidecars_are_json_or_toml_and_one(world, tmp_path):
    path = written(tmp_path, GOOD, name="run.csv")
    sidecar_of(path).unlink()
    with pytest.raises(ValueError, match=r"needs one sidecar beside it, run\.csv\.json or run\.csv\.toml"):
        sidecar_of(path)
    (tmp_path / "run.toml").write_text('method = "mine"\nprotocol = "loo"\ndataset = "arrivals"\nseed = 3\n')
    assert read_sidecar(sidecar_of(path)).method == "mine"
    with pytest.raises(ValueError, match=r"there is no run file '.*never\.csv'"):
        sidecar_of(tmp_path / "never.csv")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"there is run.json and run.toml"):
        sidecar_of(path)


# --- size ---------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Five users, lists of 20, 600 ranks each or fifty times as many: the same few kilobytes."""
    world = toys.dataset("five", [np.arange(start, start + 6) % 30 + 1 for start in range(0, 30, 6)], [""] * 31)
    split = protocols.load("loo").split(world)

    def peak(ranks):
        path = tmp_path / f"{ranks}.tsv.gz"
        with gzip.open(path, "wt", compresslevel=1) as file:
            for user in world.user_keys:
                file.writelines(f"{user}\ti{rank % 30 + 1:05d}\t{rank + 1}\t{-rank}\n" for rank in range(ranks))
        tracemalloc.start()
        lists = read_lists(path, world, split.test.cases.users, None, 20)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert lists.cut == 5 * (ranks - 20)
        return most

    peak(100)  # imports and caches
    assert peak(30_000) < peak(600) + 100_000
