"""RecBole's own GRU4Rec and SASRec with cross-entropy, on this suite's split, training loop and ranking.

The models are driven as bare modules: RecBole's Config, Dataset, DataLoader and Trainer take no part.
Sequences -> (prefix, next item) pairs -> ``calculate_loss``; history -> ``full_sort_predict`` -> lists.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.evaluate import mean_metric
from benchmark.method import Estimate, Method
from benchmark.types import PAD, Budget, Cases, Ranking, Sequences, Spend, TrainingView
from methods.blocks.ranking import rank_by_score
from methods.blocks.training import Report, Training, seed_everything, train

ITEMS, LENGTH, TARGET = "item_id_list", "item_length", "item_id"
"""The columns of RecBole's interactions, under its default names."""
FLOPS_PER_SECOND = 3.5e10
"""What one CPU core sustained on these models (SASRec on amazon14-beauty: 32 s an epoch at batch 512)."""


@dataclass(frozen=True, kw_only=True)
class GRU4Rec:
    """RecBole's options and defaults."""

    embedding_size: int = 64
    hidden_size: int = 128
    num_layers: int = 1
    dropout_prob: float = 0.3
    loss_type: str = "CE"


@dataclass(frozen=True, kw_only=True)
class SASRec:
    """RecBole's options and defaults."""

    n_layers: int = 2
    n_heads: int = 2
    hidden_size: int = 64
    inner_size: int = 256
    hidden_dropout_prob: float = 0.5
    attn_dropout_prob: float = 0.5
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    loss_type: str = "CE"


class RecBole(Method):
    """RecBole: Zhao et al., CIKM 2021. GRU4Rec: Tan et al., DLRS 2016. SASRec: Kang, McAuley, ICDM 2018."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        gru4rec: GRU4Rec = GRU4Rec()
        """Read by ``recbole:GRU4Rec`` only."""
        sasrec: SASRec = SASRec()
        """Read by ``recbole:SASRec`` only."""
        training: Training = field(
            default_factory=lambda: Training(
                epochs=300, batch_size=2048, learning_rate=1e-3, schedule="constant", patience=10
            )
        )
        """RecBole's defaults; without weight decay AdamW is its Adam."""

    config: Config
    model: Any
    """RecBole's classes carry no types."""

    profiles: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "gru4rec": {"embedding_size": 32, "hidden_size": 32},
            "sasrec": {"n_layers": 1, "hidden_size": 32, "inner_size": 64},
            "training": {"epochs": 8, "batch_size": 128, "learning_rate": 3e-3, "patience": 3},
        },
        "small": {"training": {"epochs": 60, "batch_size": 512, "patience": 5, "max_minutes": 25.0}},
    }
    arguments: ClassVar[tuple[str, ...]] = ("GRU4Rec", "SASRec")
    lineup: ClassVar[tuple[str, ...]] = (":GRU4Rec", ":SASRec")

    def fit(self, view: TrainingView) -> Self:
        seed_everything(self.run.seed)
        self.build(view.n_items, view.max_history)
        pairs = training_pairs(view.sequences, view.max_history, self.run.device)
        self.report: Report = train(
            self.model,
            pairs.lengths,
            lambda rows, length: self.model.calculate_loss(pairs.batch(rows, length)),
            self.config.training,
            lambda: mean_metric(self._rank(view.valid.cases, 10, "validate"), view.valid.targets, view.selection),
            self.run,
        )
        return self

    def build(self, n_items: int, max_history: int) -> None:
        """Set ``model`` to a freshly initialised one."""
        assert self.argument is not None and self.argument in self.arguments
        options = asdict(self.config.gru4rec if self.argument == "GRU4Rec" else self.config.sasrec)
        self.max_history = max_history
        self.model = build_model(self.argument, options, n_items, max_history, self.run.device)

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        with self.run.stage("decode"):
            return self._rank(cases, k, "decode", candidates)

    def _rank(self, cases: Cases, k: int, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        scored = len(cases.tie_order) - 1 if candidates is None else len(candidates)
        spend = Spend(rule="scores", items_scored=scored)
        return rank_by_score(self._score, cases, k, run=self.run, spend=spend, candidates=candidates, stage=stage)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1). A user without history is asked with one PAD, as RecBole has no empty sequences."""
        histories = cases.histories.tail(self.max_history)
        lengths = torch.from_numpy(histories.lengths).clamp(min=1)  # (B,)
        items = torch.from_numpy(histories.padded(int(lengths.max()))).long()  # (B, S)
        device = self.run.device
        return self.model.full_sort_predict({ITEMS: items.to(device), LENGTH: lengths.to(device)})

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def training_report(self) -> dict[str, Any]:
        return vars(self.report)

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """SASRec, the dearer of the two: every pair runs its prefix (7 items on average), scores all items.

        Three times the forward FLOPs, 30 epochs until patience, and the validation users ranked every epoch.
        """
        sizes, training = config.sasrec, config.training
        layer = 8 * sizes.hidden_size**2 + 4 * sizes.hidden_size * sizes.inner_size
        per_pair = 7 * sizes.n_layers * layer + 2 * sizes.hidden_size * n_items
        epoch = 3 * n_interactions * per_pair / FLOPS_PER_SECOND + n_users * n_items / 1e8
        seconds = min(30, training.epochs) * epoch
        if training.max_minutes is not None:
            seconds = min(seconds, 60 * training.max_minutes)
        return Estimate(seconds, 6e8 + 12.0 * training.batch_size * n_items)


class Pairs(NamedTuple):
    """Training pairs as tensors on the device: the last items before a target, and the target."""

    histories: Tensor  # (n, S) int64, right-padded with PAD
    lengths: Tensor  # (n,) int64
    targets: Tensor  # (n,) int64

    def batch(self, rows: Tensor, length: int) -> dict[str, Tensor]:
        """Rows that all have this length, as a RecBole interaction. The cut leaves no padding.

        Both models read a history from its left end and causally, so cutting right-padding changes nothing.
        """
        return {ITEMS: self.histories[rows, :length], LENGTH: self.lengths[rows], TARGET: self.targets[rows]}


def training_pairs(sequences: Sequences, max_history: int, device: str = "cpu") -> Pairs:
    """Every item but the first of a sequence as a target, the ``max_history`` items before it as history."""
    places = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths)  # (T,)
    at = np.flatnonzero(places > 0)  # (n,) where the targets stand
    lengths = np.minimum(places[at], max_history)
    columns = np.arange(max_history)
    source = np.where(columns < lengths[:, None], (at - lengths)[:, None] + columns, 0)  # (n, S)
    histories = np.where(columns < lengths[:, None], sequences.items[source], PAD)
    parts = (histories, lengths, sequences.items[at])
    return Pairs(*(torch.from_numpy(part.astype(np.int64)).to(device) for part in parts))


class _Catalogue:
    """All that RecBole's sequential models ask of a dataset: how many items there are, PAD among them."""

    def __init__(self, n_items: int):
        self.n_items = n_items

    def num(self, field_name: str) -> int:
        assert field_name == TARGET
        return self.n_items + 1


