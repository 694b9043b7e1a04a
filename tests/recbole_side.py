"""RecBole's side of one small world, and our room with the weights of its model."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from benchmark.method import replace_nested
from benchmark.types import Dataset, TrainingView
from methods.recbole import RecBole
from methods.recbole.sequential import Sequential

SHARED = ("GRU4Rec", "SASRec")
"""They share one Config, in which each has its own options."""
WORDS = [f"word{n}" for n in range(8)]
"""The categories of the world that has some."""
NO_DROPOUT: Mapping[str, Mapping[str, float]] = {
    "GRU4Rec": {"dropout_prob": 0.0},
    "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "BERT4Rec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "S3Rec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "Caser": {"dropout_prob": 0.0},
    "HGN": {},
}


class Theirs(NamedTuple):
    """RecBole's side of one small world."""

    config: Any
    dataset: Any
    train: Any
    test: Any
    model: torch.nn.Module
    trainer: Any


def old_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's Config and Trainer, which the room never touches, need old numpy names and tensorboard."""
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        monkeypatch.setattr(np, old, getattr(np, new), raising=False)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # Config reads the command line
    tensorboard = ModuleType("torch.utils.tensorboard")
    tensorboard.SummaryWriter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    monkeypatch.setattr("recbole.trainer.trainer.get_tensorboard", lambda _logger: None)


def theirs(name: str, world: Dataset, folder: Path, **options: Any) -> Theirs:
    """RecBole as documented: atomic file -> leave-one-out -> augmentation -> model -> Trainer."""
    write_atomic(world, folder / "world")
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    if "categories" in world.item_fields:
        columns["item"] = ["item_id", "class"]
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": columns,
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


def write_atomic(world: Dataset, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = zip(world.user_keys[world.users - 1], world.item_keys[world.items - 1], world.timestamps, strict=True)
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "world.inter").write_text(header + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows))
    if "categories" in world.item_fields:
        of_items = zip(world.item_keys, world.item_fields["categories"][1:], strict=True)
        header = "item_id:token\tclass:token_seq\n"
        (folder / "world.item").write_text(header + "".join(f"{item}\t{words}\n" for item, words in of_items))


def ours(name: str, other: Theirs, world: Dataset, view: TrainingView, overrides: Mapping[str, Any]) -> Sequential:
    """The room with the weights of RecBole's model, which numbers users and items by first appearance in the file."""
    cls = RecBole.variants[name]
    assert issubclass(cls, Sequential)
    own = name.lower() if name in SHARED else "options"
    method = cls(replace_nested(cls.Config(), {own: overrides}))
    method.build(view)
    weights = {key: renumbered(key, value, other, world) for key, value in other.model.state_dict().items()}
    method.model.load_state_dict(weights)
    method.model.eval()
    method.pairs = method.examples(view)
    return method


def renumbered(name: str, value: torch.Tensor, other: Theirs, world: Dataset) -> torch.Tensor:
    """A parameter of RecBole's model with our rows; those after the items' (the mask) keep their places."""
    if name.startswith(("item_embedding", "output_bias")):
        rows = their_ids(other, "item_id", world.item_keys)
    elif name.startswith("user_embedding"):
        rows = their_ids(other, "user_id", world.user_keys)
    elif name.startswith("feature_embedding"):
        rows = their_ids(other, "class", np.array(WORDS))[1:] - 1
    else:
        return value.clone()
    return value[torch.cat([rows, torch.arange(len(rows), len(value))])]


def their_ids(other: Theirs, field: str, keys: np.ndarray) -> torch.Tensor:
    """RecBole's id of PAD and of every key in our order."""
    return torch.as_tensor([other.dataset.token2id(field, key) for key in ["[PAD]", *keys]])


def our_ids(other: Theirs, field: str, keys: np.ndarray, n_more: int = 0) -> torch.Tensor:
    """Our id of every id of RecBole's; ``n_more`` ids after its last are the same in both."""
    ids = their_ids(other, field, keys)
    return torch.cat([ids.argsort(), torch.arange(len(ids), len(ids) + n_more)])


def seen_by_their_loss(other: Theirs, monkeypatch: pytest.MonkeyPatch) -> tuple[float, Any]:
    """One epoch of RecBole's Trainer, which is one step: the loss it reports, and the batch it fed."""
    fed = []
    calculate = other.model.calculate_loss
    monkeypatch.setattr(other.model, "calculate_loss", lambda batch: fed.append(batch) or calculate(batch))
    loss = other.trainer._train_epoch(other.train, 0)
    assert len(fed) == 1
    return loss, fed[0]


def loss_by_length(method: Sequential) -> torch.Tensor:
    """The mean loss of all pairs as the training loop cuts them: exact lengths, no padding."""
    lengths = method.pairs.lengths
    groups = [torch.where(lengths == length)[0] for length in lengths.unique()]
    losses = [method.loss(rows, int(lengths[rows[0]])) * len(rows) for rows in groups]
    return torch.stack(losses).sum() / len(lengths)


def assert_same_gradients(method: Sequential, other: Theirs, world: Dataset) -> None:
    gradients = {key: value.grad for key, value in method.model.named_parameters()}
    for key, value in other.model.named_parameters():
        if value.grad is None:
            assert gradients[key] is None
        else:
            expected = renumbered(key, value.grad, other, world)
            torch.testing.assert_close(gradients[key], expected, atol=1e-5, rtol=1e-4)
