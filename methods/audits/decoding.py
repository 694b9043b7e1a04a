"""How much of a generator's score is its decoder's doing: beams of several sizes against exact scoring.

On a fixed sample of test users: what part of the exact list each beam finds, bounds of that part, scores, time.
Letters in shapes: U users, D beam sizes, K list lengths, T targets, L levels of a semantic ID.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark import metrics
from benchmark.evaluate import find_hits
from benchmark.run import peak_rss
from benchmark.scoring import limit
from benchmark.types import INVALID, PAD, Cases, Questions
from methods.audits.command import Answer, Asked
from methods.audits.recorded import lists_moved
from methods.audits.speed import Decoder, milliseconds
from methods.audits.targets import retained, token_ranks
from methods.blocks.beam_search import RULES, Beams, beam_search, certified, spend_of, to_items
from methods.blocks.exact import (
    Scored,
    best_codes,
    code_ranks,
    exact_spend,
    item_scores,
    overlap,
    score_trie,
    users_per_batch,
)
from methods.blocks.ranking import top_k

VERSION = 1
"""Part of every audit's key; a change that moves its numbers raises it."""
KS = (5, 10, 20)
LENGTH = max(KS)
METRICS = ("ndcg@10", "recall@10")
SAMPLE = {"cpu": {"raw": 200, "renorm": 1000}, "cuda": {"raw": 2000, "renorm": 2000}}
"""Test users by device and rule: exact scoring under ``raw`` decodes every prefix, under ``renorm`` few of them."""
CHUNK = {"cpu": 32, "cuda": 512}
"""Users searched together; the scores of all their prefixes are held at once."""


