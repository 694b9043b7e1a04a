"""Runs that pass are packed small, once; what fails, or takes another's name, is refused before a file is written."""

import json

import numpy as np
import pytest

from benchmark import datasets, records
from leaderboards.submit import submit
from leaderboards.verify import NO_LISTS, verify
from tests.test_foreign import SAID, lines_of, written
from tests.verify_world import finish, tamper_record, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("submit") / "data")


@pytest.fixture
def results(data, tmp_path):
    for seed in (0, 1):
        finish(tmp_path / "results", data, seed=seed)
    return tmp_path / "results"


def test_scores_of_every_seed_and_lists_of_one_are_packed(results, data, tmp_path):
    lines = submit(results, tmp_path / "to", data_dir=data)
    assert lines[0].startswith("packed 2 verified runs")
    first, second = records.read_all(tmp_path / "to" / "records")
    original = records.read_all(results)[0]
    assert first.folder.relative_to(tmp_path / "to" / "records") == original.folder.relative_to(results)
    assert first.ranking()["scores"].dtype == np.float16
    np.testing.assert_array_equal(first.ranking()["items"], original.ranking()["items"])
    assert second.fields["files"].keys() == {"per_user.npz"}
    one, two = verify(tmp_path / "to", data_dir=data)
    assert one.passed and two.passed
    assert NO_LISTS in two.not_checked


def test_the_lowest_seed_keeps_its_lists(data, tmp_path):
    for seed in (5, 7):
        finish(tmp_path / "results", data, seed=seed)
    submit(tmp_path / "results", tmp_path / "to", data_dir=data)
    first, second = records.read_all(tmp_path / "to")
    assert (first.seed, "ranking.npz" in first.fields["files"]) == (5, True)
    assert (second.seed, "ranking.npz" in second.fields["files"]) == (7, False)


def test_a_seed_that_joins_others_leaves_its_lists_behind(data, tmp_path):
    for seed in (0, 3):
        finish(tmp_path / f"seed{seed}", data, seed=seed)
        submit(tmp_path / f"seed{seed}", tmp_path / "to", data_dir=data)
    first, second = records.read_all(tmp_path / "to")
    assert ("ranking.npz" in first.fields["files"], "ranking.npz" in second.fields["files"]) == (True, False)
    assert all(one.passed for one in verify(tmp_path / "to", data_dir=data))


def test_a_folder_among_the_runs_is_refused(results, data):
    for to in (results, results / "new", results / "x" / ".." / "y"):
        with pytest.raises(ValueError, match="whose runs would stand there twice"):
            submit(results, to, data_dir=data)
    assert len(records.read_all(results)) == 2


def test_what_fails_is_refused_and_nothing_is_written(results, data, tmp_path):
    tamper_record(records.read_all(results)[1].folder, lambda fields: fields["metrics"].update({"ndcg@10": 0.9}))
    with pytest.raises(
        ValueError, match=r"1 of 2 runs do not pass verify, e.g. .*seed=1: ndcg@10 is 0.9 in record.json"
    ):
        submit(results, tmp_path / "to", data_dir=data)
    assert not (tmp_path / "to").exists()


def test_submitting_again_adds_nothing_and_other_content_under_the_name_is_refused(results, data, tmp_path):
    submit(results, tmp_path / "to", data_dir=data)
    assert submit(results, tmp_path / "to", data_dir=data)[0].startswith("packed 0 verified runs")
    for record in records.read_all(results):
        fields = record.fields | {"metrics": record.metrics | {"ndcg@10": 0.123}}
        place = tmp_path / "to" / "records" / record.folder.relative_to(results)
        records.write(place, fields, {"per_user.npz": record.per_user()}, None)
    with pytest.raises(ValueError, match=r"markov with seed 0 on arrivals is in .* already with other content"):
        submit(results, tmp_path / "to", data_dir=data)


def test_another_configuration_of_the_same_name_is_another_content(data, tmp_path):
    for name, config in (("a", {"layers": 1}), ("b", {"layers": 2})):
        (tmp_path / name).mkdir()
        dataset = datasets.load("arrivals", data)
        path = written(tmp_path / name, lines_of(finish(tmp_path / "own", data), dataset), SAID | {"config": config})
        if name == "a":
            lines = submit(path, tmp_path / "to", data_dir=data)
            assert any("submitted:mine seed 3" in line for line in lines)
        else:
            with pytest.raises(ValueError, match=r"submitted:mine with seed 3 .* already with other content"):
                submit(path, tmp_path / "to", data_dir=data)


@pytest.mark.filterwarnings("error")
def test_scores_beyond_half_precision_keep_the_order_of_their_lists(data, tmp_path):
    dataset, own = datasets.load("arrivals", data), finish(tmp_path / "own", data)
    cells = [line.split("\t") for line in lines_of(own, dataset)]
    path = written(tmp_path, ["\t".join([*rest, repr(1e6 * float(score))]) for *rest, score in cells])
    submit(path, tmp_path / "to", data_dir=data)
    (record,) = records.read_all(tmp_path / "to")
    assert np.isposinf(record.ranking()["scores"]).any()
    np.testing.assert_array_equal(record.ranking()["items"], own.ranking()["items"])
    assert all(one.passed for one in verify(tmp_path / "to", data_dir=data))


def test_seeds_of_two_configurations_make_no_row(data, tmp_path):
    """No table could be made of both."""
    dataset = datasets.load("arrivals", data)
    for seed, layers in ((0, 1), (1, 1), (2, 2)):
        (tmp_path / str(seed)).mkdir()
        said = SAID | {"seed": seed, "config": {"layers": layers}}
        path = written(tmp_path / str(seed), lines_of(finish(tmp_path / "own", data), dataset), said)
        if layers == 1:
            assert submit(path, tmp_path / "to", data_dir=data)[0].startswith("packed 1")
        else:
            with pytest.raises(ValueError, match=r"submitted:mine on arrivals is in .* with another configuration"):
                submit(path, tmp_path / "to", data_dir=data)
    assert [one.seed for one in records.read_all(tmp_path / "to")] == [0, 1]


def test_unfinished_runs_stay_behind(results, data, tmp_path):
    last = records.read_all(results)[1]
    fields = json.loads(json.dumps(last.fields)) | {"status": "failed", "reason": "x", "metrics": {}}
    records.write(last.folder, fields, {}, None)
    lines = submit(results, tmp_path / "to", data_dir=data)
    assert "left out: 1 unfinished, skipped or older runs" in lines
    assert len(records.read_all(tmp_path / "to")) == 1


def test_nothing_finished_is_nothing_to_submit(results, data, tmp_path):
    for record in records.read_all(results):
        records.write(record.folder, record.fields | {"status": "failed", "metrics": {}}, {}, None)
    with pytest.raises(ValueError, match=r"none of the 2 runs in .* is finished"):
        submit(results, tmp_path / "to", data_dir=data)
