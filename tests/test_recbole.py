"""The recbole room against RecBole itself: its dataset, split, augmentation, loss, Trainer and evaluation."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import protocols
from benchmark.evaluate import mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.types import PAD, Dataset, Sequences, Split, TrainingView
from methods.blocks.next_item import NextItemPairs
from methods.recbole import RecBole, library
from methods.recbole.bert4rec import BERT4Rec
from methods.recbole.library import ITEMS, LENGTH, NEGATIVE, TARGET, USER
from methods.recbole.sequential import SASRec, Sequential
from tests import toys
from tests.recbole_side import (
    NO_DROPOUT,
    SHARED,
    assert_same_gradients,
    loss_by_length,
    old_names,
    our_ids,
    ours,
    seen_by_their_loss,
    their_ids,
    theirs,
)

pytest.importorskip("recbole")

pytestmark = [  # RecBole's own, about pandas 3 and newer torch and numpy
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
NAMES = [name for name, cls in RecBole.variants.items() if issubclass(cls, Sequential)]


@pytest.fixture
def recbole_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    old_names(monkeypatch)
    yield


@pytest.fixture
def world() -> Dataset:
    """80 users with 4 to 40 random purchases of 50 items: some histories are longer than the 20 shown."""
    random = np.random.default_rng(5)
    lengths = random.integers(4, 41, 80)
    histories = [random.choice(np.arange(1, 51), length, replace=False) for length in lengths]
    return toys.dataset("world", histories, ["", *(f"item {i}" for i in range(1, 51))])


@pytest.fixture
def split(world: Dataset) -> Split:
    return protocols.load("loo").split(world)


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec", "BERT4Rec", "Caser", "HGN"])
def test_same_weights_rank_as_recboles_trainer(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    other = theirs(name, world, tmp_path)
    with torch.no_grad():  # larger weights, so that the ranking depends on the history and not on rounding
        other.model.item_embedding.weight.mul_(20)
    expected = other.trainer.evaluate(other.test, load_best_model=False)
    ranking = ours(name, other, world, split.train, {}).recommend(split.test.cases, 20)
    assert 0 < expected["ndcg@10"] < 1
    for metric in ("recall@10", "ndcg@10"):
        assert mean_metric(ranking, split.test.targets, metric) == pytest.approx(expected[metric], abs=1e-6)


@pytest.mark.parametrize("name", ["BERT4Rec", "Caser", "HGN"])
def test_same_weights_score_as_recboles_data_loader(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    """Among them what BERT4Rec does to a history: the mask is appended, and the oldest item is cut off."""
    other = theirs(name, world, tmp_path)
    method = ours(name, other, world, split.train, {})
    other.model.eval()
    items, users = their_ids(other, "item_id", world.item_keys), our_ids(other, "user_id", world.user_keys)
    with torch.no_grad():
        for batch in other.test:
            expected = other.model.full_sort_predict(batch[0])[:, items]
            asked = split.test.cases.take(users[batch[0]["user_id"]].numpy() - 1)
            torch.testing.assert_close(method._score(asked)[:, 1:], expected[:, 1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec", "Caser", "HGN"])
def test_first_epoch_loss_and_gradient_are_those_of_recboles_trainer(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    other = theirs(name, world, tmp_path, **NO_DROPOUT[name])
    method = ours(name, other, world, split.train, NO_DROPOUT[name])
    assert len(method.pairs.lengths) == len(other.train.dataset)
    expected = other.trainer._train_epoch(other.train, 0)  # one batch holds all pairs, so this is one step
    method.model.train()
    total = loss_by_length(method)
    assert total.item() == pytest.approx(expected, abs=1e-4)
    total.backward()
    assert_same_gradients(method, other, world)


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec"])
def test_first_epoch_bpr_loss_given_the_same_negatives(
    name: str,
    world: Dataset,
    split: Split,
    tmp_path: Path,
    recbole_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = NO_DROPOUT[name] | {"loss_type": "BPR"}
    uniform = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
    other = theirs(name, world, tmp_path, train_neg_sample_args=uniform, **options)
    method = ours(name, other, world, split.train, options)
    expected, fed = seen_by_their_loss(other, monkeypatch)
    users, items = our_ids(other, "user_id", world.user_keys), our_ids(other, "item_id", world.item_keys)
    columns = (users[fed[USER]], items[fed[TARGET]], items[fed[NEGATIVE + TARGET]])
    drawn = {(user, target): negative for user, target, negative in torch.stack(columns, 1).tolist()}
    made = method.batch

    def with_their_negatives(rows: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
        batch = made(rows, length)
        assert (batch[NEGATIVE + TARGET] != batch[TARGET]).all() and (batch[NEGATIVE + TARGET] > 0).all()
        pairs = zip(batch[USER].tolist(), batch[TARGET].tolist(), strict=True)
        return batch | {NEGATIVE + TARGET: torch.tensor([drawn[pair] for pair in pairs])}

    monkeypatch.setattr(method, "batch", with_their_negatives)
    assert loss_by_length(method).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("ft_ratio", [0.0, 1.0])
def test_bert4rec_learns_from_recboles_masks_what_recbole_does(
    ft_ratio: float,
    world: Dataset,
    split: Split,
    tmp_path: Path,
    recbole_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random masks, more of them than are asked for in the longest histories, and a mask on every last item."""
    options = NO_DROPOUT["BERT4Rec"] | {"mask_ratio": 0.3, "ft_ratio": ft_ratio}
    other = theirs("BERT4Rec", world, tmp_path, **options)
    method = ours("BERT4Rec", other, world, split.train, options)
    assert isinstance(method, BERT4Rec)
    expected, fed = seen_by_their_loss(other, monkeypatch)
    items = our_ids(other, "item_id", world.item_keys, n_more=1)
    histories, hidden = items[fed[ITEMS]], fed["Mask_item_id_list"] == len(world.item_keys) + 1
    total, asked = torch.zeros(()), 0
    for length in fed[LENGTH].unique().tolist():
        rows = fed[LENGTH] == length
        made = method.masked(histories[rows, :length], hidden[rows, :length])
        assert torch.equal(made["Mask_item_id_list"], items[fed["Mask_item_id_list"]][rows, :length])
        count = int((made["MASK_INDEX"] > 0).sum())
        if count:
            total, asked = total + method.cloze_loss(made) * count, asked + count
    assert asked == (fed["MASK_INDEX"] > 0).sum()
    assert (total / asked).item() == pytest.approx(expected, abs=1e-4)
    (total / asked).backward()
    assert_same_gradients(method, other, world)


