"""Generators of semantic IDs on named backbones: a decoder-only transformer or a T5 in place of the house's own T5.

A decoder-only transformer reads one sequence, [prompt; history; start token, codes so far], and its state at every
place from the start token on names the next code. Codes have a table of their own, tied to the output: the old
vocabulary is neither read nor scored. Beams of a user share the keys of prompt and history and form a tree behind
them, of which each beam sees its own ancestors.
Letters in shapes: B users, P prompt, S history tokens, C codes of an item, W beams, D width, V vocabulary, H heads, E
head width, A tokens of all beams.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.backbones import LanguageModel, build, presets
from methods.blocks.beam_search import Step
from methods.blocks.causal_lm import Causal, Prefix, Prompt
from methods.blocks.t5 import T5

SENTENCE = "A customer has bought these products, oldest first. Name the product that this customer buys next:"
"""What a pre-trained backbone reads before the history."""
PROMPT_LENGTH = 4
"""Learned vectors in its place where the backbone starts from scratch and has no words."""
PROMPT_ROOM = 64
"""Places kept for the prompt, whatever the tokenizer makes of it."""
BEAMS_AT_ONCE = 256
"""Of each user; wider steps are taken in parts, whose beams would only be masked from each other's ancestors."""

# Full rates of a T5's own training; a pre-trained transformer learns a few epochs at a lower rate (LC-Rec's recipe).
_FINE_TUNED: dict[str, Any] = {
    "embedding_rate": 1.0,
    "validation_users": 2000,
    "decode_batch": 256,
    "training": {
        "epochs": 4,
        "batch_size": 128,
        "micro_batch": 32,
        "learning_rate": 3e-4,
        "warmup_steps": 40,
        "patience": 4,
    },
}
_FROM_SCRATCH: dict[str, Any] = {"embedding_rate": 1.0, "training": {"learning_rate": 1e-3}}
"""Tables of a decoder-only transformer start as small as its other weights."""
_T5: dict[str, Any] = {"training": {"learning_rate": 5e-4}}

