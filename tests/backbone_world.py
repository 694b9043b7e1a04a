"""Tiny decoder-only models and T5s with a tokenizer, saved as transformers saves real ones: no network is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from methods.blocks.backbones import LanguageModel, build
from methods.blocks.causal_lm import Causal

WORDS = [f"word{i}" for i in range(20)]
ROWS = 30
"""Of the saved tables: more than the tokenizer has entries, as in the real models."""
LIMIT = 40
"""Vectors that a saved decoder-only model reads."""
KINDS = ("qwen3", "qwen2", "gpt2")


def save_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    """One token a word, an end token that texts get by default, and no pad token."""
    names = ["<end>", "<unknown>", *words]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A <end>", None, [("<end>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unknown>", eos_token="<end>").save_pretrained(
        folder
    )


def causal_model(kind: str, limit: int = LIMIT) -> Any:
    """transformers' own model with its LM head, its weights of a size at which a wrong mask or position would show."""
    torch.manual_seed(0)
    values: dict[str, Any] = {"vocab_size": ROWS, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    if kind == "gpt2":
        values |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": limit}
    else:
        values |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        values |= {"intermediate_size": 24, "max_position_embeddings": limit, "tie_word_embeddings": True}
    if kind == "qwen3":
        values["head_dim"] = 8
    config = AutoConfig.for_model(kind, **values)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name and "ln_" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def save_causal(folder: Path, kind: str = "qwen3", limit: int = LIMIT, **settings: Any) -> Any:
    """Save a model and its tokenizer as a folder of the hub has them; returns the model."""
    model = causal_model(kind, limit)
    model.save_pretrained(folder, **settings)
    save_tokenizer(folder)
    return model


def save_t5(folder: Path) -> Any:
    torch.manual_seed(0)
    widths: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=ROWS, **widths)).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def loaded(folder: Path, **settings: Any) -> Causal:
    """The decoder-only model saved there, trained in full unless told otherwise, in eval mode."""
    settings = {"name": "qwen3-0.6b", "tuning": "full"} | settings
    found = build(LanguageModel(weights=str(folder), **settings), max_length=LIMIT)
    assert isinstance(found, Causal)
    return found.eval()


def scratch(**settings: Any) -> Causal:
    """The size ``tiny``, of width 32, in eval mode."""
    torch.manual_seed(0)
    found = build(LanguageModel(name="tiny", **settings), max_length=LIMIT)
    assert isinstance(found, Causal)
    return found.eval()


def vectors(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(2))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
