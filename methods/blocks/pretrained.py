"""Weights, tokenizers and old vocabularies of transformers' decoder-only models, from the hub or a folder, offline too.

spec -> folder -> base model (no LM head), its table of tokens taken out, and the tokenizer that reads into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.blocks.text_models import TOKENIZERS, files_hash, lacking, local_folder, model_folder

CAUSAL_TYPES = ("gpt2", "qwen2", "qwen3")
"""``model_type`` of the decoder-only models that are tested here."""
ATTENTION = "vectors"
"""Name in transformers' registry of SDPA that takes the mask it is given, see ``_register``."""
ADVICE = (
    "put its files (config.json, model.safetensors, tokenizer.json) into DIR/gpt2, DIR/Qwen3-0.6B or what else it is "
    "called and pass --language-models DIR, or choose a size from scratch such as scratch-s"
)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A pre-trained model's old tokens: they can be read in prompts and are never trained."""

    tokenizer: Any
    table: Tensor  # (V, D), on the CPU

    def text(self, sentence: str) -> Tensor:
        """Token ids (P,) of a sentence, without special tokens; (0,) for an empty one."""
        return torch.tensor(self.tokenizer(sentence, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def mean(self) -> Tensor:
        """(D,) in fp32."""
        return self.table.mean(0, dtype=torch.float32)

    def deviation(self) -> Tensor:
        """The standard deviation of every dimension, (D,) in fp32."""
        return self.table.float().std(0)


def weights_folder(spec: str, models: Path | None = None) -> Path:
    """The folder of a hub name or path. Raises ValueError when it is not at hand.

    A hub model is taken from ``models`` where a folder there has the last part of its name, or downloaded once.
    """
    try:
        if models is not None and local_folder(spec) is None and (own := models / Path(spec).name).is_dir():
            return own
        return model_folder(spec)
    except ValueError as error:
        reason = "there is no such folder" if error.__cause__ is None else _first_line(error.__cause__)
        raise ValueError(f"the language model '{spec}' is not at hand ({reason}); {ADVICE}") from error


def identify(spec: str, folder: Path) -> dict[str, str]:
    """What a record says of weights: their name, and 12 digits of the hash over names and contents of all files read.

    Raises ValueError when a file is missing.
    """
    with _sentences(folder):
        if absent := lacking(folder):
            raise ValueError(f"it has no {absent}")
        name = spec if local_folder(spec) is None else folder.resolve().name
        return {"weights": name, "sha256": files_hash(folder)[:12]}


def load_causal(folder: Path, *, frozen: bool) -> tuple[Any, Vocabulary]:
    """The base model without table and head, and the table with its tokenizer.

    In fp32 where all of it is trained; ``frozen`` keeps the precision it was saved in (half precision as bf16). Raises
    ValueError when files or weights are missing, or when it is no decoder-only model of ``CAUSAL_TYPES``.
    """
    with _sentences(folder):
        transformers = _quiet_transformers()
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in CAUSAL_TYPES:
            raise ValueError(f"it is a '{config.model_type}', not one of {', '.join(CAUSAL_TYPES)}")
        model, report = transformers.AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=_kept(config.dtype) if frozen else torch.float32,
            attn_implementation=ATTENTION,
            output_loading_info=True,
        )
        if absent := sorted(report["missing_keys"]):  # they would be random numbers
            raise ValueError(f"{len(absent)} of its weights are missing, {absent[0]} for one")
    return model, load_vocabulary(folder, _without_table(model))


def load_vocabulary(folder: Path, table: Tensor) -> Vocabulary:
    """The folder's tokenizer for a table (V, D). Raises ValueError when there is none, or it names more tokens."""
    with _sentences(folder):
        if not any((folder / name).is_file() for name in TOKENIZERS):  # transformers would make up an empty one
            raise ValueError(f"it has no tokenizer files ({TOKENIZERS[0]})")
        tokenizer = _quiet_transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if len(tokenizer) > len(table):
            raise ValueError(f"its tokenizer has {len(tokenizer):,} tokens but its table only {len(table):,} rows")
    return Vocabulary(tokenizer, table)


def scratch_causal(architecture: Mapping[str, Any], *, max_length: int | None, frozen: bool) -> Any:
    """A base model with random weights and no table; ``max_length`` None keeps the architecture's own."""
    transformers = _quiet_transformers()
    values = {**architecture, "vocab_size": 1, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if max_length is not None:
        values["max_position_embeddings"] = max_length
    if values["model_type"] == "gpt2":
        values |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)  # see causal_lm.add_dropout
    config = transformers.AutoConfig.for_model(**values)
    dtype = _kept(config.dtype) if frozen else torch.float32
    model = transformers.AutoModel.from_config(config, dtype=dtype, attn_implementation=ATTENTION)
    _without_table(model)
    return model


def _kept(saved: Any) -> torch.dtype:
    return torch.bfloat16 if saved in (torch.float16, torch.bfloat16) else torch.float32


def _without_table(model: Any) -> Tensor:
    """Take the table of tokens (V, D) out of the model, which reads vectors only."""
    table = model.get_input_embeddings().weight.detach()
    model.set_input_embeddings(nn.Identity())
    return table


def _quiet_transformers() -> Any:
    """transformers, imported when first needed (it takes seconds), silent and with our attention registered."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    _register(transformers)
    return transformers


def _register(transformers: Any) -> None:
    """SDPA under a name of which transformers knows no masks, so that none is made where none is given.

    Under its own name it reads positions that do not rise by one, such as those shared by an item's tokens, as several
    sequences packed into one row, and masks them from each other.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    transformers.AttentionInterface.register(ATTENTION, sdpa_attention_forward)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")


@contextmanager
def _sentences(folder: Path) -> Iterator[None]:
    """Whatever the model libraries raise while loading becomes one ValueError that says what to do."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of three libraries, in versions that name them differently
        raise ValueError(
            f"the language model in {folder} could not be loaded ({_first_line(error)}); {ADVICE}"
        ) from error
