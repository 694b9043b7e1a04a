"""TIGER's own story: every pair once, the loss written by hand, ids made once, trainings that stop and continue."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import protocols
from benchmark import datasets
from benchmark.evaluate import check, mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import PAD, Budget, Cases, Dataset, Questions, Ranking, Sequences, Split, TrainingView
from methods.blocks import tokenizer, training
from methods.blocks.next_item import NextItemPairs, sample
from methods.blocks.semantic_ids import PAD_TOKEN
from methods.blocks.t5 import T5, Shape
from methods.blocks.t5_weights import from_transformers
from methods.tiger import TIGER
from tests import toys
from tests.reference_t5 import transformers_t5

BUDGET = Budget(beam_size=20, list_length=20)
CPU = torch.device("cpu")
QUICK = {
    "tokenizer": {"codes": 16, "training": {"epochs": 4, "batch_size": 8}},
    "training": {"epochs": 2, "batch_size": 64, "warmup_steps": 0},
}
"""Just enough training for the plumbing."""
RING, COLD = 12, 13
"""Items on the ring of ``ring``, and the item that nobody buys before the test."""


def config(preset: str | None = None, track: str = "unified", **overrides: Any) -> TIGER.Config:
    return replace_nested(replace_nested(build_config(TIGER, preset, "smoke", track), QUICK), overrides)


def split(dataset: Dataset) -> Split:
    return protocols.load("loo").split(dataset)


def ring() -> Dataset:
    """A conveyor on which users stay differently long, so that tests hold lengths that training held too.

    The last user leaves the ring for an item of which only the text is known.
    """
    rng = np.random.default_rng(0)
    histories = [(rng.integers(RING) + np.arange(rng.integers(4, 10))) % RING + 1 for _ in range(60)]
    text = ["", *(f"wagon number {i}" for i in range(1, RING + 1)), "wagon number thirteen"]
    return toys.dataset("ring", [*histories, np.array([3, 4, 5, 6, COLD])], text)


@pytest.fixture(scope="module")
def world() -> Split:
    return split(ring())


@pytest.fixture(scope="module")
def trained(world: Split) -> TIGER:
    """Trained until it knows the ring."""
    long = {"epochs": 40, "patience": 40, "batch_size": 16, "learning_rate": 5e-3, "warmup_steps": 0}
    narrow = {"width": 32, "heads": 2, "feed": 64, "dropout": 0.1}  # wider, it knows so few pairs by heart
    overrides = {"training": long, "backbone": narrow}
    return TIGER(replace_nested(build_config(TIGER, None, "smoke"), overrides)).fit(world.train)


@pytest.fixture(scope="module")
def paper(world: Split) -> TIGER:
    """The paper's track in miniature."""
    small = {"width": 32, "heads": 2, "head_width": 16, "feed": 64, "encoder_layers": 1, "decoder_layers": 1}
    return TIGER(config(track="paper", backbone=small)).fit(world.train)


def assert_same(a: Ranking, b: Ranking) -> None:
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_array_equal(a.scores, b.scores)


def view_of(sequences: list[list[int]], max_history: int) -> TrainingView:
    """Users 11, 12, ... with these training sequences."""
    view = toys.four_users()
    users = np.arange(11, 11 + len(sequences), dtype=np.int32)
    return replace(view, users=users, sequences=Sequences.from_rows(sequences), max_history=max_history)


