"""Collaborative vectors: what they are, that they are shared and reproducible, and what they depend on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import protocols
from benchmark.evaluate import mean_metric
from benchmark.files import content_hash
from benchmark.method import replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import Dataset, Sequences, Split, TrainingView
from methods.blocks import collaborative
from methods.blocks.collaborative import PROFILES, Collaborative, CollaborativeModel, collaborative_model, identity
from methods.sasrec import SASRec
from tests import toys

SETTINGS = replace_nested(
    Collaborative(), {"width": 16, "layers": 1, "training": {"epochs": 5, "batch_size": 64, "learning_rate": 1e-2}}
)


def split(dataset: Dataset) -> Split:
    return protocols.load("loo").split(dataset)


@pytest.fixture(scope="module")
def world() -> Split:
    return split(toys.lonely())


@pytest.fixture(scope="module")
def model(world: Split) -> CollaborativeModel:
    return collaborative_model(world.train, SETTINGS, Run(seed=3))


def test_items_without_training_are_zero_and_all_others_are_the_embedding(
    world: Split, model: CollaborativeModel
) -> None:
    assert model.items.shape == (26, 16) and model.items.dtype == np.float32
    cold = world.train.item_counts == 0
    assert cold[[0, 25]].all() and not cold[1:25].any()
    weights = model.network.item.weight.detach().numpy()
    assert weights[25].any()  # so the zero row below is a decision, not an accident
    assert not model.items[cold].any()
    np.testing.assert_array_equal(model.items[~cold], weights[~cold])


def test_items_times_users_ranks_as_sasrec_with_the_same_network(
    world: Split, model: CollaborativeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = np.flatnonzero(world.train.item_counts)
    cases = world.test.cases
    method = SASRec(SASRec.Config(), run=Run())
    method.model = model.network
    expected = method.recommend(cases, 10, candidates=warm)
    monkeypatch.setattr(collaborative, "BATCH", 7)  # more than one batch, and one that is not full
    users = model.users(cases.seen)  # uncut: some are longer than the network reads
    assert cases.seen.lengths.max() > world.train.max_history and users.dtype == np.float32
    scores = users @ model.items[warm].T
    best = np.argsort(-scores, axis=1)[:, :10]
    np.testing.assert_array_equal(warm[best], expected.items)
    np.testing.assert_allclose(np.take_along_axis(scores, best, 1), expected.scores, rtol=1e-4, atol=1e-5)


def test_an_empty_history_is_a_zero_vector_and_moves_no_other(model: CollaborativeModel) -> None:
    users = model.users(Sequences.from_rows([[], [3, 4], [], [5]]))
    assert users.shape == (4, 16) and not users[[0, 2]].any()
    np.testing.assert_allclose(users[[1, 3]], model.users(Sequences.from_rows([[3, 4], [5]])), rtol=1e-4, atol=1e-6)
    assert model.users(Sequences.from_rows([[]])).tolist() == [[0.0] * 16]
    assert model.users(Sequences.from_rows([])).shape == (0, 16)


@pytest.mark.parametrize("candidates", [None, np.arange(1, 13)])
def test_the_weights_kept_are_those_that_validation_chose(world: Split, candidates: np.ndarray | None) -> None:
    view = replace(world.train, candidates=candidates)
    model = collaborative_model(view, SETTINGS, Run(seed=3))
    method = SASRec(SASRec.Config(), run=Run())
    method.model = model.network
    ranking = method.recommend(view.valid.cases, 10, candidates=candidates)
    assert mean_metric(ranking, view.valid.targets, "ndcg@10") == pytest.approx(model.report["best_score"], abs=1e-9)
    assert model.report["best_score"] > 0 and 1 <= model.report["best_epoch"] <= 5
    assert (model.report["epochs"], model.report["stopped_by"]) == (5, "limit")


def test_interchangeable_items_have_the_nearest_vectors() -> None:
    """A ring of ten places with two items each: whoever moves on takes either, so nothing tells the two apart."""
    draw = np.random.default_rng(0)
    histories = [
        2 * ((draw.integers(0, 10) + np.arange(8)) % 10) + draw.integers(1, 3, 8)  # items 2p + 1 and 2p + 2 of place p
        for _ in range(300)
    ]
    view = split(toys.dataset("pairs", histories, ["", *(f"item {i}" for i in range(1, 21))])).train
    items = collaborative_model(view, replace_nested(SETTINGS, {"training": {"epochs": 20}}), Run()).items[1:]
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(20)
    np.testing.assert_array_equal(cosine.argmax(1), np.arange(20) ^ 1)


def test_a_cached_model_is_the_trained_one_and_no_second_training(
    world: Split, model: CollaborativeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = collaborative_model(world.train, SETTINGS, first := Run(seed=3, artifacts_dir=tmp_path))
    monkeypatch.setattr(collaborative, "train_windows", lambda *_, **__: pytest.fail("trained again"))
    again = collaborative_model(world.train, SETTINGS, second := Run(seed=3, artifacts_dir=tmp_path))
    histories = world.test.cases.histories
    for found in (fresh, again):
        np.testing.assert_array_equal(found.items, model.items)
        np.testing.assert_array_equal(found.users(histories), model.users(histories))
    assert again.report == fresh.report and fresh.report["seconds"] > 0
    assert list(first.timings) == ["collaborative"] and second.timings == {}
    assert [path.name.split("-")[0] for path in tmp_path.glob("*.npz")] == ["collaborative"]


def test_neither_training_nor_reading_moves_the_random_state(world: Split, tmp_path: Path) -> None:
    torch.manual_seed(11)

    def states() -> Iterator[Any]:
        yield torch.get_rng_state().tolist()
        yield random.getstate()
        yield json.dumps([np.asarray(part).tolist() for part in np.random.get_state(legacy=True)])

    before = list(states())
    for _ in ("trained", "cached"):
        collaborative_model(world.train, SETTINGS, Run(seed=3, artifacts_dir=tmp_path)).users(world.train.sequences)
        assert list(states()) == before


def test_the_seed_decides_whatever_the_random_state(world: Split, model: CollaborativeModel) -> None:
    torch.manual_seed(99)
    np.testing.assert_array_equal(collaborative_model(world.train, SETTINGS, Run(seed=3)).items, model.items)
    assert not np.allclose(collaborative_model(world.train, SETTINGS, Run(seed=4)).items, model.items)


@pytest.mark.parametrize("steps", [2, 11])
def test_a_stopped_training_continues_to_the_same_model(
    world: Split, model: CollaborativeModel, tmp_path: Path, steps: int
) -> None:
    asked = count()
    folders: dict[str, Any] = {"work_dir": tmp_path / "work", "artifacts_dir": tmp_path / "artifacts"}
    with pytest.raises(Interrupted, match="of collaborative; the same command continues"):
        collaborative_model(world.train, SETTINGS, Run(seed=3, should_stop=lambda: next(asked) >= steps, **folders))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["collaborative.checkpoint"]
    assert not list((tmp_path / "artifacts").glob("*.npz"))
    torch.manual_seed(12345)  # a new process has another random state
    resumed = collaborative_model(world.train, SETTINGS, Run(seed=3, **folders))
    np.testing.assert_array_equal(resumed.items, model.items)
    for name, value in model.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    kept = ("stopped_by", "epochs", "best_epoch", "best_score")
    assert [resumed.report[fact] for fact in kept] == [model.report[fact] for fact in kept]


def test_the_identity_is_of_what_is_read_and_of_nothing_else() -> None:
    histories = [list(row) for row in toys.conveyor(12, 20).sequences]
    text = ["", *"abcdefghijkl"]

    def named(view: TrainingView, settings: Collaborative = SETTINGS, seed: int = 0) -> str:
        return content_hash(identity(view, settings, Run(seed=seed, text_encoder="another", device="cpu")))

    def with_item(place: int) -> TrainingView:
        changed = [row.copy() for row in histories]
        changed[4][place] = changed[4][place] % 12 + 1
        return split(toys.dataset("other name", changed, text)).train

    view = split(toys.dataset("ring", histories, text)).train
    same = [named(with_item(-1)), named(replace(view, item_text=tuple("m" * 13))), named(view)]  # -1: the test answer
    assert set(same) == {content_hash(identity(view, SETTINGS, Run()))}
    others = [
        named(replace(view, sequences=with_item(2).sequences)),
        named(with_item(-2)),  # the validation answer, by which weights are chosen
        named(view, seed=1),
        named(view, replace(SETTINGS, width=8)),
        named(view, replace_nested(SETTINGS, {"training": {"epochs": 6}})),
        named(replace(view, max_history=4)),
        named(replace(view, n_items=13)),
        named(replace(view, selection="recall@10")),
        named(replace(view, candidates=np.arange(1, 12))),
    ]
    assert len({*same, *others}) == 1 + len(others)


def test_a_damaged_artifact_is_refused_by_name(world: Split, tmp_path: Path) -> None:
    run = Run(seed=3, artifacts_dir=tmp_path)
    collaborative_model(world.train, replace_nested(SETTINGS, {"training": {"epochs": 1}}), run)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .* delete it and run again"):
        collaborative_model(world.train, replace_nested(SETTINGS, {"training": {"epochs": 1}}), run)


@pytest.mark.parametrize("rows", [[], [[3], [], [5]]])
def test_without_a_pair_of_items_there_is_nothing_to_learn(world: Split, tmp_path: Path, rows: list[list[int]]) -> None:
    view = replace(world.train, sequences=Sequences.from_rows(rows))
    with pytest.raises(ValueError, match="no training sequence holds two items"):
        collaborative_model(view, SETTINGS, Run(artifacts_dir=tmp_path))
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_changes_size_and_training_alone(profile: str) -> None:
    changed = replace_nested(Collaborative(), PROFILES[profile])
    assert changed != Collaborative() and changed.width == Collaborative().width == 32
