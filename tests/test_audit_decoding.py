"""The decoding audit: overlaps counted by hand, scores as the suite scores, its laws, its sentences, its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark import records
from benchmark.audits import audits_dir
from benchmark.evaluate import evaluate
from benchmark.job import Job
from benchmark.records import Record
from benchmark.run import Run
from benchmark.scoring import limit
from benchmark.types import INVALID, PAD, Budget
from leaderboards import audits, publish
from leaderboards.audits import decoding as board
from leaderboards.audits import decoding_findings, decoding_pictures
from methods.audits import command, decoding
from methods.audits.decoding import check_law
from methods.audits.lists import KS, quality
from methods.audits.speed import Decoder, milliseconds
from methods.audits.targets import retained, token_ranks
from methods.blocks.beam_search import rank_by_beam
from methods.blocks.exact import rank_exact
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from tests.audit_world import LOADERS, LOO, ask, job_of, run, wagons

USERS, BEAMS, RULES = 40, [3, 20, 60], ["raw", "renorm"]
FLAGS = ("decoding", "--methods", "tiny", "--users", str(USERS), "--beams", ",".join(map(str, BEAMS)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of ``tiny`` and its audit."""
    folder = tmp_path_factory.mktemp("audited")
    run(folder)
    assert ask(folder, *FLAGS) == 0
    return folder


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(world, tmp_path / "results"))


def no_tables(kind: str, folder: Path, asked: Sequence[Record]) -> list[str]:
    """Instead of tables and pictures."""
    return []


def found(folder: Path) -> list[Record]:
    return records.read_all(audits_dir(folder, "decoding"))


def audit_of(folder: Path, rule: str) -> Record:
    (one,) = [record for record in found(folder) if record.fields["audit"]["settings"]["rule"] == rule]
    return one


def loaded(job: Job, split: Any) -> Any:
    return job.method(LOADERS.method("tiny"), Run()).load(job.model_path, split.train)


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_overlaps_and_scores_are_those_of_the_lists(world: Path, rule: str) -> None:
    """Lists made again by the suite's own rankers, compared one by one; scores by the suite's own evaluation."""
    data = wagons()
    split = limit(LOO.split(data), USERS)
    method = loaded(job_of(world), split)
    cases, shared = split.test.cases, {"run": Run(), "rule": rule}
    exact = rank_exact(method.start, method.ids, cases, 20, **shared)
    of_beam = [rank_by_beam(method.start, method.ids, cases, 20, budget=Budget(size, 20), **shared) for size in BEAMS]
    record = audit_of(world, rule)
    arrays, audit = record.per_user(), record.fields["audit"]
    np.testing.assert_array_equal(arrays["users"], cases.users)
    for d, ranking in enumerate([*of_beam, exact]):
        wide = replace(ranking, spend=replace(ranking.spend, beam_size=0))  # an audit may exceed the budget
        scores = evaluate(wide, split.test, split, LOO.rules, data.n_items)
        for metric in ("ndcg@10", "recall@10"):
            np.testing.assert_allclose(arrays[metric][:, d], scores.per_user[metric], atol=1e-12)
            assert audit["decoders"][d]["metrics"][metric] == pytest.approx(scores.metrics[metric], abs=1e-12)
    for d, ranking in enumerate(of_beam):
        for j, k in enumerate(KS):
            for name, other in (("item_overlap", exact), ("item_reference_overlap", of_beam[-1])):
                by_hand = [_shared(a[:k], b[:k]) for a, b in zip(ranking.items, other.items, strict=True)]
                np.testing.assert_allclose(arrays[name][:, d, j], by_hand, atol=1e-6, err_msg=f"{name} {k}")
                mean = audit["decoders"][d][name][str(k)]
                assert mean == pytest.approx(np.mean(by_hand), abs=1e-6)


def _shared(some: np.ndarray, reference: np.ndarray) -> float:
    listed = set(reference.tolist()) - {PAD}
    return len(listed & set(some.tolist())) / len(listed)


