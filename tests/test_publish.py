"""Publishing: tables on disk and screen, small copies that say the same, and the committed tables made again."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import run_all
from benchmark import records
from benchmark.files import json_bytes, sha256_of
from benchmark.job import Job
from leaderboards import publish
from leaderboards.verify import tables as verify_tables
from leaderboards.verify import verify
from tests.grid_world import CLASSES, LOADERS, planned

PUBLISHED = Path(__file__).resolve().parent.parent / "leaderboards" / "published"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two seeds of one entrant, scored and recorded without a process of their own."""
    from benchmark.run import Run
    from benchmark.scoring import score

    folder = tmp_path_factory.mktemp("results")
    assert CLASSES["Counting"]
    for seed in (0, 1):
        (item,) = planned(["Counting"], folder, seed)
        fields, arrays = score(item.job, LOADERS, Run(seed=seed))
        records.write(item.job.folder, fields, arrays, None)
    return records.read_all(folder)


def test_tables_are_written_and_told(finished, tmp_path):
    (text,) = publish.tables(finished, tmp_path)
    assert "Counting" in text and "reference" in text  # the protocol's reference has no run here, and that is said
    place = tmp_path / "loo" / "unified-smoke"
    assert {f"conveyor.{s}" for s in ("md", "tex", "csv", "json", "svg", "png")} <= {p.name for p in place.iterdir()}


def test_a_table_that_cannot_be_made_does_not_stop_another(finished, tmp_path):
    """A folder may hold runs of other protocols or profiles; only the tables of what has just run are made."""
    alien = records.Record(finished[0].folder, finished[0].fields | {"profile": "full", "seed": 0})
    twice = [alien, alien]  # a seed given twice is refused
    with pytest.raises(ValueError, match="given twice"):
        publish.tables([*finished, *twice], tmp_path)
    (text,) = publish.tables([*finished, *twice], tmp_path, finished)
    assert "profile smoke" in text and not (tmp_path / "loo" / "unified-full").exists()


def test_a_limited_run_never_shares_a_table_with_a_whole_one(finished, tmp_path):
    fields = finished[0].fields | {"limit_users": 50}
    limited = records.Record(finished[0].folder, fields)
    assert len(publish.tables([*finished, limited], tmp_path)) == 2


def test_the_newest_configuration_wins_with_all_its_seeds(finished):
    def of(config, seed, time):
        made = finished[0].fields["provenance"] | {"finished": time}
        fields = finished[0].fields | {"config_hash": config, "seed": seed, "provenance": made}
        return records.Record(finished[0].folder, fields)

    old = [of("old", 0, "2026-01-01"), of("old", 1, "2026-01-03")]
    new = [of("new", 0, "2026-01-02"), of("new", 1, "2026-01-04")]
    assert publish.newest([old[0], new[0], old[1], new[1]]) == new
    assert publish.newest([new[0], *old]) == old


def test_of_an_edited_dataset_only_the_newest_version_is_shown(finished):
    def of(method, data, time):
        made = finished[0].fields["provenance"] | {"finished": time}
        return records.Record(
            finished[0].folder, finished[0].fields | {"method": method, "dataset_hash": data, "provenance": made}
        )

    old, other, new = of("a", "v1", "2026-01-01"), of("b", "v1", "2026-01-02"), of("a", "v2", "2026-01-03")
    assert publish.newest([old, other, new]) == [new]


def test_copies_keep_metrics_users_and_the_order_of_every_list(finished, tmp_path):
    publish.copy(finished, tmp_path)
    copies = records.read_all(tmp_path / "records")
    assert len(copies) == 2
    for original, copied in zip(finished, copies, strict=True):
        assert copied.metrics == original.metrics
        for name, values in original.per_user().items():
            np.testing.assert_array_equal(copied.per_user()[name], values)
        assert not (copied.folder / "log.txt").exists()
    before, after = finished[0].ranking(), copies[0].ranking()
    np.testing.assert_array_equal(after["items"], before["items"])
    assert after["scores"].dtype == np.float16
    assert (np.diff(after["scores"].astype(float), axis=1) <= 0).all()
    assert (tmp_path / "tables" / "loo" / "unified-smoke" / "conveyor.md").exists()


