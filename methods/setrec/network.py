"""A language model that reads the tokens of a history and generates those of the next item, all at once.

tokens (B, L, T, D) -> instruction, history, response, queries -> states (B, T, D), one for each token of the set.
Letters: B users, L items of history, T tokens of an item, D width, P instruction, R response, S places, E prefixes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from methods.blocks.backbones import Seq2Seq
from methods.blocks.causal_lm import SPREAD, Causal, Prompt
from methods.blocks.item_softmax import Rivals
from methods.setrec.sequence import Parts, causal_layout, encoder_layout, identity_layout
from methods.setrec.tokens import ItemTokens


class SetNetwork(nn.Module):
    """Tokenizers, language model, prompts and queries, which stay random unless ``trained_queries``."""

    def __init__(
        self,
        items: ItemTokens,
        lm: Causal | Seq2Seq,
        *,
        instruction: str,
        response: str,
        prompt_vectors: int,
        sparse: bool,
        trained_queries: bool,
    ):
        super().__init__()
        self.items, self.lm, self.sparse = items, lm, sparse
        self.instruction = Prompt(lm, instruction, prompt_vectors)
        self.response = Prompt(lm, response, 0)  # from scratch, the queries are all the ending there needs to be
        queries = SPREAD * torch.randn(items.per_item, lm.width)
        if trained_queries:
            self.queries = nn.Parameter(queries)
        else:
            self.register_buffer("queries", queries)

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens (B, L, T, D) of whole histories of one length -> states (B, T, D)."""
        if isinstance(self.lm, Causal):
            return self._decoded(self.lm, tokens, [tokens.shape[1]])[:, 0]
        return self._translated(self.lm, tokens)

    def every_prefix(self, tokens: Tensor) -> Tensor:
        """The same after 1, 2, ..., L items of each history: (B, L, T, D), in one pass. Decoder-only models alone."""
        return self._decoded(cast(Causal, self.lm), tokens, list(range(1, tokens.shape[1] + 1)))

    def loss(self, history: Tensor, targets: Tensor, rivals: Rivals, alpha: float) -> Tensor:
        """Histories (B, L) of one length and the items (B,) that follow: generation plus ``alpha`` times rebuilding."""
        features = self.items.features()
        tokens = self.items.tokens(history, features)  # (B, L, T, D)
        loss = self.items.generation_loss(self(tokens), targets, features, rivals)
        return loss + alpha * self.items.reconstruction_error(history, tokens)

    def loss_of_prefixes(
        self, history: Tensor, targets: Tensor, wanted: Tensor, rivals: Rivals, alpha: float
    ) -> Tensor:
        """The mean of ``loss`` over the wanted (B, L) prefixes of histories (B, L) and the targets after them.

        Micro-batches are weighted by rows: the whole batch's mean to the extent that rows have equally many targets.
        """
        features = self.items.features()
        tokens = self.items.tokens(history, features)
        states = self.every_prefix(tokens)[wanted]  # (E, T, D)
        loss = self.items.generation_loss(states, targets[wanted], features, rivals)
        share = wanted / torch.arange(1, history.shape[1] + 1, device=history.device)  # of an item in its prefix's mean
        weights = share.flip(1).cumsum(1).flip(1)  # (B, L): over all wanted prefixes that hold the item
        return loss + alpha * self.items.reconstruction_error(history, tokens, weights)

    def parts(self, tokens: Tensor) -> Parts:
        """Of the sequence around the tokens (B, L, T, D) of histories."""
        return Parts(
            instruction=len(self.instruction()),
            items=tokens.shape[1],
            tokens=tokens.shape[2],
            response=len(self.response()),
            queries=len(self.queries),
        )

    def _decoded(self, lm: Causal, tokens: Tensor, prefixes: list[int]) -> Tensor:
        """(B, E, T, D)"""
        parts = self.parts(tokens)
        layout = causal_layout(parts, prefixes, sparse=self.sparse, device=tokens.device)
        ending = torch.cat([self.response(), self.queries]).repeat(len(prefixes), 1)  # (E (R + T), D)
        x = _joined(self.instruction(), tokens.flatten(1, 2), ending)  # (B, S, D)
        states = lm(x, mask=layout.mask[None], positions=layout.positions)[:, parts.history_end :]
        return states.unflatten(1, (len(prefixes), parts.block))[:, :, parts.response :]

    def _translated(self, lm: Seq2Seq, tokens: Tensor) -> Tensor:
        """(B, T, D)"""
        layout = encoder_layout(self.parts(tokens), sparse=self.sparse, device=tokens.device)
        x = _joined(self.instruction(), tokens.flatten(1, 2), self.response())
        bias = lm.encoder.position_bias(layout.positions, layout.positions)
        memory = lm.encoder(x, mask=layout.mask[None], position_bias=bias)
        own = identity_layout(self.items.per_item, device=tokens.device)
        return lm.decoder(
            self.queries.expand(len(tokens), -1, -1),
            mask=own.mask[None],
            position_bias=lm.decoder.position_bias(own.positions, own.positions),
            memory=memory,
        )


def _joined(before: Tensor, history: Tensor, after: Tensor) -> Tensor:
    """before (P, D), history (B, H, D), after (A, D) -> (B, P + H + A, D)"""
    rows = len(history)
    return torch.cat([before.expand(rows, -1, -1), history, after.expand(rows, -1, -1)], 1)
