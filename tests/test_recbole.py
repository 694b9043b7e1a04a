"""The recbole room against RecBole itself: its dataset, split, augmentation, loss, Trainer and evaluation."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import protocols
from benchmark.evaluate import mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.types import PAD, Dataset, Sequences, Split
from methods.recbole import RecBole, build_model, recbole_models, training_pairs
from tests import toys

pytest.importorskip("recbole")

pytestmark = [  # RecBole's own, about pandas 3 and newer torch and numpy
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
NAMES = RecBole.arguments


class Theirs(NamedTuple):
    """RecBole's side of one small world."""

    config: Any
    dataset: Any
    train: Any
    test: Any
    model: torch.nn.Module
    trainer: Any


@pytest.fixture
def recbole_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RecBole's Config and Trainer, which the room never touches, need old numpy names and tensorboard."""
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        monkeypatch.setattr(np, old, getattr(np, new), raising=False)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # Config reads the command line
    tensorboard = ModuleType("torch.utils.tensorboard")
    tensorboard.SummaryWriter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    monkeypatch.setattr("recbole.trainer.trainer.get_tensorboard", lambda _logger: None)
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


def theirs(name: str, world: Dataset, folder: Path, **options: Any) -> Theirs:
    """RecBole as documented: atomic file -> leave-one-out -> augmentation -> model -> Trainer."""
    (folder / "world").mkdir()
    rows = zip(world.user_keys[world.users - 1], world.item_keys[world.items - 1], world.timestamps, strict=True)
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "world" / "world.inter").write_text(header + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows))
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "MAX_ITEM_LIST_LENGTH": 20,
        "train_neg_sample_args": None,
        "repeatable": True,
        "metrics": ["Recall", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 12,
        "train_batch_size": 100_000,
        "learner": "adam",
        "shuffle": False,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    config_class = importlib.import_module("recbole.config").Config
    data, utils = importlib.import_module("recbole.data"), importlib.import_module("recbole.utils")
    config = config_class(model=name, dataset="world", config_dict=settings | options)
    dataset = data.create_dataset(config)
    train, _, test = data.data_preparation(config, dataset)
    utils.init_seed(3, True)
    model = utils.get_model(name)(config, train.dataset)
    trainer = utils.get_trainer(config["MODEL_TYPE"], name)(config, model)
    return Theirs(config, dataset, train, test, model, trainer)


def ours(name: str, other: Theirs, world: Dataset, overrides: dict[str, Any]) -> RecBole:
    """The room with the weights of RecBole's model, which numbers items by first appearance in the file."""
    config = replace_nested(RecBole.Config(), {name.lower(): overrides})
    method = RecBole(config, argument=name)
    method.build(world.n_items, max_history=20)
    weights = {key: value.clone() for key, value in other.model.state_dict().items()}
    keys = ["[PAD]", *world.item_keys]
    rows = torch.as_tensor([other.dataset.token2id("item_id", key) for key in keys])
    weights["item_embedding.weight"] = weights["item_embedding.weight"][rows]
    method.model.load_state_dict(weights)
    method.model.eval()
    return method


@pytest.mark.parametrize("name", NAMES)
def test_same_weights_rank_as_recboles_trainer(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    other = theirs(name, world, tmp_path)
    with torch.no_grad():  # larger weights, so that the ranking depends on the history and not on rounding
        other.model.item_embedding.weight.mul_(20)
    expected = other.trainer.evaluate(other.test, load_best_model=False)
    ranking = ours(name, other, world, {}).recommend(split.test.cases, 20)
    assert 0 < expected["ndcg@10"] < 1
    for metric in ("recall@10", "ndcg@10"):
        assert mean_metric(ranking, split.test.targets, metric) == pytest.approx(expected[metric], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "no_dropout"),
    [("GRU4Rec", {"dropout_prob": 0.0}), ("SASRec", {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0})],
)
def test_first_epoch_loss_and_gradient_are_those_of_recboles_trainer(
    name: str,
    no_dropout: dict[str, Any],
    world: Dataset,
    split: Split,
    tmp_path: Path,
    recbole_environment: None,
) -> None:
    other = theirs(name, world, tmp_path, **no_dropout)
    method = ours(name, other, world, no_dropout)
    pairs = training_pairs(split.train.sequences, 20)
    assert len(pairs.targets) == len(other.train.dataset)
    expected = other.trainer._train_epoch(other.train, 0)  # one batch holds all pairs, so this is one step

    method.model.train()
    total = torch.zeros(())
    for length in pairs.lengths.unique().tolist():  # as the training loop cuts: exact lengths, no padding
        rows = torch.where(pairs.lengths == length)[0]
        total = total + method.model.calculate_loss(pairs.batch(rows, length)) * len(rows) / len(pairs.targets)
    assert total.item() == pytest.approx(expected, abs=1e-4)

    total.backward()
    gradients = {key: value.grad for key, value in method.model.named_parameters()}
    for key, value in other.model.named_parameters():
        grad = value.grad
        if key == "item_embedding.weight":
            keys = ["[PAD]", *world.item_keys]
            grad = grad[torch.as_tensor([other.dataset.token2id("item_id", k) for k in keys])]
        torch.testing.assert_close(gradients[key], grad, atol=1e-5, rtol=1e-4)


def test_every_later_item_of_a_sequence_is_a_target_once() -> None:
    sequences = Sequences.from_rows([[5, 6, 7, 8], [9], [3, 4], []])
    pairs = training_pairs(sequences, max_history=2)
    assert pairs.targets.tolist() == [6, 7, 8, 4]
    assert pairs.lengths.tolist() == [1, 2, 2, 1]
    assert pairs.histories.tolist() == [[5, PAD], [5, 6], [6, 7], [3, PAD]]


def test_the_number_of_pairs_is_the_number_of_training_interactions_less_one_a_user(split: Split) -> None:
    pairs = training_pairs(split.train.sequences, 20)
    assert len(pairs.targets) == np.maximum(split.train.sequences.lengths - 1, 0).sum()
    assert len(pairs.targets) == split.facts["training_pairs"]
    assert ((pairs.histories != PAD).sum(1) == pairs.lengths).all() and pairs.lengths.max() == 20


@pytest.mark.parametrize("name", NAMES)
def test_cutting_a_history_to_its_length_equals_padding_it(name: str) -> None:
    options = asdict({"GRU4Rec": RecBole.Config().gru4rec, "SASRec": RecBole.Config().sasrec}[name])
    torch.manual_seed(0)
    model = build_model(name, options, n_items=30, max_history=20, device="cpu").eval()
    pairs = training_pairs(Sequences.from_rows([[4, 9, 2, 7]]), max_history=20)
    rows = torch.tensor([1])
    cut, padded = pairs.batch(rows, 2), pairs.batch(rows, 20)
    assert cut["item_id_list"].tolist() == [[4, 9]]
    torch.testing.assert_close(model.full_sort_predict(cut), model.full_sort_predict(padded))
    torch.testing.assert_close(model.calculate_loss(cut), model.calculate_loss(padded))


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_recboles_own(name: str) -> None:
    import recbole
    import yaml

    properties = Path(recbole.__file__).parent / "properties"
    model = yaml.safe_load((properties / "model" / f"{name}.yaml").read_text())
    overall = yaml.safe_load((properties / "overall.yaml").read_text())
    config = build_config(RecBole, None, "full")
    mine = asdict(getattr(config, name.lower()))
    assert mine == {key: float(value) if "eps" in key else value for key, value in model.items()}
    training = config.training
    assert (training.epochs, training.batch_size) == (overall["epochs"], overall["train_batch_size"])
    assert (training.learning_rate, training.patience) == (overall["learning_rate"], overall["stopping_step"])
    assert (training.weight_decay, training.schedule, training.clip_norm) == (0.0, "constant", None)


def test_a_user_without_history_is_answered(split: Split) -> None:
    method = RecBole(build_config(RecBole, None, "smoke"), argument="SASRec")
    method.build(split.train.n_items, max_history=20)
    method.model.eval()
    cases = split.test.cases.take(np.arange(2))
    empty = type(cases)(cases.users, Sequences.from_rows([[], [3]]), cases.seen, cases.tie_order)
    assert (method.recommend(empty, 5).items != PAD).all()


def test_without_recbole_the_failure_names_the_command(monkeypatch: pytest.MonkeyPatch, split: Split) -> None:
    """A failed row, not a skipped one: once RecBole is installed the same command runs it."""
    monkeypatch.setitem(sys.modules, "recbole.model.sequential_recommender", None)
    method = RecBole(build_config(RecBole, None, "smoke"), argument="SASRec")
    with pytest.raises(
        ValueError, match=r"RecBole cannot be imported.*pip install --no-deps -r requirements-recbole\.txt"
    ):
        method.fit(split.train)


def test_the_stand_in_for_tensorboard_does_not_stay_behind() -> None:
    recbole_models()
    left = sys.modules.get("torch.utils.tensorboard")
    assert left is None or hasattr(left, "__file__")


def test_importing_recbole_leaves_autograd_as_it_was():
    """RecBole's SINE switches anomaly detection on when imported, which slows every training of the process."""
    code = "import torch, methods.recbole as room; room.recbole_models(); assert not torch.is_anomaly_enabled()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
