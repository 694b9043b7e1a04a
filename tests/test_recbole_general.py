"""RecBole's general models here against RecBole itself: its dataset, sampler, loss, Trainer, masking, evaluation."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import sparse

import methods
import protocols
from benchmark.evaluate import mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.run import Run
from benchmark.types import PAD, Dataset, Sequences, Split
from methods.recbole.general import General, Learned
from methods.recbole.library import NEGATIVE, TARGET, USER
from methods.recbole.purchases import Negatives, Purchases, old_scipy
from tests import toys

pytest.importorskip("recbole")

pytestmark = [  # RecBole's own, about pandas 3 and newer torch and numpy
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NAMES = ("BPR", "LightGCN", "ItemKNN", "Pop")


class Theirs(NamedTuple):
    """RecBole's side of one small world."""

    config: Any
    dataset: Any
    train: Any
    test: Any
    model: Any
    trainer: Any


@pytest.fixture
def recbole_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What RecBole's Config, Trainer and graph models need of older numpy and scipy, and of tensorboard."""
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        monkeypatch.setattr(np, old, getattr(np, new), raising=False)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # Config reads the command line
    tensorboard = ModuleType("torch.utils.tensorboard")
    tensorboard.SummaryWriter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    importlib.import_module("recbole.trainer")
    monkeypatch.setattr("recbole.trainer.trainer.get_tensorboard", lambda _logger: None)
    with old_scipy():
        yield


@pytest.fixture(scope="module")
def world() -> Dataset:
    """80 users with 4 to 30 purchases of 50 items, some of which sell more than others."""
    random = np.random.default_rng(5)
    share = np.linspace(1, 5, 50) / np.linspace(1, 5, 50).sum()
    histories = [random.choice(np.arange(1, 51), n, replace=False, p=share) for n in random.integers(4, 31, 80)]
    return toys.dataset("world", histories, ["", *(f"item {i}" for i in range(1, 51))])


@pytest.fixture(scope="module")
def split(world: Dataset) -> Split:
    return protocols.load("loo").split(world)


