"""Item texts -> one vector per item: ``lsa`` (TF-IDF + SVD), or any transformers encoder by hub name or folder.

texts (N + 1,) -> distinct texts -> vectors (N + 1, D), cached by content. Heavy imports stand where they are used:
naming an encoder needs neither torch nor transformers nor a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmark.artifacts import cached
from benchmark.datasets.text import TEMPLATE_HASH
from benchmark.files import content_hash
from benchmark.run import Run
from benchmark.types import PAD
from methods.blocks.text_models import (
    ADVICE,
    MAX_TOKENS,
    folder_hash,
    local_folder,
    model_folder,
    snapshot_hash,
    transformer_vectors,
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The unified track's encoder: 384 dimensions, mean pooling."""
LSA = "lsa"
"""The encoder that always works: no weights, no network."""
VERSION = 1
"""Part of every artifact; a change that moves vectors raises it."""
LSA_WIDTH = 128


def identify(spec: str) -> dict[str, Any]:
    """What a run's identity says about an encoder, loading nothing: ``{"name": ..., "sha256": ...}``.

    The hash covers the weights, tokenizer, config and pooling files of a local folder or of a hub model's snapshot
    on this disk; it is None for ``lsa`` and for a hub model that was not downloaded, or not whole. Raises ValueError
    for a folder that is incomplete and for a path that does not exist.
    """
    if spec == LSA:
        return {"name": LSA, "sha256": None}
    folder = local_folder(spec)
    if folder is None:
        return {"name": spec, "sha256": snapshot_hash(spec)}
    return {"name": folder.resolve().name, "sha256": folder_hash(folder)}


def has_text(texts: Sequence[str]) -> bool:
    """Whether any item has a text to read."""
    return any(map(str.strip, texts))


def encode_texts(texts: Sequence[str], spec: str, run: Run) -> np.ndarray:
    """(N + 1,) texts by item id -> (N + 1, D) float32; rows are L2-normalised, row 0 (PAD) is zero.

    An item without text, or with one the encoder makes nothing of, gets a zero row: at distance 1 from every item it
    is nearer to all than two unlike items are to each other, so it pulls no centroid away and spends no code of its
    own. Equal texts get equal rows.
    Vectors are kept under ``run.artifacts_dir`` by content: encoder, texts, template and precision. Raises
    ValueError when no item has a text or the encoder cannot be loaded, MemoryError when a batch does not fit, and
    Interrupted when the run is told to stop.
    """
    with run.stage("embed"):
        if not has_text(texts[PAD + 1 :]):
            raise ValueError("no item has a text; choose a dataset with titles, brands or categories")
        if spec == LSA:
            identity: dict[str, Any] = {"name": LSA, "width": LSA_WIDTH}
            encode: Callable[[list[str]], np.ndarray] = partial(_lsa, run=run)
        else:
            folder = model_folder(spec)
            precision = "bfloat16" if run.device.startswith("cuda") else "float32"
            identity = {"sha256": folder_hash(folder), "max_tokens": MAX_TOKENS, "precision": precision}
            encode = partial(transformer_vectors, folder=folder, name=identify(spec)["name"], run=run)
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

    Single words, for simplicity: word pairs and character n-grams were no better beyond noise on Beauty and Toys.
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
