"""What SimGR can be told, and the named choices: presets, profiles, tracks, what tuning may try, what a job costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmark.method import Estimate
from benchmark.space import LogRange, OneOf
from methods.blocks import backbones, tokenizer
from methods.blocks.backbones import LanguageModel, weights_per_token
from methods.blocks.rqvae import Quantizer
from methods.blocks.tokenizer import tokenizer_seconds
from methods.blocks.training import Training

PROMPT = (
    "### Task: These are the items that one customer bought, oldest first, each written as a few codes. "
    "Name the item that this customer buys next.\n### Items: "
)
"""Ends where the history begins: the state of an item's last code then is that of a whole input."""

AS_IN_THE_PAPER: dict[str, Any] = {
    "temperature": 1.0,
    # A warm-up of 1 % of the steps, at about 2,000 steps an epoch; the learning rate and the epochs are not printed.
    "training": {"epochs": 10, "batch_size": 64, "learning_rate": 3e-4, "warmup_steps": 200, "patience": 3},
}


def _fine_tuned(*names: str) -> dict[str, dict[str, Any]]:
    """Presets of large language models, which train adapters (LoRA of rank 8, alpha 32) and the code tokens."""
    return {name: {**preset, **AS_IN_THE_PAPER} for name, preset in backbones.presets(*names).items()}


@dataclass(frozen=True, kw_only=True)
class SimGRConfig:
    """What SimGR can be told; the defaults are the unified track at full size."""

    language_model: LanguageModel = field(default_factory=LanguageModel)
    tokenizer: Quantizer = field(default_factory=Quantizer)
    collisions: str = "sinkhorn"
    """As TIGER's."""
    aggregator: str = "mean"
    """How an item's vector is made of its token vectors, see ``AGGREGATORS``."""
    temperature: float = 0.1
    """Suits models from scratch, whose token vectors start small: at 1 the first epochs only make them larger.
    The presets of pre-trained ones, which have large states, start with 1."""
    negatives: str = "training"
    """Items of the softmax: those of the training interactions, or, as in the paper's formula, the whole ``catalogue``
    with items that are new later."""
    factorised: bool = True
    """The mean's loss by token logits; otherwise by item vectors, as for the other aggregators."""
    chunk: int = 2048
    """Items of which vectors and logits exist at a time in training."""
    one_pass: bool = False
    """Every prefix of a sequence is trained in one pass over it, and batches count targets in place of rows.
    Histories beyond the protocol's length are read in windows that overlap by half."""
    prompt: str = PROMPT
    prompt_vectors: int = 4
    """Learned in the prompt's place where the language model starts from scratch and knows no words."""
    embedding_rate: float = 1.0
    """Multiple of the learning rate for the table of code tokens."""
    validation_users: int | None = None
    """Compare checkpoints on this many users, drawn once; None = all."""
    decode_batch: int = 256
    """Users read together."""
    training: Training = field(
        default_factory=lambda: Training(
            epochs=100,
            batch_size=512,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=250,
            schedule="cosine",
            patience=10,
        )
    )


PRESETS: dict[str, Any] = {
    **{name: {"aggregator": name} for name in ("concat", "proj", "attention", "gating")},
    "catalogue": {"negatives": "catalogue"},
    "plain": {"factorised": False},
    "one-pass": {"one_pass": True},
    "per-prefix": {"one_pass": False},
    **backbones.presets("scratch-xs", "scratch-s"),
    "gpt2": {"language_model": {"name": "gpt2"}, "temperature": 1.0, "training": {"learning_rate": 3e-4}},
    **_fine_tuned("qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"),
}
PROFILES: dict[str, Any] = {
    "smoke": {
        "language_model": {"name": "tiny", "dropout": 0.0},
        "tokenizer": tokenizer.PROFILES["smoke"],
        "one_pass": True,
        "validation_users": 500,
        "training": {"epochs": 10, "batch_size": 512, "learning_rate": 5e-3, "warmup_steps": 20, "patience": 4},
    },
    "small": {
        "language_model": {"name": "scratch-xs"},
        "tokenizer": tokenizer.PROFILES["small"],
        "one_pass": True,
        "chunk": 16_384,
        "validation_users": 2000,
        "training": {"epochs": 8, "batch_size": 512, "learning_rate": 3e-3, "max_minutes": 25.0},
    },
}
TRACKS: dict[str, Any] = {"paper": {**_fine_tuned("qwen3-4b")["qwen3-4b"], "negatives": "catalogue"}}
SEARCH: dict[str, Any] = {
    "training.learning_rate": LogRange(1e-4, 5e-3),
    "temperature": OneOf((0.05, 0.1, 0.5, 1.0, 2.0, 5.0)),
    "embedding_rate": OneOf((1.0, 3.0, 10.0)),
    "language_model.dropout": OneOf((0.0, 0.1, 0.2)),
}


def simgr_estimate(config: SimGRConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
    """Three times the forward FLOPs of all passes over all users' tokens, at 40 GFLOP/s, and the item softmax."""
    codes, history = config.tokenizer.levels, n_interactions / n_users
    weights = weights_per_token(config.language_model.name)
    read = n_users * (config.prompt_vectors + codes * history) * (1.0 if config.one_pass else history / 2)
    softmax = n_interactions * n_items * 4 * codes
    seconds = config.training.epochs * (6 * weights * read / 40e9 + softmax / 2e9)
    total = config.training.capped(seconds) + tokenizer_seconds(config.tokenizer, n_items)
    return Estimate(total, 1.5e9 + 16 * weights)
