"""What every generator of semantic IDs shares: history tokens -> encoder-decoder -> beam search over the trie -> items.

A room brings its tokenizer (``semantic_ids``) and, where it differs, its input, loss or network. What a wrapper such as
GenPlugin builds on is ``semantic_ids``, ``network``, ``tokens``, ``encode`` and ``token_loss``.
Letters in shapes: B users, L items of history, C codes of an item, S encoder tokens, V vocabulary, D width.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.evaluate import mean_metric
from benchmark.method import Estimate, Method, later
from benchmark.space import Choices, OneOf
from benchmark.types import Budget, Cases, Ranking, TrainingView
from methods.blocks.backbones import LanguageModel, check, check_again, layer_weights, weights_per_token
from methods.blocks.beam_search import Step, rank_by_beam
from methods.blocks.causal_generator import generator_network
from methods.blocks.next_item import NextItemPairs, sample
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5, Shape
from methods.blocks.tokenizer import without_ids
from methods.blocks.training import (
    Report,
    Training,
    load_trainable,
    read_model,
    seed_everything,
    told,
    train,
    trainable_state,
    trained_weights,
    write_checkpoint,
)

BUDGET = Budget(beam_size=20, list_length=20)
"""Of the unified track: what checkpoints are compared with, and what is spent when nobody says."""


SEARCH: dict[str, Choices] = {
    "training.learning_rate": OneOf((3e-4, 5e-4, 1e-3, 2e-3)),
    "embedding_rate": OneOf((1.0, 3.0, 10.0)),
    "backbone.dropout": OneOf((0.0, 0.1, 0.2)),
    "backbone.encoder_layers": OneOf((2, 4)),
    "backbone.decoder_layers": OneOf((2, 4)),
}
SEARCH_PROFILES: dict[str, dict[str, Choices]] = {
    "small": {
        "training.learning_rate": OneOf((1e-3, 2e-3, 3e-3, 5e-3)),
        "backbone.encoder_layers": OneOf((1, 2)),
        "backbone.decoder_layers": OneOf((1, 2)),
    }
}
PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "backbone": {
            "width": 64,
            "heads": 4,
            "head_width": 16,
            "feed": 256,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "dropout": 0.0,
        },
        "validation_users": 200,
        "training": {"epochs": 8, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 20, "patience": 4},
    },
    "small": {
        "backbone": {
            "width": 64,
            "heads": 4,
            "head_width": 32,
            "feed": 256,
            "encoder_layers": 2,
            "decoder_layers": 2,
            # 0.4 M parameters underfit: docs/tiger.md.
            "dropout": 0.0,
        },
        "validation_users": 2000,
        "training": {
            "epochs": 12,
            "batch_size": 128,
            "learning_rate": 3e-3,
            "warmup_steps": 200,
            "patience": 10,
            "max_minutes": 25.0,
        },
    },
}
"""Size and training length of every generator, so that only what a method is about differs between rows."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What every generator can be told; the defaults are the unified track at full size."""

    backbone: Shape = field(default_factory=Shape)
    language_model: LanguageModel = later(LanguageModel(name=""))
    """A named size in place of ``backbone`` (``blocks/backbones``); name "" = the T5 of ``backbone``."""
    rule: str = "raw"
    """How beams are scored: ``raw`` or ``renorm`` (``blocks/beam_search``)."""
    validation_users: int | None = None
    """Compare checkpoints on this many users, drawn once; None = all."""
    decode_batch: int | None = None
    """Users decoded together; None = 32 on a CPU, 4,096 on a GPU."""
    embedding_rate: float = 10.0
    """Multiple of the learning rate for the code embedding. T5 starts it at N(0, 1), about ten times the size of
    its other weights, and TIGER's own optimiser (Adafactor) makes steps in proportion to size; plain AdamW would
    move it least of all (measured in docs/tiger.md)."""
    training: Training = field(
        default_factory=lambda: Training(
            epochs=200,
            batch_size=1024,
            learning_rate=5e-4,
            weight_decay=0.01,
            warmup_steps=250,
            schedule="cosine",
            patience=20,
        )
    )