def test_bert4rec_hides_by_recboles_law(split: Split) -> None:
    method = BERT4Rec()
    torch.manual_seed(0)
    method.build(split.train)
    method.pairs = method.examples(split.train)
    assert method.pairs.lengths.min() == 2
    rows = torch.where(method.pairs.lengths == 20)[0]
    batches = [method.batch(rows, 20)["Mask_item_id_list"] == method.model.mask_token for _ in range(300)]
    last_only = [bool(hidden[:, -1].all() and not hidden[:, :-1].any()) for hidden in batches]
    assert 0.4 < np.mean(last_only) < 0.6
    at_random = torch.cat([hidden for hidden, last in zip(batches, last_only, strict=True) if not last])
    torch.testing.assert_close(at_random.float().mean(0), torch.full((20,), 0.2), atol=0.03, rtol=0)


def test_bert4rec_asks_something_of_every_batch(split: Split) -> None:
    """Where chance hides nothing, or first items only, RecBole's loss would be 0 / 0."""
    method = BERT4Rec(replace_nested(BERT4Rec.Config(), {"options": {"mask_ratio": 0.0, "ft_ratio": 0.0}}))
    method.build(split.train)
    method.pairs = method.examples(split.train)
    made = method.batch(torch.where(method.pairs.lengths == 3)[0][:5], 3)
    assert made["MASK_INDEX"].tolist() == [[2]] * 5
    assert method.cloze_loss(made).isfinite()


def view_of(rows: Sequence[Sequence[int]], max_history: int) -> TrainingView:
    return replace(
        toys.four_users(),
        n_items=30,
        users=np.arange(1, len(rows) + 1),
        n_users=len(rows),
        sequences=Sequences.from_rows(rows),
        max_history=max_history,
    )


def test_every_later_item_of_a_sequence_is_a_target_once() -> None:
    pairs = NextItemPairs(view_of([[5, 6, 7, 8], [9], [3, 4], []], max_history=2), torch.device("cpu"))
    assert pairs.lengths.tolist() == [1, 2, 2, 1]
    users, histories, targets = pairs.take(torch.tensor([0, 3]), 1)
    assert (users.tolist(), histories.tolist(), targets.tolist()) == ([1, 3], [[5], [3]], [6, 4])
    users, histories, targets = pairs.take(torch.tensor([1, 2]), 2)
    assert (users.tolist(), histories.tolist(), targets.tolist()) == ([1, 1], [[5, 6], [6, 7]], [7, 8])