def test_copies_keep_the_lists_of_the_lowest_seed(finished, tmp_path):
    def kept(found, folder, beside=()):
        return {c.seed: "ranking.npz" in c.fields["files"] for c in publish.copy_records(found, folder, beside)}

    first, second = finished
    failed = records.Record(first.folder, first.fields | {"status": "failed"})
    other = records.Record(first.folder, first.fields | {"method": "Another"})
    assert kept(finished, tmp_path / "both") == {0: True, 1: False}
    assert kept([second], tmp_path / "alone") == {1: True}
    assert kept([failed, second], tmp_path / "failed") == {0: False, 1: True}
    assert kept([second], tmp_path / "beside", [first]) == {1: False}
    assert kept([second], tmp_path / "other", [other]) == {1: True}


def test_copies_keep_the_lists_of_settings_and_the_ranks_of_targets(finished, tmp_path):
    """Made of a record as protocols with settings leave it; 70,000 items need more than 16 bits."""
    original = finished[0]
    lists, scores = np.array([[70_000, 3]], np.int32), np.array([[0.123456, -np.inf]], np.float32)
    warm = {"users": np.array([1], np.int32), "items": lists, "scores": scores}
    targets = {"users": np.array([1]), "rank/warm": np.array([7], np.uint8), "asked/warm": np.array([True])}
    arrays = {"per_user.npz": original.per_user(), "ranking.npz": original.ranking()}
    arrays |= {"ranking.warm.npz": warm, "ranking.cold.npz": warm, "per_target.npz": targets}
    whole = records.write(tmp_path / "whole", original.fields, arrays, None)
    publish.copy_records([whole], tmp_path / "copy")
    (copied,) = records.read_all(tmp_path / "copy")
    assert copied.fields["files"].keys() == arrays.keys()
    for name in ("warm", "cold"):
        after = copied.ranking(name)
        np.testing.assert_array_equal(after["items"], lists)
        np.testing.assert_array_equal(after["scores"], scores.astype(np.float16))
        assert after["scores"].dtype == np.float16
    for name, values in targets.items():
        np.testing.assert_array_equal(copied.per_target()[name], values)


