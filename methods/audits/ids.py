"""Report card of semantic IDs: how their codes are used, and what items that share an ID do to the scores.

A hit is counted in three ways for the same model and budget: by ID (a generated ID is a hit for every item that has it,
as LETTER's and LC-Rec's evaluators count), strictly by item (the target comes last of those with its ID), and by item
under the protocol's tie rule, which is the suite's own score and must be the recorded one.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmark import metrics
from benchmark.datasets.text import category_codes
from benchmark.evaluate import target_ranks
from benchmark.method import Method
from benchmark.types import Questions, Ranking
from methods.audits.command import Answer, Asked
from methods.audits.recorded import lists_moved
from methods.blocks.generator import Generator
from methods.blocks.semantic_ids import SemanticIds, number_prefixes, rank_within

VERSION = 1
"""Part of every audit's key; a change that moves its numbers raises it."""
TOGETHER = False
"""Every model is asked alone."""
SAME = 1e-9
"""How far a metric made again may lie from the recorded one."""


def refusal(method: type[Method]) -> str | None:
    """Why a method cannot be asked, after its name; None when it can."""
    return None if issubclass(method, Generator) else "generates no semantic IDs, so there is nothing to audit"


def settings(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    return [{"device": device}]


def answer(asked: Asked) -> Answer:
    """The card, the metrics by three definitions, and every target's ranks under them.

    Raises ValueError when the model does not answer as its record says.
    """
    assert isinstance(asked.method, Generator)
    ids, split, test = asked.method.ids, asked.split, asked.split.test
    length, budget = asked.protocol.budget.list_length, asked.protocol.budget
    listed = asked.method.recommend(test.cases, length, candidates=split.candidates, budget=budget)
    of_item = code_numbers(ids)
    candidates = np.arange(1, ids.n_items + 1) if split.candidates is None else split.candidates
    one_each = representatives(of_item, candidates, test.cases.tie_order)
    codes = asked.method.recommend(test.cases, length, candidates=one_each, budget=budget)  # every ID once
    ranks = ranks_by_code(of_item[codes.items], of_item, candidates, test)
    ranks["tie rule"] = target_ranks(listed, test).astype(np.int64)
    wanted = [name for name in asked.protocol.rules["metrics"] if metrics.parse(name)[0] in ("recall", "ndcg")]
    hits = {how: {m: float(_metric(rank, test, m, length).mean()) for m in wanted} for how, rank in ranks.items()}
    rounded = check_recorded(listed, hits["tie rule"], asked)
    training = asked.record.fields["training"]
    found = {
        "users": len(test),
        "ids": card(ids, category_codes(split.train.item_fields)),
        "reconstruction_error": training.get("tokenizer", {}).get("reconstruction_error"),
        "hits": hits,
        "users_with_rounded_scores": rounded,
        "beam_size": budget.beam_size,
    }
    arrays = {f"rank/{how}": rank.astype(np.uint16) for how, rank in ranks.items()}
    return found, {"users": test.cases.users[test.targets.row_of], **arrays}


def card(ids: SemanticIds, categories: np.ndarray | None) -> dict[str, Any]:
    """``SemanticIds.report`` and, beside it, the items that share their ID and the children of a prefix per depth."""
    groups = np.bincount(code_numbers(ids)[1:])
    trie = ids.trie()
    fan_out = [nodes.parents.bincount(minlength=n) for nodes, n in zip(trie.nodes, trie.nodes_at, strict=False)]
    return {
        **ids.report(categories),
        "colliding_items": int(groups[groups > 1].sum()),
        "fan_out": [{"mean": float(c.double().mean()), "max": int(c.max())} for c in fan_out],
    }


def code_numbers(ids: SemanticIds) -> np.ndarray:
    """(N + 1,) number of every item's whole ID, equal for items that share it; -1 for PAD."""
    numbers = np.full(ids.n_items + 1, -1, np.int64)
    numbers[1:] = number_prefixes(ids.codes[1:])[:, -1]
    return numbers


def representatives(of_item: np.ndarray, candidates: np.ndarray, tie_order: np.ndarray) -> np.ndarray:
    """One candidate of every ID, the one that the tie rule puts first: ranking these ranks the IDs."""
    _, groups = np.unique(of_item[candidates], return_inverse=True)
    return candidates[rank_within(groups, tie_order[candidates]) == 0]


def ranks_by_code(
    lists: np.ndarray, of_item: np.ndarray, candidates: np.ndarray, questions: Questions
) -> dict[str, np.ndarray]:
    """Lists of ID numbers (U, K), best first and -1 at the end -> ranks (T,) from 1 of every target, 0 = not found.

    ``id``: the place of the target's ID. ``strict``: the target comes last of all candidates that share it, after all
    those of the IDs before.
    """
    sizes = np.bincount(of_item[candidates], minlength=of_item.max() + 1)
    row_of = questions.targets.row_of
    mine = lists[row_of]  # (T, K)
    found = mine == of_item[questions.targets.items][:, None]
    place = found.argmax(1)
    items_so_far = np.where(mine >= 0, sizes[mine], 0).cumsum(1)  # (T, K)
    last = items_so_far[np.arange(len(mine)), place]
    hit = found.any(1)
    return {"id": np.where(hit, place + 1, 0), "strict": np.where(hit, last, 0)}


def _metric(ranks: np.ndarray, questions: Questions, metric: str, length: int) -> np.ndarray:
    """(U,) one metric of targets at these ranks (T,); 0 and ranks behind the list are no hits."""
    name, k = metrics.parse(metric)
    hits = np.zeros((len(questions), length), bool)
    listed = (ranks > 0) & (ranks <= length)
    hits[questions.targets.row_of[listed], ranks[listed] - 1] = True
    return metrics.PER_USER[name](hits, questions.targets.lengths, k)


def check_recorded(listed: Ranking, made: dict[str, float], asked: Asked) -> int:
    """Prove that the loaded model is the recorded one -> how many users' lists differ by rounding, 0 on like hardware.

    Every metric must be the recorded one to ``SAME``; where it is not, every score of every list must be, to
    ``ROUNDING``: another processor adds in another order. Raises ValueError when neither holds.
    """
    worst = max(made, key=lambda name: abs(made[name] - asked.record.metrics[name]))
    recorded = asked.record.metrics[worst]
    if abs(made[worst] - recorded) <= SAME:
        return 0
    moved = lists_moved(listed, asked.record)
    if moved is not None:
        return moved
    raise ValueError(
        f"the saved model gives {worst} {made[worst]:.6f}, but its record says {recorded:.6f}: they do not belong "
        "together; make the run again with --overwrite always"
    )