PRESETS: dict[str, dict[str, Any]] = {
    name: {**language_model, **recipe}
    for recipe, names in (
        (_FROM_SCRATCH, ("scratch-xs", "scratch-s")),
        ({}, ("scratch-s-t5",)),
        (_T5, ("t5-small",)),
        (_FINE_TUNED, ("gpt2", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b")),
    )
    for name, language_model in presets(*names).items()
}
"""Named sizes as presets of a generator, each with how it is trained."""


def generator_network(settings: LanguageModel, vocab_size: int, length: int, models: Path | None = None) -> nn.Module:
    """A named backbone as a ``generator.Network`` over ``vocab_size`` tokens, of which it reads at most ``length``.

    ``models`` as in ``backbones.build``. Raises ValueError when the backbone cannot be had.
    """
    backbone = build(settings, max_length=length + PROMPT_ROOM, models=models)
    if isinstance(backbone, Causal):
        return CausalNetwork(backbone, vocab_size)
    network = T5(vocab_size, backbone.shape)
    network.encoder, network.decoder = backbone.encoder, backbone.decoder
    with torch.no_grad():
        network.embedding.weight.copy_(backbone.new_rows(vocab_size))
    return network


class CausalNetwork(nn.Module):
    """A ``generator.Network`` whose memory is the embedded history; the transformer runs when something is decoded."""

    def __init__(self, lm: Causal, vocab_size: int):
        super().__init__()
        self.lm = lm
        self.prompt = Prompt(lm, SENTENCE, PROMPT_LENGTH)
        self.embedding = nn.Embedding.from_pretrained(lm.new_rows(vocab_size).float(), freeze=False)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, S) -> memory (B, S, D). What may be seen of it is told when it is decoded."""
        return self.embedding(tokens)

    def decode(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Teacher forcing: tokens (B, C), start token first, after memory (B, S, D) -> logits (B, C, V)."""
        return self.decode_embedded(self.embedding(tokens), memory, memory_mask)

    def decode_embedded(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """The same from embeddings x (B, C, D). Places that ``memory_mask`` (B, S) leaves out do not count."""
        before = self.behind_prompt(memory)  # (B, P + S, D)
        sequence = torch.cat([before, x], 1)
        if memory_mask is None:
            states = self.lm(sequence)
        else:
            filled = self.filled(before, memory_mask)
            filled = torch.cat([filled, filled.new_ones(x.shape[:2])], 1)  # (B, P + S + C)
            states = self.lm(sequence, mask=filled, positions=places(filled))
        return self.logits(states[:, -x.shape[1] :])

    def decoding(self, memory: Tensor, memory_mask: Tensor | None = None) -> Step:
        """The step function of beams over memory (B, S, D), see ``CausalDecoding.step``."""
        return CausalDecoding(self, memory, memory_mask).step

    def logits(self, states: Tensor) -> Tensor:
        """States (..., D) -> logits (..., V)."""
        return F.linear(states, self.embedding.weight)

    def behind_prompt(self, memory: Tensor) -> Tensor:
        """memory (B, S, D) -> (B, P + S, D)."""
        return torch.cat([self.prompt().to(memory.dtype).expand(len(memory), -1, -1), memory], 1)

    def filled(self, sequence: Tensor, memory_mask: Tensor | None) -> Tensor:
        """(B, P + S) bool: the prompt, and what the mask (B, S) lets through."""
        if memory_mask is None:
            return torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        return F.pad(memory_mask, (sequence.shape[1] - memory_mask.shape[1], 0), value=True)


def places(filled: Tensor) -> Tensor:
    """filled (B, S) bool -> (B, S) position of each filled place among them; of the others, of the last before it."""
    return (filled.cumsum(1) - 1).clamp(min=0)


class CausalDecoding:
    """Step-by-step decoding of B users with any number of beams each, behind prompt and history.

    Keys and values of these are computed once per user. Those of all beams' tokens are kept beside them, and a step
    lays the few that a beam descends from before its newest token: so its work does not grow with the tree.
    """

    def __init__(self, network: CausalNetwork, memory: Tensor, memory_mask: Tensor | None = None):
        assert not network.training, "decoding has no dropout; call network.eval() first"
        self.network = network
        before = network.behind_prompt(memory)
        self.filled = network.filled(before, memory_mask)  # (B, P + S)
        self.prefix = network.lm.prefix(before, None if memory_mask is None else self.filled)
        self.lengths = self.filled.sum(1)  # (B,)
        self.grown: list[Tensor] = []  # a layer each, keys and values (2, B, H, A, E) of the tokens of all beams so far
        self.ancestors = torch.empty(0)  # (B, W, T) places among the A of what each beam descends from
        self.width, self.depth = 0, 0

    def step(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """The next token of every beam, tokens (B, W) -> logits (B, W, V).

        ``parents`` (B, W) says which beam of the previous step each beam continues; None at the first step.
        """
        return self.network.logits(self.states(tokens, parents))

    def states(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """``step`` up to the head: (B, W, D)."""
        self._descend(tokens, parents)
        positions = (self.lengths + self.depth)[:, None]  # (B, 1)
        states, grown = [], [self.grown] if self.depth else []
        for some in torch.arange(tokens.shape[1], device=tokens.device).split(BEAMS_AT_ONCE):
            branch = self._branch(self.ancestors[:, some])
            x = self.network.embedding(tokens[:, some])  # (B, w, D)
            mask = self._visible(len(some))
            states.append(self.network.lm.extend(branch, x, positions.expand(-1, len(some)), mask))
            grown.append([torch.stack([kv[:, :, -len(some) :] for kv in layer]) for layer in _layers(branch)])
        self.grown = [torch.cat(of_layer, 3) for of_layer in zip(*grown, strict=True)]
        self.width, self.depth = tokens.shape[1], self.depth + 1
        return torch.cat(states, 1)

    def _descend(self, tokens: Tensor, parents: Tensor | None) -> None:
        """Every beam of this step descends from its parent and from what that descends from."""
        if parents is None:
            self.ancestors = tokens.new_empty((*tokens.shape, 0))
            return
        inherited = self.ancestors.gather(1, parents[..., None].expand(-1, -1, self.depth - 1))
        first = self.grown[0].shape[3] - self.width  # of the previous step's tokens
        self.ancestors = torch.cat([inherited, first + parents[..., None]], -1)

    def _branch(self, ancestors: Tensor) -> Prefix:
        """The prefix with the ancestors (B, w, T) of some beams behind it, beam by beam."""
        cache = type(self.prefix.cache)()
        for number, (keys, values) in enumerate(_layers(self.prefix)):
            if self.depth:
                of_beams = self.grown[number]
                places = ancestors.flatten(1)[:, None, :, None]  # (B, 1, w * T, 1)
                own = of_beams.gather(3, places.expand(*of_beams.shape[:3], -1, of_beams.shape[4]))
                keys, values = torch.cat([keys, own[0]], 2), torch.cat([values, own[1]], 2)
            cache.update(keys, values, number)
        return replace(self.prefix, cache=cache)

    def _visible(self, width: int) -> Tensor:
        """(B, w, P + S + w * T + w): what is filled of the prefix, a beam's own ancestors, and its newest token."""
        own = torch.eye(width, dtype=torch.bool, device=self.filled.device)
        own = torch.cat([own.repeat_interleave(self.depth, 1), own], 1)
        filled = self.filled[:, None].expand(-1, width, -1)
        return torch.cat([filled, own.expand(len(filled), -1, -1)], 2)


def _layers(prefix: Prefix) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (B, H, T, E) of every layer."""
    return [(layer.keys, layer.values) for layer in prefix.cache.layers]