@pytest.mark.parametrize("rule", RULES)
def test_overlap_of_codes_lies_between_its_bounds_and_a_full_beam_is_exact(world: Path, rule: str) -> None:
    arrays = audit_of(world, rule).per_user()
    lower, overlap, upper = (arrays[name] for name in ("lower", "overlap", "upper"))
    assert (lower <= overlap + 1e-6).all() and (overlap <= upper + 1e-6).all()
    assert overlap[:, 0].mean() < 0.95, "beam 3 loses something, or nothing was tested"
    assert (lower < overlap).any() and (overlap < upper).any()
    np.testing.assert_allclose(overlap[:, -1], 1)
    assert arrays["certified"][:, -1].all(), "a beam as wide as the catalogue cuts nothing"
    np.testing.assert_allclose(arrays["reference_overlap"], overlap, atol=1e-6)  # the widest beam is exact here


def test_an_overlap_outside_its_bounds_is_an_error() -> None:
    one = np.full((2, 1, len(KS)), 0.5)
    check_law({"lower": one, "overlap": one, "upper": one}, np.array([7, 9]), [20])
    high = one.copy()
    high[1, 0, 1] = 0.6
    with pytest.raises(
        ValueError, match=r"overlap@10 of user 9 with beam 20 is 0\.60, outside its bounds \[0\.50, 0\.50\]"
    ):
        check_law({"lower": one, "overlap": high, "upper": one}, np.array([7, 9]), [20])
    with pytest.raises(ValueError, match="outside its bounds"):
        check_law({"lower": high, "overlap": one, "upper": np.ones_like(one)}, np.array([7, 9]), [20])


def test_ranks_of_target_codes_by_hand() -> None:
    """Item 2 is (1, 0). Level 1 has codes 0-2 of which 2 leads to no item; after 1 only 0 and 1 lead to items."""
    ids = SemanticIds(np.array([[-1, -1], [0, 2], [1, 0], [1, 1]]), (3, 3))
    fed = []

    def step(tokens: Tensor, parents: Tensor | None) -> Tensor:
        fed.append(tokens[:, 0].tolist())
        #                     PAD EOS  level 1: 0  1  2   level 2: 0  1  2
        logits = {PAD_TOKEN: [9.0, 9.0, 2.0, 1.0, 3.0, 9.0, 9.0, 9.0], 3: [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0]}
        return torch.tensor([[logits[int(token)]] for token in tokens[:, 0]])

    ranks = token_ranks(step, ids, ids.trie(), torch.tensor([2]))
    assert fed == [[PAD_TOKEN], [3]]
    assert ranks.tolist() == [[[3, 2], [3, 2]]]
    missing = token_ranks(step, ids, ids.trie(np.array([1, 3])), torch.tensor([2]))
    assert missing.tolist() == [[[3, 2], [3, 4]]], "what is no candidate ranks after all codes of its level"


def test_the_union_bound_by_hand() -> None:
    """Four targets, two levels: 3 of 4 within reach at each, but only 2 at both."""
    among_all = np.array([[1, 1], [1, 9], [9, 1], [2, 2]])
    ranks = np.stack([among_all, np.ones_like(among_all)], axis=2)
    of = retained(ranks, 2)
    assert of["all codes"] == {"marginals": [0.75, 0.75], "union_bound": 0.5, "joint": 0.5}
    assert of["codes of items"] == {"marginals": [1.0, 1.0], "union_bound": 1.0, "joint": 1.0}
    nobody = retained(ranks, 0)["all codes"]
    assert nobody["union_bound"] == -1 and nobody["joint"] == 0, "the union bound can say nothing at all"


def test_the_union_bound_never_exceeds_what_it_bounds(world: Path) -> None:
    for rule in ("raw", "renorm"):
        ranks = audit_of(world, rule).per_user()["token_ranks"].astype(int)
        for size in range(1, 9):
            for of in retained(ranks, size).values():
                assert of["union_bound"] <= of["joint"] + 1e-12 <= min(of["marginals"]) + 2e-12


def test_quality_of_lists_by_hand() -> None:
    lists = np.zeros((2, 20), int)
    lists[0, :5] = [4, 7, 4, INVALID, 4]
    assert quality(lists) == {"fill": 4 / 40, "duplicate": 2 / 40, "invalid": 1 / 40}


