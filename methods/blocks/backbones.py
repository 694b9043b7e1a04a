"""Named transformers for rooms that read vectors: which one, its weights, and how it is trained.

settings -> size -> pre-trained weights, or a start from scratch -> LoRA, or all of it trained -> Causal or Seq2Seq.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmark.names import hint
from methods.blocks.causal_lm import Causal, add_dropout, add_lora, tokens_of, too_long
from methods.blocks.pretrained import (
    Vocabulary,
    identify,
    load_causal,
    load_vocabulary,
    scratch_causal,
    weights_folder,
)
from methods.blocks.t5 import Shape, Stack, initialise_layers
from methods.blocks.t5_weights import load_pretrained

RANDOM = "random"
"""The ``weights`` of a named size from scratch."""
REPORTED = "language_model"
"""Name in training reports of what pre-trained weights were read."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Which transformer reads the vectors, and how it is trained."""

    name: str = "scratch-s"
    """A named size, see ``SIZES``."""
    weights: str = ""
    """"" = as the size says; "random" = its shape from scratch; else a hub name or a folder in place of the size's."""
    tuning: str = ""
    """"" = as the size says; "full" or "lora"."""
    lora_rank: int = 8
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers that get an adapter; ("all-linear",) = every one."""
    dropout: float = 0.1
    """Of models from scratch; pre-trained ones keep their own."""
    checkpointing: bool = False
    """Layers are computed again in the backward pass in place of keeping what it needs: less memory, more time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))  # JSON brings a list back


@dataclass(frozen=True, kw_only=True)
class Size:
    """A named transformer."""

    kind: Literal["causal", "t5"]
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """causal: fields of its transformers config with ``model_type``; t5: fields of ``t5.Shape``."""
    hub: str = ""
    """Where its weights are; "" = it has none and starts from scratch."""
    tuning: Literal["full", "lora"] = "full"


def _qwen3(width: int, layers: int, heads: int, head_width: int, key_heads: int, feed: int) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": head_width,
        "num_key_value_heads": key_heads,
        "intermediate_size": feed,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "dtype": "bfloat16",
    }


def _qwen2(width: int, layers: int, heads: int, key_heads: int, feed: int) -> dict[str, Any]:
    """Qwen2.5: heads of ``width / heads``, biases on queries, keys and values, no norms on them."""
    values = {**_qwen3(width, layers, heads, 0, key_heads, feed), "model_type": "qwen2"}
    del values["head_dim"]
    return values


def _t5(width: int, layers: int, heads: int, head_width: int, feed: int) -> dict[str, Any]:
    values = {"width": width, "heads": heads, "head_width": head_width, "feed": feed}
    return values | {"encoder_layers": layers, "decoder_layers": layers}


def _scratch(architecture: dict[str, Any]) -> Size:
    return Size(kind="causal", architecture=architecture)


def _lora(hub: str, architecture: dict[str, Any]) -> Size:
    return Size(kind="causal", hub=hub, architecture=architecture, tuning="lora")


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": _scratch(_qwen3(32, 2, 2, 16, 2, 64)),
        "scratch-xs": _scratch(_qwen3(128, 2, 2, 64, 2, 512)),
        "scratch-s": _scratch(_qwen3(256, 6, 4, 64, 4, 1024)),
        "tiny-t5": Size(kind="t5", architecture=_t5(32, 2, 2, 16, 64)),
        "scratch-s-t5": Size(kind="t5", architecture=_t5(256, 3, 4, 64, 1024)),
        "t5-small": Size(kind="t5", hub="google-t5/t5-small", architecture=_t5(512, 6, 8, 64, 2048)),
        "gpt2": Size(
            kind="causal",
            hub="openai-community/gpt2",
            architecture={"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        ),
        "qwen2.5-1.5b": _lora("Qwen/Qwen2.5-1.5B", _qwen2(1536, 28, 12, 2, 8960)),
        "qwen2.5-3b": _lora("Qwen/Qwen2.5-3B", _qwen2(2048, 36, 16, 2, 11_008)),
        "qwen2.5-7b": _lora("Qwen/Qwen2.5-7B", _qwen2(3584, 28, 28, 4, 18_944)),
        "qwen3-0.6b": _lora("Qwen/Qwen3-0.6B", _qwen3(1024, 28, 16, 128, 8, 3072)),
        "qwen3-1.7b": _lora("Qwen/Qwen3-1.7B", _qwen3(2048, 28, 16, 128, 8, 6144)),
        "qwen3-4b": _lora("Qwen/Qwen3-4B", _qwen3(2560, 36, 32, 128, 8, 9728)),
    }
)


def size_of(name: str) -> Size:
    """Raises ValueError naming the nearest size for an unknown one."""
    if name not in SIZES:
        raise ValueError(f"unknown language model '{name}'; {hint(name, SIZES, 'language models')}")
    return SIZES[name]


def presets(*names: str) -> dict[str, dict[str, Any]]:
    """One preset of a room per named size, e.g. ``room@t5-small``, for a Config with a field ``language_model``."""
    assert all(name in SIZES for name in names), f"no such sizes among {names}"
    return {name: {"language_model": {"name": name}} for name in names}


