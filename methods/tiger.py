"""TIGER (Rajput et al., NeurIPS 2023): an item is a short code made from its text; the next item's code is generated.

text -> vectors -> residual codes -> semantic IDs; history as code tokens -> T5 -> beam search over the trie -> items.

The unified rows use the identifiers that the later papers mean by "TIGER" (4 x 256 codes, collisions resolved by
Sinkhorn, no user token, width 128), so that only the generator differs between methods; ``--track paper`` is the
original (3 x 256 codes and a deduplication digit, user token, 13 M parameters). ``docs/tiger.md`` lists every choice.

Presets: ``@rq-kmeans`` residual k-means in place of the RQ-VAE; ``@nearest-free`` collisions move to the nearest free
code; ``@digit`` a further code tells colliding items apart (TIGER's own rule); ``@renorm`` codes are scored among those
that lead to an item only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.artifacts import cached
from benchmark.datasets.text import category_codes
from benchmark.evaluate import mean_metric
from benchmark.method import Estimate, Method
from benchmark.space import OneOf
from benchmark.types import Budget, Cases, Ranking, TrainingView
from methods.blocks.alignment import check_alignment
from methods.blocks.beam_search import Step, rank_by_beam
from methods.blocks.collisions import dedup_digit, repair_nearest_free, repair_sinkhorn
from methods.blocks.next_item import NextItemPairs, sample
from methods.blocks.rqvae import Quantizer, quantize
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5, Decoding, Shape
from methods.blocks.text_encoder import encode_texts
from methods.blocks.training import Training, seed_everything, train

IDS_VERSION = 1
"""Part of every cached set of semantic IDs; a change that moves them raises it."""
BUDGET = Budget(beam_size=20, list_length=20)
"""Of the unified track: what checkpoints are compared with, and what is spent when nobody says."""


class TIGER(Method):
    """T5 over semantic IDs, trained on every (prefix, next item) pair with teacher forcing."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        tokenizer: Quantizer = field(default_factory=Quantizer)
        collisions: str = "sinkhorn"
        """``sinkhorn`` or ``nearest-free`` change the last code of colliding items, ``digit`` appends one more."""
        backbone: Shape = field(default_factory=Shape)
        user_tokens: int = 0
        """Rows of the user table a user id is hashed to; 0 = the input does not name the user."""
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

    config: Config
    reads_text = True
    paper_text_encoder = "sentence-transformers/sentence-t5-base"
    presets = {
        "rq-kmeans": {"tokenizer": {"kind": "rq-kmeans"}},
        "nearest-free": {"collisions": "nearest-free"},
        "digit": {"collisions": "digit"},
        "renorm": {"rule": "renorm"},
    }
    profiles = {
        "smoke": {
            "tokenizer": {
                "codes": 32,
                "hidden": (64,),
                "width": 16,
                "validate_every": 10,
                "training": {"epochs": 20, "batch_size": 256, "warmup_steps": 0},
            },
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
            "tokenizer": {
                "hidden": (256, 128),
                "training": {"epochs": 300, "max_minutes": 10.0},
            },
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
    tracks = {
        "paper": {
            "tokenizer": {"levels": 3, "hidden": (512, 256, 128), "sinkhorn": 0.0},
            "collisions": "digit",
            "user_tokens": 2000,
            "backbone": {"width": 384},
            "training": {"batch_size": 256},
        }
    }

    search = {
        "training.learning_rate": OneOf((3e-4, 5e-4, 1e-3, 2e-3)),
        "embedding_rate": OneOf((1.0, 3.0, 10.0)),
        "backbone.dropout": OneOf((0.0, 0.1, 0.2)),
        "backbone.encoder_layers": OneOf((2, 4)),
        "backbone.decoder_layers": OneOf((2, 4)),
    }
    search_profiles = {
        "small": {
            "training.learning_rate": OneOf((1e-3, 2e-3, 3e-3, 5e-3)),
            "backbone.encoder_layers": OneOf((1, 2)),
            "backbone.decoder_layers": OneOf((1, 2)),
        }
    }

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        return None if any(map(str.strip, view.item_text)) else "no item has any text to make semantic IDs from"

    def fit(self, view: TrainingView) -> Self:
        self.ids, self.tokenizer_report = self._semantic_ids(view)
        seed_everything(self.run.seed)
        device = torch.device(self.run.device)
        self.max_history = view.max_history
        self.model = T5(self.ids.vocab_size + self.config.user_tokens, self.config.backbone).to(device)
        pairs = NextItemPairs(view, device)
        valid = sample(view.valid, self.config.validation_users)
        self.report = train(
            self.model,
            pairs.lengths,
            lambda rows, length: self._loss(*pairs.take(rows, length)),
            self.config.training,
            lambda: mean_metric(
                self._rank(valid.cases, 10, BUDGET, "validate", view.candidates), valid.targets, view.selection
            ),
            self.run,
            rates={"embedding.weight": self.config.embedding_rate},
        )
        return self

    def _semantic_ids(self, view: TrainingView) -> tuple[SemanticIds, dict[str, Any]]:
        """Codes from the texts of all items, by a tokenizer fitted to training items; one set per seed."""
        vectors = encode_texts(view.item_text, self.run.text_encoder, self.run)  # (N + 1, D)
        categories = category_codes(view.item_fields)
        if categories is not None:
            check_alignment(vectors, categories)
        fit_on = view.item_counts > 0
        key = {
            "stage": "semantic-ids",
            "version": IDS_VERSION,
            "vectors": hashlib.sha256(vectors.tobytes()).hexdigest(),
            "fit_on": hashlib.sha256(fit_on.tobytes()).hexdigest(),
            "tokenizer": asdict(self.config.tokenizer),
            "collisions": self.config.collisions,
            "seed": self.run.seed,
        }
        made = cached(self.run.artifacts_dir, key, lambda: self._codes(vectors, fit_on))
        sizes = [self.config.tokenizer.codes] * self.config.tokenizer.levels
        codes = made["codes"]
        sizes += [int(codes[1:, level].max()) + 1 for level in range(len(sizes), codes.shape[1])]
        ids = SemanticIds(codes, sizes)
        return ids, {"tokenizer": json.loads(str(made["report"])), "semantic_ids": ids.report(categories)}

    def _codes(self, vectors: np.ndarray, fit_on: np.ndarray) -> dict[str, np.ndarray]:
        found = quantize(vectors, fit_on, self.config.tokenizer, self.run)
        if self.config.collisions == "digit":
            codes = dedup_digit(found.codes)
        else:
            rules = {"sinkhorn": repair_sinkhorn, "nearest-free": repair_nearest_free}
            repair = rules.get(self.config.collisions)
            if repair is None:
                raise ValueError(f"unknown collision rule '{self.config.collisions}'; use digit, {', '.join(rules)}")
            codes = repair(found.codes, found.residuals, found.codebook)
        return {"codes": codes, "report": np.array(json.dumps(found.report))}

    def _loss(self, users: Tensor, histories: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the target's codes given users (B,) and histories (B, L), mean over codes."""
        codes = self.ids.tokens(targets)  # (B, C)
        shifted = F.pad(codes[:, :-1], (1, 0), value=PAD_TOKEN)  # (B, C), start token first
        logits = self.model.decode(shifted, self.model.encode(self._tokens(users, histories)))  # (B, C, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())

    def _tokens(self, users: Tensor, histories: Tensor) -> Tensor:
        """The encoder's input: users (B,) and histories (B, L) -> tokens (B, [1 +] L * C)."""
        tokens = self.ids.tokens(histories).flatten(1)
        if not self.config.user_tokens:
            return tokens
        # Knuth's multiplicative hash: neighbouring ids must not share rows in any regular way.
        hashed = (users * 2654435761 % 2**32) % self.config.user_tokens
        return torch.cat([self.ids.vocab_size + hashed[:, None], tokens], 1)

    def recommend(
        self, cases: Cases, k: int, *, candidates: np.ndarray | None = None, budget: Budget | None = None
    ) -> Ranking:
        with self.run.stage("decode"):
            return self._rank(cases, k, budget or BUDGET, "decode", candidates)

    def _rank(self, cases: Cases, k: int, budget: Budget, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        return rank_by_beam(
            self._start,
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

    def _start(self, cases: Cases) -> Step:
        """Encode the histories once; the beams of a user share the result."""
        histories = cases.histories.tail(self.max_history)
        lengths = np.maximum(histories.lengths, 1)  # an empty history is read as one PAD
        padded = torch.from_numpy(histories.padded(int(lengths.max())).astype(np.int64)).to(self.run.device)
        users = torch.from_numpy(cases.users.astype(np.int64)).to(self.run.device)
        tokens = self._tokens(users, padded)  # (B, S)
        mask = None
        if lengths.min() < lengths.max():
            filled = lengths * self.ids.levels + (tokens.shape[1] - padded.shape[1] * self.ids.levels)
            mask = torch.from_numpy(np.arange(tokens.shape[1]) < filled[:, None]).to(self.run.device)  # (B, S)
        return Decoding(self.model, self.model.encode(tokens, mask), mask).step

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def training_report(self) -> Mapping[str, Any]:
        """Under-trained when the time cap ended either stage."""
        capped = self.tokenizer_report["tokenizer"].get("stopped_by") == "cap"
        return vars(self.report) | ({"stopped_by": "cap"} if capped else {}) | self.tokenizer_report

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        """Three times the forward FLOPs of all pairs and of the tokenizer, at 40 GFLOP/s a core."""
        shape, codes = config.backbone, config.tokenizer.levels + (config.collisions == "digit")
        inner = shape.heads * shape.head_width
        per_token = 2 * shape.encoder_layers * (4 * shape.width * inner + 2 * shape.width * shape.feed)
        history = min(8.0, n_interactions / n_users)
        flops = 3 * n_interactions * history * codes * per_token * config.training.epochs
        seconds = config.training.capped(flops / 40e9)
        if config.tokenizer.kind == "rq-vae":
            widths = (384, *config.tokenizer.hidden, config.tokenizer.width)
            per_item = 12 * sum(a * b for a, b in pairwise(widths))
            seconds += config.tokenizer.training.capped(n_items * per_item * config.tokenizer.training.epochs / 40e9)
        decoded = n_users * per_token * (history * codes + 20 * codes)
        return Estimate(seconds + decoded / 20e9, 1.5e9)


METHOD = TIGER
