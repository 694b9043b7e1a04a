"""Semantic ids: codes to tokens and back, the trie of all codes as tables on the device, and the ids' report card.

The only place that knows where a level's tokens lie in the vocabulary. Letters in shapes: N items, L levels, M items
of a trie, B batch, W beams, C most children of a node, G most items of a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.types import PAD

PAD_TOKEN = 0
"""Fills the end of a history, and is what the decoder starts from, as in T5."""

FIRST_CODE = 2
"""Token of code 0 of the first level. Token 1 is T5's end token: free, since all ids have the same length."""


def number_prefixes(codes: np.ndarray) -> np.ndarray:
    """Codes (M, L), none negative -> (M, L + 1) int64: column d numbers the distinct prefixes of d codes.

    Numbers run from 0 in lexicographic order; equal prefixes have equal numbers. No key of all levels is ever formed,
    so any number of levels fits.
    """
    narrow = codes.astype(np.uint16) if codes.max(initial=0) < 2**16 else codes  # 16-bit columns are radix-sorted
    order = np.lexsort(narrow.T[::-1])
    ascending = narrow[order]
    is_new = np.logical_or.accumulate(ascending[1:] != ascending[:-1], axis=1)  # (M - 1, L)
    numbers = np.zeros((len(codes), codes.shape[1] + 1), np.int64)
    numbers[order[1:], 1:] = np.cumsum(is_new, axis=0)
    return numbers