def weights_per_token(name: str) -> float:
    """Weights of a named size that are multiplied with every token it reads; of a T5, its encoder's."""
    size = size_of(name)
    if size.kind == "t5":
        return layer_weights(Shape(**size.architecture))
    sizes = size.architecture
    if sizes["model_type"] == "gpt2":
        return 12 * sizes["n_layer"] * sizes["n_embd"] ** 2
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    head_width = sizes.get("head_dim", width // heads)
    attention = 2 * width * head_width * (heads + sizes["num_key_value_heads"])
    return sizes["num_hidden_layers"] * (attention + 3 * width * sizes["intermediate_size"])


def layer_weights(shape: Shape) -> float:
    """The same of a T5 of this shape."""
    inner = shape.heads * shape.head_width
    return shape.encoder_layers * (4 * shape.width * inner + 2 * shape.width * shape.feed)


class Seq2Seq(nn.Module):
    """A T5 without table and head: its two stacks read vectors, see ``t5.Stack``."""

    def __init__(self, encoder: Stack, decoder: Stack, vocabulary: Vocabulary | None = None):
        super().__init__()
        self.encoder, self.decoder, self.vocabulary = encoder, decoder, vocabulary
        self.shape = encoder.shape
        self.width = self.shape.width

    @property
    def tokenizer(self) -> Any | None:
        """None from scratch."""
        return None if self.vocabulary is None else self.vocabulary.tokenizer

    def text(self, sentence: str) -> Tensor:
        """Token ids (P,) of a sentence. Raises ValueError for a model from scratch, which has no tokenizer."""
        return tokens_of(self.vocabulary, sentence)

    def new_rows(self, n: int) -> Tensor:
        """The start (n, D) of a table of new tokens: normal with the old table's mean and deviation, per dimension.

        A T5 reads large vectors: N(0, 1) by its own rule, which holds from scratch.
        """
        noise = torch.randn(n, self.width)
        return noise if self.vocabulary is None else self.vocabulary.mean() + self.vocabulary.deviation() * noise


def build(settings: LanguageModel, *, max_length: int, models: Path | None = None) -> Causal | Seq2Seq:
    """The transformer of the settings for rows of up to ``max_length`` vectors, on the CPU.

    ``models`` is a folder of pre-trained ones that is searched before the hub. Random weights come from torch's global
    generator. Raises ValueError for an unknown size or tuning, weights that are
    not at hand or incomplete, LoRA on a T5, and rows that are longer than the model reads.
    """
    size, tuning, source = _checked(settings)
    folder = weights_folder(source, models) if source else None
    if size.kind == "causal":
        return _causal(settings, size, folder, tuning == "lora", max_length)
    return _seq2seq(settings, size, folder)


def check(settings: LanguageModel, models: Path | None = None) -> dict[str, dict[str, str]]:
    """Fetch the weights before minutes are spent on what comes first -> what they are, for the training report.

    That is nothing from scratch. Raises ValueError as ``build`` does.
    """
    _, _, source = _checked(settings)
    return {REPORTED: identify(source, weights_folder(source, models))} if source else {}


def check_again(settings: LanguageModel, models: Path | None, report: Mapping[str, Any]) -> None:
    """Raises ValueError when the weights at hand are not those in the report of a saved model, if it names any."""
    if REPORTED not in report:
        return
    recorded, found = report[REPORTED], check(settings, models)[REPORTED]
    if found["sha256"] != recorded["sha256"]:
        raise ValueError(
            f"the weights of language model '{settings.name}' at hand ({found['weights']}, {found['sha256']}) are not "
            f"those that the model was trained with ({recorded['weights']}, {recorded['sha256']}), so it would answer "
            "otherwise; pass --language-models with a folder that holds those"
        )


def _checked(settings: LanguageModel) -> tuple[Size, str, str]:
    """The size, its tuning, and where its weights are, "" from scratch."""
    size = size_of(settings.name)
    tuning = settings.tuning or size.tuning
    if tuning not in ("full", "lora"):
        raise ValueError(f"unknown tuning '{tuning}' of language model '{settings.name}'; use full or lora")
    if size.kind == "t5" and tuning == "lora":
        raise ValueError("LoRA is for decoder-only language models; train a T5 with tuning 'full'")
    return size, tuning, "" if settings.weights == RANDOM else settings.weights or size.hub


def _causal(settings: LanguageModel, size: Size, folder: Path | None, lora: bool, max_length: int) -> Causal:
    vocabulary, dropped = None, 0.0
    if folder:
        model, vocabulary = load_causal(folder, frozen=lora)
    else:
        limit = None if size.hub else max_length
        model = scratch_causal(size.architecture, max_length=limit, frozen=lora)
        dropped = 0.0 if lora else settings.dropout  # adapters have their own
        add_dropout(model, dropped)
    if lora:
        add_lora(
            model,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            targets=settings.lora_targets,
        )
    if settings.checkpointing:
        recompute(model.h if hasattr(model, "h") else model.layers)
    causal = Causal(model, vocabulary, dropout=dropped)
    if max_length > causal.max_length:
        raise too_long(max_length, causal.max_length)
    return causal


def _seq2seq(settings: LanguageModel, size: Size, folder: Path | None) -> Seq2Seq:
    if folder:
        t5 = load_pretrained(str(folder))
        model = Seq2Seq(t5.encoder, t5.decoder, load_vocabulary(folder, t5.embedding.weight.detach()))
    else:
        shape = Shape(**size.architecture, dropout=settings.dropout)
        encoder, decoder = Stack(shape, shape.encoder_layers, False), Stack(shape, shape.decoder_layers, True)
        model = Seq2Seq(encoder, decoder)
        initialise_layers(model, shape)
    if settings.checkpointing:
        recompute([*model.encoder.layers, *model.decoder.layers])
    return model


def recompute(layers: Iterable[nn.Module]) -> None:
    """Let layers keep nothing but their input while training, and run again in the backward pass."""
    for layer in layers:
        layer.forward = partial(_recomputed, layer, layer.forward)


def _recomputed(layer: nn.Module, forward: Callable[..., Tensor], *args: Any, **settings: Any) -> Tensor:
    if not layer.training:
        return forward(*args, **settings)
    return checkpoint(forward, *args, use_reentrant=False, **settings)
