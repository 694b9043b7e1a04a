"""Item texts -> one vector per item: ``lsa`` (TF-IDF + SVD), or any transformers encoder by hub name or folder.

texts (N + 1,) -> distinct texts -> vectors (N + 1, D), cached by content. Heavy imports stand where they are used:
naming an encoder needs neither torch nor transformers nor a network.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmark.artifacts import cached
from benchmark.datasets.text import TEMPLATE_HASH
from benchmark.files import content_hash, sha256_of
from benchmark.run import Run
from benchmark.types import PAD

if TYPE_CHECKING:
    from torch import Tensor

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The unified track's encoder: 384 dimensions, mean pooling."""
LSA = "lsa"
"""The encoder that always works: no weights, no network."""
VERSION = 1
"""Part of every artifact; a change that moves vectors raises it."""
LSA_WIDTH = 128
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

ALIGNMENT_SAMPLE = 2_000
ALIGNMENT_LEAST = 100
"""Fewer labelled items cannot be judged: true rows of a weak encoder would be refused now and then."""
ALIGNMENT_Z = 5.0
ALIGNMENT_EXCESS = 0.25
"""Least agreement above chance, as a share of what is possible above chance. A threshold on the lift itself would ask
too much where one category holds most items: it cannot pass 1 / chance. True rows reached .69 or more on every
catalogue tried; rows a few places off kept up to .15, because neighbours by id are alike."""


def identify(spec: str) -> dict[str, Any]:
    """What a run's identity says about an encoder, loading nothing: ``{"name": ..., "sha256": ...}``.

    The hash covers the weights, tokenizer, config and pooling files of a local folder; it is None for ``lsa`` and
    for a hub name. Raises ValueError for a folder that is incomplete and for a path that does not exist.
    """
    folder = _local_folder(spec)
    if folder is None:
        return {"name": spec, "sha256": None}
    return {"name": folder.resolve().name, "sha256": folder_hash(folder)}


def encode_texts(texts: Sequence[str], spec: str, run: Run) -> np.ndarray:
    """(N + 1,) texts by item id -> (N + 1, D) float32; rows are L2-normalised, row 0 (PAD) is zero.

    An item without text gets a zero row: at distance 1 from every item it is nearer to all than two unlike items
    are to each other, so it pulls no centroid away and spends no code of its own. Equal texts get equal rows.
    Vectors are kept under ``run.artifacts_dir`` by content: encoder, texts, template and precision. Raises
    ValueError when no item has a text or the encoder cannot be loaded, MemoryError when a batch does not fit, and
    Interrupted when the run is told to stop.
    """
    with run.stage("embed"):
        if not any(text.strip() for text in texts[PAD + 1 :]):
            raise ValueError("no item has a text; choose a dataset with titles, brands or categories")
        if spec == LSA:
            identity: dict[str, Any] = {"name": LSA, "width": LSA_WIDTH}
            encode: Callable[[list[str]], np.ndarray] = partial(_lsa, run=run)
        else:
            folder = model_folder(spec)
            precision = "bfloat16" if run.device.startswith("cuda") else "float32"
            identity = {"sha256": folder_hash(folder), "max_tokens": MAX_TOKENS, "precision": precision}
            encode = partial(_transformer, folder=folder, name=identify(spec)["name"], run=run)
        key = {
            "stage": "text-vectors",
            "version": VERSION,
            "encoder": identity,
            "texts": content_hash(list(texts), 64),
            "template": TEMPLATE_HASH,
        }
        return cached(run.artifacts_dir, key, lambda: {"vectors": _by_item(texts, encode, spec)})["vectors"]


def _by_item(texts: Sequence[str], encode: Callable[[list[str]], np.ndarray], spec: str) -> np.ndarray:
    """Encode every distinct text once and spread the unit vectors over the items -> (N + 1, D)."""
    stripped = [text.strip() for text in texts]
    distinct = sorted(set(stripped[PAD + 1 :]) - {""})
    found = np.asarray(encode(distinct), np.float32)  # (M, D)
    if found.ndim != 2 or len(found) != len(distinct) or not np.isfinite(found).all():
        raise ValueError(
            f"the text encoder {spec} made {np.shape(found)} vectors for {len(distinct)} texts, or values that are "
            f"not finite; its files are damaged: {ADVICE}"
        )
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    found = np.where(norms > 1e-6, found / np.maximum(norms, 1e-6), np.float32(0))  # noise is no direction
    place = {text: row for row, text in enumerate(distinct)}
    described = np.array([item != PAD and text != "" for item, text in enumerate(stripped)])
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[described] = found[[place[text] for text, has in zip(stripped, described, strict=True) if has]]
    return vectors