def test_the_number_of_pairs_is_the_number_of_training_interactions_less_one_a_user(split: Split) -> None:
    pairs = NextItemPairs(split.train, torch.device("cpu"))
    assert len(pairs.targets) == np.maximum(split.train.sequences.lengths - 1, 0).sum()
    assert len(pairs.targets) == split.facts["training_pairs"] and pairs.lengths.max() == 20


@pytest.mark.parametrize("name", SHARED)
def test_cutting_a_history_to_its_length_equals_padding_it(name: str) -> None:
    method = RecBole.variants[name]()
    assert isinstance(method, Sequential)
    torch.manual_seed(0)
    method.build(view_of([[4, 9, 2, 7]], max_history=20))
    method.model.eval()
    cut = {ITEMS: torch.tensor([[4, 9]]), LENGTH: torch.tensor([2]), TARGET: torch.tensor([2])}
    padded = cut | {ITEMS: torch.tensor([[4, 9] + [PAD] * 18])}
    torch.testing.assert_close(method.model.full_sort_predict(cut), method.model.full_sort_predict(padded))
    torch.testing.assert_close(method.model.calculate_loss(cut), method.model.calculate_loss(padded))


def properties_of(name: str) -> dict[str, Any]:
    folder = Path(importlib.import_module("recbole").__file__).parent / "properties"
    return yaml.safe_load((folder / f"{name}.yaml").read_text())


NOT_OPTIONS = {"transform", "item_attribute", "train_stage", "pretrain_epochs", "save_step", "pre_model_path"}
"""Of the driver, not of the model."""


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_recboles_own(name: str) -> None:
    cls = RecBole.variants[name]
    config = build_config(cls, None, "full")
    method = cls(config)
    assert isinstance(method, Sequential)
    expected = {key: value for key, value in properties_of(f"model/{name}").items() if key not in NOT_OPTIONS}
    mine = {key: value for key, value in method.options().items() if key in expected}
    mine = {key: list(value) if isinstance(value, tuple) else value for key, value in mine.items()}
    numbers = {key: float(value) for key, value in expected.items() if isinstance(mine[key], float)}  # YAML: "1e-12"
    assert mine == expected | numbers
    overall = properties_of("overall")
    training = config.training
    assert (training.epochs, training.batch_size) == (overall["epochs"], overall["train_batch_size"])
    assert (training.learning_rate, training.patience) == (overall["learning_rate"], overall["stopping_step"])
    assert (training.weight_decay, training.schedule, training.clip_norm) == (0.0, "constant", None)


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec", "BERT4Rec", "Caser", "HGN"])
def test_a_user_without_history_is_answered(name: str, split: Split) -> None:
    method = RecBole.variants[name]()
    assert isinstance(method, Sequential)
    method.build(split.train)
    method.model.eval()
    cases = split.test.cases.take(np.arange(2))
    empty = type(cases)(cases.users, Sequences.from_rows([[], [3]]), cases.seen, cases.tie_order)
    assert (method.recommend(empty, 5).items != PAD).all()


def test_without_recbole_the_failure_names_the_command(monkeypatch: pytest.MonkeyPatch, split: Split) -> None:
    """A failed row, not a skipped one: once RecBole is installed the same command runs it."""
    monkeypatch.setitem(sys.modules, "recbole.model.sequential_recommender", None)
    method = SASRec(build_config(SASRec, None, "smoke"))
    with pytest.raises(
        ValueError, match=r"RecBole cannot be imported.*pip install --no-deps -r requirements-recbole\.txt"
    ):
        method.fit(split.train)


def test_the_stand_in_for_tensorboard_does_not_stay_behind() -> None:
    library.models(library.SEQUENTIAL)
    left = sys.modules.get("torch.utils.tensorboard")
    assert left is None or hasattr(left, "__file__")


def test_importing_recbole_leaves_autograd_as_it_was():
    """RecBole's SINE switches anomaly detection on when imported, which slows every training of the process."""
    code = (
        "import torch; from methods.recbole import library; library.models(library.SEQUENTIAL); "
        "assert not torch.is_anomaly_enabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
