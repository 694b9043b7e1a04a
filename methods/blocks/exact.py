"""Exact scoring of every semantic ID through shared prefixes, level by level: cases -> Ranking of the whole catalogue.

Every prefix of the trie is decoded once, all of a depth together as the "beams" of one step. Under ``renorm`` an only
child has probability 1, so prefixes that lead to no choice are not decoded at all. From the scores of all prefixes
follows how much of the exact list a beam search must find, and how much it can (``Ranks.bounds``).
Letters: B users, M prefixes decoded, C codes of a level, V vocabulary, P prefixes of a depth, K list length, L levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.run import Run
from benchmark.types import Cases, Ranking, Spend
from methods.blocks.beam_search import Beams, Step, check_rule, log_probability
from methods.blocks.devices import memory_error
from methods.blocks.ranking import rank_in_batches, top_k
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds, Trie
from methods.blocks.t5 import Decoding

ROUNDING = 1e-4
"""How far apart two computations of one log-probability may lie; scores closer than that count as tied in a bound."""

PREFIXES = {"cpu": 4096, "cuda": 2**17}
"""Prefixes of one depth decoded at once, over all users of a batch; at width 128 each takes about 100 kB."""

LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits normalised at once."""


class Scored(NamedTuple):
    """The log-probability of every prefix of a trie."""

    prefixes: list[Tensor]  # L of (B, P), depths 1 to L, by node number; the last are the distinct codes


def score_trie(step: Step, ids: SemanticIds, trie: Trie, users: int, rule: str = "raw") -> Scored:
    """Score every prefix of the trie for each of ``users``; ``step`` is a new step function of their beams.

    A ``Decoding`` gives its logits part by part; any other step function must hold (B, M, V) of them.
    """
    check_rule(rule)
    fed = fed_nodes(trie, rule)
    scores = torch.zeros((users, 1), device=trie.device)
    prefixes = []
    for depth, children in enumerate(trie.nodes):
        scores = scores[:, children.parents]  # (B, P); an only child's is its parent's
        if depth < len(fed):
            logits = _head(step, *_inputs(ids, trie, fed, depth, users))
            scores = scores + _of_children(logits, ids.level(depth), trie, depth, fed[depth], users, rule)
        prefixes.append(scores)
    return Scored(prefixes)


def fed_nodes(trie: Trie, rule: str) -> list[Tensor]:
    """For every depth that is decoded, the nodes (M,) whose last token is fed to the decoder, in rising order.

    ``raw``: all but the leaves. ``renorm``: those with several children, and the ancestors of these.
    """
    if rule == "raw":
        return [torch.arange(n, device=trie.device) for n in trie.nodes_at[:-1]]
    fed: list[Tensor] = []
    for depth in reversed(range(trie.levels)):
        parents = trie.nodes[depth].parents
        needed = torch.bincount(parents, minlength=trie.nodes_at[depth]) > 1
        if fed:
            needed[parents[fed[0]]] = True
        fed.insert(0, needed.nonzero()[:, 0])
    return [nodes for nodes in fed if len(nodes)]


def _inputs(ids: SemanticIds, trie: Trie, fed: list[Tensor], depth: int, users: int) -> tuple[Tensor, Tensor | None]:
    """What the step of a depth is given: tokens (B, M), and where their parents stood in the step before (B, M)."""
    if depth == 0:
        return torch.full((users, 1), PAD_TOKEN, device=trie.device), None
    nodes = trie.nodes[depth - 1]
    tokens = ids.level(depth - 1).start + nodes.codes[fed[depth]]
    parents = torch.searchsorted(fed[depth - 1], nodes.parents[fed[depth]])
    return tokens.expand(users, -1), parents.expand(users, -1)


def _head(step: Step, tokens: Tensor, parents: Tensor | None) -> Callable[[slice], Tensor]:
    """Take one step -> a function that gives the logits (B, m, V) of some of its beams."""
    if getattr(step, "__func__", None) is Decoding.step:
        decoding: Decoding = step.__self__  # type: ignore[attr-defined]
        states = decoding.states(tokens, parents)
        return lambda some: decoding.model.logits(states[:, some])
    logits = step(tokens, parents)
    return lambda some: logits[:, some]


