"""Weights of transformers' T5 for ours: from a state dict, a hub name or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from methods.blocks.t5 import T5, Shape


def load_pretrained(name_or_path: str) -> T5:
    """The pre-trained T5 or T5 1.1 of a hub name or of a folder saved by transformers, in fp32.

    Raises ValueError when there is none, when weights are missing, or when it is another architecture.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(name_or_path)
        if config.model_type != "t5":
            raise ValueError(f"it is a '{config.model_type}'")
        model = T5(config.vocab_size, _shape_of(config))
        kind: Any = transformers.T5ForConditionalGeneration
        theirs, report = kind.from_pretrained(name_or_path, output_loading_info=True)
        if absent := sorted(report["missing_keys"]):  # they would be random numbers
            raise ValueError(f"{len(absent)} of its weights are missing, {absent[0]} for one")
        state = theirs.state_dict()
        if model.head is None and not torch.equal(state["lm_head.weight"], state["shared.weight"]):
            raise ValueError("it scales its output, as T5 does, but has a second table, as T5 1.1 does")
        model.load_state_dict(from_transformers(state, model.shape))
    except Exception as error:  # of three libraries, in versions that name them differently
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"no T5 can be loaded from '{name_or_path}' ({reason}); pass a hub name such as google-t5/t5-small or "
            "google/t5-v1_1-small, or the folder of a T5ForConditionalGeneration saved with save_pretrained"
        ) from error
    return model


def _shape_of(config: Any) -> Shape:
    """The sizes in a T5Config. transformers scales the output exactly of the models whose table was saved as tied."""
    return Shape(
        width=config.d_model,
        heads=config.num_heads,
        head_width=config.d_kv,
        feed=config.d_ff,
        encoder_layers=config.num_layers,
        decoder_layers=config.num_decoder_layers,
        dropout=config.dropout_rate,
        buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
        feed_kind=config.feed_forward_proj,
        tied=config.scale_decoder_outputs,
    )


def from_transformers(state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Weights of transformers' T5ForConditionalGeneration under the names of ``T5``.

    Raises ValueError naming the first weight that is missing.
    """
    found: dict[str, Tensor] = {"embedding.weight": _take(state, "shared.weight")}
    if not shape.tied:
        found["head.weight"] = _take(state, "lm_head.weight")
    for side, n_layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        relative = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found[f"{side}.bias_table.weight"] = _take(state, relative)
        found[f"{side}.norm.weight"] = _take(state, f"{side}.final_layer_norm.weight")
        for number in range(n_layers):
            theirs, ours = f"{side}.block.{number}.layer", f"{side}.layers.{number}"
            found |= _attention(state, f"{theirs}.0", "SelfAttention", f"{ours}.self")
            if side == "decoder":
                found |= _attention(state, f"{theirs}.1", "EncDecAttention", f"{ours}.cross")
            found |= _feed(state, f"{theirs}.{2 if side == 'decoder' else 1}", f"{ours}.feed", shape)
    return found


def _take(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"the weights hold no '{name}'; they are not those of a T5 of these sizes")
    return state[name]


def _attention(state: Mapping[str, Tensor], theirs: str, kind: str, ours: str) -> dict[str, Tensor]:
    query, key, value, out = (_take(state, f"{theirs}.{kind}.{part}.weight") for part in "qkvo")
    return {
        f"{ours}_norm.weight": _take(state, f"{theirs}.layer_norm.weight"),
        f"{ours}_attention.query.weight": query,
        f"{ours}_attention.key_value.weight": torch.cat([key, value]),
        f"{ours}_attention.out.weight": out,
    }


def _feed(state: Mapping[str, Tensor], theirs: str, ours: str, shape: Shape) -> dict[str, Tensor]:
    parts = ("wi_0", "wi_1") if shape.feed_kind == "gated-gelu" else ("wi",)
    return {
        f"{ours}_norm.weight": _take(state, f"{theirs}.layer_norm.weight"),
        f"{ours}.inner.weight": torch.cat([_take(state, f"{theirs}.DenseReluDense.{part}.weight") for part in parts]),
        f"{ours}.out.weight": _take(state, f"{theirs}.DenseReluDense.wo.weight"),
    }