class Network(Protocol):
    """The network behind a generator: ``blocks/t5``, or a decoder-only one as ``blocks/causal_generator`` has it."""

    embedding: nn.Embedding

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, S) -> memory (B, S, D)."""

    def decode(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """tokens (B, C), start token first -> logits (B, C, V)."""

    def decode_embedded(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """The same from embeddings (B, C, D)."""

    def decoding(self, memory: Tensor, memory_mask: Tensor | None = None) -> Step:
        """The step function of beams that share ``memory``."""


class Generator(Method):
    """Trained on every (prefix, next item) pair with teacher forcing, decoded by beam search over the trie."""

    config: GeneratorConfig
    reads_text = True
    saves = True
    as_base: ClassVar[Mapping[str, Any]] = {}
    """What papers that build on the method set otherwise than its unified track; for the paper track of wrappers."""
    search = SEARCH
    search_profiles = SEARCH_PROFILES
    ids: SemanticIds
    model: nn.Module
    tokenizer_report: dict[str, Any]
    """On everything that training starts from: pre-trained weights, see ``backbones.check``, too."""
    report: Report
    max_history: int

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        return without_ids(view)

    @abstractmethod
    def semantic_ids(self, view: TrainingView) -> tuple[SemanticIds, dict[str, Any]]:
        """The identifiers of all items, one set per seed, and a report on them."""

    def network(self) -> nn.Module:
        """A new network for ``self.ids`` that has not seen any history, see ``Network``."""
        if not self.config.language_model.name:
            return T5(self.vocab_size(), self.config.backbone)
        sample = torch.ones((1, self.max_history), dtype=torch.long)
        length = self.tokens(sample[:, 0], sample).shape[1] + self.ids.levels
        return generator_network(self.config.language_model, self.vocab_size(), length, self.run.language_models)

    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.ids.vocab_size

    def tokens(self, users: Tensor, histories: Tensor) -> Tensor:
        """The encoder's input: users (B,) and histories (B, L) -> tokens (B, S); the last L * C are the items'."""
        return self.ids.tokens(histories).flatten(1)

    def encode(self, users: Tensor, histories: Tensor, mask: Tensor | None = None) -> Tensor:
        """users (B,) and histories (B, L) -> memory (B, S, D)."""
        return cast(Network, self.model).encode(self.tokens(users, histories), mask)

    def token_loss(self, logits: Tensor, codes: Tensor) -> Tensor:
        """logits (B, C, V) and the tokens (B, C) they should name -> mean cross-entropy over codes."""
        return F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())

    def fit(self, view: TrainingView) -> Self:
        self._identify(view)
        seed_everything(self.run.seed)
        self.max_history = view.max_history
        self.model = self.network().to(self.run.device)
        pairs = NextItemPairs(view, torch.device(self.run.device))
        self.report = train(
            self.model,
            pairs.lengths,
            lambda rows, length: self._loss(*pairs.take(rows, length)),
            self.config.training,
            self._validation(view),
            self.run,
            rates={"embedding.weight": self.config.embedding_rate},
            after_epoch=self._after_epoch,
        )
        return self

    def _identify(self, view: TrainingView) -> None:
        """The identifiers of all items. Pre-trained weights are made sure of first, and stand in the report too."""
        named = self.config.language_model.name
        weights = check(self.config.language_model, self.run.language_models) if named else {}
        self.ids, report = self.semantic_ids(view)
        self.tokenizer_report = report | weights

    def _after_epoch(self, epoch: int) -> None:
        """What changes between epoch ``epoch`` = 1, 2, ... and its validation."""

    def _validation(self, view: TrainingView) -> Callable[[], float]:
        """What compares checkpoints: the selection metric under the unified budget."""
        asked = sample(view.valid, self.config.validation_users)

        def validate() -> float:
            ranking = self._rank(asked.cases, 10, BUDGET, "validate", view.candidates)
            return mean_metric(ranking, asked.targets, view.selection)

        return validate

    def _loss(self, users: Tensor, histories: Tensor, targets: Tensor) -> Tensor:
        """The loss of the next items (B,) given users (B,) and histories (B, L)."""
        codes = self.ids.tokens(targets)  # (B, C)
        logits = cast(Network, self.model).decode(shifted(codes), self.encode(users, histories))  # (B, C, V)
        return self.token_loss(logits, codes)

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        with self.run.stage("decode"):
            return self._rank(cases, k, budget or BUDGET, "decode", candidates)

    def _rank(self, cases: Cases, k: int, budget: Budget, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        return rank_by_beam(
            self.start,
            self.ids,
            cases,
            k,
            run=self.run,
            budget=budget,
            rule=self.config.rule,
            candidates=candidates,
            batch_size=self.config.decode_batch,
            stage=stage,
        )

    def start(self, cases: Cases) -> Step:
        """Encode the histories once; the beams of a user share the result."""
        memory, mask = self.memory(cases)
        return cast(Network, self.model).decoding(memory, mask)

    def memory(self, cases: Cases) -> tuple[Tensor, Tensor | None]:
        """The cases encoded (B, S, D) and which places are filled (B, S); None = all."""
        histories = cases.histories.tail(self.max_history)
        lengths = np.maximum(histories.lengths, 1)  # an empty history is read as one PAD
        padded = torch.from_numpy(histories.padded(int(lengths.max())).astype(np.int64)).to(self.run.device)
        users = torch.from_numpy(cases.users.astype(np.int64)).to(self.run.device)
        mask = None
        if lengths.min() < lengths.max():
            width = self.tokens(users[:1], padded[:1]).shape[1]
            filled = lengths * self.ids.levels + (width - padded.shape[1] * self.ids.levels)
            mask = torch.from_numpy(np.arange(width) < filled[:, None]).to(self.run.device)  # (B, S)
        return self.encode(users, padded, mask), mask

    def parameters(self) -> int:
        return trained_weights(self.model)

    def training_report(self) -> Mapping[str, Any]:
        """Under-trained when the time cap ended any stage."""
        return told(self.report, self.tokenizer_report)

    def save(self, path: Path) -> None:
        write_checkpoint(path, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "codes": torch.from_numpy(self.ids.codes),
            "sizes": list(self.ids.sizes),
            "max_history": self.max_history,
            "model": trainable_state(self.model),
            "report": asdict(self.report),
            "tokenizer_report": json.dumps(self.tokenizer_report),
        }

    def load(self, path: Path, view: TrainingView) -> Self:
        self._restore(read_model(path, self.run.device), view)
        return self

    def _restore(self, state: dict[str, Any], view: TrainingView) -> None:
        self.ids = SemanticIds(state["codes"].cpu().numpy(), state["sizes"])
        self.tokenizer_report = json.loads(state["tokenizer_report"])
        self.report, self.max_history = Report(**state["report"]), state["max_history"]
        check_again(self.config.language_model, self.run.language_models, self.tokenizer_report)
        seed_everything(self.run.seed)  # frozen weights from scratch are not kept, only drawn again
        self.model = self.network().to(self.run.device)
        load_trainable(self.model, state["model"])
        self.model.eval()


def shifted(codes: Tensor) -> Tensor:
    """What the decoder reads to name codes (B, C): the start token, then all but the last."""
    return F.pad(codes[:, :-1], (1, 0), value=PAD_TOKEN)


def generator_estimate(
    config: GeneratorConfig, codes: int, n_users: int, n_items: int, n_interactions: int
) -> Estimate:
    """Three times the forward FLOPs of all pairs, and beam 20 for all users, at 40 and 20 GFLOP/s a core.

    ``codes`` is the length of a semantic ID.
    """
    name = config.language_model.name
    per_token = 2 * (weights_per_token(name) if name else layer_weights(config.backbone))
    history = min(8.0, n_interactions / n_users)
    flops = 3 * n_interactions * history * codes * per_token * config.training.epochs
    decoded = n_users * per_token * (history * codes + 20 * codes)
    memory = 1.5e9 + (20 * weights_per_token(name) if name else 0)  # weights, gradients, moments and what they move
    return Estimate(config.training.capped(flops / 40e9) + decoded / 20e9, memory)