def settings(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """One audit for each scoring rule, whatever rule the method was trained to be decoded with."""
    return [
        {"rule": rule, "users": args.users or SAMPLE[device][rule], "beams": args.beams, "device": device}
        for rule in RULES
    ]


def answer(asked: Asked) -> Answer:
    """Means and their per-user arrays. Raises ValueError when an overlap lies outside its bounds."""
    beams, budget = asked.settings["beams"], asked.protocol.budget.beam_size
    drawn = limit(asked.split, asked.settings["users"])
    audit = _Audit(asked, drawn.test.cases)
    # As in the test; what a method looks up for all who are asked (GenPlugin's neighbours) is not timed below.
    _refuse_another_model(asked, drawn.test.cases)
    with torch.inference_mode():
        measured = audit.lists()
        ranks = audit.target_ranks(drawn.test)  # (T, L, 2)
    items = measured.pop("items")  # (U, D + 1, LENGTH), exact last
    check_law(measured, drawn.test.cases.users, beams)
    scores = {name: _scores(items, drawn.test, name) for name in METRICS}  # (U, D + 1) each
    times = milliseconds(audit.decoders(), drawn.test.cases, asked.run.device, audit.reporter("time"))
    rows = [
        {
            "decoder": name,
            "beam_size": size,
            "spend": asdict(spend),
            "metrics": {metric: float(values[:, i].mean()) for metric, values in scores.items()},
            "lists": _quality(items[:, i]),
            "milliseconds": times[name],
        }
        | ({} if size is None else _means(measured, i))
        | ({} if size is None else {"targets": retained(ranks, size)})
        for i, (name, size, spend) in enumerate(audit.spends())
    ]
    found = {
        "users": len(drawn.test),
        "users_asked": len(asked.split.test),
        "budget": budget,
        "ks": list(KS),
        "decoders": rows,
        "codes": audit.trie.n_leaves,
        "prefixes": list(audit.trie.nodes_at[1:]),
        "threads": torch.get_num_threads(),
        "process_peak_bytes": peak_rss(),
    }
    arrays = {"users": drawn.test.cases.users, "token_ranks": ranks.astype(np.uint16), **measured, **scores}
    return found, arrays


def _refuse_another_model(asked: Asked, cases: Cases) -> None:
    """Raises ValueError when the model does not answer these cases as its record says."""
    budget, candidates = asked.protocol.budget, asked.split.candidates
    listed = asked.method.recommend(cases, budget.list_length, candidates=candidates, budget=budget)
    if lists_moved(listed, asked.record) is None:
        raise ValueError(
            "the saved model answers otherwise than its record says; make the run again with --overwrite always"
        )


class _Audit:
    """The decoders of one model under one rule."""

    def __init__(self, asked: Asked, cases: Cases):
        self.method, self.run, self.cases = asked.method, asked.run, cases
        self.rule, self.beams = asked.settings["rule"], asked.settings["beams"]
        self.device = torch.device(asked.run.device)
        self.ids = asked.method.ids
        self.trie = self.ids.trie(asked.split.candidates, self.device)
        self.leaf_items = self.trie.leaf_table(cases.tie_order, LENGTH)
        self.ties = torch.as_tensor(cases.tie_order, device=self.device)
        self.at_once = users_per_batch(self.trie, self.rule, self.device)

    def spends(self) -> Iterator[tuple[str, int | None, Any]]:
        """Every decoder's name, beam size (None = it does not search) and spend per user."""
        for size in self.beams:
            yield f"beam {size}", size, spend_of(self.trie, size, self.rule)
        yield "exact", None, exact_spend(self.trie, self.rule)

    def decoders(self) -> dict[str, Decoder]:
        """Every decoder as it answers, histories to lists, to be timed."""

        def searched(size: int) -> Decoder:
            return Decoder(lambda some: self._items(self._search(some, size)), len(self.cases))

        found = {f"beam {size}": searched(size) for size in self.beams}
        return found | {"exact": Decoder(lambda some: self._exact_items(self._scored(some)), self.at_once)}

    def reporter(self, stage: str) -> Any:
        return lambda done, total: self.run.progress(stage, done, total)

    def lists(self) -> dict[str, np.ndarray]:
        """All that is known of every user's lists, users in the order of the cases; see ``_of_chunk``."""
        order = np.argsort(self.cases.histories.lengths, kind="stable")
        size = CHUNK[self.device.type]
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, len(order), size):
            parts.append(self._of_chunk(self.cases.take(order[start : start + size]), start))
        back = np.argsort(order)
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

    def _of_chunk(self, some: Cases, done: int) -> dict[str, np.ndarray]:
        """``items`` (B, D + 1, LENGTH), exact last, and (B, D, K): overlaps, bounds, and what is certified.

        ``overlap`` is of codes with the exact list, as the bounds are; ``item_overlap`` of items with it;
        ``reference_overlap`` and ``item_reference_overlap`` the same with the widest beam's list, not the exact one.
        """
        scored = self._scored(some, done)
        ranks = code_ranks(scored, self.trie, LENGTH)
        found = [self._search(some, size) for size in self.beams]
        items = torch.stack([*(self._items(one) for one in found), self._exact_items(scored)], 1)  # (B, D + 1, LENGTH)
        codes = torch.stack([_code_list(one) for one in found], 1)  # (B, D, LENGTH)
        bounds = [[ranks.bounds(k, size) for k in KS] for size in self.beams]
        values = {
            "overlap": [[overlap(scored, one, k) for k in KS] for one in found],
            "lower": [[low for low, _ in of_beam] for of_beam in bounds],
            "upper": [[high for _, high in of_beam] for of_beam in bounds],
            "certified": [[certified(one, k) for k in KS] for one in found],
            "item_overlap": _shared(items[:, :-1], items[:, -1], PAD),
            "reference_overlap": _shared(codes, codes[:, -1], INVALID),
            "item_reference_overlap": _shared(items[:, :-1], items[:, -2], PAD),
        }
        stacked = {name: torch.stack([torch.stack(of_beam, 1) for of_beam in v], 1) for name, v in values.items()}
        return {name: array.cpu().numpy() for name, array in {"items": items, **stacked}.items()}

    def _scored(self, some: Cases, done: int | None = None) -> Scored:
        """The exact scores of all prefixes, of as many users at a time as fit."""
        parts = []
        for start in range(0, len(some), self.at_once):
            rows = np.arange(start, min(start + self.at_once, len(some)))
            step = self.method.start(some.take(rows))
            parts.append(score_trie(step, self.ids, self.trie, len(rows), self.rule))
            if done is not None:
                self.run.progress("lists", done + int(rows[-1]), len(self.cases))
        return Scored([torch.cat(depth) for depth in zip(*(part.prefixes for part in parts), strict=True)])

    def _exact_items(self, scored: Scored) -> Tensor:
        return top_k(item_scores(scored, self.trie, self.ids.n_items), LENGTH, self.ties)[0]

    def _search(self, some: Cases, beam_size: int) -> Beams:
        return beam_search(self.method.start(some), self.ids, self.trie, len(some), beam_size, self.rule)

    def _items(self, found: Beams) -> Tensor:
        return to_items(found, self.leaf_items, LENGTH, self.ties)[0]

    def target_ranks(self, questions: Questions) -> np.ndarray:
        """(T, L, 2) of every target, see ``token_ranks``."""
        cases = questions.cases.take(questions.targets.row_of)
        targets = torch.from_numpy(questions.targets.items.astype(np.int64)).to(self.device)
        ranks = np.empty((len(targets), self.ids.levels, 2), np.int64)
        order, size = np.argsort(cases.histories.lengths, kind="stable"), CHUNK[self.device.type]
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            step = self.method.start(cases.take(rows))
            ranks[rows] = token_ranks(step, self.ids, self.trie, targets[rows]).cpu().numpy()
        return ranks