def _lsa(texts: list[str], run: Run) -> np.ndarray:
    """Latent semantic analysis: TF-IDF of words, then a seeded SVD -> (M, <= LSA_WIDTH).

    Single words placed a user's next item nearer than word pairs or character n-grams did on Beauty and Toys.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    run.progress("embed", 0, len(texts), LSA)
    # Words of one letter count; where no text has a word (signs, emoji), characters tell them apart.
    has_words = any(re.search(r"\w", text) for text in texts)
    units = {"token_pattern": r"\b\w+\b"} if has_words else {"analyzer": "char", "ngram_range": (1, 3)}
    weights = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **units).fit_transform(texts)  # (M, F) sparse
    left, values, _ = randomized_svd(weights, min(LSA_WIDTH, *weights.shape), random_state=0)
    run.progress("embed", len(texts), len(texts), LSA)
    return left * values


def _local_folder(spec: str) -> Path | None:
    """The folder that ``spec`` names, None for ``lsa`` and for a hub name. Raises ValueError when it is neither."""
    path = Path(spec).expanduser()
    if spec == LSA:
        return None
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
    return _local_folder(spec) or _downloaded(spec)


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
            folder = huggingface_hub.snapshot_download(
                name, allow_patterns=list(FILES), etag_timeout=CONNECT_SECONDS, local_files_only=bool(reason)
            )
        except Exception as error:
            raise OSError(reason or _first_line(error)) from error
    return Path(folder)


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that decide a vector; raises ValueError if one is missing."""
    if lacking := _lacking(folder):
        raise ValueError(f"the text encoder folder {folder} has no {lacking}; download the whole model, or {ADVICE}")
    files = sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})
    return content_hash({path.relative_to(folder).as_posix(): _file_hash(path) for path in files}, 64)


def _lacking(folder: Path) -> str | None:
    """The first file an encoder needs and the folder does not have."""
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
        raise ValueError(f"{path} is no valid JSON; download the text encoder again, or {ADVICE}") from error


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


def _transformer(texts: list[str], folder: Path, name: str, run: Run) -> np.ndarray:
    """Means of the last hidden states under the attention mask, longest texts first -> (M, D)."""

    from methods.blocks.training import out_of_memory

    with _sentences(name):
        model = _load(folder)
        found = model.tokenizer(texts, truncation=True, max_length=model.max_tokens, padding=False)["input_ids"]
    padding = model.tokenizer.pad_token_id or 0
    tokens = [row or [padding] for row in found]
    lengths = np.array([len(row) for row in tokens])
    batches = token_batches(lengths, BATCH_TOKENS)
    pooled: list[np.ndarray] = []  # (B, D) each
    done = 0
    try:
        model = _on_device(model, run.device)
        for rows in batches:
            pooled.append(_pooled(model, [tokens[row] for row in rows], padding))
            done += int(lengths[rows].sum())
            run.progress("embed", done, int(lengths.sum()), name)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"out of memory while the text encoder {name} read {BATCH_TOKENS:,} tokens at a time; lower BATCH_TOKENS "
            "in methods/blocks/text_encoder.py or choose a smaller --text-encoder"
        ) from error
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


def check_alignment(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Refuse vectors (N + 1, D) whose rows belong to other items than their row number says.

    ``labels`` (N + 1,) int are category codes, 0 = none. A fixed sample of labelled items looks for its nearest
    neighbour (cosine) among all labelled items; the lift is the share of neighbours with the same label divided by
    the share expected by chance. Raises ValueError when the agreement is not clearly above chance, or when the
    labels one row up or down agree better: neighbours by id are alike in real catalogues, so rows that slipped by
    one still beat chance. Returns nan when nothing can be told: fewer than ``ALIGNMENT_LEAST`` labelled items with
    a vector, labels all equal or all different, vectors all equal, or so uneven labels that even perfect
    agreement could be luck.
    """
    if len(vectors) != len(labels):
        raise ValueError(f"there are {len(vectors)} vectors for {len(labels)} rows of labels; encode the texts again")
    rows = np.flatnonzero((labels > 0) & vectors.any(1))
    _, counts = np.unique(labels[rows], return_counts=True)
    if len(rows) < ALIGNMENT_LEAST or (vectors[rows] == vectors[rows[0]]).all():
        return math.nan
    chance = float((counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1)))
    asked = np.sort(np.random.default_rng(0).permutation(rows)[:ALIGNMENT_SAMPLE])
    luck = math.sqrt(chance * (1 - chance) / len(asked))  # standard error of the share under chance
    if luck == 0 or 1 - chance < ALIGNMENT_Z * luck:
        return math.nan
    nearest = _nearest(vectors, rows, asked)
    share, *slipped = (_agreement(np.roll(labels, shift), asked, nearest) for shift in (0, 1, -1))
    if share - chance < max(ALIGNMENT_Z * luck, ALIGNMENT_EXCESS * (1 - chance)) or max(slipped) > share:
        raise ValueError(
            f"{share:.1%} of the items have a nearest neighbour of their own category, {chance:.1%} would by chance "
            f"and {max(slipped):.1%} if the rows had slipped by one: the text vectors do not belong to their items; "
            "delete the cached text-vectors and encode the texts again, in the order of the item ids"
        )
    return share / chance


def _nearest(vectors: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(A,) the row among ``rows`` (R,), other than itself, with the largest cosine to each of ``asked`` (A,)."""
    unit = vectors[rows] / np.linalg.norm(vectors[rows], axis=1, keepdims=True)  # (R, D)
    place = np.searchsorted(rows, asked)
    nearest = []
    for block in np.array_split(place, math.ceil(len(place) / 256)):
        cosines = unit[block] @ unit.T  # (block, R)
        cosines[np.arange(len(block)), block] = -np.inf
        nearest.append(rows[cosines.argmax(1)])
    return np.concatenate(nearest)


def _agreement(labels: np.ndarray, asked: np.ndarray, nearest: np.ndarray) -> float:
    """Share of equal labels among the pairs in which both have one."""
    known = (labels[asked] > 0) & (labels[nearest] > 0)
    return float((labels[asked] == labels[nearest])[known].mean()) if known.any() else 0.0
