"""Texts -> vectors by a transformers encoder, from a local folder or a hub model that is downloaded once.

spec -> folder, hash of its files -> tokenizer and network -> tokens in batches -> pooled vectors (M, D). torch,
transformers and huggingface_hub are imported where they are used: naming and hashing a folder needs none of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmark.files import content_hash, sha256_of
from benchmark.run import Run

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 256
"""A text is cut here, or earlier where the model's own limit is lower."""
BATCH_TOKENS = 8_192
"""Tokens of one forward pass, padding included. It bounds the memory and does not move the vectors."""
CONNECT_SECONDS = 5.0
"""How long the hub may stay silent before the copy on this disk, or an error, has to do."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
FILES = (
    *("config.json", "model*.safetensors", "model.safetensors.index.json"),
    *("tokenizer*", "spiece.model", "sentencepiece.bpe.model", "vocab.*", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "modules.json", "sentence_bert_config.json"),
    *("[0-9]_*/config.json", "[0-9]_*/model.safetensors"),
)
"""All that decides a vector: what is downloaded of a hub model, and what is hashed of a folder."""
ADVICE = "pass --text-encoder with the folder of a downloaded model, or --text-encoder lsa"


def local_folder(spec: str) -> Path | None:
    """The folder that ``spec`` names, None for a hub name. Raises ValueError when it is neither."""
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"the text encoder {spec} is a file; name the folder that holds it")
    if spec.startswith((os.sep, ".", "~")) or spec.count("/") > 1:
        raise ValueError(f"there is no text encoder folder {spec}; {ADVICE}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec):
        raise ValueError(f"'{spec}' names no text encoder; {ADVICE}")
    return None


def model_folder(spec: str) -> Path:
    """The complete folder of a transformers encoder. A hub name is downloaded once and then found on the disk."""
    return local_folder(spec) or _downloaded(spec)


def _downloaded(name: str) -> Path:
    """The hub's newest snapshot, or the one on this disk when the hub does not answer (or HF_HUB_OFFLINE is set)."""
    with _sentences(name):
        import huggingface_hub

        reason = ""
        try:  # the download itself waits for a silent network without end
            huggingface_hub.HfApi().model_info(name, timeout=CONNECT_SECONDS)
        except Exception as error:  # of three libraries, in versions that name them differently
            reason = _first_line(error)
        try:
            return _snapshot(name, on_disk=bool(reason))
        except Exception as error:
            raise OSError(reason or _first_line(error)) from error


def _snapshot(name: str, on_disk: bool) -> Path:
    """The folder of a hub model's newest snapshot. ``on_disk`` asks nobody, and raises when it is not all there."""
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            name, allow_patterns=list(FILES), etag_timeout=CONNECT_SECONDS, local_files_only=on_disk
        )
    )


def snapshot_hash(name: str) -> str | None:
    """``folder_hash`` of a hub model on this disk, without asking the hub; None when it is not there, or not whole."""
    try:
        return folder_hash(_snapshot(name, on_disk=True))
    except Exception:  # a cache in any state, or a library that cannot be imported, only leaves the hash unknown
        return None


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that decide a vector; raises ValueError if one is missing."""
    if absent := lacking(folder):
        raise ValueError(f"the text encoder folder {folder} has no {absent}; download the whole model, or {ADVICE}")
    return files_hash(folder)


def files_hash(folder: Path) -> str:
    """``folder_hash`` of whatever is there."""
    files = sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})
    return content_hash({path.relative_to(folder).as_posix(): _file_hash(path) for path in files}, 64)


def lacking(folder: Path) -> str | None:
    """The first file a model needs and the folder does not have."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any((folder / name).is_file() for name in WEIGHTS):
        return f"weights ({WEIGHTS[0]})"
    index = folder / WEIGHTS[1]
    parts = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    modules = folder / "modules.json"
    dense = {Path(module["path"]) for module in _json(modules) if _is_dense(module)} if modules.is_file() else set()
    dense |= {path.relative_to(folder) for path in folder.glob("[0-9]_Dense")}
    needed = [*sorted(parts), *(f"{path}/{name}" for path in sorted(dense) for name in ("config.json", WEIGHTS[0]))]
    if absent := next((name for name in needed if not (folder / name).is_file()), None):
        return absent
    return None if any((folder / name).is_file() for name in TOKENIZERS) else "tokenizer files (tokenizer.json)"


def _is_dense(module: dict[str, str]) -> bool:
    return module.get("type", "").endswith(".Dense")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON; download it again") from error