def all_pairs(pairs: NextItemPairs) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of every pair, in order."""
    found = []
    for row, length in enumerate(pairs.lengths.tolist()):
        users, histories, targets = pairs.take(torch.tensor([row]), length)
        assert histories.shape == (1, length) and users.shape == targets.shape == (1,)
        found.append((users.item(), histories[0].tolist(), targets.item()))
    return found


# Pairs


def test_pairs_by_hand() -> None:
    expected = [(1, [1], 2), (1, [1, 2], 3), (2, [1], 2), (3, [2], 1), (4, [1], 3), (4, [1, 3], 4)]
    assert all_pairs(NextItemPairs(toys.four_users(), CPU)) == expected


@settings(deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=6),
    max_history=st.integers(1, 5),
)
def test_pairs_equal_a_plain_loop(sequences: list[list[int]], max_history: int) -> None:
    pairs = NextItemPairs(view_of(sequences, max_history), CPU)
    expected = [
        (11 + row, sequence[max(0, t - max_history) : t], sequence[t])
        for row, sequence in enumerate(sequences)
        for t in range(1, len(sequence))
    ]
    assert all_pairs(pairs) == expected


def test_many_pairs_of_one_length_are_taken_together_in_the_order_asked() -> None:
    pairs = NextItemPairs(view_of([list(range(1, 30)), [3, 1, 2]], 20), CPU)
    assert pairs.lengths.max() == 20 and (pairs.lengths == 20).sum() == 9
    users, histories, targets = pairs.take(torch.tensor([29, 1]), 2)
    assert (users.tolist(), histories.tolist(), targets.tolist()) == ([12, 11], [[3, 1], [1, 2]], [2, 3])
    _, histories, targets = pairs.take(torch.tensor([27]), 20)
    assert (histories.tolist(), targets.tolist()) == ([list(range(9, 29))], [29])


@pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="needs the real data: set GENREC_DATA")
@pytest.mark.parametrize(("name", "count"), [("beauty", 131_413), ("sports", 189_543), ("toys", 109_361)])
def test_real_data_have_the_published_number_of_training_pairs(name: str, count: int) -> None:
    pairs = NextItemPairs(split(datasets.load(name)).train, CPU)
    assert len(pairs.lengths) == len(pairs.targets) == len(pairs.users) == count
    assert pairs.lengths.max() == 20


# The model and its loss


def their_model(method: TIGER) -> Any:
    """transformers' T5, whose weights ``method`` then has too."""
    pytest.importorskip("transformers", reason="needs transformers, the reference")
    shape = method.config.backbone
    torch.manual_seed(5)
    theirs = transformers_t5(method.ids.vocab_size + method.config.user_tokens, shape).eval()
    method.model.load_state_dict(from_transformers(theirs.state_dict(), shape))
    return theirs


@pytest.mark.parametrize("track", ["unified", "paper"])
def test_the_loss_is_the_cross_entropy_written_by_hand(track: str, world: Split) -> None:
    small = {"width": 16, "heads": 2, "head_width": 8, "feed": 32, "encoder_layers": 1, "decoder_layers": 2}
    method = TIGER(config(track=track, backbone=small, user_tokens=7 if track == "paper" else 0)).fit(world.train)
    theirs, levels = their_model(method), method.ids.levels
    users, histories, targets = [3, 1_000_003], [[5, 6], [1, 12]], [7, 1]
    rows = []
    for user, history, target in zip(users, histories, targets, strict=True):
        tokens = [int(token) for item in history for token in method.ids.codes[item] + method.ids.offsets]
        if track == "paper":
            tokens.insert(0, method.ids.vocab_size + user * 2654435761 % 2**32 % 7)
        labels = [int(token) for token in method.ids.codes[target] + method.ids.offsets]
        with torch.no_grad():
            logits = theirs(
                input_ids=torch.tensor([tokens]), decoder_input_ids=torch.tensor([[PAD_TOKEN, *labels[:-1]]])
            ).logits[0]
        rows += [-math.log(logits[place].softmax(0)[labels[place]].item()) for place in range(levels)]
    ours = method._loss(torch.tensor(users), torch.tensor(histories), torch.tensor(targets))
    assert len(rows) == 2 * levels
    assert ours.item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)


@pytest.mark.parametrize(("width", "weights"), [(128, 4_456_448), (384, 13_369_344)])
def test_sizes_without_embedding_are_those_counted_for_the_papers(width: int, weights: int) -> None:
    """4.46 and 13.37 million: per layer, attention 4 D x 384 (twice in the decoder) and 2 D x 1024."""
    with torch.device("meta"):
        model = T5(100, Shape(width=width))
    assert weights == 4 * (3 * 4 * width * 384 + 2 * 2 * width * 1024)
    assert sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)) == weights
    others = 100 * width + 22 * width + 2 * 32 * 6  # embedding, norms, position biases
    assert sum(p.numel() for p in model.parameters()) == weights + others


