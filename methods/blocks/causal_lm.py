"""Decoder-only transformers that read vectors: GPT-2, Qwen2.5 and Qwen3 of transformers without table and LM head.

A room brings its own table of item tokens, embeds, lays out masks and positions, and reads the final states.
Letters: B users, S vectors of a row, W appended vectors, D width, P prompt vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from methods.blocks.dropout import dropout
from methods.blocks.pretrained import Vocabulary

SPREAD = 0.02
"""Standard deviation of new rows, which is also about that of the pre-trained tables."""


class Causal(nn.Module):
    """The layers of a decoder-only transformer, with positions and masks as arguments.

    ``model`` is transformers' base model (Qwen3Model, Qwen2Model, GPT2Model) loaded by ``pretrained``. Masks are bool,
    True = may be attended; a row that may attend to nothing attends to itself, so that it stays finite.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary | None = None, *, dropout: float = 0.0):
        super().__init__()
        self.model, self.vocabulary, self.dropout = model, vocabulary, dropout
        self.width: int = model.config.hidden_size
        self.max_length: int = model.config.max_position_embeddings

    @property
    def dtype(self) -> torch.dtype:
        """Of the layers; adapters are always fp32."""
        return next(p.dtype for p in self.model.parameters())

    @property
    def tokenizer(self) -> Any | None:
        """None from scratch."""
        return None if self.vocabulary is None else self.vocabulary.tokenizer

    def forward(self, x: Tensor, *, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Vectors x (B, S, D) -> states (B, S, D) after the final norm, fp32.

        ``mask`` None = causal; (B, S) = causal and these keys; (1, S, S) or (B, S, S) = used as it is (always three
        dimensions: two are keys). ``positions`` (S,) or (B, S), None = 0..S-1. Raises ValueError when S is beyond the
        model's limit.
        """
        return self._states(x, _square(mask, x), positions, None)

    def prefix(self, x: Tensor, mask: Tensor | None = None, *, positions: Tensor | None = None) -> Prefix:
        """Read x (B, S, D) once, causally over the keys ``mask`` (B, S), for any number of ``extend``."""
        assert not self.training, "a prefix has no dropout; call eval() first"
        from transformers import DynamicCache

        cache = DynamicCache()
        return Prefix(cache, self._states(x, _square(mask, x), positions, cache))

    def extend(self, prefix: Prefix, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Append x (B, W, D) at ``positions`` (B, W) to every row of the prefix -> states (B, W, D).

        ``mask`` (B, W, T) says what each may attend to, T = S + all appended before + W: for beams the history, the
        beam's ancestors and the vector itself.
        """
        assert mask.shape[-1] == prefix.length + x.shape[1], "the mask covers the prefix, what was appended, and x"
        return self._states(x, mask, positions, prefix.cache)

    def text(self, sentence: str) -> Tensor:
        """Token ids (P,) of a sentence. Raises ValueError for a model from scratch, which has no tokenizer."""
        return tokens_of(self.vocabulary, sentence)

    def new_rows(self, n: int) -> Tensor:
        """The start (n, D) of a table of new tokens: N(mean of the old table, 0.02) or, from scratch, N(0, 0.02).

        Not transformers' resized table, whose new rows are almost the mean itself, all of them.
        """
        mean = torch.zeros(self.width) if self.vocabulary is None else self.vocabulary.mean()
        return mean + SPREAD * torch.randn(n, self.width)

    def _states(self, x: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Any) -> Tensor:
        """``mask`` (1 or B, Q, keys so far + Q), None = causal over x alone."""
        past = 0 if cache is None else cache.get_seq_length()
        if positions is None:
            positions = torch.arange(past, past + x.shape[1], device=x.device)
        # What is read first counts by vector; what is appended may share positions, as beams do.
        length = x.shape[1] if past == 0 else int(positions.max()) + 1
        if length > self.max_length:
            raise too_long(length, self.max_length)
        kind = x.device.type
        # Frozen layers in bf16 with adapters in fp32 need autocast even where the caller has none.
        half = self.dtype == torch.bfloat16 or torch.is_autocast_enabled(kind)
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            states = self.model(
                inputs_embeds=dropout(x.to(self.dtype), self.dropout, self.training),
                attention_mask=None if mask is None else mask[:, None],
                position_ids=positions if positions.dim() == 2 else positions[None],
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state
        return states.float() if half else states


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of every layer for rows read so far; ``extend`` appends to it."""

    cache: Any  # transformers' DynamicCache
    states: Tensor
    """(B, S, D) of the vectors it was made from."""

    @property
    def length(self) -> int:
        """Vectors read and appended so far."""
        return int(self.cache.get_seq_length())


class Reader(Protocol):
    """What ``Prompt`` needs of a backbone: ``Causal`` and ``backbones.Seq2Seq`` have it."""

    vocabulary: Vocabulary | None

    def new_rows(self, n: int) -> Tensor: ...

    def parameters(self) -> Any: ...


class Prompt(nn.Module):
    """A fixed piece of text as vectors; from scratch ``length`` learned vectors in its place.

    The text's vectors are rows of the old table. They are trained where the whole backbone is, frozen under LoRA.
    """

    def __init__(self, lm: Reader, sentence: str, length: int):
        super().__init__()
        if lm.vocabulary is None:
            rows, trained = lm.new_rows(length), True
        else:
            rows = lm.vocabulary.table[lm.vocabulary.text(sentence)].float()
            trained = all(p.requires_grad for p in lm.parameters())
        self.rows = nn.Parameter(rows, requires_grad=trained and len(rows) > 0)

    def forward(self) -> Tensor:
        """(P, D)."""
        return self.rows


def add_dropout(model: Any, p: float) -> None:
    """Drop values of what attention and feed-forward layers add, while training; the input's dropout is ``Causal``'s.

    The same for every architecture from scratch: GPT-2 would also drop attention weights, and Qwen nothing else.
    """

    def dropped(layer: nn.Module, _arguments: Any, added: Tensor) -> Tensor:
        return dropout(added, p, layer.training)

    for name, layer in model.named_modules():
        if name.rpartition(".")[2] in ("o_proj", "down_proj", "c_proj"):
            layer.register_forward_hook(dropped)


def add_lora(model: Any, *, rank: int, alpha: int, dropout: float, targets: tuple[str, ...]) -> None:
    """Freeze the model and put fp32 adapters of ``rank`` beside the linear layers named in ``targets``.

    Raises ValueError when a target is no layer of the model.
    """
    import peft

    layers = {name.rpartition(".")[2]: module for name, module in model.named_modules() if _is_linear(module)}
    names = sorted(layers)
    if unknown := sorted(set(targets) - {*names, "all-linear"}):
        raise ValueError(f"lora_targets names '{unknown[0]}', which is no linear layer of the model; it has {names}")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if "all-linear" in targets else list(targets),
        fan_in_fan_out=not any(isinstance(layer, nn.Linear) for layer in layers.values()),
    )
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's, its weight transposed


def tokens_of(vocabulary: Vocabulary | None, sentence: str) -> Tensor:
    """Raises ValueError without a vocabulary."""
    if vocabulary is None:
        raise ValueError(
            "a language model from scratch has no tokenizer; use learned prompt vectors or pre-trained weights"
        )
    return vocabulary.text(sentence)


def too_long(length: int, limit: int) -> ValueError:
    """The error of a row of ``length`` vectors."""
    return ValueError(
        f"a sequence of {length:,} vectors is beyond the language model's limit of {limit:,}; shorten the history or "
        "choose another language model"
    )


def _square(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """The mask of keys (B, S) or of pairs (1 or B, S, S) for x (B, S, D) -> (1 or B, S, S), no row of it empty."""
    if mask is None:
        return None
    rows, length = x.shape[:2]
    place = torch.arange(length, device=x.device)
    if mask.dim() == 2:
        assert mask.shape == (rows, length), "a mask of keys is (B, S); one of pairs has three dimensions"
        mask = mask[:, None] & (place[:, None] >= place)
    return mask | (~mask.any(-1, keepdim=True) & (place[:, None] == place))
