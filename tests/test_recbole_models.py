"""RecBole's S3Rec: both of its stages against RecBole's own, its attributes, its laws, and stopping halfway.

And that the models which know places or users learn order where the places of the test were trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import protocols
from benchmark.evaluate import mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import PAD, Dataset, Split
from methods.recbole import RecBole
from methods.recbole.s3rec import S3Rec, attribute_names, attribute_table, items_outside, right_aligned, segments
from tests import toys
from tests.recbole_side import (
    NO_DROPOUT,
    WORDS,
    assert_same_gradients,
    loss_by_length,
    old_names,
    our_ids,
    ours,
    seen_by_their_loss,
    theirs,
)

pytest.importorskip("recbole")

pytestmark = [  # RecBole's own, about pandas 3 and newer torch and numpy
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def recbole_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    old_names(monkeypatch)
    yield


@pytest.fixture
def world() -> Dataset:
    """60 users with 4 to 30 random purchases of 30 items, each item of one to three categories."""
    random = np.random.default_rng(6)
    histories = [random.choice(np.arange(1, 31), length, replace=False) for length in random.integers(4, 31, 60)]
    items = toys.dataset("world", histories, ["", *(f"item {i}" for i in range(1, 31))])
    drawn = [random.choice(WORDS, 1 + item % 3, replace=False) for item in range(30)]
    categories = np.array(["", *(" ".join(words) for words in drawn)], dtype=object)
    return replace(items, item_fields={"categories": categories})


@pytest.fixture
def split(world: Dataset) -> Split:
    return protocols.load("loo").split(world)


def conveyor() -> Split:
    """A ring whose items have a category path and a brand."""
    ring = toys.conveyor(n_items=12, n_users=60, length=6)
    paths = np.array(["", *(f"All > {'even' if i % 2 == 0 else 'odd'}" for i in range(1, 13))], dtype=object)
    brands = np.array(["", *(f"maker {i % 3}" for i in range(1, 13))], dtype=object)
    return protocols.load("loo").split(replace(ring, item_fields={"categories": paths, "brand": brands}))


def test_pretraining_loss_and_gradient_are_recboles(
    world: Dataset, split: Split, tmp_path: Path, recbole_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole makes a batch padded at the left; the same rows cut to exact lengths give the same sum."""
    other = theirs("S3Rec", world, tmp_path, **NO_DROPOUT["S3Rec"])
    method = ours("S3Rec", other, world, split.train, NO_DROPOUT["S3Rec"])
    assert isinstance(method, S3Rec)
    made, reconstruct = [], other.model.reconstruct_pretrain_data
    spy = lambda *asked: made.append(reconstruct(*asked)) or made[-1]  # noqa: E731
    monkeypatch.setattr(other.model, "reconstruct_pretrain_data", spy)
    expected, fed = seen_by_their_loss(other, monkeypatch)
    items = our_ids(other, "item_id", world.item_keys, n_more=1)
    words = torch.as_tensor([other.dataset.token2id("class", word) for word in WORDS])

    total = torch.zeros(())
    with right_aligned(method.model.position_embedding, 20):
        for length in fed["item_length"].unique().tolist():
            rows = fed["item_length"] == length
            features, *puzzles = (part[rows, -length:] for part in made[0])
            puzzles = [items[part] for part in puzzles]
            mine = method.attributes[puzzles[1]]
            assert torch.equal(mine, features[:, :, words - 1].bool())
            total = total + method.model.pretrain(mine, *puzzles)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    (total / 1000).backward()
    for parameter in other.model.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad / 1000
    assert_same_gradients(method, other, world)