def test_the_unified_sizes_are_those_of_the_later_papers_and_the_paper_track_is_the_original() -> None:
    unified, original = (build_config(TIGER, None, "full", track) for track in ("unified", "paper"))
    assert (unified.tokenizer.levels, unified.tokenizer.codes, unified.collisions) == (4, 256, "sinkhorn")
    assert (unified.backbone.width, unified.user_tokens, unified.rule) == (128, 0, "raw")
    assert (original.tokenizer.levels, original.tokenizer.codes, original.collisions) == (3, 256, "digit")
    assert (original.backbone, original.user_tokens) == (Shape(width=384), 2000)
    assert original.training.batch_size == 256 and TIGER.paper_text_encoder.endswith("sentence-t5-base")


# User token


def test_the_user_token_stands_first_and_lies_behind_the_codes(paper: TIGER) -> None:
    users, items = torch.arange(1, 5001), torch.tensor([[1, 2]]).expand(5000, 2)
    tokens = paper.tokens(users, items)
    levels = paper.ids.levels
    assert levels == 4 and tokens.shape == (5000, 1 + 2 * levels)
    assert torch.equal(tokens[:, 1:], paper.ids.tokens(items).flatten(1))
    hashed = tokens[:, 0] - paper.ids.vocab_size
    assert hashed.min() >= 0 and hashed.max() < 2000 == paper.config.user_tokens
    assert len(paper.model.embedding.weight) == paper.ids.vocab_size + 2000
    # 5000 balls thrown into 2000 urns leave exp(-2.5) of them empty; a hash that is regular would leave none.
    assert len(hashed.unique()) / 2000 == pytest.approx(1 - math.exp(-2.5), abs=0.09)
    assert torch.equal(tokens[:7], paper.tokens(users[:7], items[:7]))


def test_the_user_token_matters_and_padding_beside_it_does_not(paper: TIGER, world: Split) -> None:
    cases = world.test.cases
    together = paper.recommend(cases, 10, budget=BUDGET)
    check(together, cases, world.train.n_items, 10, BUDGET)
    for row in (0, len(cases) - 1):
        alone = paper.recommend(cases.take(np.array([row])), 10, budget=BUDGET)
        np.testing.assert_array_equal(alone.items[0], together.items[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5, atol=1e-5)
    other = paper.recommend(replace(cases, users=cases.users[::-1].copy()), 10, budget=BUDGET)
    assert np.abs(other.scores - together.scores).max() > 1e-3


def test_without_user_tokens_users_are_nobody(trained: TIGER, world: Split) -> None:
    cases = world.test.cases.take(np.arange(5))
    assert_same(
        trained.recommend(replace(cases, users=cases.users + 9), 5, budget=BUDGET),
        trained.recommend(cases, 5, budget=BUDGET),
    )


# Accuracy, cold items, candidates


def test_order_is_learned_on_the_ring(trained: TIGER, world: Split) -> None:
    warm = world.test.take(np.arange(60))
    ranking = trained.recommend(warm.cases, 10, budget=BUDGET)
    assert mean_metric(ranking, warm.targets, "ndcg@10") > 0.85
    assert mean_metric(ranking, warm.targets, "recall@2") > 0.9


def test_a_cold_item_has_a_code_and_can_be_recommended(trained: TIGER, world: Split) -> None:
    assert world.train.item_counts[COLD] == 0
    assert (trained.ids.codes[COLD] >= 0).all()
    ranking = trained.recommend(world.test.cases, COLD, budget=Budget(beam_size=COLD, list_length=COLD))
    assert (ranking.items == COLD).any(1).all() and np.isfinite(ranking.scores).all()


def test_texts_of_cold_items_do_not_move_the_codes_of_the_others(world: Split, tmp_path: Path) -> None:
    """The tokenizer is fitted on training items: lsa sees all texts, so the vectors themselves are held fixed."""
    vectors = np.random.default_rng(0).standard_normal((COLD + 1, 8)).astype(np.float32)
    codes = []
    for cold in (vectors[COLD], 50 * vectors[COLD]):
        vectors[COLD] = cold
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "encode_texts", lambda *_: vectors)
            codes.append(TIGER(config(collisions="digit")).fit(world.train).ids.codes[1:COLD, :4])
    np.testing.assert_array_equal(*codes)