def _of_children(
    logits: Callable[[slice], Tensor], level: slice, trie: Trie, depth: int, nodes: Tensor, users: int, rule: str
) -> Tensor:
    """log p (B, P) of every node below ``depth`` given its parent; 0 where the parent is not among ``nodes`` (M,)."""
    found = torch.zeros((users, trie.nodes_at[depth + 1]), device=trie.device)
    at_once = max(1, LOGITS[trie.device.type] // (users * level.stop))
    for begin in range(0, len(nodes), at_once):
        some = slice(begin, begin + at_once)
        children = trie.children(depth, nodes[some])  # (m, C)
        exists = children >= 0
        found[:, children[exists]] = log_probability(logits(some), level, children, rule)[:, exists]
    return found


def users_per_batch(trie: Trie, rule: str, device: torch.device) -> int:
    """As many users as together have ``PREFIXES`` prefixes at the depth where most are decoded, and at least one."""
    widest = max((len(nodes) for nodes in fed_nodes(trie, rule)), default=1)
    return max(1, PREFIXES[device.type] // widest)


def item_scores(scored: Scored, trie: Trie, n_items: int) -> Tensor:
    """(B, N + 1) log-probability of every item's code, -inf for PAD and for what is no candidate of the trie."""
    leaves = trie.leaf_of_item(n_items)
    return scored.prefixes[-1][:, leaves.clamp(min=0)].masked_fill(leaves < 0, -torch.inf)


def rank_exact(
    start: Callable[[Cases], Step],
    ids: SemanticIds,
    cases: Cases,
    k: int,
    *,
    run: Run,
    rule: str = "raw",
    candidates: np.ndarray | None = None,
    batch_size: int | None = None,
    stage: str = "decode",
) -> Ranking:
    """Rank every case by the exact probability of every candidate; ``start`` as for ``rank_by_beam``.

    Items of one code share its score, ties follow ``cases.tie_order``. ``k`` may be the whole catalogue. Raises
    MemoryError when a batch does not fit.
    """
    check_rule(rule)
    device = torch.device(run.device)
    trie = ids.trie(candidates, device)
    ties = torch.as_tensor(cases.tie_order, device=device)

    def answer(some: Cases) -> tuple[Tensor, Tensor]:
        with memory_error(
            f"out of memory while scoring the whole catalogue for {len(some)} users; give rank_exact a batch_size "
            f"below {len(some)}"
        ):
            scored = score_trie(start(some), ids, trie, len(some), rule)
            return top_k(item_scores(scored, trie, ids.n_items), k, ties)

    batch_size = batch_size or users_per_batch(trie, rule, device)
    spend = exact_spend(trie, rule)
    return rank_in_batches(answer, cases, k, run=run, spend=spend, batch_size=batch_size, stage=stage)


def exact_spend(trie: Trie, rule: str) -> Spend:
    """What one user costs: a decoder pass for every depth that has a choice, a token for every prefix decoded."""
    widths = [len(nodes) for nodes in fed_nodes(trie, rule)]
    return Spend(rule="exact", items_scored=trie.n_leaves, forward_passes=len(widths), decoder_tokens=sum(widths))


# --- how much of the exact list a beam finds -------------------------------------------------------------------------


class Ranks(NamedTuple):
    """The exact best codes, and where each of their prefixes stands. A rank counts from 1."""

    leaves: Tensor  # (B, K) best first, equal scores by leaf number
    listed: Tensor  # (B, K) bool, False where the code is impossible (score -inf)
    among_all: Tensor  # (B, K, L) among all prefixes of the depth, everything tied with it before it
    among_siblings: Tensor  # (B, K, L) among the prefixes that differ in their last code only, tied ones after it

    def bounds(self, k: int, beam_size: int) -> tuple[Tensor, Tensor]:
        """Bounds (B,) of ``overlap`` at ``k``, at most K, of a beam search with ``beam_size``.

        Lower: a code is in the list for certain if each of its prefixes is among the best ``beam_size`` of *all*
        prefixes of that depth, and itself among the best ``k`` codes: what competes with it in the search is a part of
        these. (Also for a beam narrower than ``k``, whose list is shorter.)
        Upper (SimGR, Theorem 4.1): a code cannot be in the list if at some depth ``beam_size`` codes that lead to an
        item are likelier *given its own prefix*: they share the prefix's score, so in the search all come before it.
        Codes that lead to no item must not be counted, as the paper's search without a trie would: this search never
        sees them, and with them the bound would be too low.
        """
        listed, among_all, among_siblings = (found[:, :k] for found in self[1:])
        certain = listed & (among_all <= beam_size).all(-1) & (among_all[..., -1] <= k)
        possible = listed & (among_siblings <= beam_size).all(-1)
        return _share(certain, listed), _share(possible, listed)


def code_ranks(scored: Scored, trie: Trie, k: int, rounding: float = ROUNDING) -> Ranks:
    """The ranks of the ``k`` best codes and their prefixes; scores within ``rounding`` of each other are tied."""
    leaves, best = best_codes(torch.arange(trie.n_leaves, device=trie.device), scored.prefixes[-1], k)
    among_all, among_siblings = [], []
    nodes = leaves
    for children, scores in zip(reversed(trie.nodes), reversed(scored.prefixes), strict=True):
        own = scores.gather(1, nodes)  # (B, K)
        before = torch.searchsorted(scores.sort(1).values, own - rounding)  # (B, K) prefixes that are clearly worse
        among_all.append(scores.shape[1] - before)
        among_siblings.append(_rank_among_siblings(children.parents, scores, nodes, own + rounding))
        nodes = children.parents[nodes]
    stacked = (torch.stack(ranks[::-1], -1) for ranks in (among_all, among_siblings))
    return Ranks(leaves, ~best.isneginf(), *stacked)


def _rank_among_siblings(parents: Tensor, scores: Tensor, nodes: Tensor, tied: Tensor) -> Tensor:
    """(B, K) 1 + how many siblings of ``nodes`` (B, K) score above ``tied`` (B, K); parents (P,), scores (B, P)."""
    counts = parents.bincount()
    own = parents[nodes]  # (B, K)
    places = torch.arange(int(counts.max()), device=nodes.device)
    siblings = (counts.cumsum(0) - counts)[own][..., None] + places  # (B, K, C): siblings have consecutive numbers
    exists = places < counts[own][..., None]
    beside = scores.gather(1, siblings.clamp(max=len(parents) - 1).flatten(1)).view_as(siblings)
    return 1 + ((beside > tied[..., None]) & exists).sum(-1)


def bounds(scored: Scored, trie: Trie, k: int, beam_size: int) -> tuple[Tensor, Tensor]:
    """Lower and upper bound (B,) of ``overlap`` at ``k``, see ``Ranks.bounds``."""
    return code_ranks(scored, trie, k).bounds(k, beam_size)


def overlap(scored: Scored, found: Beams, k: int) -> Tensor:
    """(B,) share of the exact best ``k`` codes (or fewer, where no more are possible) in the best ``k`` of a search."""
    every = torch.arange(scored.prefixes[-1].shape[1], device=found.leaves.device)
    exact, exact_scores = best_codes(every, scored.prefixes[-1], k)
    beam, beam_scores = best_codes(found.leaves, found.scores, k)
    listed = ~exact_scores.isneginf()
    alike = (exact[:, :, None] == beam[:, None, :]) & ~beam_scores.isneginf()[:, None, :]  # (B, K, K)
    return _share(alike.any(-1) & listed, listed)


def best_codes(leaves: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Leaves (P,) or (B, P) with scores (B, P) -> the ``k`` best (B, K), equal scores by leaf number; and their scores.

    K is smaller than ``k`` where there are not so many.
    """
    by_number, order = leaves.expand(scores.shape).sort(1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return by_number.gather(1, order[:, :k]), scores[:, :k]


def _share(some: Tensor, of: Tensor) -> Tensor:
    """(B, K) bool twice -> (B,) how many of one there are for each of the other; 0 where there are none."""
    return some.sum(1) / of.sum(1).clamp(min=1)
