"""RecBole's sequential models: (prefix, next item) pairs -> ``calculate_loss``; history -> ``full_sort_predict``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.method import Estimate
from benchmark.space import OneOf
from benchmark.types import PAD, Cases, TrainingView
from methods.blocks.next_item import NextItemPairs
from methods.blocks.ranking import Scorer
from methods.blocks.training import Report, Training, seed_everything, train
from methods.recbole.library import ITEMS, LENGTH, NEGATIVE, SEQUENTIAL, TARGET, USER, Catalogue, build_model

FLOPS_PER_SECOND = 3.5e10
"""What one CPU core sustained on these models (SASRec on amazon14-beauty: 32 s an epoch at batch 512)."""


@dataclass(frozen=True, kw_only=True)
class GRU4RecOptions:
    """RecBole's options and defaults."""

    embedding_size: int = 64
    hidden_size: int = 128
    num_layers: int = 1
    dropout_prob: float = 0.3
    loss_type: str = "CE"


@dataclass(frozen=True, kw_only=True)
class SASRecOptions:
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


RATES, WIDTHS, SMALL_WIDTHS = OneOf((5e-4, 1e-3, 3e-3)), OneOf((64, 128, 256)), OneOf((32, 64, 128))
LAYERS, DROPOUTS = OneOf((1, 2)), OneOf((0.1, 0.2, 0.3, 0.5))
"""What tuning may choose, the same for all models; widths are narrower at profile small."""


class Sequential(Scorer):
    """One of RecBole's sequential models, trained on every (prefix, next item) pair."""

    model_name: ClassVar[str]
    full_width: ClassVar[bool] = False
    """Whether the model reads histories at one width only. The others get batches of one exact length, without
    padding: they read a history from its left end and causally, so what is cut off changes nothing."""
    config: Any
    """A Config with ``training``, and the model's ``options``."""
    model: Any
    """RecBole's classes carry no types."""

    def fit(self, view: TrainingView) -> Self:
        self.start(view)
        self.report = self.learn(view)
        return self

    def start(self, view: TrainingView) -> None:
        """The seeds, a new model and the rows it will learn from."""
        seed_everything(self.run.seed)
        self.build(view)
        self.pairs = self.examples(view)

    def learn(self, view: TrainingView) -> Report:
        """Train for the next item, checkpoints chosen on the validation cases."""
        return train(
            self.model,
            self.pairs.lengths,
            self.loss,
            self.config.training,
            lambda: self._validate(view),
            self.run,
        )

    def build(self, view: TrainingView) -> None:
        """Set ``model`` to a freshly initialised one."""
        self.n_items, self.max_history = view.n_items, view.max_history
        self.model = build_model(
            SEQUENTIAL, self.model_name, self.options(), self.catalogue(view), self.run.device, view.max_history
        )

    def catalogue(self, view: TrainingView) -> Catalogue:
        """What the model asks of RecBole's dataset."""
        return Catalogue(view.n_users, view.n_items)

    def options(self) -> dict[str, Any]:
        """RecBole's own options of the model."""
        return asdict(self.config.options)

    def examples(self, view: TrainingView) -> NextItemPairs:
        """RecBole's augmentation: every prefix of a training sequence with the item after it."""
        return NextItemPairs(view, torch.device(self.run.device))

    def loss(self, rows: Tensor, length: int) -> Tensor:
        """RecBole's loss of some pairs of one history length."""
        return self.model.calculate_loss(self.batch(rows, length))

    def batch(self, rows: Tensor, length: int) -> dict[str, Tensor]:
        """Pairs of one history length as a RecBole interaction, with a drawn negative where the loss is BPR."""
        users, histories, targets = self.pairs.take(rows, length)
        lengths = torch.full_like(targets, length)
        made = {USER: users, ITEMS: self._widened(histories), LENGTH: lengths, TARGET: targets}
        if self.options().get("loss_type") == "BPR":
            made[NEGATIVE + TARGET] = another_item(targets, self.n_items)
        return made

    def _widened(self, histories: Tensor) -> Tensor:
        missing = self.max_history - histories.shape[1] if self.full_width else 0
        return F.pad(histories, (0, missing), value=PAD)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1). A user without history is asked with one PAD, as RecBole has no empty sequences."""
        histories = cases.histories.tail(self.max_history)
        lengths = torch.from_numpy(histories.lengths).clamp(min=1)  # (B,)
        items = self._widened(torch.from_numpy(histories.padded(int(lengths.max()))).long())  # (B, S)
        asked = {USER: torch.from_numpy(cases.users).long(), ITEMS: items, LENGTH: lengths}
        return self.model.full_sort_predict({name: tensor.to(self.run.device) for name, tensor in asked.items()})

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def training_report(self) -> dict[str, Any]:
        return vars(self.report)


def attention_space(options: str) -> dict[str, OneOf]:
    """What tuning may choose of the ``SASRecOptions`` at ``options`` in a Config."""
    return {
        f"{options}.hidden_size": WIDTHS,
        f"{options}.n_layers": LAYERS,
        f"{options}.hidden_dropout_prob": DROPOUTS,
        f"{options}.attn_dropout_prob": DROPOUTS,
    }


def another_item(targets: Tensor, n_items: int) -> Tensor:
    """(B,) uniform items, each other than its target, drawn from torch's global generator."""
    drawn = torch.randint(1, n_items, targets.shape, device=targets.device)
    return drawn + (drawn >= targets)