@pytest.mark.parametrize("candidates", [[7], [COLD], [2, 5, COLD]])
def test_only_candidates_are_found(trained: TIGER, world: Split, candidates: list[int]) -> None:
    cases = world.test.cases
    ranking = trained.recommend(cases, 5, candidates=np.array(candidates), budget=BUDGET)
    n = len(candidates)
    np.testing.assert_array_equal(np.sort(ranking.items[:, :n], 1), np.tile(candidates, (len(cases), 1)))
    assert (ranking.items[:, n:] == PAD).all() and np.isneginf(ranking.scores[:, n:]).all()
    assert ranking.spend.items_scored == n


def test_an_empty_history_is_answered_alone_and_in_company(trained: TIGER, world: Split) -> None:
    odd = toys.cases([[], [4, 5]], world.test.cases.tie_order)
    ranking = trained.recommend(odd, 5, budget=BUDGET)
    assert np.isfinite(ranking.scores).all() and (ranking.items != PAD).all()
    alone = trained.recommend(odd.take(np.array([0])), 5, budget=BUDGET)
    np.testing.assert_array_equal(alone.items[0], ranking.items[0])
    np.testing.assert_allclose(alone.scores[0], ranking.scores[0], rtol=1e-5, atol=1e-5)


# Presets and tracks


@pytest.mark.parametrize(
    ("preset", "levels", "rule"),
    [("digit", 5, "raw"), ("rq-kmeans", 4, "raw"), ("nearest-free", 4, "raw"), ("renorm", 4, "renorm")],
)
def test_presets_do_what_they_say(preset: str, levels: int, rule: str) -> None:
    twins = split(toys.twins())
    method = TIGER(config(preset)).fit(twins.train)
    assert method.ids.levels == levels
    ranking = method.recommend(twins.test.cases, 12, budget=BUDGET)
    check(ranking, twins.test.cases, 12, 12, BUDGET)
    assert (ranking.items != PAD).all() and ranking.spend.rule == rule and ranking.spend.forward_passes == levels
    distinct = len(np.unique(method.ids.codes[1:], axis=0))
    if preset in ("digit", "nearest-free"):
        assert distinct == 12  # although items 1 and 2 have the same text
    if preset == "rq-kmeans":
        assert "epochs" not in method.training_report()["tokenizer"]
        np.testing.assert_array_equal(method.ids.codes[1], method.ids.codes[2])


def test_the_paper_track_tells_items_apart_by_a_digit(paper: TIGER) -> None:
    assert paper.ids.levels == 4 and paper.ids.sizes[:3] == (16, 16, 16)
    assert len(np.unique(paper.ids.codes[1:], axis=0)) == COLD
    assert paper.ids.sizes[3] == paper.ids.codes[:, 3].max() + 1


def test_an_unknown_collision_rule_is_refused(world: Split) -> None:
    with pytest.raises(ValueError, match="unknown collision rule 'salt'; use digit, sinkhorn, nearest-free"):
        TIGER(config(collisions="salt")).fit(world.train)


# Stopping and continuing


def stopping_in(stage: str, at: int) -> dict[str, Callable]:
    """Circumstances that stop a run at its n-th sign of life in a stage."""
    signs: list[str] = []
    return {
        "report": lambda name, *_: signs.append(name),
        "should_stop": lambda: signs.count(stage) >= at,
    }