def theirs(name: str, world: Dataset, folder: Path, **options: Any) -> Theirs:
    """RecBole as documented: atomic file -> leave-one-out -> uniform negatives -> model -> Trainer."""
    (folder / "world").mkdir()
    rows = zip(world.user_keys[world.users - 1], world.item_keys[world.items - 1], world.timestamps, strict=True)
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "world" / "world.inter").write_text(header + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows))
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "metrics": ["Recall", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 12,
        "train_batch_size": 100_000,
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
    return Theirs(config, dataset, train, test, model, utils.get_trainer(config["MODEL_TYPE"], name)(config, model))


def numbering(other: Theirs, world: Dataset) -> dict[str, torch.Tensor]:
    """Their ids of our users and items: (U + 1,) and (N + 1,), PAD first."""
    keys = {USER: ["[PAD]", *world.user_keys], TARGET: ["[PAD]", *world.item_keys]}
    return {field: torch.as_tensor([other.dataset.token2id(field, key) for key in keys[field]]) for field in keys}


def build(name: str, split: Split, preset: str | None = "drop-seen", profile: str = "full") -> General:
    entrant = methods.load(f"recbole:{name}")
    method = entrant.cls(build_config(entrant.cls, preset, profile), run=Run(seed=0))
    assert isinstance(method, General)
    method.build(split.train)
    return method


def with_their_weights(name: str, other: Theirs, world: Dataset, split: Split) -> General:
    method, ids = build(name, split), numbering(other, world)
    theirs = other.model.state_dict()
    rows = {"user_embedding.weight": ids[USER], "item_embedding.weight": ids[TARGET]}
    method.model.load_state_dict({key: theirs[key][rows[key]] for key in rows})
    return method


@pytest.mark.parametrize("name", ["BPR", "LightGCN"])
def test_same_weights_rank_as_recboles_trainer(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    other = theirs(name, world, tmp_path)
    other.model.eval()
    expected = other.trainer.evaluate(other.test, load_best_model=False)
    ranking = with_their_weights(name, other, world, split).recommend(split.test.cases, 20)
    assert 0 < expected["ndcg@10"] < 1
    for metric in ("recall@10", "ndcg@10"):
        assert mean_metric(ranking, split.test.targets, metric) == pytest.approx(expected[metric], abs=1e-6)


@pytest.mark.parametrize("name", ["ItemKNN", "Pop"])
def test_counted_models_score_as_recboles(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    """Pop is shown one purchase at a time and no drawn negatives, each of which it would count as a purchase."""
    options = {"Pop": {"train_batch_size": 1, "train_neg_sample_args": None}, "ItemKNN": {"shrink": 2.5}}
    other = theirs(name, world, tmp_path, **options[name])
    other.trainer._train_epoch(other.train, 0)
    ids = numbering(other, world)
    method = build(name, split, None)
    if name == "ItemKNN":
        method.config = replace_nested(method.config, {"options": {"shrink": 2.5}})
    method.fit(split.train)
    cases = split.test.cases
    asked = {USER: ids[USER][torch.from_numpy(cases.users).long()]}
    expected = other.model.full_sort_predict(asked).view(len(cases), -1)[:, ids[TARGET]]
    found = method._score(cases)
    assert found[:, 1:].unique().numel() > 5
    torch.testing.assert_close(found[:, 1:], expected[:, 1:].float())


def test_itemknn_keeps_its_k_nearest(split: Split) -> None:
    method = build("ItemKNN", split, None)
    method.config = replace_nested(method.config, {"options": {"k": 3}})
    method.fit(split.train)
    assert method.model.w.getnnz(axis=0).max() == 3


@pytest.mark.parametrize("name", ["BPR", "LightGCN"])
def test_first_epoch_loss_and_gradient_are_those_of_recboles_trainer(
    name: str, world: Dataset, split: Split, tmp_path: Path, recbole_environment: None
) -> None:
    other = theirs(name, world, tmp_path)
    method, ids = with_their_weights(name, other, world, split), numbering(other, world)
    shown: list[Any] = []
    calculate = other.model.calculate_loss
    other.model.calculate_loss = lambda interaction: shown.append(interaction) or calculate(interaction)
    expected = other.trainer._train_epoch(other.train, 0)  # one batch holds all purchases, so this is one step
    ours = {field: torch.argsort(ids[field]) for field in ids}  # our ids of theirs
    (batch,) = shown
    assert len(batch[USER]) == len(method.purchases.items)
    items = {column: ours[TARGET][batch[column]] for column in (TARGET, NEGATIVE + TARGET)}
    loss = method.model.calculate_loss({USER: ours[USER][batch[USER]], **items})
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)
    loss.backward()
    for field, table in ((USER, "user_embedding"), (TARGET, "item_embedding")):
        grad = getattr(other.model, table).weight.grad[ids[field]]
        torch.testing.assert_close(getattr(method.model, table).weight.grad, grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_recboles_own(name: str) -> None:
    import recbole
    import yaml

    properties = Path(recbole.__file__).parent / "properties"
    model = yaml.safe_load((properties / "model" / f"{name}.yaml").read_text()) or {}
    overall = yaml.safe_load((properties / "overall.yaml").read_text())
    cls = methods.load(f"recbole:{name}").cls
    config = build_config(cls, None, "full")
    mine = asdict(config.options)
    assert mine == {k: type(mine[k])(v) for k, v in model.items()} | {k: overall[k] for k in mine.keys() - model.keys()}
    if issubclass(cls, Learned):
        training = config.training
        assert (training.epochs, training.batch_size) == (overall["epochs"], overall["train_batch_size"])
        assert (training.learning_rate, training.patience) == (overall["learning_rate"], overall["stopping_step"])
        assert (training.weight_decay, training.schedule, training.clip_norm) == (0.0, "constant", None)


def test_negatives_are_uniform_over_what_the_user_lacks(split: Split) -> None:
    purchases = Purchases(split.train)
    negatives = Negatives(purchases, torch.device("cpu"))
    torch.manual_seed(0)
    users = torch.from_numpy(split.train.users[[0, 7, 41]]).long()
    drawn = negatives.draw(users.repeat(60_000)).view(60_000, 3)
    for column, user in enumerate(users.tolist()):
        had = purchases.items[purchases.users == user]
        lacking = np.setdiff1d(np.arange(1, split.train.n_items + 1), had)
        items, counts = np.unique(drawn[:, column].numpy(), return_counts=True)
        np.testing.assert_array_equal(items, lacking)
        expected = 60_000 / len(lacking)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_the_last_item_a_user_lacks_is_found_by_hand() -> None:
    view = toys.four_users()  # of 5 items: 1 2 3, 1 2, 2 1, 1 3 4
    negatives = Negatives(Purchases(view), torch.device("cpu"))
    torch.manual_seed(0)
    drawn = {user: set(negatives.draw(torch.full((200,), user)).tolist()) for user in (1, 2, 3, 4)}
    assert drawn == {1: {4, 5}, 2: {3, 4, 5}, 3: {3, 4, 5}, 4: {2, 5}}


def test_a_user_who_has_everything_is_refused() -> None:
    everything = Sequences.from_rows([[1, 2], [3, 1, 5, 2, 4], [1], [2]])
    with pytest.raises(ValueError, match="choose another method"):
        Negatives(Purchases(replace(toys.four_users(), sequences=everything)), torch.device("cpu"))


def test_lightgcn_ranks_with_the_weights_it_has_now(split: Split) -> None:
    """Its model keeps the propagated embeddings of the last ranking until it sees a loss."""
    method, cases = build("LightGCN", split), split.test.cases
    before = method.recommend(cases, 10).items
    weights = {key: value.clone() for key, value in method.model.state_dict().items()}
    method.model.load_state_dict({key: -value.flip(0) for key, value in weights.items()})
    assert (method.recommend(cases, 10).items != before).any()
    method.model.load_state_dict(weights)  # as the training loop does with the best epoch's
    np.testing.assert_array_equal(method.recommend(cases, 10).items, before)


def test_the_lists_after_training_are_those_of_the_best_epoch(split: Split) -> None:
    method = build("LightGCN", split, profile="smoke").fit(split.train)
    score = mean_metric(method.recommend(split.train.valid.cases, 10), split.train.valid.targets, "ndcg@10")
    assert score == pytest.approx(method.report.best_score, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_training_fits_what_was_bought(name: str, split: Split) -> None:
    """Without @drop-seen the heads of the lists hold more of the user's own purchases than chance; Pop's sell best."""
    entrant = methods.load(f"recbole:{name}")
    config = build_config(entrant.cls, None, "smoke")
    if hasattr(config, "training"):
        config = replace_nested(config, {"training": {"epochs": 60, "patience": 60, "learning_rate": 2e-2}})
    method = entrant.cls(config, run=Run(seed=0)).fit(split.train)
    lists = method.recommend(split.train.valid.cases, 4).items
    if name == "Pop":
        assert (split.train.item_counts[lists] == np.sort(split.train.item_counts)[::-1][:4]).all()
        return
    had = [np.isin(row, bought).mean() for row, bought in zip(lists, split.train.sequences, strict=True)]
    shares = split.train.sequences.lengths / split.train.n_items
    assert np.mean(had) > np.mean(shares) + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_users_without_training_get_a_list(name: str) -> None:
    split = protocols.load("warmcold").split(toys.arrivals())
    view = split.train
    keep = np.arange(len(view.users)) >= 3
    left = Sequences.from_rows([row for row, wanted in zip(view.sequences, keep, strict=True) if wanted])
    smaller = replace(view, users=view.users[keep], sequences=left)
    entrant = methods.load(f"recbole:{name}")
    method = entrant.cls(build_config(entrant.cls, "drop-seen", "smoke"), run=Run(seed=0)).fit(smaller)
    assert (method.recommend(split.test.cases, 5, candidates=split.candidates).items != PAD).all()


def test_the_graph_is_the_normalised_adjacency(split: Split) -> None:
    before = hasattr(sparse.dok_matrix, "_update")
    model, purchases = build("LightGCN", split).model, Purchases(split.train)
    assert hasattr(sparse.dok_matrix, "_update") == before, "scipy is not left as it was"
    n_users = split.train.n_users + 1
    adjacency = np.zeros((n_users + split.train.n_items + 1,) * 2)
    adjacency[purchases.users, n_users + purchases.items] = 1
    adjacency += adjacency.T
    degree = adjacency.sum(1) + 1e-7
    expected = adjacency / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(model.norm_adj_matrix.to_dense().numpy(), expected, atol=1e-6)
