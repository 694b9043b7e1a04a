"""TIGER (Rajput et al., NeurIPS 2023): an item is a short code made from its text; the next item's code is generated.

text -> vectors -> residual codes -> semantic IDs; history as code tokens -> T5 -> beam search over the trie -> items.

The unified rows use the identifiers that the later papers mean by "TIGER" (4 x 256 codes, collisions resolved by
Sinkhorn, no user token, width 128), so that only the generator differs between methods; ``--track paper`` is the
original (3 x 256 codes and a deduplication digit, user token, 13 M parameters). ``docs/tiger.md`` lists every choice.

Presets: ``@rq-kmeans`` residual k-means in place of the RQ-VAE; ``@nearest-free`` collisions move to the nearest free
code; ``@digit`` a further code tells colliding items apart (TIGER's own rule); ``@renorm`` codes are scored among those
that lead to an item only. Another transformer in place of the T5: ``@scratch-xs``, ``@scratch-s`` (decoder-only) and
``@scratch-s-t5`` from scratch, ``@t5-small``, ``@gpt2``, ``@qwen3-0.6b``, ``@qwen3-1.7b``, ``@qwen3-4b``,
``@qwen2.5-1.5b``, ``@qwen2.5-3b`` and ``@qwen2.5-7b`` pre-trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark.method import Estimate
from benchmark.types import TrainingView
from methods.blocks import causal_generator, generator, tokenizer
from methods.blocks.generator import Generator, GeneratorConfig, generator_estimate
from methods.blocks.rqvae import Quantizer
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.tokenizer import item_ids, tokenizer_seconds


class TIGER(Generator):
    """T5 over semantic IDs made from item texts."""

    @dataclass(frozen=True, kw_only=True)
    class Config(GeneratorConfig):
        tokenizer: Quantizer = field(default_factory=Quantizer)
        collisions: str = "sinkhorn"
        """``sinkhorn`` or ``nearest-free`` change the last code of colliding items, ``digit`` appends one more."""
        user_tokens: int = 0
        """Rows of the user table a user id is hashed to; 0 = the input does not name the user."""

    config: Config
    paper_text_encoder = "sentence-transformers/sentence-t5-base"
    presets = {
        "rq-kmeans": {"tokenizer": {"kind": "rq-kmeans"}},
        "nearest-free": {"collisions": "nearest-free"},
        "digit": {"collisions": "digit"},
        "renorm": {"rule": "renorm"},
        **causal_generator.PRESETS,
    }
    profiles = {
        size: {"tokenizer": tokenizer.PROFILES[size], **generator.PROFILES[size]} for size in ("smoke", "small")
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

    def semantic_ids(self, view: TrainingView) -> tuple[SemanticIds, dict[str, Any]]:
        return item_ids(view, self.run, self.config.tokenizer, self.config.collisions)

    def vocab_size(self) -> int:
        return self.ids.vocab_size + self.config.user_tokens

    def tokens(self, users: Tensor, histories: Tensor) -> Tensor:
        """users (B,) and histories (B, L) -> tokens (B, [1 +] L * C)."""
        tokens = super().tokens(users, histories)
        if not self.config.user_tokens:
            return tokens
        # Knuth's multiplicative hash: neighbouring ids must not share rows in any regular way.
        hashed = (users * 2654435761 % 2**32) % self.config.user_tokens
        return torch.cat([self.ids.vocab_size + hashed[:, None], tokens], 1)

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        codes = config.tokenizer.levels + (config.collisions == "digit")
        rest = generator_estimate(config, codes, n_users, n_items, n_interactions)
        return Estimate(rest.seconds + tokenizer_seconds(config.tokenizer, n_items), rest.memory_bytes)


METHOD = TIGER
