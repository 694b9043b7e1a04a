"""Publishing: tables on disk and screen, small copies that say the same, and the committed tables made again."""

import json
from pathlib import Path

import numpy as np
import pytest

import protocols
from benchmark import records
from benchmark.files import sha256_of
from benchmark.job import Job
from leaderboards import publish
from leaderboards.ledger_pages import write_ledger
from leaderboards.summary import summarise
from leaderboards.tables import write
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
        before, after = original.ranking(), copied.ranking()
        np.testing.assert_array_equal(after["items"], before["items"])
        assert after["scores"].dtype == np.float16
        assert (np.diff(after["scores"].astype(float), axis=1) <= 0).all()
        for name, values in original.per_user().items():
            np.testing.assert_array_equal(copied.per_user()[name], values)
        assert not (copied.folder / "log.txt").exists()
    assert (tmp_path / "tables" / "loo" / "unified-smoke" / "conveyor.md").exists()


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
def test_the_published_tables_are_made_from_the_published_records(tmp_path):
    """Byte for byte what a person reads; the raw numbers to rounding, which differs between processors."""
    found = records.read_all(PUBLISHED / "records")
    assert found
    for place in sorted((PUBLISHED / "tables").glob("*/*")):
        protocol, size = place.parts[-2:]
        at = [r for r in found if r.protocol["name"] == protocol]
        group = [r for r in at if f"{r.fields['track']}-{r.fields['profile']}" == size]
        rules = protocols.load(protocol).rules
        write(summarise(group, reference=rules["reference"], primary=rules["primary"]), tmp_path / protocol / size)
        for made in (tmp_path / protocol / size).iterdir():
            kept = place / made.name
            if made.suffix in (".md", ".tex"):
                assert made.read_bytes() == kept.read_bytes(), kept
            elif made.suffix == ".json":
                assert _rounded(json.loads(made.read_text())) == _rounded(json.loads(kept.read_text()))


@pytest.mark.skipif(not PUBLISHED.exists(), reason="nothing is published yet")
def test_the_published_ledger_is_made_of_the_published_records(tmp_path):
    write_ledger(records.read_all(PUBLISHED / "records"), tmp_path)
    for name in ("ledger.md", "ledger.csv"):
        assert (tmp_path / name).read_bytes() == (PUBLISHED / "tables" / name).read_bytes()


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 9) if isinstance(value, float) else value


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


@pytest.mark.skipif(not PUBLISHED.exists(), reason="nothing is published yet")
def test_published_means_are_the_means_of_the_published_users():
    for record in records.read_all(PUBLISHED / "records"):
        if record.status != "ok":
            continue
        per_user = record.per_user()
        for name, value in record.metrics.items():
            if name in per_user:
                assert np.nanmean(per_user[name]) == pytest.approx(value, abs=1e-12), (record.folder, name)
        ranking = record.ranking()
        np.testing.assert_array_equal(ranking["users"], per_user["users"])
        assert (np.diff(ranking["scores"].astype(float), axis=1) <= 0).all()