def test_copying_again_changes_nothing(finished, tmp_path):
    publish.copy(finished, tmp_path)
    before = {p: sha256_of(p) for p in tmp_path.rglob("*") if p.is_file()}
    publish.copy(finished, tmp_path)
    assert {p: sha256_of(p) for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(not PUBLISHED.exists(), reason="nothing is published yet")
def test_what_is_published_passes_by_the_command_that_anybody_may_run(monkeypatch, tmp_path, capsys):
    """Without the data, which the repository has not: per-user scores -> means -> tables, byte for byte."""
    monkeypatch.delenv("GENREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = run_all.main(["verify", str(PUBLISHED)])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0, [line for line in lines if not line.startswith("PASS")]
    assert f"PASS {PUBLISHED / 'tables'}" in lines
    assert any(line.startswith("not checked") and "not re-scored: the data of" in line for line in lines)


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish.copy(finished, folder)
    return folder


@pytest.fixture
def copied(published, tmp_path):
    """A published folder to tamper with, and the folder of its one table."""
    shutil.copytree(published, tmp_path / "published")
    return tmp_path / "published", tmp_path / "published" / "tables" / "loo" / "unified-smoke"


def test_tables_are_made_again_from_the_records_beside_them(copied):
    *runs, tables = verify(copied[0])
    assert len(runs) == 2 and all(one.passed for one in runs), runs
    assert tables.passed and tables.place == str(copied[0] / "tables")
    assert verify_tables.NOT_CHECKED in tables.not_checked
    assert len(verify(copied[0] / "records")) == 2


def test_the_page_of_a_published_folder_is_made_without_touching_it(copied, tmp_path):
    folder, _ = copied
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    publish.everything(folder, site=tmp_path / "site")
    assert "Counting" in (tmp_path / "site" / "index.html").read_text()
    assert (tmp_path / "site" / "files" / "loo" / "unified-smoke" / "conveyor.csv").is_file()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for asked in ({}, {"copy_to": tmp_path / "again", "site": tmp_path / "site"}):
        with pytest.raises(ValueError, match="published already"):
            publish.everything(folder, **asked)


def test_an_edited_table_is_named_and_a_picture_is_not_compared(copied):
    folder, place = copied
    for name, edit in (
        ("conveyor.md", lambda text: text.replace("Counting", "Countess", 1)),
        ("conveyor.tex", lambda text: text + " "),
        ("conveyor.csv", lambda text: text.replace(",ok,", ",oka,", 1)),
        ("conveyor.json", lambda text: text.replace('"users": ', '"users": 1', 1)),
        ("conveyor.svg", lambda text: text + "<!-- -->"),
    ):
        before = (place / name).read_text()
        (place / name).write_text(edit(before))
        assert (place / name).read_text() != before
    (place / "citations.bib").unlink()
    (place / "more.md").write_text("x")
    at = "tables/loo/unified-smoke"
    assert verify_tables.differences(folder) == [
        f"{at}/citations.bib is missing: the records make it",
        *(f"{at}/conveyor.{kind} differs from what the records make" for kind in ("csv", "json", "md", "tex")),
        f"{at}/more.md is not made from the records",
    ]
    tables = verify(folder)[-1]
    assert tables.reasons == (f"{at}/citations.bib is missing: the records make it (and 5 more like it)",)


def test_last_bits_of_raw_numbers_may_differ_and_larger_digits_not(copied):
    folder, place = copied
    raw = json.loads((place / "conveyor.json").read_text())
    lines = (place / "conveyor.csv").read_text().splitlines()
    column = lines[0].split(",").index("ndcg@10")
    for change, same in ((1e-13, True), (1e-6, False)):
        cells = lines[1].split(",")
        cells[column] = repr(float(cells[column]) + change)
        (place / "conveyor.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
        edited = json.loads(json.dumps(raw))
        edited["rows"][0]["metrics"]["ndcg@10"] += change
        (place / "conveyor.json").write_bytes(json_bytes(edited))
        assert len(verify_tables.differences(folder)) == (0 if same else 2)


def test_numbers_on_both_sides_of_an_edge_are_the_same():
    """Another processor's last bit, at a place where numbers rounded to nine decimals are not the same."""
    number, other = 0.1234567885, math.nextafter(0.1234567885, 1)
    assert round(number, verify_tables.DIGITS) != round(other, verify_tables.DIGITS)
    assert verify_tables._alike({"a": [number]}, {"a": [other]})
    assert not verify_tables._alike({"a": [number]}, {"a": [number + 1e-8]})
    assert not verify_tables._alike({"a": [number]}, {"a": [number, number]})
    assert not verify_tables._alike({"a": number}, {"b": number})


def test_links_and_pictures_that_hold_code_are_named(copied, tmp_path):
    """The page copies pictures and offers them by themselves."""
    folder, place = copied
    (tmp_path / "secret").write_text("x")
    (place / "conveyor-training.png").symlink_to(tmp_path / "secret")
    picture = (place / "conveyor.svg").read_text()
    (place / "conveyor.svg").write_text(picture.replace("<g ", '<g onclick="alert(1)" ', 1))
    assert verify_tables.differences(folder) == [
        "tables/loo/unified-smoke/conveyor-training.png is a link; a published folder holds its own files",
        "tables/loo/unified-smoke/conveyor.svg is a picture that holds code",
    ]


def test_tables_of_records_that_fail_are_not_made(copied):
    folder, _ = copied
    path = next((folder / "records").rglob("seed=1/record.json"))
    path.write_text(path.read_text().replace('"unified"', '"../../../evil"'))
    *_, tables = verify(folder)
    (reason,) = tables.reasons
    assert reason.startswith("not compared with the records, as 1 of them fail, e.g. ")


def test_records_that_share_no_table_are_said(copied):
    folder, _ = copied
    record = records.read_all(folder / "records")[1]
    fields = record.fields | {"config": {"another": 1}}
    job = Job(
        **{name: fields[name] for name in ("seed", "profile", "track", "config", "method_source", "limit_users")},
        protocol="loo",
        protocol_hash=record.protocol["hash"],
        dataset_spec="conveyor",
        dataset_name="conveyor",
        dataset_hash=fields["dataset_hash"],
        method_spec=record.method,
        method_name=record.method,
        output_dir=folder / "records",
    )
    records.write(job.folder, fields | {"config_hash": job.config_hash}, {"per_user.npz": record.per_user()}, None)
    shutil.rmtree(record.folder)
    *_, tables = verify(folder)
    assert "one table cannot hold several configurations of Counting" in tables.reasons[0]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="nothing is published yet")
def test_published_runs_still_count_as_finished():
    """A job made today of what a published record says has the hash it was published under."""
    for record in records.read_all(PUBLISHED / "records"):
        said = {name: record.fields[name] for name in ("dataset_hash", "seed", "profile", "track", "config")}
        said |= {"method_source": record.fields["method_source"], "limit_users": record.fields["limit_users"]}
        job = Job(
            protocol=record.protocol["name"],
            protocol_hash=record.protocol["hash"],
            dataset_spec="a name or a path",
            dataset_name=record.dataset,
            method_spec="a name or a path",
            method_name=record.method,
            output_dir=PUBLISHED / "records",
            text_encoder_identity=record.fields["text_encoder"],
            **said,
        )
        assert job.folder == record.folder