def test_what_a_decoder_spent_is_said(world: Path) -> None:
    for rule in ("raw", "renorm"):
        rows = audit_of(world, rule).fields["audit"]["decoders"]
        assert [row["decoder"] for row in rows] == ["beam 3", "beam 20", "beam 60", "exact"]
        exact = rows[-1]["spend"]
        assert exact["rule"] == "exact" and exact["beam_size"] == 0
        assert [row["spend"]["beam_size"] for row in rows[:-1]] == BEAMS
        assert all(row["milliseconds"]["alone"] > 0 and row["milliseconds"]["best"] > 0 for row in rows)
        assert rows[0]["lists"]["fill"] < 1, "three codes do not fill twenty places"
    raw, renorm = (audit_of(world, rule).fields["audit"]["decoders"][-1]["spend"] for rule in ("raw", "renorm"))
    assert renorm["decoder_tokens"] < raw["decoder_tokens"]


def test_decoders_take_turns_and_no_batch_exceeds_what_one_takes(world: Path) -> None:
    cases, calls = LOO.split(wagons()).test.cases, []

    def decoder(name: str, at_most: int) -> Decoder:
        return Decoder(lambda some: calls.append((name, len(some))) or torch.zeros(1), at_most)

    times = milliseconds({"a": decoder("a", 99), "b": decoder("b", 5)}, cases, "cpu", lambda done, total: None)
    assert {size for name, size in calls if name == "b"} == {1, 5}
    assert {size for name, size in calls if name == "a"} == {1, 8, 32}
    alone = [name for name, size in calls if size == 1][:8]
    assert alone == ["a"] * 4 + ["b"] * 4
    assert times["b"]["best_batch"] in (1, 5) and times["a"]["peak_memory_bytes"] is None


# --- methods that score all items in one pass -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with a scorer audited beside the generator."""
    folder = Path(shutil.copytree(world, tmp_path_factory.mktemp("both") / "results"))
    run(folder, "glance")
    assert ask(folder, "decoding", "--methods", "tiny,glance", *FLAGS[3:]) == 0
    return folder


def of_glance(folder: Path, rule: str) -> Record:
    some = [one for one in found(folder) if one.method == "glance"]
    (one,) = [record for record in some if record.fields["audit"]["settings"]["rule"] == rule]
    return one


@pytest.mark.parametrize("rule", RULES)
def test_a_scorer_stands_in_the_table_with_its_own_lists_and_spend(both: Path, rule: str) -> None:
    data, audit = wagons(), of_glance(both, rule).fields["audit"]
    split = limit(LOO.split(data), USERS)
    job = job_of(both, "glance")
    method = job.method(LOADERS.method("glance"), Run()).load(job.model_path, split.train)
    ranking = method.recommend(split.test.cases, 20)
    scores = evaluate(ranking, split.test, split, LOO.rules, data.n_items)
    (row,) = audit["decoders"]
    for metric in ("ndcg@10", "recall@10"):
        assert row["metrics"][metric] == pytest.approx(scores.metrics[metric], abs=1e-12)
        np.testing.assert_allclose(of_glance(both, rule).per_user()[metric][:, 0], scores.per_user[metric], atol=1e-12)
    assert (row["decoder"], row["beam_size"]) == ("all items", None)
    spend = row["spend"]
    assert (spend["forward_passes"], spend["items_scored"], spend["decoder_tokens"]) == (1, data.n_items, 0)
    assert row["lists"] == {"fill": 1.0, "duplicate": 0.0, "invalid": 0.0}
    assert row["milliseconds"]["alone"] > 0 and row["milliseconds"]["best"] > 0


