"""What SETRec can be told, and the named choices: presets, profiles, tracks, what tuning may try, what a job costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmark.method import Estimate
from benchmark.space import OneOf
from methods.blocks import collaborative
from methods.blocks.backbones import LanguageModel, presets, weights_per_token
from methods.blocks.collaborative import Collaborative, collaborative_seconds
from methods.blocks.training import Training

BETAS = tuple(place / 10 for place in range(11))
"""What validation compares; 0 is shown and never chosen, see ``SETRec._choose_beta``."""
LORA: dict[str, Any] = {
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.02,
    "lora_targets": ("q_proj", "v_proj", "o_proj"),
}
"""The paper's, for Qwen2.5."""


def _with_lora(*names: str) -> dict[str, dict[str, Any]]:
    """Presets of large models, trained as the released code trains Qwen2.5."""
    training = {"epochs": 20, "learning_rate": 3e-4, "patience": 5, "micro_batch": 64}
    return {name: {"language_model": {"name": name, **LORA}, "training": training} for name in names}


@dataclass(frozen=True, kw_only=True)
class SETRecConfig:
    """What SETRec can be told; the defaults are the unified track at full size."""

    language_model: LanguageModel = field(default_factory=LanguageModel)
    tokens: int = 4
    """Semantic tokens of an item; the paper's N."""
    cf: bool = True
    """Whether items have a collaborative token."""
    negatives: str = "training"
    """Items of the softmax: those of the training interactions, or, as in the released code, the whole ``catalogue``
    with items that are new later (``blocks/item_softmax.rivals``)."""
    alpha: float = 0.7
    """Weight of rebuilding the text vectors."""
    beta: float | None = None
    """Weight of the semantic scores, 1 - beta that of the collaborative ones; None = the best on validation."""
    sparse: bool = True
    """Tokens of one item in the history do not see one another."""
    trained_queries: bool = True
    one_pass: bool = False
    """Train on all prefixes of a history in one forward pass. The same loss as one by one, but a batch then holds
    the prefixes of fewer users. Decoder-only models alone."""
    prompt: str = "What would the user be likely to purchase next after buying items {history}?;"
    """The paper's; for language models that know words."""
    prompt_vectors: int = 4
    """Learned vectors in front of the history, for those that do not."""
    history: int | None = None
    """Items of history read; None = as many as the protocol shows."""
    scaling: str = "standardize"
    """Of the text vectors, fitted on training items (``blocks/kmeans.scaling``)."""
    hidden: tuple[int, ...] = (512, 256)
    """Layers of the auto-encoder before its bottleneck."""
    bottleneck: int = 128
    collaborative: Collaborative = field(default_factory=lambda: Collaborative(width=64))
    validation_users: int | None = None
    """Compare checkpoints and betas on this many users, drawn once; None = all."""
    training: Training = field(
        default_factory=lambda: Training(
            epochs=60,
            batch_size=512,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=100,
            schedule="cosine",
            patience=10,
        )
    )
    """``batch_size`` counts targets."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON brings a list back


PRESETS: dict[str, Any] = {
    "no-sem": {"tokens": 0},
    "no-cf": {"cf": False},
    "no-query": {"trained_queries": False},
    "no-sparse-mask": {"sparse": False},
    "catalogue": {"negatives": "catalogue"},
    **{f"n-{n}": {"tokens": n} for n in range(1, 7)},
    **{f"alpha-{alpha}": {"alpha": alpha} for alpha in (0.1, 0.3, 0.5, 0.7, 0.9)},
    **{f"beta-{beta:g}": {"beta": beta} for beta in BETAS},
    "one-pass": {"one_pass": True},
    "per-prefix": {"one_pass": False},
    **presets("scratch-xs", "scratch-s"),
    "scratch-s-t5": {"language_model": {"name": "scratch-s-t5"}, "one_pass": False},
    "t5-small": {"language_model": {"name": "t5-small"}, "one_pass": False},
    "gpt2": {"language_model": {"name": "gpt2"}, "training": {"learning_rate": 3e-4}},
    **_with_lora("qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"),
}
PROFILES: dict[str, Any] = {
    "smoke": {
        "language_model": {"name": "tiny", "dropout": 0.0},
        "one_pass": True,
        "hidden": (64,),
        "bottleneck": 32,
        "collaborative": {**collaborative.PROFILES["smoke"], "width": 16},
        "validation_users": 200,
        "training": {"epochs": 8, "batch_size": 256, "learning_rate": 3e-3, "warmup_steps": 20, "patience": 4},
    },
    "small": {
        "language_model": {"name": "scratch-xs"},
        "one_pass": True,
        "hidden": (256, 128),
        "bottleneck": 64,
        "collaborative": collaborative.PROFILES["small"],
        "validation_users": 2000,
        "training": {"epochs": 4, "batch_size": 512, "learning_rate": 2e-3, "patience": 8, "max_minutes": 30.0},
    },
}
TRACKS: dict[str, Any] = {
    "paper": {
        "language_model": {"name": "t5-small"},
        "history": 50,
        "scaling": "none",
        "negatives": "catalogue",
        "validation_users": 2000,
        "training": {"epochs": 30, "learning_rate": 1e-3, "warmup_steps": 100},
    }
}
SEARCH: dict[str, Any] = {
    "alpha": OneOf((0.1, 0.3, 0.5, 0.7, 0.9)),
    "tokens": OneOf((1, 2, 3, 4, 5, 6)),
    "training.learning_rate": OneOf((3e-4, 5e-4, 1e-3, 2e-3)),
    "language_model.dropout": OneOf((0.0, 0.1, 0.2)),
}
SEARCH_PROFILES: dict[str, Any] = {"small": {"training.learning_rate": OneOf((1e-3, 2e-3, 3e-3, 5e-3))}}


def setrec_estimate(config: SETRecConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
    """Three times the forward FLOPs of language model, softmax and auto-encoder, at 30 GFLOP/s a core."""
    per_item, history = config.tokens + config.cf, min(8.0, n_interactions / n_users)
    places = per_item * (2 if config.one_pass else history + 1)
    ground = config.collaborative.width + config.tokens * config.bottleneck
    steps = n_interactions / config.training.batch_size
    sizes = (384, *config.hidden, config.bottleneck)
    encoder = sum(a * b for a, b in pairwise(sizes))
    read = 2 * weights_per_token(config.language_model.name)
    epoch = n_interactions * (places * read + 2 * n_items * ground) + steps * 2 * n_items * encoder
    asked = n_users * (per_item * (history + 1) * read + 2 * n_items * (ground if config.cf else config.bottleneck))
    seconds = config.training.capped(3 * config.training.epochs * epoch / 30e9) + asked / 30e9
    if config.cf:
        seconds += collaborative_seconds(config.collaborative, n_users, n_items, n_interactions)
    return Estimate(seconds, 1e9 + 16.0 * config.training.batch_size * n_items * per_item)