def rank_within(groups: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Groups (M,), numbered from 0, and key (M,) -> (M,) place 0, 1, ... of each row in its group, lower key first."""
    order = np.lexsort((key, groups))
    counts = np.bincount(groups)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - (np.cumsum(counts) - counts)[groups[order]]
    return ranks


class SemanticIds:
    """The codes of all items, ``codes`` (N + 1, L) with row 0 = -1, where level l has ``sizes[l]`` codes.

    Raises ValueError when the shape does not fit ``sizes`` or an item has a code outside its level.
    """

    def __init__(self, codes: np.ndarray, sizes: Sequence[int]):
        self.codes = np.asarray(codes, np.int64)
        self.sizes = tuple(int(size) for size in sizes)
        self._check()
        self.levels = len(self.sizes)
        self.n_items = len(self.codes) - 1
        self.vocab_size = FIRST_CODE + sum(self.sizes)
        self.offsets = FIRST_CODE + np.concatenate([[0], np.cumsum(self.sizes)[:-1]])  # (L,) first token of each level
        self._token_tables: dict[torch.device, Tensor] = {}

    def _check(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.sizes) or len(self.codes) < 2:
            raise ValueError(
                f"codes of shape {self.codes.shape} do not fit {len(self.sizes)} levels; "
                "give one row per item after a row for PAD, and one column per level"
            )
        if (self.codes[PAD] != -1).any():
            raise ValueError("row 0 of the codes belongs to PAD and must be -1; item i stands in row i")
        outside = (self.codes[1:] < 0) | (self.codes[1:] >= np.array(self.sizes))
        if outside.any():
            item, level = np.argwhere(outside)[0]
            raise ValueError(
                f"item {item + 1} has code {self.codes[item + 1, level]} at level {level + 1}; "
                f"codes of that level are 0 to {self.sizes[level] - 1}"
            )

    def level(self, level: int) -> slice:
        """The tokens of a level (0-based), as columns of the vocabulary."""
        start = int(self.offsets[level])
        return slice(start, start + self.sizes[level])

    def token_table(self, device: torch.device | str) -> Tensor:
        """(N + 1, L) int64: the tokens of every item by its id, PAD_TOKEN for PAD. Kept per device."""
        device = torch.device(device)
        if device not in self._token_tables:
            tokens = self.codes + self.offsets
            tokens[PAD] = PAD_TOKEN
            with torch.inference_mode(False):  # a ranking may be the first to ask, and a training the next
                self._token_tables[device] = torch.as_tensor(tokens, device=device)
        return self._token_tables[device]

    def tokens(self, items: Tensor) -> Tensor:
        """Item ids (...,) -> their tokens (..., L) int64, on the device of ``items``."""
        return self.token_table(items.device)[items]

    def trie(
        self,
        candidates: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        *,
        dense_up_to: int = 200_000,
    ) -> Trie:
        """The trie of the codes of ``candidates`` (item ids; None = every item), see ``Trie``.

        Raises ValueError when there is no candidate or one that is no item.
        """
        items = np.arange(1, self.n_items + 1) if candidates is None else np.unique(candidates)
        if not len(items):
            raise ValueError("the list of candidates is empty; give at least one item")
        if items[0] < 1 or items[-1] > self.n_items:
            wrong = items[0] if items[0] < 1 else items[-1]
            raise ValueError(f"candidate {wrong} is no item; items are 1 to {self.n_items}")
        return Trie(self.codes[items], self.sizes, items, torch.device(device), dense_up_to)

    def report(self, categories: np.ndarray | None = None) -> dict[str, object]:
        """How the codes are used, how often they collide, and whether a shared prefix means a shared category.

        ``categories`` (N + 1,) labels the items, 0 = none. Agreement at length l is the share of the pairs of labelled
        items with the same first l codes that have the same label; None where there is no such pair. JSON-ready.
        """
        numbers = number_prefixes(self.codes[1:])
        group_sizes = np.bincount(numbers[:, -1])
        found: dict[str, object] = {
            "items": self.n_items,
            "distinct_codes": len(group_sizes),
            "collision_rate": 1 - len(group_sizes) / self.n_items,
            "largest_group": int(group_sizes.max()),
            "largest_first_level_bucket": int(np.bincount(numbers[:, 1]).max()),
            "distinct_prefixes": [int(column.max()) + 1 for column in numbers[:, 1:].T],
            "levels": [
                {"size": size, **_usage(np.bincount(column, minlength=size))}
                for size, column in zip(self.sizes, self.codes[1:].T, strict=True)
            ],
        }
        if categories is not None:
            labels = np.asarray(categories)[1:]
            known = labels > 0
            prefixes = numbers[known, : self.levels].T  # (L, labelled items): lengths 0 to L - 1
            chance, *agreement = (_pair_agreement(prefix, labels[known]) for prefix in prefixes)
            found["category_agreement"] = {"by_prefix_length": agreement, "chance": chance}
        return found


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of counts (K,): how many codes in equal use would be as uncertain."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _usage(counts: np.ndarray) -> dict[str, float]:
    """Counts (K,) of every code of a level -> codes in use, and the number of codes that equal use would need."""
    return {"used": int((counts > 0).sum()), "perplexity": perplexity(counts)}


def _pair_agreement(groups: np.ndarray, labels: np.ndarray) -> float | None:
    """Of the pairs of rows in the same group (M,), the share with the same label (M,); None without such a pair."""
    pairs = _n_pairs(np.bincount(groups))
    cells = number_prefixes(np.stack([groups, labels], axis=1))[:, -1]
    return _n_pairs(np.bincount(cells)) / pairs if pairs else None


def _n_pairs(counts: np.ndarray) -> int:
    return int((counts.astype(np.int64) * (counts - 1) // 2).sum())


class Nodes(NamedTuple):
    """The nodes of a depth of a trie, in order of their numbers."""

    parents: Tensor  # (n,) int64 node of the depth above, never falling
    codes: Tensor  # (n,) int64 last code of the prefix


class Trie:
    """The children of every prefix, as tables on the device.

    The nodes of a depth are numbered from 0 in lexicographic order of their prefixes: depth 0 holds the root alone,
    depth L the leaves, which are the distinct codes. Node -1 is no node and has no children. Tables are dense up to
    ``dense_up_to`` nodes above the leaves, and compressed rows beyond; both give the same answers.
    """

    def __init__(
        self, codes: np.ndarray, sizes: tuple[int, ...], items: np.ndarray, device: torch.device, dense_up_to: int
    ):
        numbers = number_prefixes(codes)  # (M, L + 1)
        self.levels = len(sizes)
        self.nodes_at = tuple(int(column.max()) + 1 for column in numbers.T)
        self.n_leaves = self.nodes_at[-1]
        self.device = device
        self._items, self._leaves = items, numbers[:, -1]
        make = _DenseRows if sum(self.nodes_at[:-1]) <= dense_up_to else _CompressedRows
        self._rows: list[_DenseRows | _CompressedRows] = []
        for depth, size in enumerate(sizes):
            parents = np.empty(self.nodes_at[depth + 1], np.int64)
            last_codes = np.empty(self.nodes_at[depth + 1], np.int64)
            parents[numbers[:, depth + 1]] = numbers[:, depth]
            last_codes[numbers[:, depth + 1]] = codes[:, depth]
            self._rows.append(make(parents, last_codes, self.nodes_at[depth], size, device))

    @property
    def nbytes(self) -> int:
        """Memory of the tables on the device."""
        return sum(rows.nbytes for rows in self._rows)

    def children(self, depth: int, nodes: Tensor) -> Tensor:
        """Nodes (B, W) of a depth -> (B, W, sizes[depth]) int32 nodes of the next, by code; -1 = no such child."""
        return self._rows[depth].children(nodes)

    @cached_property
    def nodes(self) -> tuple[Nodes, ...]:
        """The nodes of depths 1 to L: ``nodes[depth]`` are the children of the nodes of ``depth``."""
        return tuple(rows.nodes() for rows in self._rows)

    def leaf_of_item(self, n_items: int) -> Tensor:
        """(N + 1,) int64 leaf of every item, -1 where it is no candidate."""
        leaves = torch.full((n_items + 1,), -1)
        leaves[torch.as_tensor(self._items)] = torch.as_tensor(self._leaves)
        return leaves.to(self.device)

    def leaf_table(self, tie_order: np.ndarray, at_most: int) -> Tensor:
        """(n_leaves, G) int64 items of each leaf, lower ``tie_order`` (N + 1,) first, PAD-filled; G <= ``at_most``."""
        ranks = rank_within(self._leaves, np.asarray(tie_order)[self._items])
        kept = ranks < at_most
        table = np.full((self.n_leaves, int(ranks[kept].max()) + 1), PAD, np.int64)
        table[self._leaves[kept], ranks[kept]] = self._items[kept]
        return torch.as_tensor(table, device=self.device)


class _DenseRows:
    """Children of a depth as one table; a last row without children answers node -1."""

    def __init__(self, parents: np.ndarray, codes: np.ndarray, n_nodes: int, size: int, device: torch.device):
        table = torch.full((n_nodes + 1, size), -1, dtype=torch.int32)
        table[torch.as_tensor(parents), torch.as_tensor(codes)] = torch.arange(len(parents), dtype=torch.int32)
        self._table = table.to(device)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes

    def children(self, nodes: Tensor) -> Tensor:
        return self._table[nodes]

    def nodes(self) -> Nodes:
        return Nodes(*(self._table >= 0).nonzero(as_tuple=True))  # row by row is the order of the numbers


class _CompressedRows:
    """Children of a depth as each node's first child and number of children, and each child's code.

    Children are numbered in order of their parents, so a child's number is its position. Every row is read at the
    width of the widest, known from the start, so nothing waits for the device.
    """

    def __init__(self, parents: np.ndarray, codes: np.ndarray, n_nodes: int, size: int, device: torch.device):
        counts = np.bincount(parents, minlength=n_nodes + 1)  # the last, 0, answers node -1
        width = int(counts.max())
        self._size = size
        self._first = torch.as_tensor((np.cumsum(counts) - counts).astype(np.int32), device=device)
        self._count = torch.as_tensor(counts.astype(np.int32), device=device)
        self._codes = torch.as_tensor(np.pad(codes, (0, width)).astype(np.int32), device=device)  # room to read past
        self._places = torch.arange(width, dtype=torch.int32, device=device)

    @property
    def nbytes(self) -> int:
        return self._first.nbytes + self._count.nbytes + self._codes.nbytes

    def children(self, nodes: Tensor) -> Tensor:
        positions = self._first[nodes][..., None] + self._places  # (B, W, C)
        is_child = self._places < self._count[nodes][..., None]
        codes = torch.where(is_child, self._codes[positions], self._size)  # what is no child goes to a spare column
        found = torch.full((*nodes.shape, self._size + 1), -1, dtype=torch.int32, device=nodes.device)
        return found.scatter_(-1, codes.long(), positions)[..., : self._size]

    def nodes(self) -> Nodes:
        parents = torch.arange(len(self._count), device=self._count.device).repeat_interleave(self._count)
        return Nodes(parents, self._codes[: len(parents)].long())