def test_tables_with_a_scorer(both: Path, world: Path) -> None:
    """Exact by construction: 1 where something is shared, nothing where beams are bounded; generators as they were."""
    group = audits._of_the_last_settings(audits.of_runs(audits_dir(both, "decoding"), records.read_all(both)))
    alone = audits._of_the_last_settings(audits.of_runs(audits_dir(world, "decoding"), records.read_all(world)))
    assert [record.method for record in group] == ["glance", "tiny"] * 2
    together, before = board.sections(group), board.sections(alone)
    assert [section.title for section in together] == [section.title for section in before]
    for new, old in zip(together, before, strict=True):
        assert [row for row in new.rows if row[0] != "glance"] == old.rows
        assert [note for note in new.notes if "one pass" not in note] == old.notes
    overlaps, scores = together[0], together[1]
    (shared,) = [row for row in overlaps.rows if row[0] == "glance"]
    by_name = dict(zip(overlaps.flat_header, shared, strict=True))
    assert by_name["overlap"] == "1.0000" and by_name["certified"] == "100.00 %"
    assert by_name["overlap@5 with exact: at least"] == by_name["at most"] == "-"
    (cost,) = [row for row in scores.rows if row[0] == "glance"]
    assert cost[:2] == ["glance", "all items"] and cost[3:5] == ["-", "-"]
    assert "targets" not in {row[0] for row in together[3].rows} and all(row[0] == "tiny" for row in together[3].rows)


def test_findings_and_pictures_with_a_scorer(both: Path) -> None:
    group = [of_glance(both, "raw"), audit_of_tiny(both, "raw")]
    said = decoding_findings.findings(group)
    assert said[0].startswith("**glance, rule raw.** It scores all items in one pass, so its lists are exact")
    (row,), beam = group[0].fields["audit"]["decoders"], group[1].fields["audit"]["decoders"][1]
    times = beam["milliseconds"]["best"] / row["milliseconds"]["best"]
    assert f"Beam 20 of tiny has {beam['metrics']['ndcg@10']:.4f} and takes {times:.2f} times as long." in said[0]
    panels = decoding_pictures.figures(group)
    assert panels.keys() == {"pareto", "overlap"}
    legend = [text.get_text() for text in panels["pareto"].legends[0].get_texts()]
    assert legend == ["tiny", "glance", "exact"]
    assert len(panels["overlap"].axes) == 1, "a method without beams has no panel of overlaps"
    assert decoding_pictures.figures(group[:1]).keys() == {"pareto"}


def test_scorers_alone_make_tables(both: Path) -> None:
    group = [of_glance(both, rule) for rule in RULES]
    assert [section.title for section in board.sections(group)] == [f"Scores and cost, rule {rule}" for rule in RULES]
    assert "all items" in board.terminal(group) and len(board.lines(group)) == 2


def test_a_scorer_that_answers_otherwise_than_recorded_is_refused(both: Path, tmp_path: Path, capsys: Any) -> None:
    """A scorer's scores may have any size: a thousandth of the largest is rounding, a hundredth is another model."""
    folder = Path(shutil.copytree(both, tmp_path / "results"))
    job = job_of(folder, "glance")
    split = LOO.split(wagons())
    for factor, code in ((1.0004, 0), (1.01, 1)):
        method = job.method(LOADERS.method("glance"), Run()).load(job.model_path, split.train)
        with torch.no_grad():
            method.model["stack"].norm.weight.mul_(factor)
        method.save(job.model_path)
        assert ask(folder, "decoding", "--methods", "glance", *FLAGS[3:], tables=no_tables) == code
    assert "answers otherwise than its record says" in capsys.readouterr().err


def audit_of_tiny(folder: Path, rule: str) -> Record:
    (one,) = [r for r in found(folder) if r.method == "tiny" and r.fields["audit"]["settings"]["rule"] == rule]
    return one


# --- the command ------------------------------------------------------------------------------------------------------