@pytest.mark.parametrize("keep", [False, True], ids=["no-artifacts", "artifacts"])
def test_a_run_stopped_in_both_stages_gives_the_lists_of_an_undisturbed_one(
    world: Split, tmp_path: Path, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)

    def job(**circumstances: Any) -> TIGER:
        torch.manual_seed(int.from_bytes(os.urandom(4)))  # a new process brings no random state along
        return TIGER(config(), run=Run(seed=3, **circumstances))

    artifacts = tmp_path / "artifacts" if keep else None
    undisturbed = job().fit(world.train)
    expected = undisturbed.recommend(world.test.cases, 10, budget=BUDGET)
    folder = tmp_path / "work"
    with pytest.raises(Interrupted, match="of tokenize; the same command continues"):
        job(work_dir=folder, artifacts_dir=artifacts, **stopping_in("tokenize", 3)).fit(world.train)
    assert (folder / "tokenize.checkpoint").exists() and not (folder / "train.checkpoint").exists()
    with pytest.raises(Interrupted, match="of train; the same command continues"):
        job(work_dir=folder, artifacts_dir=artifacts, **stopping_in("train", 4)).fit(world.train)
    resumed = job(work_dir=folder, artifacts_dir=artifacts).fit(world.train)
    np.testing.assert_array_equal(resumed.ids.codes, undisturbed.ids.codes)
    assert_same(resumed.recommend(world.test.cases, 10, budget=BUDGET), expected)
    assert resumed.report == undisturbed.report