def pairwise_estimate(per_pair: float, training: Training, n_users: int, n_items: int, n_pairs: int) -> Estimate:
    """Three times the forward FLOPs of every pair, 30 epochs until patience, validation users ranked every epoch."""
    epoch = 3 * n_pairs * per_pair / FLOPS_PER_SECOND + n_users * n_items / 1e8
    seconds = min(30, training.epochs) * epoch
    return Estimate(training.capped(seconds), 6e8 + 12.0 * training.batch_size * n_items)


DEFAULT_TRAINING = Training(epochs=300, batch_size=2048, learning_rate=1e-3, schedule="constant", patience=10)
"""RecBole's defaults; without weight decay AdamW is its Adam."""
SMOKE_TRAINING: Mapping[str, Any] = {"epochs": 8, "batch_size": 128, "learning_rate": 3e-3, "patience": 3}
SMALL_TRAINING: Mapping[str, Any] = {"epochs": 60, "batch_size": 512, "patience": 5, "max_minutes": 25.0}
SHORT_TRAINING: Mapping[str, Any] = {**SMALL_TRAINING, "learning_rate": 2e-3, "max_minutes": 7.0}
"""Of the dearer models, so that the small table of all methods is an evening's work on two cores: 10 to 20 epochs of
Beauty at twice RecBole's rate. Rows that this stops are marked under-trained."""


@dataclass(frozen=True, kw_only=True)
class SharedConfig:
    """Of ``recbole:GRU4Rec`` and ``recbole:SASRec``: one Config for both, by which published results are known."""

    gru4rec: GRU4RecOptions = GRU4RecOptions()
    """Read by ``recbole:GRU4Rec`` only."""
    sasrec: SASRecOptions = SASRecOptions()
    """Read by ``recbole:SASRec`` only."""
    training: Training = DEFAULT_TRAINING


SHARED_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "gru4rec": {"embedding_size": 32, "hidden_size": 32},
        "sasrec": {"n_layers": 1, "hidden_size": 32, "inner_size": 64},
        "training": SMOKE_TRAINING,
    },
    "small": {"training": SMALL_TRAINING},
}


class GRU4Rec(Sequential):
    """Tan et al., DLRS 2016."""

    class Config(SharedConfig):
        pass

    model_name = "GRU4Rec"
    profiles = SHARED_PROFILES
    presets = {"bpr": {"gru4rec": {"loss_type": "BPR"}}}
    search = {
        "training.learning_rate": RATES,
        "gru4rec.hidden_size": WIDTHS,
        "gru4rec.num_layers": LAYERS,
        "gru4rec.dropout_prob": DROPOUTS,
    }
    search_profiles = {"small": {"gru4rec.hidden_size": SMALL_WIDTHS}}

    def options(self) -> dict[str, Any]:
        return asdict(self.config.gru4rec)

    @classmethod
    def estimate(cls, config: SharedConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A prefix has 7 items on average."""
        sizes = config.gru4rec
        recurrent = 6 * sizes.hidden_size * (sizes.embedding_size + sizes.hidden_size)
        per_pair = 7 * sizes.num_layers * recurrent + 2 * sizes.embedding_size * n_items
        return pairwise_estimate(per_pair, config.training, n_users, n_items, n_interactions)


class SASRec(Sequential):
    """Kang and McAuley, ICDM 2018."""

    class Config(SharedConfig):
        pass

    model_name = "SASRec"
    profiles = SHARED_PROFILES
    presets = {"bpr": {"sasrec": {"loss_type": "BPR"}}}
    search = {"training.learning_rate": RATES, **attention_space("sasrec")}
    search_profiles = {"small": {"sasrec.hidden_size": SMALL_WIDTHS}}

    def options(self) -> dict[str, Any]:
        return asdict(self.config.sasrec)

    @classmethod
    def estimate(cls, config: SharedConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """A prefix has 7 items on average."""
        sizes = config.sasrec
        layer = 8 * sizes.hidden_size**2 + 4 * sizes.hidden_size * sizes.inner_size
        per_pair = 7 * sizes.n_layers * layer + 2 * sizes.hidden_size * n_items
        return pairwise_estimate(per_pair, config.training, n_users, n_items, n_interactions)