def check_law(measured: dict[str, np.ndarray], users: np.ndarray, beams: list[int]) -> None:
    """lower <= overlap <= upper for every user, beam and length. Raises ValueError naming the first who breaks it."""
    lower, value, upper = (measured[name] for name in ("lower", "overlap", "upper"))
    broken = np.argwhere((value < lower - 1e-6) | (value > upper + 1e-6))
    if len(broken):
        user, beam, k = broken[0]
        raise ValueError(
            f"overlap@{KS[k]} of user {users[user]} with beam {beams[beam]} is {value[user, beam, k]:.2f}, outside its "
            f"bounds [{lower[user, beam, k]:.2f}, {upper[user, beam, k]:.2f}] (and {len(broken) - 1} more): beam "
            "search and exact scoring contradict each other, so one of them is wrong; please report it"
        )


def _code_list(found: Beams) -> Tensor:
    """(B, LENGTH) leaves of a search, best first, equal scores by leaf number, INVALID where there are no more."""
    leaves, scores = best_codes(found.leaves, found.scores, LENGTH)
    leaves = leaves.masked_fill(scores.isneginf(), INVALID)
    return torch.nn.functional.pad(leaves, (0, LENGTH - leaves.shape[1]), value=INVALID)


def _shared(lists: Tensor, reference: Tensor, nothing: int) -> list[list[Tensor]]:
    """Lists (B, D, LENGTH) and one to compare with (B, LENGTH) -> for every D and K the shared part (B,) of the latter.

    ``nothing`` fills the end of a list and is shared by none.
    """
    shares = []
    for one in lists.unbind(1):
        alike = (reference[:, :, None] == one[:, None, :]) & (reference != nothing)[:, :, None]  # (B, LENGTH, LENGTH)
        named = [(reference[:, :k] != nothing).sum(1).clamp(min=1) for k in KS]
        shares.append([alike[:, :k, :k].any(-1).sum(1) / n for k, n in zip(KS, named, strict=True)])
    return shares


def _scores(items: np.ndarray, questions: Questions, metric: str) -> np.ndarray:
    """Lists (U, D + 1, LENGTH) -> (U, D + 1) of one metric."""
    name, k = metrics.parse(metric)
    lengths = questions.targets.lengths
    columns = [
        metrics.PER_USER[name](find_hits(lists, questions.targets), lengths, k) for lists in items.swapaxes(0, 1)
    ]
    return np.stack(columns, 1)


def _quality(lists: np.ndarray) -> dict[str, float]:
    """Of the places of lists (U, LENGTH): filled with an item, naming one a second time, naming what is no item."""
    real = np.sort(np.where(lists > PAD, lists, PAD), axis=1)
    twice = (real[:, 1:] == real[:, :-1]) & (real[:, 1:] > PAD)
    return {
        "fill": float((lists > PAD).mean()),
        "duplicate": float(twice.sum() / lists.size),
        "invalid": float((lists == INVALID).mean()),
    }


def _means(measured: dict[str, np.ndarray], beam: int) -> dict[str, dict[str, float]]:
    """Every measure of one beam: list length -> mean over users."""
    return {
        name: {str(k): float(values[:, beam, i].mean()) for i, k in enumerate(KS)} for name, values in measured.items()
    }
