"""How much of a generator's score is its decoder's doing: beams of several sizes against exact scoring.

On a fixed sample of test users: what part of the exact list each beam finds, bounds of that part, scores, time. A
method that scores all items in one pass has one decoder, which is exact: its scores, spend and time stand beside.
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

from benchmark.method import Method
from benchmark.run import peak_rss
from benchmark.scoring import limit
from benchmark.types import INVALID, PAD, Cases, Questions, Ranking, Split
from methods.audits.command import Answer, Asked
from methods.audits.decoders import OnePass, Search
from methods.audits.lists import KS, LENGTH, code_list, quality, scored_by, shared
from methods.audits.recorded import asked_again
from methods.audits.speed import Decoder, milliseconds
from methods.audits.targets import retained, token_ranks
from methods.blocks.beam_search import RULES, certified, spend_of
from methods.blocks.exact import (
    Scored,
    code_ranks,
    exact_spend,
    item_scores,
    overlap,
    score_trie,
    users_per_batch,
)
from methods.blocks.generator import Generator
from methods.blocks.ranking import Scorer, top_k

VERSION = 1
"""Part of every audit's key; a change that moves its numbers raises it."""
TOGETHER = False
"""Every model is asked alone."""
METRICS = ("ndcg@10", "recall@10")
SAMPLE = {"cpu": {"raw": 200, "renorm": 1000}, "cuda": {"raw": 2000, "renorm": 2000}}
"""Test users by device and rule: exact scoring under ``raw`` decodes every prefix, under ``renorm`` few of them."""
ALL = "all items"
"""The decoder of a method that scores every item in one pass."""
CHUNK = {"cpu": 32, "cuda": 512}
"""Users searched together; the scores of all their prefixes are held at once."""


def refusal(method: type[Method]) -> str | None:
    """Why a method cannot be asked, after its name; None when it can."""
    if issubclass(method, Generator) or (issubclass(method, Scorer) and method.saves):
        return None
    return "generates no semantic IDs and keeps no model that scores all items, so there is nothing to audit"


