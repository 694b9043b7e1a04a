"""The scaling audit: one process for all, sizes and FLOPs by hand, ratios against the right model, published times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import records
from benchmark.audits import audits_dir
from benchmark.records import Record
from benchmark.run import Run
from leaderboards import audits, publish
from leaderboards.audits import scaling as board
from leaderboards.audits import scaling_findings, scaling_pictures
from leaderboards.audits.scaling_rows import line_of, predicted, published, published_ratio, reference_of
from methods.audits import scaling
from methods.audits.decoders import OnePass, Search
from methods.audits.speed import Decoder
from methods.audits.work import flops, size_name, weights
from methods.blocks.backbones import LanguageModel
from methods.blocks.beam_search import spend_of
from methods.blocks.generator import GeneratorConfig
from methods.blocks.t5 import Shape
from tests.audit_world import LOADERS, LOO, ask, job_of, run, wagons

NAMED = ("tiger", "setrec", "setrec@scratch-s-t5")
FLAGS = ("scaling", "--users", "30", "--methods", ",".join(NAMED))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator and a scorer of two sizes, timed together. The scorer is called as the paper whose times we cite."""
    folder = tmp_path_factory.mktemp("scaled")
    for spec in NAMED:
        run(folder, spec)
    assert ask(folder, *FLAGS) == 0
    return folder


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "results"))


def no_tables(kind: str, folder: Path, asked: Sequence[Record]) -> list[str]:
    return []


def found(folder: Path) -> dict[str, Record]:
    return {one.method: one for one in records.read_all(audits_dir(folder, "scaling"))}


def loaded(folder: Path, spec: str) -> Any:
    job = job_of(folder, spec)
    return job.method(LOADERS.method(spec), Run()).load(job.model_path, LOO.split(wagons()).train)


def fake(method: str, *, ms: float, size: str = "s", beam: int = 0, backbone: int = 10, **other: Any) -> Record:
    """An audit's record with these numbers, timed together with the others of its test."""
    found = {
        "size": size,
        "weights": {"backbone": backbone, "trainable": 2 * backbone, "all": 3 * backbone},
        "metrics": {"ndcg@10": 0.1, "recall@10": 0.2},
        "spend": {"rule": "raw" if beam else "scores", "beam_size": beam, "forward_passes": 4, "decoder_tokens": 61}
        | {"items_scored": 20},
        "milliseconds": {"alone": 10 * ms, "best": ms, "best_batch": 8, "peak_memory_bytes": None},
        "flops": int(1e9 * ms),
        "beam_size": 20,
        "timed_with": [{"method": name} for name in other.pop("timed_with", [])],
        "users": 30,
        "users_asked": 120,
        "mean_history": 6.0,
        "threads": 1,
    } | other.pop("audit", {})
    fields = {"method": method, "seed": 0, "dataset": "amazon14-beauty", "profile": "small", "track": "unified"}
    fields |= {"device": "cpu", "protocol": {"name": "loo", "version": 1, "hash": "h"}, "audit": found}
    return Record(Path(method), fields | other)


# --- what is measured -------------------------------------------------------------------------------------------------


