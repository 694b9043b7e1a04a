"""Trie-constrained beam search over semantic IDs, batched over users: cases -> Ranking.

Every step works on whole tables: logits of all beams, children of all beams, one top-k per user. Nothing is asked
beam by beam and nothing waits for the device between steps. The best score that was ever cut is kept: what found more
than that is certain to be what scoring every item would find (``certified``).
Letters: B users, W beams, C codes of a level, V vocabulary, G items of a semantic ID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.run import Run
from benchmark.types import PAD, Budget, Cases, Ranking, Spend
from methods.blocks.devices import memory_error
from methods.blocks.ranking import order_ties, rank_in_batches
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds, Trie

RULES = ("raw", "renorm")
"""How a code's log-probability is read: ``raw`` normalises over the whole vocabulary and then forbids what is no
item (transformers' convention); ``renorm`` normalises over the codes that continue to some item."""

Step = Callable[[Tensor, Tensor | None], Tensor]
"""(tokens (B, W), parents (B, W) or None at the first step) -> logits (B, W, V) of the next code."""


class Beams(NamedTuple):
    """What a search found, best first; a beam of score -inf found nothing."""

    leaves: Tensor  # (B, W) int64 leaf of the trie, 0 where the score is -inf
    scores: Tensor  # (B, W) log-probability of the whole semantic ID
    pruned: Tensor  # (B,) the best score of any prefix that was cut, -inf where none was


def beam_search(step: Step, ids: SemanticIds, trie: Trie, users: int, beam_size: int, rule: str = "raw") -> Beams:
    """The ``beam_size`` likeliest semantic IDs of the trie for each of ``users`` searches.

    As many beams are kept as there are prefixes, at most ``beam_size``: with a beam as wide as the catalogue this
    scores every item.
    """
    check_rule(rule)
    device = trie.device
    tokens = torch.full((users, 1), PAD_TOKEN, device=device)  # the start token
    nodes = torch.zeros((users, 1), dtype=torch.long, device=device)
    scores = torch.zeros((users, 1), device=device)
    pruned = torch.full((users,), -torch.inf, device=device)
    parents = None
    for depth in range(ids.levels):
        level = ids.level(depth)
        children = trie.children(depth, nodes)  # (B, W, C), -1 = no item
        log_p = log_probability(step(tokens, parents), level, children, rule)  # (B, W, C)
        total = (scores[..., None] + log_p).flatten(1)  # (B, W * C)
        width = min(beam_size, trie.nodes_at[depth + 1])  # more prefixes than that there are not
        scores, place = total.topk(width, dim=1)  # (B, W')
        codes = level.stop - level.start
        parents, tokens = place // codes, level.start + place % codes
        nodes = children.flatten(1).gather(1, place).clamp(min=0).long()
        # Not a top-k of one more: that could settle ties among the kept differently.
        pruned = pruned.maximum(total.scatter_(1, place, -torch.inf).amax(1))
    return Beams(nodes, scores, pruned)


def certified(found: Beams, k: int) -> Tensor:
    """(B,) bool: the ``k`` best codes found are the ``k`` best of the whole trie, for certain.

    A log-probability is never above 0, so no code scores higher than a prefix of it and everything that was cut is at
    most ``pruned``. The k-th score must be higher than that: at an equal score the tie order might prefer what was cut.
    Then the list of ``k`` items is that of scoring every item, since each code stands for one item at least. A search
    that cut nothing is exact however little it found.
    """
    enough = found.scores.shape[1] >= k
    last = found.scores[:, k - 1] if enough else torch.full_like(found.pruned, -torch.inf)
    return (last > found.pruned) | found.pruned.isneginf()


def check_rule(rule: str) -> None:
    """Raises ValueError for an unknown scoring rule."""
    if rule not in RULES:
        raise ValueError(f"unknown scoring rule '{rule}'; use {' or '.join(RULES)}")


def log_probability(logits: Tensor, level: slice, children: Tensor, rule: str) -> Tensor:
    """log p (B, W, C) of each code of the level, -inf where it leads to no item."""
    logits = logits.float()
    codes, valid = logits[..., level], children >= 0
    if rule == "raw":
        return (codes - logits.logsumexp(-1, keepdim=True)).masked_fill(~valid, -torch.inf)
    codes = codes.masked_fill(~valid, -torch.inf)
    return codes - codes.logsumexp(-1, keepdim=True)


def to_items(found: Beams, leaf_items: Tensor, k: int, tie_order: Tensor) -> tuple[Tensor, Tensor]:
    """Beams -> items (B, k), scores (B, k): an ID shared by several items stands for all of them, at one score.

    ``leaf_items`` (n_leaves, G) holds each leaf's items, PAD-filled. Equal scores follow ``tie_order`` (N + 1,).
    """
    items = leaf_items[found.leaves]  # (B, W, G)
    scores = found.scores[..., None].expand_as(items).masked_fill(items == PAD, -torch.inf)
    items = items.masked_fill(scores.isneginf(), PAD).flatten(1)  # (B, W * G)
    items, scores = order_ties(items, scores.flatten(1), tie_order)
    missing = (0, max(0, k - items.shape[1]))
    pad = torch.nn.functional.pad
    return pad(items[:, :k], missing, value=PAD), pad(scores[:, :k], missing, value=-torch.inf)


def rank_by_beam(
    start: Callable[[Cases], Step],
    ids: SemanticIds,
    cases: Cases,
    k: int,
    *,
    run: Run,
    budget: Budget,
    rule: str = "raw",
    candidates: np.ndarray | None = None,
    batch_size: int | None = None,
    stage: str = "decode",
    widen_to: int | None = None,
) -> Ranking:
    """Rank every case by beam search; ``start(cases)`` encodes some cases and gives the step function of their beams.

    Cases of like history length share a batch. With ``widen_to`` the cases whose list is not ``certified`` are searched
    again with a doubled beam, until they are or the beam is that wide; the spend is then a mean over the cases.
    Raises MemoryError when a batch does not fit.
    """
    device = torch.device(run.device)
    batch_size = batch_size or (32 if device.type == "cpu" else 4096)  # what fits the caches; what fills a GPU
    trie = ids.trie(candidates, device)
    leaf_items = trie.leaf_table(cases.tie_order, k)
    ties = torch.as_tensor(cases.tie_order, device=device)

    spend = spend_of(trie, budget.beam_size, rule)
    searched = [(0, spend)]  # (cases, spend of a case) of every search

    def search(some: Cases, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
        searched.append((len(some), spend_of(trie, beam_size, rule)))
        with memory_error(
            f"out of memory while decoding {len(some)} users with beam {beam_size}; lower decode_batch in the "
            "method's Config"
        ):
            found = beam_search(start(some), ids, trie, len(some), beam_size, rule)
        return *to_items(found, leaf_items, k, ties), certified(found, k)

    def answer(some: Cases) -> tuple[Tensor, Tensor]:
        beam_size = budget.beam_size
        items, scores, certain = search(some, beam_size)
        while beam_size < (widen_to or 0) and not bool(certain.all()):
            beam_size = min(2 * beam_size, widen_to or 0)
            rows = (~certain).nonzero()[:, 0]
            items[rows], scores[rows], certain[rows] = search(some.take(rows.cpu().numpy()), beam_size)
        return items, scores

    ranking = rank_in_batches(answer, cases, k, run=run, spend=spend, batch_size=batch_size, stage=stage)
    return ranking if widen_to is None else replace(ranking, spend=_mean_spend(searched, len(cases)))


def spend_of(trie: Trie, beam_size: int, rule: str) -> Spend:
    """What one user costs: a decoder pass a level, a token for every beam that is extended."""
    widths = [min(beam_size, n) for n in trie.nodes_at]  # beams alive at each depth, 1 at the root
    return Spend(
        rule=rule,
        items_scored=widths[-1],
        forward_passes=trie.levels,
        beam_size=beam_size,
        decoder_tokens=sum(widths[:-1]),
    )


def _mean_spend(searched: list[tuple[int, Spend]], users: int) -> Spend:
    """What one of ``users`` cost on average, over searches of (cases, spend of a case); the beam is the widest one."""

    def mean(amount: str) -> float:
        return sum(cases * getattr(spend, amount) for cases, spend in searched) / max(1, users)

    widest = max((spend for _, spend in searched), key=lambda spend: spend.beam_size)
    return replace(
        widest,
        items_scored=mean("items_scored"),
        forward_passes=mean("forward_passes"),
        decoder_tokens=mean("decoder_tokens"),
    )