def settings(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """One audit for each scoring rule, whatever rule the method was trained to be decoded with.

    Of a method that scores all items too: each rule has users of its own, and it stands in the table of both.
    """
    return [
        {"rule": rule, "users": args.users or SAMPLE[device][rule], "beams": args.beams, "device": device}
        for rule in RULES
    ]


def answer(asked: Asked) -> Answer:
    """Means and their per-user arrays. Raises ValueError when an overlap lies outside its bounds."""
    drawn = limit(asked.split, asked.settings["users"])
    listed = asked_again(asked, drawn.test.cases)  # what is looked up for all who are asked is not timed below
    found, arrays = _of_beams(asked, drawn) if isinstance(asked.method, Generator) else _of_one(asked, drawn, listed)
    found |= {
        "users": len(drawn.test),
        "users_asked": len(asked.split.test),
        "budget": asked.protocol.budget.beam_size,
        "ks": list(KS),
        "threads": torch.get_num_threads(),
        "process_peak_bytes": peak_rss(),
    }
    return found, {"users": drawn.test.cases.users, **arrays}


def _of_one(asked: Asked, drawn: Split, listed: Ranking) -> Answer:
    """The one decoder of a method that scores all items; its lists are those of the test."""
    assert isinstance(asked.method, Scorer)
    cases, device = drawn.test.cases, asked.run.device
    scores = {name: scored_by(listed.items[:, None], drawn.test, name) for name in METRICS}  # (U, 1) each
    decoder = OnePass(asked.method, drawn.candidates, cases.tie_order, LENGTH).decoder(len(cases))
    times = milliseconds({ALL: decoder}, cases, device, lambda done, total: asked.run.progress("time", done, total))
    row = {
        "decoder": ALL,
        "beam_size": None,
        "spend": asdict(listed.spend),
        "metrics": {metric: float(values[:, 0].mean()) for metric, values in scores.items()},
        "lists": quality(listed.items),
        "milliseconds": times[ALL],
    }
    return {"decoders": [row]}, scores


def _of_beams(asked: Asked, drawn: Split) -> Answer:
    """All decoders of a generator."""
    beams = asked.settings["beams"]
    audit = _Audit(asked, drawn.test.cases)
    with torch.inference_mode():
        measured = audit.lists()
        ranks = audit.target_ranks(drawn.test)  # (T, L, 2)
    items = measured.pop("items")  # (U, D + 1, LENGTH), exact last
    check_law(measured, drawn.test.cases.users, beams)
    scores = {name: scored_by(items, drawn.test, name) for name in METRICS}  # (U, D + 1) each
    times = milliseconds(audit.decoders(), drawn.test.cases, asked.run.device, audit.reporter("time"))
    rows = [
        {
            "decoder": name,
            "beam_size": size,
            "spend": asdict(spend),
            "metrics": {metric: float(values[:, i].mean()) for metric, values in scores.items()},
            "lists": quality(items[:, i]),
            "milliseconds": times[name],
        }
        | ({} if size is None else _means(measured, i))
        | ({} if size is None else {"targets": retained(ranks, size)})
        for i, (name, size, spend) in enumerate(audit.spends())
    ]
    found = {"decoders": rows, "codes": audit.trie.n_leaves, "prefixes": list(audit.trie.nodes_at[1:])}
    return found, {"token_ranks": ranks.astype(np.uint16), **measured, **scores}


class _Audit:
    """The decoders of one model under one rule."""

    def __init__(self, asked: Asked, cases: Cases):
        assert isinstance(asked.method, Generator)
        self.method, self.run, self.cases = asked.method, asked.run, cases
        self.rule, self.beams = asked.settings["rule"], asked.settings["beams"]
        self.device = torch.device(asked.run.device)
        self.search = Search(self.method, asked.split.candidates, cases.tie_order, LENGTH, self.rule)
        self.ids, self.trie, self.ties = self.search.ids, self.search.trie, self.search.ties
        self.chunk = min(CHUNK[self.device.type], self.method.config.decode_batch or CHUNK[self.device.type])
        self.at_once = users_per_batch(self.trie, self.rule, self.device)

    def spends(self) -> Iterator[tuple[str, int | None, Any]]:
        """Every decoder's name, beam size (None = it does not search) and spend per user."""
        for size in self.beams:
            yield f"beam {size}", size, spend_of(self.trie, size, self.rule)
        yield "exact", None, exact_spend(self.trie, self.rule)

    def decoders(self) -> dict[str, Decoder]:
        """Every decoder as it answers, histories to lists, to be timed."""
        found = {f"beam {size}": self.search.decoder(size, len(self.cases)) for size in self.beams}
        return found | {"exact": Decoder(lambda some: self._exact_items(self._scored(some)), self.at_once)}

    def reporter(self, stage: str) -> Any:
        return lambda done, total: self.run.progress(stage, done, total)

    def lists(self) -> dict[str, np.ndarray]:
        """All that is known of every user's lists, users in the order of the cases; see ``_of_chunk``."""
        order = np.argsort(self.cases.histories.lengths, kind="stable")
        size = self.chunk
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
        found = [self.search.beams(some, size) for size in self.beams]
        by_beam = [self.search.items(one) for one in found]
        items = torch.stack([*by_beam, self._exact_items(scored)], 1)  # (B, D + 1, LENGTH)
        codes = torch.stack([code_list(one) for one in found], 1)  # (B, D, LENGTH)
        bounds = [[ranks.bounds(k, size) for k in KS] for size in self.beams]
        values = {
            "overlap": [[overlap(scored, one, k) for k in KS] for one in found],
            "lower": [[low for low, _ in of_beam] for of_beam in bounds],
            "upper": [[high for _, high in of_beam] for of_beam in bounds],
            "certified": [[certified(one, k) for k in KS] for one in found],
            "item_overlap": shared(items[:, :-1], items[:, -1], PAD),
            "reference_overlap": shared(codes, codes[:, -1], INVALID),
            "item_reference_overlap": shared(items[:, :-1], items[:, -2], PAD),
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

    def target_ranks(self, questions: Questions) -> np.ndarray:
        """(T, L, 2) of every target, see ``token_ranks``."""
        cases = questions.cases.take(questions.targets.row_of)
        targets = torch.from_numpy(questions.targets.items.astype(np.int64)).to(self.device)
        ranks = np.empty((len(targets), self.ids.levels, 2), np.int64)
        order, size = np.argsort(cases.histories.lengths, kind="stable"), self.chunk
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


def _means(measured: dict[str, np.ndarray], beam: int) -> dict[str, dict[str, float]]:
    """Every measure of one beam: list length -> mean over users."""
    return {
        name: {str(k): float(values[:, beam, i].mean()) for i, k in enumerate(KS)} for name, values in measured.items()
    }
