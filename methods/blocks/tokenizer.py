"""Item texts -> semantic IDs, once per seed and kept: encode, quantise, resolve collisions.

What TIGER and LETTER share. A method that trains its tokenizer another way passes a guide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from benchmark.artifacts import cached
from benchmark.datasets.text import category_codes
from benchmark.method import config_dict
from benchmark.run import Run
from benchmark.types import TrainingView
from methods.blocks.alignment import check_alignment
from methods.blocks.collisions import dedup_digit, repair_nearest_free, repair_sinkhorn
from methods.blocks.next_item import without_pairs
from methods.blocks.rqvae import Outputs, Quantizer, quantize
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.text_encoder import encode_texts, has_text

IDS_VERSION = 1
"""Part of every cached set of semantic IDs; a change that moves them raises it."""
PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "codes": 32,
        "hidden": (64,),
        "width": 16,
        "validate_every": 10,
        "training": {"epochs": 20, "batch_size": 256, "warmup_steps": 0},
    },
    "small": {"hidden": (256, 128), "training": {"epochs": 300, "max_minutes": 10.0}},
}
"""Sizes of the tokenizers that learn."""


@dataclass(frozen=True)
class Guidance:
    """What a method adds to the training of the RQ-VAE; see ``rqvae.quantize``."""

    loss: Callable[[Outputs], Tensor]
    after_epoch: Callable[[int, Tensor], None] | None = None
    initialise: Callable[[Tensor], Tensor] | None = None
    """Latents (M, D) of the training items -> the first codebooks (L, K, D); None = residual k-means."""


def item_ids(
    view: TrainingView,
    run: Run,
    quantizer: Quantizer,
    collisions: str,
    *,
    key: Mapping[str, Any] | None = None,
    guide: Callable[[], Guidance] | None = None,
) -> tuple[SemanticIds, dict[str, Any]]:
    """Semantic IDs of all items by a tokenizer fitted to training items, and its report.

    ``collisions`` is ``sinkhorn``, ``nearest-free`` or ``digit`` (``blocks/collisions``). ``guide()`` is called when
    the IDs are not in the cache, where ``key`` stands for whatever it depends on. Raises ValueError for an unknown
    collision rule, texts whose vectors do not fit the items, and codes that collapsed.
    """
    vectors = encode_texts(view.item_text, run.text_encoder, run)  # (N + 1, D)
    categories = category_codes(view.item_fields)
    if categories is not None:
        check_alignment(vectors, categories)
    fit_on = view.item_counts > 0
    made = cached(
        run.artifacts_dir,
        {
            "stage": "semantic-ids",
            "version": IDS_VERSION,
            "vectors": hashlib.sha256(vectors.tobytes()).hexdigest(),
            "fit_on": hashlib.sha256(fit_on.tobytes()).hexdigest(),
            "tokenizer": config_dict(quantizer),
            "collisions": collisions,
            "seed": run.seed,
            **(key or {}),
        },
        lambda: _codes(vectors, fit_on, quantizer, collisions, run, None if guide is None else guide()),
    )
    codes = made["codes"]
    sizes = [quantizer.codes] * quantizer.levels
    sizes += [int(codes[1:, level].max()) + 1 for level in range(len(sizes), codes.shape[1])]
    ids = SemanticIds(codes, sizes)
    return ids, {"tokenizer": json.loads(str(made["report"])), "semantic_ids": ids.report(categories)}


def _codes(
    vectors: np.ndarray, fit_on: np.ndarray, quantizer: Quantizer, collisions: str, run: Run, guide: Guidance | None
) -> dict[str, np.ndarray]:
    hooks: dict[str, Any] = {}
    if guide is not None:
        hooks = {"extra_loss": guide.loss, "after_epoch": guide.after_epoch, "initialise": guide.initialise}
    found = quantize(vectors, fit_on, quantizer, run, **hooks)
    if collisions == "digit":
        codes = dedup_digit(found.codes)
    else:
        rules = {"sinkhorn": repair_sinkhorn, "nearest-free": repair_nearest_free}
        if collisions not in rules:
            raise ValueError(f"unknown collision rule '{collisions}'; use digit, {', '.join(rules)}")
        codes = rules[collisions](found.codes, found.residuals, found.codebook)
    return {"codes": codes, "report": np.array(json.dumps(found.report))}


def without_ids(view: TrainingView) -> str | None:
    """Why no model of semantic IDs can be trained, if so."""
    no_text = None if has_text(view.item_text) else "no item has any text to make semantic IDs from"
    return without_pairs(view) or no_text


def tokenizer_seconds(quantizer: Quantizer, n_items: int) -> float:
    """Expected training time on one core: three times the forward FLOPs of encoder and decoder, at 40 GFLOP/s."""
    if quantizer.kind != "rq-vae":
        return 0.0
    widths = (384, *quantizer.hidden, quantizer.width)
    per_item = 12 * sum(a * b for a, b in pairwise(widths))
    return quantizer.training.capped(n_items * per_item * quantizer.training.epochs / 40e9)
