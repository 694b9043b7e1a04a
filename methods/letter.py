"""LETTER (Wang et al., CIKM 2024): semantic IDs that also know who took what together, and losses weighed by rank.

As TIGER, but the RQ-VAE that makes the IDs is guided: quantised vectors are aligned with those of a collaborative
model, and codes of one cluster are drawn together so that all codes are used alike; it starts from balanced clusters
of items. The generator learns from logits divided by a temperature. This is the paper's LETTER-TIGER;
``docs/letter.md`` lists every choice.

Presets: ``@no-alignment`` and ``@no-diversity`` leave one guidance out; ``@kmeans-init`` starts from plain k-means;
``@no-temperature`` is the plain cross-entropy; ``@alignment-0.01`` and ``@alignment-0.1`` weigh the alignment as the
released scripts do; ``@restarts`` clusters the codes from scratch after every epoch, as the released code does. Another
transformer in place of the T5: ``@scratch-xs``, ``@scratch-s`` (decoder-only) and ``@scratch-s-t5`` from scratch,
``@t5-small``, ``@gpt2``, ``@qwen3-0.6b``, ``@qwen3-1.7b``, ``@qwen3-4b``, ``@qwen2.5-1.5b``, ``@qwen2.5-3b`` and
``@qwen2.5-7b`` pre-trained.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmark.method import Estimate
from benchmark.space import OneOf
from benchmark.types import TrainingView
from methods.blocks import causal_generator, collaborative, generator, tokenizer
from methods.blocks.balanced import balanced_codebooks
from methods.blocks.collaborative import (
    Collaborative,
    CollaborativeModel,
    collaborative_model,
    collaborative_seconds,
)
from methods.blocks.generator import Generator, GeneratorConfig, generator_estimate
from methods.blocks.guidance import Alignment, Clusters, Diversity
from methods.blocks.rqvae import Outputs, Quantizer
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.tokenizer import Guidance, item_ids, tokenizer_seconds


class LETTER(Generator):
    """T5 over semantic IDs made from item texts under collaborative guidance."""

    @dataclass(frozen=True, kw_only=True)
    class Config(GeneratorConfig):
        tokenizer: Quantizer = field(default_factory=Quantizer)
        collisions: str = "sinkhorn"
        """``sinkhorn`` or ``nearest-free`` change the last code of colliding items, ``digit`` appends one more."""
        collaborative: Collaborative = field(default_factory=Collaborative)
        """As wide as the codes."""
        alignment: float = 0.02
        """Weight of the collaborative alignment in the tokenizer's loss; 0 = none, and no collaborative model."""
        diversity: float = 1e-4
        """Weight of the diversity of codes in the tokenizer's loss; 0 = none."""
        clusters: Clusters = field(default_factory=Clusters)
        """Of the codes, for their diversity."""
        codebooks: str = "balanced"
        """Where codebooks start: ``balanced`` clusters of the items, or plain ``k-means``."""
        temperature: float = 0.7
        """Divides the logits in training, and only there."""

    config: Config
    presets = {
        "no-alignment": {"alignment": 0.0},
        "no-diversity": {"diversity": 0.0},
        "no-temperature": {"temperature": 1.0},
        "kmeans-init": {"codebooks": "k-means"},
        "alignment-0.01": {"alignment": 0.01},
        "alignment-0.1": {"alignment": 0.1},
        "restarts": {"clusters": {"restarts": 10}},
        **causal_generator.PRESETS,
    }
    profiles = {
        "smoke": {
            **generator.PROFILES["smoke"],
            "tokenizer": tokenizer.PROFILES["smoke"],
            "collaborative": {**collaborative.PROFILES["smoke"], "width": 16},
            # An eighth of the codes: clusters of about the same size relative to their mean.
            "clusters": {"count": 4, "smallest": 3, "largest": 19},
        },
        "small": {
            **generator.PROFILES["small"],
            "tokenizer": tokenizer.PROFILES["small"],
            "collaborative": collaborative.PROFILES["small"],
        },
    }
    tracks = {
        "paper": {
            "tokenizer": {
                "hidden": (2048, 1024, 512, 256, 128, 64),
                "scaling": "none",
                "training": {"epochs": 20_000, "schedule": "constant", "warmup_steps": 0, "patience": 20_000},
            },
            "alignment": 0.01,
            "clusters": {"restarts": 10},
        }
    }
    as_base = {**tracks["paper"], "temperature": 1.0}
    search = {**generator.SEARCH, "temperature": OneOf((0.7, 0.8, 0.9, 1.0))}

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        if not (view.sequences.lengths > 1).any():
            return "no user has two training items, so there is nothing to learn collaborative vectors from"
        return super().unsuited(view)

    def semantic_ids(self, view: TrainingView) -> tuple[SemanticIds, dict[str, Any]]:
        config = self.config
        self._check()
        model = collaborative_model(view, config.collaborative, self.run) if config.alignment else None
        guided = config.alignment or config.diversity or config.codebooks != "k-means"
        ids, report = item_ids(
            view,
            self.run,
            config.tokenizer,
            config.collisions,
            key=self._identity(view) if guided else None,
            guide=(lambda: self._guidance(model)) if guided else None,
        )
        return ids, report if model is None else report | {"collaborative": model.report}

    def _check(self) -> None:
        """Raises ValueError for settings that do not go together."""
        config, codes = self.config, self.config.tokenizer
        if codes.kind != "rq-vae":
            raise ValueError(f"LETTER guides the training of an RQ-VAE, so tokenizer.kind={codes.kind} is not for it")
        if config.codebooks not in ("balanced", "k-means"):
            raise ValueError(f"unknown start of the codebooks '{config.codebooks}'; use balanced or k-means")
        if config.alignment and config.collaborative.width != codes.width:
            raise ValueError(
                f"codes of width {codes.width} cannot be aligned with collaborative vectors of width "
                f"{config.collaborative.width}; set tokenizer.width and collaborative.width to the same"
            )
        if config.temperature <= 0:
            raise ValueError(f"temperature must be above 0, and it is {config.temperature}")
        how = config.clusters
        if config.diversity and not how.count * how.smallest <= codes.codes <= how.count * how.largest:
            raise ValueError(
                f"{codes.codes} codes a level do not make {how.count} clusters of {how.smallest} to {how.largest}; "
                "set clusters.count, clusters.smallest and clusters.largest to fit"
            )

    def _identity(self, view: TrainingView) -> dict[str, Any]:
        """What the guidance depends on, for the key of the cached IDs."""
        config = self.config
        aligned = {"weight": config.alignment, "to": collaborative.identity(view, config.collaborative, self.run)}
        diverse = {"weight": config.diversity, "clusters": asdict(config.clusters)}
        return {
            "alignment": aligned if config.alignment else None,
            "diversity": diverse if config.diversity else None,
            "codebooks": config.codebooks,
        }

    def _guidance(self, model: CollaborativeModel | None) -> Guidance:
        config, codes, seed = self.config, self.config.tokenizer, self.run.seed
        aligned = None if model is None else Alignment(config.alignment, model.items)
        diverse = Diversity(config.diversity, config.clusters, codes, seed) if config.diversity else None
        balanced = config.codebooks == "balanced"
        return Guidance(
            loss=Both(aligned, diverse),
            after_epoch=diverse.recluster if diverse else None,
            initialise=(lambda z: balanced_codebooks(z, codes.levels, codes.codes, seed)) if balanced else None,
        )

    def token_loss(self, logits: Tensor, codes: Tensor) -> Tensor:
        """The cross-entropy of softened or sharpened logits (B, C, V): hard negatives weigh more below 1."""
        return super().token_loss(logits / self.config.temperature, codes)

    @classmethod
    def estimate(cls, config: Config, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        codes = config.tokenizer.levels + (config.collisions == "digit")
        rest = generator_estimate(config, codes, n_users, n_items, n_interactions)
        seconds = rest.seconds + tokenizer_seconds(config.tokenizer, n_items)
        if config.alignment:
            seconds += collaborative_seconds(config.collaborative, n_users, n_items, n_interactions)
        return Estimate(seconds, rest.memory_bytes)


class Both(nn.Module):
    """The sum of the guidances there are."""

    def __init__(self, *losses: nn.Module | None):
        super().__init__()
        self.losses = nn.ModuleList(loss for loss in losses if loss is not None)

    def forward(self, outputs: Outputs) -> Tensor:
        return sum((loss(outputs) for loss in self.losses), outputs.z.new_zeros(()))


METHOD = LETTER