def test_a_loss_that_stops_being_finite_names_its_step_and_keeps_the_last_good_checkpoint(
    world: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    calls, plain = iter(range(1, 1000)), TIGER._loss

    def loss(self: TIGER, *batch: torch.Tensor) -> torch.Tensor:
        return plain(self, *batch) * (math.nan if next(calls) >= 5 else 1.0)

    monkeypatch.setattr(TIGER, "_loss", loss)
    with pytest.raises(ValueError, match=r"the loss of train was not finite at step 5, .*lower the learning rate"):
        TIGER(config(), run=Run(work_dir=tmp_path)).fit(world.train)
    state = training.read_checkpoint(tmp_path / "train.checkpoint", CPU)
    assert state["report"]["steps"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_learning_rate_that_is_far_too_large_is_refused(world: Split) -> None:
    with pytest.raises(ValueError, match="was not finite at step"):
        TIGER(config(training={"learning_rate": 1e30})).fit(world.train)


# Semantic ids are made once


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("semantic-ids-*.npz")}


def test_ids_are_kept_for_whatever_else_needs_the_same(
    world: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(artifacts_dir=tmp_path)
    first = TIGER(config(), run=run).fit(world.train)
    assert len(made(tmp_path)) == 1
    monkeypatch.setattr(tokenizer, "quantize", lambda *_, **__: pytest.fail("the ids were made again"))
    second = TIGER(config(), run=run).fit(world.train)
    assert_same(*(m.recommend(world.test.cases, 10, budget=BUDGET) for m in (first, second)))
    assert second.tokenizer_report == first.tokenizer_report
    third = TIGER(config("renorm", backbone={"feed": 32}, training={"epochs": 1}), run=run).fit(world.train)
    np.testing.assert_array_equal(third.ids.codes, first.ids.codes)


def test_whatever_the_ids_depend_on_makes_other_ids(world: Split, tmp_path: Path) -> None:
    view = world.train
    renamed = replace(view, item_text=[*view.item_text[:-1], "caboose"])
    unbought = replace(view, sequences=Sequences.from_rows([row[row != 1] for row in view.sequences]))
    once = {"training": {"epochs": 1}}
    others = [
        (config(**once), 0, view),
        (config(**once), 1, view),
        (config(**once), 0, renamed),
        (config(**once), 0, unbought),
        (config("digit", **once), 0, view),
        (config(tokenizer={"width": 8}, **once), 0, view),
        (config(tokenizer={"training": {"epochs": 5}}, **once), 0, view),
    ]
    for n, (changed, seed, data) in enumerate(others, start=1):
        TIGER(changed, run=Run(seed=seed, artifacts_dir=tmp_path)).fit(data)
        assert len(made(tmp_path)) == n


# Odd catalogues


def world_of(text: list[str]) -> Split:
    """Users who walk over as many items as there are texts."""
    n = len(text)
    histories = [[(start + step) % n + 1 for step in range(5)] for start in range(8)]
    return split(toys.dataset("odd", histories, ["", *text]))


def test_items_without_any_text_are_a_reason_not_to_run() -> None:
    assert TIGER.unsuited(world_of(["", "", ""]).train) == "no item has any text to make semantic IDs from"
    assert TIGER.unsuited(world_of(["", "hat", ""]).train) is None


def test_identical_texts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="texts of all 9 training items are alike"):
        TIGER(config()).fit(world_of(["hat"] * 9).train)


@pytest.mark.parametrize("n_items", [1, 2, 5])
@pytest.mark.parametrize("preset", [None, "digit", "rq-kmeans"])
def test_fewer_items_than_codes_are_all_found(n_items: int, preset: str | None) -> None:
    odd = world_of([f"hat of colour {i}" for i in range(n_items)])
    method = TIGER(config(preset)).fit(odd.train)
    ranking = method.recommend(odd.test.cases, 5, budget=BUDGET)
    check(ranking, odd.test.cases, n_items, 5, BUDGET)
    assert ((ranking.items != PAD).sum(1) == min(5, n_items)).all()


def test_rows_of_other_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    view, plain = split(datasets.load("demo")).train, tokenizer.encode_texts

    def shuffled(*arguments: Any) -> np.ndarray:
        vectors = plain(*arguments)
        vectors[1:] = np.random.default_rng(0).permutation(vectors[1:])
        return vectors

    monkeypatch.setattr(tokenizer, "encode_texts", shuffled)
    monkeypatch.setattr(tokenizer, "quantize", lambda *_: pytest.fail("codes were made of vectors of other items"))
    with pytest.raises(ValueError, match="the text vectors do not belong to their items"):
        TIGER(config()).fit(view)


# Validation sample and reports


def questions(n: int) -> Questions:
    rows = Sequences.from_rows([[1]] * n)
    return Questions(Cases(np.arange(1, n + 1, dtype=np.int32), rows, rows, np.arange(3)), rows)


def test_checkpoints_are_compared_on_a_fixed_sorted_sample() -> None:
    drawn = sample(questions(500), 40).cases.users
    assert len(np.unique(drawn)) == 40 and (np.diff(drawn) > 0).all()
    assert drawn.max() > 300 and drawn.min() < 200  # from everywhere, not the first ones
    torch.manual_seed(9)
    np.random.seed(9)
    np.testing.assert_array_equal(sample(questions(500), 40).cases.users, drawn)
    for n in (None, 500, 501):
        assert len(sample(questions(500), n)) == 500


def test_every_seed_is_validated_on_the_same_users(world: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    plain = TIGER._rank

    def watched(self: TIGER, cases: Cases, *arguments: Any) -> Ranking:
        asked.append(cases.users.tolist())
        return plain(self, cases, *arguments)

    monkeypatch.setattr(TIGER, "_rank", watched)
    for seed in (0, 1):
        TIGER(config(validation_users=9), run=Run(seed=seed)).fit(world.train)
    assert len(asked) == 4 and all(users == asked[0] for users in asked) and len(asked[0]) == 9


def test_the_report_says_how_both_stages_went(trained: TIGER) -> None:
    report = json.loads(json.dumps(dict(trained.training_report()), allow_nan=False))
    assert report["stopped_by"] in ("limit", "patience") and len(report["curve"]) == report["epochs"]
    assert len(report["tokenizer"]["usage"]) == 4 and report["tokenizer"]["stopped_by"]
    assert report["semantic_ids"]["items"] == COLD and len(report["semantic_ids"]["levels"]) == 4
    assert trained.parameters() == sum(p.numel() for p in trained.model.parameters())