def _file_hash(path: Path) -> str:
    state = path.stat()
    return _hash_once(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, modified: int) -> str:
    """A process asks for the same big files several times; size and time tell whether they changed."""
    return sha256_of(path)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Whatever the model libraries raise while loading becomes one ValueError that says what to do."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"the text encoder {name} could not be loaded ({_first_line(error)}); {ADVICE}") from error


class _Model(NamedTuple):
    """A loaded encoder: tokenizer, network, and the linear layers that follow its pooling."""

    tokenizer: Any
    network: Any
    dense: list[dict[str, Tensor]]  # weight (D_out, D_in), and bias (D_out,) where there is one
    max_tokens: int


def _load(folder: Path) -> _Model:
    """Everything from the folder, in fp32 and eval mode. T5 and its like are loaded as encoders only."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    has_encoder = config.is_encoder_decoder or type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    kind = transformers.AutoModelForTextEncoding if has_encoder else transformers.AutoModel
    settings = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    network, report = kind.from_pretrained(folder, output_loading_info=True, **settings)
    # Absent weights would be drawn at random without a word; only the pooler is not needed.
    if absent := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise ValueError(f"{len(absent)} of its weights are missing, {absent[0]} for one")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    declared = folder / "sentence_bert_config.json"
    own = _json(declared).get("max_seq_length") if declared.is_file() else None
    limits = (MAX_TOKENS, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), own)
    dense = [_dense(layer) for layer in sorted(folder.glob("[0-9]_Dense"))]
    return _Model(tokenizer, network.eval(), dense, int(min(limit for limit in limits if limit)))


def _dense(layer: Path) -> dict[str, Tensor]:
    """Weight and bias of a linear layer as sentence-transformers stores it."""
    import torch
    from safetensors.torch import load_file

    activation = _json(layer / "config.json").get("activation_function", "Identity")
    if not activation.endswith("Identity"):
        raise ValueError(f"{layer.name} has the activation {activation}, which is not supported")
    weights = load_file(layer / WEIGHTS[0])
    return {key.removeprefix("linear."): value.to(torch.float32) for key, value in weights.items()}


def transformer_vectors(texts: list[str], folder: Path, name: str, run: Run) -> np.ndarray:
    """Means of the last hidden states under the attention mask, longest texts first -> (M, D)."""
    from methods.blocks.devices import memory_error

    with _sentences(name):
        model = _load(folder)
        found = model.tokenizer(texts, truncation=True, max_length=model.max_tokens, padding=False)["input_ids"]
    padding = model.tokenizer.pad_token_id or 0
    tokens = [row or [padding] for row in found]
    lengths = np.array([len(row) for row in tokens])
    batches = token_batches(lengths, BATCH_TOKENS)
    pooled: list[np.ndarray] = []  # (B, D) each
    done = 0
    with memory_error(
        f"out of memory while the text encoder {name} read {BATCH_TOKENS:,} tokens at a time; lower BATCH_TOKENS "
        "in methods/blocks/text_models.py or choose a smaller --text-encoder"
    ):
        model = _on_device(model, run.device)
        for rows in batches:
            pooled.append(_pooled(model, [tokens[row] for row in rows], padding))
            done += int(lengths[rows].sum())
            run.progress("embed", done, int(lengths.sum()), name)
    return np.concatenate(pooled)[np.argsort(np.concatenate(batches))]


def _on_device(model: _Model, device: str) -> _Model:
    dense = [{key: value.to(device) for key, value in layer.items()} for layer in model.dense]
    return model._replace(network=model.network.to(device), dense=dense)


def token_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Every row once, longest first, in batches of like length of at most ``budget`` padded tokens (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, budget // int(lengths[order[start]]))]
        batches.append(rows)
        start += len(rows)
    return batches


def _pooled(model: _Model, tokens: list[list[int]], padding: int) -> np.ndarray:
    """The vectors (B, D) of one batch of token rows, the longest of which comes first."""
    import torch

    device = model.network.device
    mask = np.arange(len(tokens[0])) < np.array([len(row) for row in tokens])[:, None]  # (B, L)
    ids = np.full(mask.shape, padding, np.int64)
    ids[mask] = np.concatenate(tokens)
    shown = torch.from_numpy(mask).to(device)
    with torch.inference_mode():
        # bf16 is slower than fp32 on CPUs without the instructions for it.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = model.network(input_ids=torch.from_numpy(ids).to(device), attention_mask=shown.long())
        states = output.last_hidden_state.float() * shown[:, :, None]  # (B, L, D)
        vectors = states.sum(1) / shown.sum(1, keepdim=True)  # (B, D)
        for layer in model.dense:
            vectors = torch.nn.functional.linear(vectors, **layer)
    return vectors.cpu().numpy()
