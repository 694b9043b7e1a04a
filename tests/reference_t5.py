"""transformers' T5 in the sizes of ours, fresh: the reference of every comparison."""

from __future__ import annotations

from typing import Any

from methods.blocks.semantic_ids import PAD_TOKEN
from methods.blocks.t5 import Shape


def transformers_t5(vocab_size: int, shape: Shape, **settings: Any) -> Any:
    """A T5ForConditionalGeneration that ends no list early; ``settings`` are further fields of its T5Config."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=vocab_size,
        d_model=shape.width,
        d_kv=shape.head_width,
        num_heads=shape.heads,
        d_ff=shape.feed,
        num_layers=shape.encoder_layers,
        num_decoder_layers=shape.decoder_layers,
        dropout_rate=shape.dropout,
        feed_forward_proj=shape.feed_kind,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD_TOKEN,
        decoder_start_token_id=PAD_TOKEN,
        eos_token_id=None,
        **settings,
    )
    return T5ForConditionalGeneration(config)
