"""The report card of semantic IDs: collisions and fan-out counted by hand, three ways to count a hit, their proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark import records
from benchmark.audits import audits_dir
from benchmark.records import Record
from benchmark.types import Questions, Ranking, Sequences, Spend
from leaderboards import audits
from leaderboards.audits import ids as audit_ids
from methods.audits import ids as audit
from methods.audits.ids import card, check_recorded, code_numbers, ranks_by_code, representatives
from methods.blocks.semantic_ids import SemanticIds
from tests import toys
from tests.audit_world import ask, job_of, run

# Items 1, 3 and 5 share an ID, and so do 2 and 6; 4 has its own.
CODES = np.array([[-1, -1], [0, 0], [0, 1], [0, 0], [1, 0], [0, 0], [0, 1]])
IDS = SemanticIds(CODES, (2, 3))
TIES = np.array([6, 5, 4, 3, 2, 1, 0])
"""Item 6 comes first of equals, item 1 last."""
EVERY = np.arange(1, 7)


def questions(*targets: int) -> Questions:
    return Questions(toys.cases([[1]] * len(targets), TIES), Sequences.from_rows([[t] for t in targets]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ids")
    run(folder)
    assert ask(folder, "ids", "--methods", "tiny") == 0
    return folder


def found(folder: Path) -> Record:
    (one,) = records.read_all(audits_dir(folder, "ids"))
    return one


def test_the_card_by_hand() -> None:
    report = card(IDS, None)
    assert (report["items"], report["distinct_codes"], report["colliding_items"]) == (6, 3, 5)
    assert (report["largest_group"], report["largest_first_level_bucket"]) == (3, 5)
    assert report["fan_out"] == [{"mean": 2.0, "max": 2}, {"mean": 1.5, "max": 2}]
    assert [level["used"] for level in report["levels"]] == [2, 2]
    assert report["levels"][0]["perplexity"] == pytest.approx(6 / (5 ** (5 / 6)))


def test_every_id_is_represented_once_by_the_item_the_tie_rule_puts_first() -> None:
    of_item = code_numbers(IDS)
    assert of_item.tolist() == [-1, 0, 1, 0, 2, 0, 1]
    assert representatives(of_item, EVERY, TIES).tolist() == [4, 5, 6]
    assert representatives(of_item, np.array([1, 2, 3, 4]), TIES).tolist() == [2, 3, 4], "of the candidates only"


def test_three_ways_to_count_a_hit_by_hand() -> None:
    """A search finds the IDs of {1, 3, 5}, then {4}, then {2, 6}: by items that is 5 3 1, 4, 6 2."""
    lists = np.array([[0, 2, 1, -1]] * 6)
    ranks = ranks_by_code(lists, code_numbers(IDS), EVERY, questions(*EVERY))
    assert ranks["id"].tolist() == [1, 3, 1, 2, 1, 3]
    assert ranks["strict"].tolist() == [3, 6, 3, 4, 3, 6]
    by_ties = [[5, 3, 1, 4, 6, 2].index(item) + 1 for item in EVERY]
    assert (ranks["id"] <= by_ties).all() and (by_ties <= ranks["strict"]).all()
    asked = questions(*EVERY)
    recall = {how: audit._metric(rank, asked, "recall@3", 20).mean() for how, rank in ranks.items()}
    assert recall == {"id": 1.0, "strict": 3 / 6}
    ndcg = audit._metric(ranks["id"], asked, "ndcg@2", 20)
    np.testing.assert_allclose(ndcg, [1, 0, 1, 1 / np.log2(3), 1, 0])


def test_an_id_that_was_not_found_is_no_hit_and_only_candidates_share() -> None:
    lists = np.array([[0, -1]] * 3)
    ranks = ranks_by_code(lists, code_numbers(IDS), np.array([1, 3, 4]), questions(1, 3, 4))
    assert ranks["id"].tolist() == [1, 1, 0] and ranks["strict"].tolist() == [2, 2, 0]
    beyond = ranks_by_code(np.array([[0, 1]]), code_numbers(IDS), EVERY, questions(2))
    assert beyond["strict"].tolist() == [5]
    assert audit._metric(beyond["strict"], questions(2), "recall@4", 4).tolist() == [0.0], "behind the end of the list"


def test_the_audit_repeats_the_record_and_the_ways_are_ordered(world: Path) -> None:
    record, original = found(world), records.read(job_of(world).folder)
    hits = record.fields["audit"]["hits"]
    for name, value in hits["tie rule"].items():
        assert value == pytest.approx(original.metrics[name], abs=1e-9)
        assert hits["id"][name] >= value >= hits["strict"][name]
    assert hits["id"]["recall@10"] > hits["strict"]["recall@10"], "five wagons share their text"
    ranks = record.per_user()
    by_id, ties, strict = (ranks[f"rank/{how}"].astype(int) for how in ("id", "tie rule", "strict"))
    both = (ties > 0) & (by_id > 0)
    assert both.any() and (by_id[both] <= ties[both]).all() and (ties[both] <= strict[both]).all()
    assert not ((ties > 0) & (by_id == 0)).any(), "what is listed by item is found by ID"
    colliding = record.fields["audit"]["ids"]["colliding_items"]
    assert colliding >= 5 and record.fields["audit"]["users_with_rounded_scores"] == 0
    report = original.fields["training"]
    assert record.fields["audit"]["reconstruction_error"] == report["tokenizer"]["reconstruction_error"]
    assert record.fields["audit"]["ids"].items() >= report["semantic_ids"].items()


def _asked(recorded: dict[str, float], ranking: Ranking) -> Any:
    arrays = {"users": ranking.users, "items": ranking.items, "scores": ranking.scores}
    return SimpleNamespace(record=SimpleNamespace(metrics=recorded, ranking=lambda: arrays))


def test_a_model_that_is_not_the_recorded_one_is_refused() -> None:
    """A metric off by 2e-9 is an error, unless every score of every list is the recorded one but for rounding."""
    spend = Spend("raw", 2)
    kept = Ranking(np.array([1, 2]), np.array([[3, 4], [5, 0]]), np.array([[-1.0, -1.00001], [-2.0, -np.inf]]), spend)
    made = {"ndcg@10": 0.5, "recall@10": 0.25}
    assert check_recorded(kept, made, _asked({"ndcg@10": 0.5 + 5e-10, "recall@10": 0.25}, kept)) == 0
    off = {"ndcg@10": 0.5, "recall@10": 0.25 + 2e-9}
    swapped = replace(kept, items=np.array([[4, 3], [5, 0]]))
    assert check_recorded(swapped, made, _asked(off, kept)) == 1
    other = replace(kept, scores=np.array([[-1.0, -1.1], [-2.0, -np.inf]]))
    shorter = replace(kept, items=np.array([[3, 0], [5, 0]]), scores=np.array([[-1.0, -np.inf], [-2.0, -np.inf]]))
    for wrong in (other, shorter):
        with pytest.raises(ValueError, match=r"gives recall@10 0\.250000, but its record says .* --overwrite always"):
            check_recorded(wrong, made, _asked(off, kept))


def test_a_record_that_says_otherwise_fails_the_audit(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copied = Path(shutil.copytree(world, tmp_path / "results"))
    shutil.rmtree(copied / ".audits")
    original = records.read(job_of(copied).folder)
    lists = original.ranking()
    lists["scores"] = lists["scores"] - 1
    wrong = original.fields | {"metrics": original.metrics | {"ndcg@5": 0.9}}
    records.write(original.folder, wrong, {"per_user.npz": original.per_user(), "ranking.npz": lists}, None)
    assert ask(copied, "ids", "--methods", "tiny") == 1
    assert "but its record says 0.900000: they do not belong together" in capsys.readouterr().err
    assert not records.read_all(copied / ".audits")


def test_the_table_shows_inflation_and_hostile_names_are_escaped(world: Path, tmp_path: Path) -> None:
    record = found(world)
    hits = {
        how: {"recall@10": value, "ndcg@10": value} for how, value in (("id", 0.3), ("strict", 0.1), ("tie rule", 0.2))
    }
    fields = record.fields | {"method": "a_b|c&", "audit": record.fields["audit"] | {"hits": hits}}
    made = Record(record.folder, fields)
    assert audit_ids.inflation(made, "recall@10") == pytest.approx((0.1, 0.5))
    audits.tables("ids", [made], tmp_path)
    text = next(tmp_path.rglob("*.md")).read_text()
    assert "+0.10000" in text and "+50.00 %" in text and r"a_b\|c&" in text
    assert r"a\_b\textbar{}c\&" in next(tmp_path.rglob("*.tex")).read_text()
    assert "changes recall@10 by +0.1000 (+50.00 %); counting strictly changes it by -0.1000." in text
    zero = {how: {"recall@10": 0.0, "ndcg@10": 0.0} for how in hits}
    nothing = Record(record.folder, fields | {"audit": fields["audit"] | {"hits": zero}})
    assert audit_ids.inflation(nothing, "recall@10") == (0.0, None)
    audits.tables("ids", [nothing], tmp_path / "zero")  # nobody hit anything: no share can be said, and none is


def test_equal_audits_give_equal_files(world: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        audits.tables("ids", [found(world)], tmp_path / name)
    files = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".md", ".tex", ".csv", ".json", ".svg", ".png"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path