def build_model(name: str, options: Mapping[str, Any], n_items: int, max_history: int, device: str) -> Any:
    """RecBole's model of this name, freshly initialised from torch's global generator."""
    fields = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": TARGET,
        "LIST_SUFFIX": ITEMS.removeprefix(TARGET),
        "ITEM_LIST_LENGTH_FIELD": LENGTH,
        "NEG_PREFIX": "neg_",
    }
    settings = fields | {"MAX_ITEM_LIST_LENGTH": max_history, "device": torch.device(device)} | dict(options)
    return getattr(recbole_models(), name)(settings, _Catalogue(n_items)).to(device)


def recbole_models() -> ModuleType:
    """RecBole's sequential models. Raises ValueError with the command that installs them."""
    tensorboard = "torch.utils.tensorboard"
    stub = importlib.util.find_spec("tensorboard") is None and tensorboard not in sys.modules
    if stub:  # RecBole imports it for its Trainer's logs; installing 60 MB for that is not worth it
        sys.modules[tensorboard] = ModuleType(tensorboard)
        sys.modules[tensorboard].SummaryWriter = object  # type: ignore[attr-defined]
    checked = torch.is_anomaly_enabled()
    try:
        return importlib.import_module("recbole.model.sequential_recommender")
    except ImportError as error:
        raise ValueError(
            f"RecBole cannot be imported ({error}); run: pip install --no-deps -r requirements-recbole.txt"
        ) from error
    finally:
        # One of its models switches autograd's anomaly checks on for the whole process.
        torch.autograd.set_detect_anomaly(checked)
        if stub:
            del sys.modules[tensorboard]


METHOD = RecBole