def test_fine_tuning_loss_and_ranks_are_recboles(
    world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    first = theirs("S3Rec", world, tmp_path, **NO_DROPOUT["S3Rec"])
    with torch.no_grad():
        first.model.item_embedding.weight.mul_(20)
    torch.save({"state_dict": first.model.state_dict()}, tmp_path / "pretrained.pth")
    stage: dict[str, Any] = {"train_stage": "finetune", "pre_model_path": str(tmp_path / "pretrained.pth")}
    other = theirs("S3Rec", world, tmp_path, **stage, **NO_DROPOUT["S3Rec"])
    method = ours("S3Rec", first, world, split.train, NO_DROPOUT["S3Rec"])
    assert isinstance(method, S3Rec)
    method.begin_fine_tuning()
    metrics = other.trainer.evaluate(other.test, load_best_model=False)
    ranking = method.recommend(split.test.cases, 20)
    assert 0 < metrics["ndcg@10"] < 1
    for metric in ("recall@10", "ndcg@10"):
        assert mean_metric(ranking, split.test.targets, metric) == pytest.approx(metrics[metric], abs=1e-6)
    expected = other.trainer._train_epoch(other.train, 0)
    method.model.train()
    total = loss_by_length(method)
    assert total.item() == pytest.approx(expected, abs=1e-4)
    total.backward()
    assert_same_gradients(method, other, world)


def test_attributes_are_brand_and_categories_below_the_widest() -> None:
    paths = np.array(["", "Beauty > Makeup > Nails", "Beauty", "Beauty > Nails > OPI", ""], dtype=object)
    brands = np.array(["", "OPI", "", "OPI", "Essie"], dtype=object)
    fields = {"categories": paths, "brand": brands}
    assert attribute_names(fields) == [set(), {"Makeup", "Nails", "OPI"}, set(), {"Nails", "OPI"}, {"Essie"}]
    assert attribute_names({"categories": np.array(["", "Drama War"])}) == [set(), {"Drama", "War"}]
    assert attribute_names({"brand": brands})[4] == {"Essie"}
    shared = attribute_table(fields, min_items=2)  # Nails, OPI
    assert shared.tolist() == [[False, False], [True, True], [False, False], [True, True], [False, False]]
    assert attribute_table(fields, min_items=1).shape == (5, 4)
    with pytest.raises(ValueError, match="no category or brand is shared by 3 items; leave recbole:S3Rec out"):
        attribute_table(fields, min_items=3)


def test_without_categories_and_brands_it_is_unsuited() -> None:
    plain = protocols.load("loo").split(toys.conveyor()).train
    reason = S3Rec.unsuited(plain)
    assert reason is not None and "categories and brands" in reason
    empty = replace(plain, item_fields={"brand": np.full(plain.n_items + 1, "", dtype=object)})
    assert S3Rec.unsuited(empty) == reason
    assert S3Rec.unsuited(conveyor().train) is None


def test_drawn_items_are_all_those_that_the_history_lacks() -> None:
    torch.manual_seed(0)
    histories = torch.tensor([[2, 5, 2], [1, 6, 4]]).repeat(4000, 1)  # the first holds an item twice
    drawn = items_outside(histories, n_items=6)
    for row, lacking in ((0, [1, 3, 4, 6]), (1, [2, 3, 5])):
        found, counts = drawn[row::2].unique(return_counts=True)
        assert found.tolist() == lacking
        torch.testing.assert_close(
            counts / counts.sum(), torch.full((len(lacking),), 1 / len(lacking)), atol=0.02, rtol=0
        )


def test_segments_are_at_most_half_and_lie_anywhere() -> None:
    torch.manual_seed(0)
    histories = torch.arange(1, 5001).view(1000, 5)
    inside, other = segments(histories)
    sizes = inside.sum(1)
    assert set(sizes.tolist()) == {1, 2}
    starts = inside.int().argmax(1)
    for size, places in ((1, {0, 1, 2, 3, 4}), (2, {0, 1, 2, 3})):
        rows = sizes == size
        assert set(starts[rows].tolist()) == places
        run = other[rows][inside[rows]].view(-1, size)  # consecutive items of the whole batch, laid end to end
        assert (run[:, -1] - run[:, 0] == size - 1).all()
        assert run.min() < 500 and run.max() > 4500
    alone, same = segments(torch.tensor([[7], [8]]))
    assert not alone.any() and same.tolist() == [[7], [8]]


def test_both_stages_learn_order() -> None:
    world = conveyor()
    training = {"epochs": 40, "patience": 40, "batch_size": 64, "learning_rate": 5e-3}
    stages = {"training": training, "pretraining": training | {"epochs": 6}}
    config = replace_nested(build_config(S3Rec, None, "smoke"), stages)
    method = S3Rec(config).fit(world.train)
    lists = method.recommend(world.test.cases, 2)
    assert mean_metric(lists, world.test.targets, "recall@2") > 0.9
    assert (lists.items != PAD).all()
    curve = method.training_report()["pretraining"]["curve"]
    assert curve[-1]["loss"] < 0.95 * curve[0]["loss"]
    assert {"pretrain", "train", "decode"} <= method.run.timings.keys()


def test_a_capped_stage_marks_the_row() -> None:
    capped = replace_nested(build_config(S3Rec, None, "smoke"), {"pretraining": {"max_minutes": 0.0}})
    report = S3Rec(capped).fit(conveyor().train).training_report()
    assert report["stopped_by"] == "cap" and report["pretraining"]["stopped_by"] == "cap"
    assert report["epochs"] > 1
    free = S3Rec(build_config(S3Rec, None, "smoke")).fit(conveyor().train).training_report()
    assert free["pretraining"]["stopped_by"] == "limit" and free["stopped_by"] in {"limit", "patience"}


@pytest.mark.parametrize("pauses", [1, 18])
def test_stopped_in_either_stage_it_continues_to_the_same_answer(pauses: int, tmp_path: Path) -> None:
    world, config = conveyor().train, build_config(S3Rec, None, "smoke")
    config = replace_nested(config, {"training": {"epochs": 2, "batch_size": 32}, "pretraining": {"batch_size": 32}})
    undisturbed = S3Rec(config, run=Run(seed=3)).fit(world)
    asked = iter(range(1000))
    stopping = Run(seed=3, work_dir=tmp_path, should_stop=lambda: next(asked) >= pauses)
    with pytest.raises(Interrupted):
        S3Rec(config, run=stopping).fit(world)
    assert (tmp_path / "train.checkpoint").exists() == (pauses == 18)
    resumed = S3Rec(config, run=Run(seed=3, work_dir=tmp_path)).fit(world)
    for mine, other in zip(resumed.model.parameters(), undisturbed.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)
    assert resumed.training_report() == undisturbed.training_report()


@pytest.mark.parametrize(("name", "epochs"), [("BERT4Rec", 40), ("Caser", 12), ("HGN", 30)])
def test_order_is_learned_where_histories_differ_in_length(name: str, epochs: int) -> None:
    """The conveyor of all methods has users of one length, whose last places no training sequence reaches."""
    random = np.random.default_rng(0)
    rides = zip(random.integers(0, 12, 60), random.integers(4, 14, 60), strict=True)
    histories = [(board + np.arange(length)) % 12 + 1 for board, length in rides]
    text = ["", *(f"wagon number {i}" for i in range(1, 13))]
    world = protocols.load("loo").split(toys.dataset("rides", histories, text))
    cls = RecBole.variants[name]
    training = {"epochs": epochs, "patience": epochs, "batch_size": 64, "learning_rate": 5e-3}
    method = cls(replace_nested(build_config(cls, None, "smoke"), {"training": training}), run=Run(seed=0))
    lists = method.fit(world.train).recommend(world.test.cases, 2)
    assert mean_metric(lists, world.test.targets, "recall@2") > 0.7  # by chance .17