def test_what_was_asked_is_not_asked_again_until_something_changes(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(decoding, "answer", lambda one: asked.append(one.settings["rule"]) or ({}, {}))
    shown: list[Record] = []

    def ask_again(*words: str) -> list[str]:
        asked.clear()
        assert ask(copied, *words, tables=lambda kind, folder, some: shown.extend(some) or []) == 0
        return list(asked)

    assert ask_again(*FLAGS) == []
    assert [one.fields["audit"] for one in shown] == [one.fields["audit"] for one in map(audit_of, [copied] * 2, RULES)]
    assert ask_again(*FLAGS[:3], "--users", "30", "--beams", "5") == RULES
    assert ask_again(*FLAGS[:3], "--users", "30", "--beams", "5") == []
    monkeypatch.setattr(decoding, "VERSION", decoding.VERSION + 1)
    assert ask_again(*FLAGS) == RULES
    job = job_of(copied)
    method = loaded(job, LOO.split(wagons()))
    method.max_history -= 1  # as another training would leave another model
    method.save(job.model_path)
    assert ask_again(*FLAGS) == RULES


def test_an_audit_of_a_model_made_since_is_not_shown(copied: Path) -> None:
    runs = records.read_all(copied)
    folder = audits_dir(copied, "decoding")
    assert len(audits.of_runs(folder, runs)) == 2
    later = runs[0].fields["provenance"] | {"finished": "9999-01-01T00:00:00+00:00"}
    newer = Record(runs[0].folder, runs[0].fields | {"provenance": later})
    assert audits.of_runs(folder, [newer]) == []
    assert audits.of_runs(folder, []) == [], "an audit without its run belongs to nothing"


def test_a_run_that_is_not_there_is_named_with_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, *FLAGS) == 1
    said = capsys.readouterr().err
    assert "wagons tiny seed 0 has no finished run with these settings; make it with: python run_all.py" in said
    assert "--datasets wagons --methods tiny --seeds 0 --track unified --profile smoke" in said
    assert not list(tmp_path.rglob("*.md"))


def test_a_run_whose_model_was_not_saved_is_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job_of(copied).model_path.unlink()
    assert ask(copied, *FLAGS) == 1
    said = capsys.readouterr().err
    assert "was run, but its model was not saved" in said and "--overwrite always" in said


def test_a_failed_run_is_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(copied)
    failed = records.read(job.folder).fields | {"status": "failed", "reason": "the planted reason"}
    records.write(job.folder, failed, {}, None)
    assert ask(copied, *FLAGS) == 1
    assert "ended as 'failed' (the planted reason); make it again with" in capsys.readouterr().err


def test_a_method_without_semantic_ids_is_refused(copied: Path) -> None:
    with pytest.raises(ValueError, match="Counting generates no semantic IDs and keeps no model that scores all items"):
        ask(copied, "decoding", "--methods", "tiny,Counting")


