"""Trained methods as something to be asked again and again: histories -> lists, all tables of items made beforehand.

Letters in shapes: B users, K list length, N items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmark.types import PAD, Cases
from methods.audits.speed import Decoder
from methods.blocks.beam_search import Beams, beam_search, to_items
from methods.blocks.generator import Generator
from methods.blocks.ranking import Scorer, top_k


class Search:
    """Beam search of a generator over the trie of the candidates (None = every item)."""

    def __init__(self, method: Generator, candidates: np.ndarray | None, tie_order: np.ndarray, length: int, rule: str):
        device = torch.device(method.run.device)
        self.method, self.ids, self.length, self.rule = method, method.ids, length, rule
        self.trie = method.ids.trie(candidates, device)
        self.leaf_items = self.trie.leaf_table(tie_order, length)
        self.ties = torch.as_tensor(tie_order, device=device)

    def beams(self, some: Cases, beam_size: int) -> Beams:
        return beam_search(self.method.start(some), self.ids, self.trie, len(some), beam_size, self.rule)

    def items(self, found: Beams) -> Tensor:
        """(B, K)"""
        return to_items(found, self.leaf_items, self.length, self.ties)[0]

    def decoder(self, beam_size: int, at_most: int) -> Decoder:
        """The search as it answers, for at most so many users at once, or what the method itself takes."""
        at_once = min(at_most, self.method.config.decode_batch or at_most)
        return Decoder(lambda some: self.items(self.beams(some, beam_size)), at_once)


class OnePass:
    """A method that scores all items at once and has answered before, so that what it keeps of the items is there."""

    def __init__(self, method: Scorer, candidates: np.ndarray | None, tie_order: np.ndarray, length: int):
        device = torch.device(method.run.device)
        self.method, self.length = method, length
        self.ties = torch.as_tensor(tie_order, device=device)
        banned = np.full(len(tie_order), candidates is not None)
        banned[[] if candidates is None else candidates] = False
        banned[PAD] = True
        self.banned = torch.from_numpy(banned).to(device)  # (N + 1,)

    def items(self, some: Cases) -> Tensor:
        """(B, K)"""
        scores = self.method._score(some).float().masked_fill(self.banned, -torch.inf)
        return top_k(scores, self.length, self.ties)[0]

    def decoder(self, at_most: int) -> Decoder:
        return Decoder(self.items, at_most)