def test_every_model_is_timed_in_one_call_and_each_record_names_the_others(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def timed(decoders: dict[str, Decoder], cases: Any, device: str, report: Any, repeats: int) -> dict[str, Any]:
        calls.append((sorted(decoders), len(cases)))
        lists = {name: decoder.decode(cases) for name, decoder in decoders.items()}
        for name, items in lists.items():  # what is timed is what was recorded
            kept = records.read(job_of(copied, name).folder).ranking()
            rows = np.searchsorted(kept["users"], cases.users)
            np.testing.assert_array_equal(items.numpy(), kept["items"][rows], err_msg=name)
        return {name: {"alone": 2.0, "best": 1.0, "best_batch": 8, "peak_memory_bytes": None} for name in decoders}

    monkeypatch.setattr(scaling, "milliseconds", timed)
    monkeypatch.setattr(scaling, "VERSION", scaling.VERSION + 1)
    with torch.inference_mode():
        assert ask(copied, *FLAGS, tables=no_tables) == 0
    assert calls == [(sorted(NAMED), 30)]
    for record in found(copied).values():
        audit = record.fields["audit"]
        assert [one["method"] for one in audit["timed_with"]] == sorted(NAMED)
        assert [one["config_hash"] for one in audit["timed_with"]] == [
            job_of(copied, name).config_hash for name in sorted(NAMED)
        ]
        assert audit["settings"] == {"users": 30, "device": "cpu", "methods": sorted(NAMED)}


def test_scores_are_the_records_and_spend_is_that_of_the_test(world: Path) -> None:
    for name, record in found(world).items():
        of_run = records.read(job_of(world, name).folder)
        audit = record.fields["audit"]
        assert audit["metrics"] == {metric: of_run.metrics[metric] for metric in ("ndcg@10", "recall@10")}
        assert audit["spend"] == of_run.fields["spend"]
        assert audit["milliseconds"]["alone"] > 0 and audit["milliseconds"]["best"] > 0
    assert found(world)["tiger"].fields["audit"]["spend"]["beam_size"] == LOO.budget.beam_size


def test_weights_by_hand(world: Path) -> None:
    """Two layers of width 8, heads 2 x 3, feed 20; a causal stack of ours has cross-attention too."""
    attention, norms = 8 * 6 + 8 * 12 + 6 * 8, 3 * 8
    backbone = 2 * (2 * attention + 2 * 8 * 20 + norms) + 32 * 2 + 8
    counted = found(world)["setrec"].fields["audit"]["weights"]
    assert counted == {"backbone": backbone, "trainable": backbone + 61 * 8, "all": backbone + 61 * 8}
    method = loaded(world, "setrec")
    method.model["table"].requires_grad_(False)
    assert weights(method) == {"backbone": backbone, "trainable": backbone, "all": backbone + 61 * 8}
    adapter = torch.nn.Module()
    adapter.lora_A = torch.nn.Linear(4, 2, bias=False)
    method.model["stack"].adapter = adapter
    assert weights(method) == {"backbone": backbone, "trainable": backbone + 8, "all": backbone + 61 * 8 + 8}


def stack_flops(shape: Shape, layers: int, n: int) -> int:
    """Encoder-like layers over n tokens: projections, feed-forward, and attention of all pairs."""
    inner = shape.heads * shape.head_width
    return layers * n * (8 * shape.width * inner + 4 * shape.width * shape.feed + 4 * n * inner)


def t5_flops(shape: Shape, vocabulary: int, n: int, tokens: int) -> int:
    """An encoder of n tokens, its keys for the decoder once, and ``tokens`` decoded one by one.

    A decoded token's attention to the few before it is no matrix product in ``t5.Decoding``.
    """
    inner = shape.heads * shape.head_width
    keys = shape.decoder_layers * n * 4 * shape.width * inner
    layer = 8 * shape.width * inner + 4 * shape.width * inner + 4 * shape.width * shape.feed + 4 * n * inner
    decoded = tokens * (shape.decoder_layers * layer + 2 * shape.width * vocabulary)
    return stack_flops(shape, shape.encoder_layers, n) + keys + decoded


def test_flops_of_one_pass_by_hand(world: Path) -> None:
    """Histories of six: two layers over six vectors, and 61 rows of the table."""
    assert found(world)["setrec"].fields["audit"]["mean_history"] == 6
    shape = Shape(width=8, heads=2, head_width=3, feed=20)
    assert found(world)["setrec"].fields["audit"]["flops"] == stack_flops(shape, 2, 6) + 2 * 8 * 61


def test_flops_of_a_beam_search_by_hand(world: Path) -> None:
    method, cases = loaded(world, "tiger"), LOO.split(wagons()).test.cases
    search = Search(method, None, cases.tie_order, 20, "raw")
    for beam, length in ((20, 6), (3, 4)):
        tokens = int(spend_of(search.trie, beam, "raw").decoder_tokens)
        by_hand = t5_flops(method.config.backbone, method.ids.vocab_size, 3 * length, tokens)
        assert flops(search.decoder(beam, 9), cases, length) == by_hand
    assert found(world)["tiger"].fields["audit"]["flops"] == t5_flops(
        method.config.backbone, method.ids.vocab_size, 18, int(spend_of(search.trie, 20, "raw").decoder_tokens)
    )


def test_flops_see_through_modules_that_return_their_weights() -> None:
    """As a learned prompt does; linear layers and attention arrive whole in inference and count by their parts."""

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.Parameter(torch.ones(4, 8))

        def forward(self) -> torch.Tensor:
            return self.rows

    rows, linear = Rows(), torch.nn.Linear(8, 6)

    def decode(some: Any) -> torch.Tensor:
        x = linear(rows())[None, None]  # (1, 1, 4, 6)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    by_hand = 2 * 4 * 8 * 6 + 2 * (2 * 4 * 4 * 6)
    assert flops(Decoder(decode, 1), LOO.split(wagons()).test.cases, 3) == by_hand


def test_the_predicted_work_follows_from_the_shapes() -> None:
    """T5-small, 7.15 items of history, a prompt of 20 tokens, beam 20: four codes an item, or five set tokens and as
    many queries of one pass, grounded among 12,101 items."""
    shape = Shape(width=512, heads=8, head_width=64, feed=2048, encoder_layers=6, decoder_layers=6)
    tiger = t5_flops(shape, 256, round(20 + 4 * 7.15), 61)
    setrec = t5_flops(shape, 12_101, round(20 + 5 * 7.15), 5)
    backbone, ratio = predicted()
    assert backbone == "T5-small" and ratio == pytest.approx(tiger / setrec, rel=0.05)


def test_one_pass_ranks_candidates_only(world: Path) -> None:
    method, cases = loaded(world, "setrec"), LOO.split(wagons()).test.cases
    candidates = np.array([3, 5, 8, 13, 21, 34])
    with torch.inference_mode():
        items = OnePass(method, candidates, cases.tie_order, 20).items(cases).numpy()
    np.testing.assert_array_equal(items, method.recommend(cases, 20, candidates=candidates).items)
    assert (np.sort(items[:, :6], 1) == candidates).all() and (items[:, 6:] == 0).all()


def test_names_of_sizes() -> None:
    shape = Shape(width=64, encoder_layers=2, decoder_layers=3)
    assert size_name(GeneratorConfig(backbone=shape)) == "T5 d64 2+3"
    named = [LanguageModel(name="gpt2", weights=weights) for weights in ("", "random", "some/folder")]
    names = [size_name(GeneratorConfig(backbone=shape, language_model=one)) for one in named]
    assert names == ["gpt2", "gpt2, random weights", "gpt2*"]
    assert size_name(object()) == "-"


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_set_is_asked_again_when_any_of_it_changes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answers(some: Any) -> Any:
        asked.append([one.record.method for one in some])
        return [({}, {}) for _ in some]

    monkeypatch.setattr(scaling, "answers", answers)

    def ask_again(*names: str) -> list[list[str]]:
        asked.clear()
        assert ask(copied, "scaling", "--users", "30", "--methods", ",".join(names), tables=no_tables) == 0
        return list(asked)

    assert ask_again(*NAMED) == [] and ask_again(*NAMED[::-1]) == [], "the order of names does not matter"
    assert ask_again(*NAMED[:2]) == [sorted(NAMED[:2])], "another set is another audit"
    shutil.rmtree(found(copied)["tiger"].folder)
    lost = ask_again(*NAMED) + ask_again(*NAMED[:2])
    assert len(lost) == 1, "a set that lost one record is timed again as a whole"
    method = loaded(copied, "setrec")
    with torch.no_grad():
        method.model["table"].weight.add_(1)
    method.save(job_of(copied, "setrec").model_path)
    assert ask_again(*NAMED) == [sorted(NAMED)]


def test_by_default_whatever_has_a_saved_model_is_timed(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(copied, "Counting")
    run(copied, "setrec@copy")
    job_of(copied, "setrec@copy").model_path.unlink()
    asked: list[str] = []
    monkeypatch.setattr(
        scaling, "answers", lambda some: asked.extend(one.record.method for one in some) or [({}, {}) for _ in some]
    )
    assert ask(copied, "scaling", "--users", "29", tables=no_tables) == 0
    assert asked == sorted(NAMED)
    assert "with these settings and its model: wagons setrec@copy seed 0\n" in capsys.readouterr().out


def test_a_named_method_without_a_run_stops_its_set_with_the_command(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "answers", lambda some: pytest.fail("timed without it"))
    assert ask(copied, "scaling", "--methods", "tiger,glance", tables=no_tables) == 1
    said = capsys.readouterr().err
    assert "wagons glance seed 0 has no finished run with these settings; make it with: python run_all.py" in said
    job_of(copied, "setrec").model_path.unlink()
    assert ask(copied, "scaling", "--methods", "tiger,setrec", tables=no_tables) == 1
    assert "its model was not saved; make it again with" in capsys.readouterr().err


def test_a_run_of_another_profile_is_pointed_out(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = job_of(copied, "setrec").folder
    elsewhere = there.parents[2] / "glance" / "0123456789" / there.name
    shutil.copytree(there, elsewhere)
    (elsewhere / "record.json").write_text(
        json.dumps(json.loads((there / "record.json").read_text()) | {"method": "glance", "profile": "small"})
    )
    assert ask(copied, "scaling", "--methods", "tiger,glance", tables=no_tables) == 1
    assert "(profile smoke; there are some of profile small, and profiles never mix)" in capsys.readouterr().err


def test_one_method_is_nothing_to_compare(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of wagons seed 0 there is only tiger with these settings; name several"):
        ask(copied, "scaling", "--methods", "tiger,tiger")
    with pytest.raises(ValueError, match=r"there is no finished run in .* that audit scaling could ask"):
        ask(tmp_path / "empty", "scaling")
    with pytest.raises(ValueError, match="of wagons seed 1 there is none with these settings"):
        ask(copied, "scaling", "--seeds", "1")
    with pytest.raises(ValueError, match="Counting generates no semantic IDs and keeps no model that scores all items"):
        ask(copied, "scaling", "--methods", "tiger,Counting")


def test_a_model_that_is_not_the_recorded_one_fails_its_set(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = found(copied)
    method = loaded(copied, "setrec")
    with torch.no_grad():
        method.model["table"].weight.add_(1)
    method.save(job_of(copied, "setrec").model_path)
    assert ask(copied, *FLAGS, tables=no_tables) == 1
    assert "the saved model of setrec answers otherwise than its record says" in capsys.readouterr().err
    assert {name: one.folder for name, one in found(copied).items()} == {n: one.folder for n, one in before.items()}


# --- the tables -------------------------------------------------------------------------------------------------------


def test_the_published_times_by_hand() -> None:
    """SETRec, Tables 1 and 2: seconds of SETRec, TIGER and the mean of six; section 4.2: what the text says."""
    by_place = {(one.backbone, one.dataset): one for one in published()}
    assert [(one.backbone, one.dataset) for one in published()] == [
        *(("T5-small", dataset) for dataset in ("toys", "beauty", "sports", "steam")),
        ("Qwen2.5-1.5B", "toys"),
        ("Qwen2.5-1.5B", "beauty"),
    ]
    toys = by_place["T5-small", "toys"]
    assert toys.sequences == ("bigrec", "idgenrec", "cid", "semid", "tiger", "letter")
    assert toys.mean_of_sequences == pytest.approx((2079 + 658 + 810 + 1215 + 448 + 448) / 6)
    assert toys.against_reference == pytest.approx(448 / 60)
    ratios = [(round(one.against_reference, 1), round(one.against_sequences, 1)) for one in published()]
    assert ratios == [(7.5, 15.7), (3.4, 11.1), (3.5, 18.4), (5.0, 8.8), (14.9, 29.0), (12.0, 25.8)]
    assert [one.claim for one in published()] == [15, 11, 18, 8, 20, 20]
    assert toys.source == "SETRec, Table 1"


def test_published_ratios_stand_beside_the_methods_they_are_of() -> None:
    assert published_ratio(fake("setrec@no-cf", ms=1)) == "3.41 (T5-small), 12.00 (Qwen2.5-1.5B)"
    assert published_ratio(fake("letter", ms=1)) == "1.00 (T5-small), 1.00 (Qwen2.5-1.5B)"
    assert published_ratio(fake("simgr", ms=1)) == "-"
    assert published_ratio(fake("setrec", ms=1, dataset="wagons")) == "-"


def test_the_reference_is_of_the_same_size_and_was_timed_together() -> None:
    together = ["tiger", "tiger@gpt2", "tiger@renorm", "setrec@gpt2", "simgr"]
    group = [
        fake(
            name, ms=1, size="gpt2" if "gpt2" in name else "s", beam=20 * name.startswith("tiger"), timed_with=together
        )
        for name in together
    ]
    by_name = {one.method: one for one in group}
    against = {name: reference_of(one, group).method for name, one in by_name.items()}  # type: ignore[union-attr]
    assert against["setrec@gpt2"] == "tiger@gpt2" and against["simgr"] == against["tiger"] == "tiger"
    assert reference_of(fake("setrec", ms=1, timed_with=["setrec", "letter"]), group) is None
    assert reference_of(fake("setrec", ms=1, seed=1, timed_with=together), group) is None


def test_a_line_over_sizes_is_called_by_its_method_and_a_variant_by_its_own_name() -> None:
    assert line_of(fake("setrec@gpt2", ms=1, size="gpt2")) == "setrec" == line_of(fake("setrec", ms=1))
    assert line_of(fake("setrec@no-cf", ms=1, size="gpt2")) == "setrec@no-cf"


def test_tables_divide_the_right_numbers() -> None:
    together = ["tiger", "setrec"]
    group = [fake("setrec", ms=2, timed_with=together), fake("tiger", ms=5, beam=20, timed_with=together)]
    inference = board.sections(group)[1]
    setrec, tiger = (dict(zip(inference.header, row, strict=True)) for row in inference.rows)
    assert (setrec["how"], tiger["how"]) == ("one pass", "beam 20, raw")
    assert (setrec["users/s best batch"], setrec["users/s alone"], setrec["against"]) == ("500.0", "50.0", "tiger")
    assert setrec["times as fast, best batch"] == setrec["times fewer FLOPs"] == "2.50"
    assert tiger["times as fast, alone"] == "1.00" and setrec["GFLOP/user"] == "2"
    line = board.lines(group)[0]
    assert line["times as fast best"] == 2.5 and line["timed with"] == "tiger setrec"


def test_findings_follow_the_numbers() -> None:
    together = ["tiger", "setrec", "setrec@gpt2"]
    group = [
        fake("setrec", ms=2, timed_with=together),
        fake("setrec@gpt2", ms=4, size="gpt2", backbone=99, timed_with=together, audit={"flops": 25 * 10**8}),
        fake("tiger", ms=5, beam=20, timed_with=together),
    ]
    same, larger, literature, sizes = scaling_findings.findings(group)
    assert "answers 500.0 users a second in its best batch and 50.0 alone: 2.50 and 2.50 times as many as tiger" in same
    assert "By FLOPs it would be 2.50 times." in same and "backbones differ" not in same
    assert "1.25 and 1.25 times" in larger and "By FLOPs it would be 2.00" in larger and "backbones differ" in larger
    assert "text says 15/11/18/8 times as fast" in literature and "give 15.7/11.1/18.4/8.8" in literature
    assert "tiger alone the same table gives 7.5/3.4/3.5/5.0" in literature and "about 1.7" in literature
    assert "Measured here: 2.50 in the best batch and 2.50 alone (setrec against tiger); 1.25" in literature
    assert "ndcg@10 of setrec, small backbone to large: 0.1000 (s), 0.1000 (gpt2)." in sizes
    alone = scaling_findings.findings([fake("setrec", ms=2, timed_with=["setrec", "letter"])])
    assert "tiger was not timed with it" in alone[0] and "Nothing is measured here" in alone[1]
    assert "nothing is said of how scores grow" in alone[2]


def test_pictures_have_a_line_per_method_and_a_bar_per_model(world: Path) -> None:
    drawn = scaling_pictures.figures(list(found(world).values()))
    panels = [axes for axes in drawn["scores"].axes]
    assert [axes.get_ylabel() for axes in panels] == ["recall@10", "ndcg@10"]
    by_label = {line.get_label(): line for line in panels[1].get_lines() if not line.get_label().startswith("_")}
    assert by_label.keys() == {"setrec", "tiger"}
    millions = [found(world)[name].fields["audit"]["weights"]["backbone"] / 1e6 for name in NAMED[1:]]
    np.testing.assert_allclose(by_label["setrec"].get_xdata(), millions)
    (axes,) = drawn["speed"].axes
    assert len(axes.patches) == 3 and sorted(label.get_text() for label in axes.get_yticklabels())[0].startswith(
        "setrec"
    )


def test_equal_audits_give_equal_files_in_any_order(world: Path, tmp_path: Path) -> None:
    group = list(found(world).values())
    for name, some in (("a", group), ("b", group[::-1])):
        audits.tables("scaling", some, tmp_path / name)
    files = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".md", ".tex", ".csv", ".json", ".svg", ".png"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_publishing_copies_the_audit_and_makes_the_same_table(world: Path, tmp_path: Path) -> None:
    publish.everything(world, tmp_path)
    copies = records.read_all(tmp_path / "audits" / "scaling")
    assert sorted(one.method for one in copies) == sorted(NAMED)
    (published_table,) = tmp_path.rglob("wagons.scaling.md")
    (made,) = world.joinpath("leaderboards").rglob("wagons.scaling.md")
    assert published_table.read_bytes() == made.read_bytes()


def test_several_seeds_share_a_table(copied: Path) -> None:
    for spec in NAMED:
        run(copied, spec, seed=1)
    assert ask(copied, *FLAGS, "--seeds", "0,1") == 0
    (table,) = copied.joinpath("leaderboards").rglob("wagons.scaling.md")
    assert "tiger seed 0" in table.read_text() and "tiger seed 1" in table.read_text()