def test_a_damaged_model_is_said_and_costs_no_other_method_its_audit(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = job_of(copied), job_of(copied, "other")
    shutil.copytree(good.folder, bad.folder)
    fields = json.loads((bad.folder / "record.json").read_text()) | {"method": "other", "config_hash": bad.config_hash}
    (bad.folder / "record.json").write_text(json.dumps(fields))
    bad.model_path.parent.mkdir(parents=True)
    bad.model_path.write_bytes(good.model_path.read_bytes()[:-7])  # half-written
    shutil.rmtree(audits_dir(copied, "decoding"))
    monkeypatch.setattr(decoding, "answer", lambda asked: ({"kept": True}, {}))
    assert ask(copied, "decoding", "--methods", "other,tiny", *FLAGS[3:], tables=no_tables) == 1
    assert "is damaged; make it again with --overwrite always" in capsys.readouterr().err
    assert [(one.method, one.fields["audit"]["kept"]) for one in found(copied)] == [("tiny", True)] * 2


def test_ctrl_c_loses_only_the_audit_under_way(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(audits_dir(copied, "decoding"))

    def interrupted(asked: command.Asked) -> command.Answer:
        if asked.settings["rule"] == "renorm":
            raise KeyboardInterrupt
        return {}, {}

    monkeypatch.setattr(decoding, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(copied, *FLAGS, tables=no_tables)
    assert [one.fields["audit"]["settings"]["rule"] for one in found(copied)] == ["raw"]
    monkeypatch.setattr(decoding, "answer", lambda asked: ({}, {}))
    assert ask(copied, *FLAGS, tables=no_tables) == 0 and len(found(copied)) == 2


def test_runs_and_audits_do_not_mix(world: Path) -> None:
    assert [record.method for record in records.read_all(world)] == ["tiny"]
    assert "audit" not in records.read_all(world)[0].fields


# --- the tables -------------------------------------------------------------------------------------------------------


def test_equal_audits_give_equal_files_in_any_order(world: Path, tmp_path: Path) -> None:
    for name, group in (("a", found(world)), ("b", found(world)[::-1])):
        audits.tables("decoding", group, tmp_path / name)
    files = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".md", ".tex", ".csv", ".json", ".svg", ".png"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_hostile_names_are_escaped(world: Path, tmp_path: Path) -> None:
    """In pictures, too: between two dollars matplotlib would look for mathematics."""
    hostile = [Record(r.folder, r.fields | {"method": "a_b|c$&%", "dataset": "d#_{} $\\no$"}) for r in found(world)]
    audits.tables("decoding", hostile, tmp_path)
    tex = next(tmp_path.rglob("*.tex")).read_text()
    assert r"a\_b\textbar{}c\$\&\%" in tex and r"d\#\_\{\} \$" in tex
    assert r"a_b\|c$&%" in next(tmp_path.rglob("*.md")).read_text()


def test_settings_never_mix_in_a_table(world: Path) -> None:
    """The newest settings are shown; a method that was asked otherwise waits for its own audit."""
    now = found(world)

    def other(record: Record) -> Record:
        settings = record.fields["audit"]["settings"] | {"users": 9}
        audit = record.fields["audit"] | {"settings": settings}
        made = record.fields["provenance"] | {"finished": "2000-01-01"}
        return Record(record.folder, record.fields | {"method": "old", "audit": audit, "provenance": made})

    shown = audits._of_the_last_settings([*now, *map(other, now)])
    assert [record.method for record in shown] == ["tiny"] * 2


def test_findings_follow_the_numbers(world: Path) -> None:
    record = audit_of(world, "raw")
    real = record.per_user()

    def told(change: dict[str, np.ndarray]) -> str:
        class Changed(Record):
            def per_user(self) -> dict[str, np.ndarray]:
                return real | change

        (text,) = decoding_findings.findings([Changed(record.folder, record.fields)])
        return text

    users, widths = real["ndcg@10"].shape
    same = np.full((users, widths), 0.5)
    assert "Beam 20 and exact scoring earn the same for every user" in told({"ndcg@10": same})
    better = same.copy()
    better[:, :-1] += 0.25
    said = told({"ndcg@10": better})
    assert "Every beam's ndcg@10 differs" in said
    assert "Beam 20 scores higher than exact scoring, by +0.2500" in said and "more than chance" in said
    worse = same.copy()
    worse[:, 0] = 0.1
    assert "is 20: " in told({"ndcg@10": worse}), "the smallest beam that cannot be told apart"
    marginal = record.fields["audit"]["decoders"][1]["targets"]["all codes"]["union_bound"]
    assert f"{100 * marginal:.1f} % (SimGR: 66.0 % at beam 20)" in said


def test_simgr_is_quoted_as_published() -> None:
    """Table 1 and section 4.1 of the paper."""
    from leaderboards.audits.rows import EQUATION_15, SIMGR

    assert (SIMGR[20], EQUATION_15) == ((0.7824, 0.0784, 10760), 0.6595)


def test_csv_and_json_hold_every_decoder_unrounded(world: Path) -> None:
    (table,) = world.joinpath("leaderboards").rglob("*.decoding.csv")
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + 2 * 4
    whole = json.loads(table.with_suffix(".json").read_text())
    assert [len(one["audit"]["decoders"]) for one in whole["audits"]] == [4, 4] and whole["findings"]
    assert board.lines(found(world))[0]["ndcg@10"] == pytest.approx(
        whole["audits"][0]["audit"]["decoders"][0]["metrics"]["ndcg@10"], abs=0
    )


def test_publishing_copies_audits_and_their_tables(world: Path, tmp_path: Path) -> None:
    publish.everything(world, tmp_path)
    copies = records.read_all(tmp_path / "audits" / "decoding")
    assert len(copies) == 2 and len(records.read_all(tmp_path / "records")) == 1
    for copy in copies:
        original = audit_of(world, copy.fields["audit"]["settings"]["rule"])
        assert copy.fields["audit"] == original.fields["audit"]
        np.testing.assert_array_equal(copy.per_user()["overlap"], original.per_user()["overlap"])
    (published,) = tmp_path.rglob("wagons.decoding.md")
    (made,) = world.joinpath("leaderboards").rglob("wagons.decoding.md")
    assert published.read_bytes() == made.read_bytes()
