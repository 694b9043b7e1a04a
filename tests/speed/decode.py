"""Users per second of our beam search against transformers' ``generate``; run as ``python -m tests.speed.decode``.

Both sides hold the same weights (the unified T5: width 128, 4 + 4 layers), get the same users, and return the same
lists, which is checked. transformers runs as the published code runs it: batches of 32 in user order, padded, fp32, a
prefix function over a dictionary trie. It is spared the end token. Histories are those of Beauty where $GENREC_DATA
is set, else of the demo data. ``--device cuda`` asks more users; ``--users`` and ``--rounds`` set the size of the test.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

import protocols
from benchmark import datasets
from benchmark.run import Run
from benchmark.types import Budget, Cases
from methods.blocks.beam_search import rank_by_beam
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5, Decoding, Shape
from methods.blocks.t5_weights import from_transformers
from tests.reference_t5 import transformers_t5

BEAMS = (10, 20, 50)
GATED = 20
BATCH = 32
"""Of the published code."""
SHAPE = Shape()


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    cases = some_cases(args.users or (2048 if args.device == "cuda" else 128))
    ids = random_ids(len(cases.tie_order) - 1)
    theirs = transformers_t5(ids.vocab_size, SHAPE).to(args.device).eval()
    ours = T5(ids.vocab_size, SHAPE).to(args.device).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict(), SHAPE))
    print(f"{len(cases)} users, {ids.n_items} items, {torch.get_num_threads()} CPU threads, device {args.device}")
    ratios = {}
    for beam_size in BEAMS:
        ratios[beam_size] = compare(
            partial(ask_ours, ours, ids, cases, beam_size, args.device),
            partial(ask_transformers, theirs, ids, cases, beam_size, args.device),
            beam_size,
            args.rounds,
        )
    print(f"ratio {ratios[GATED]:.1f}x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--users", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def some_cases(n: int) -> Cases:
    name = "amazon14-beauty" if os.environ.get("GENREC_DATA") else "demo"
    test = protocols.load("loo").split(datasets.load(name, None)).test
    rows = np.random.default_rng(0).permutation(len(test))[:n]
    return test.cases.take(rows)


def random_ids(n_items: int) -> SemanticIds:
    """Distinct codes whose first level is used unevenly, as trained tokenizers use it."""
    rng = np.random.default_rng(0)
    first = np.minimum(rng.geometric(0.015, 4 * n_items) - 1, 255)
    codes = np.column_stack([first, rng.integers(0, 256, (4 * n_items, 3))])
    distinct = rng.permutation(np.unique(codes, axis=0))[:n_items]
    return SemanticIds(np.concatenate([np.full((1, 4), -1), distinct]), [256] * 4)


def compare(ours: Callable, theirs: Callable, beam_size: int, rounds: int) -> float:
    """Alternate the two sides, print the medians and how the lists agree -> ratio of users per second."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    answers = {}
    ours()  # warm
    for _ in range(rounds):
        for name, ask in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            answers[name] = ask()
            seconds[name].append(time.perf_counter() - start)
    (items, scores), (their_items, their_scores) = answers["ours"], answers["theirs"]
    fast, slow = (len(items) / statistics.median(seconds[name]) for name in ("ours", "theirs"))
    print(
        f"beam {beam_size}: ours {fast:.1f} users/s, transformers {slow:.1f} users/s, {fast / slow:.1f}x; "
        f"same item at the same rank {(items == their_items).mean():.4%}, "
        f"largest score difference {np.abs(scores - their_scores).max():.1e}",
        flush=True,
    )
    return fast / slow


def ask_ours(model: T5, ids: SemanticIds, cases: Cases, beam_size: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    def start(some: Cases) -> Callable[[Tensor, Tensor | None], Tensor]:
        tokens, mask = encoder_input(ids, some, device)
        mask = None if bool(mask.all()) else mask
        return Decoding(model, model.encode(tokens, mask), mask).step

    budget = Budget(beam_size=beam_size, list_length=beam_size)
    ranking = rank_by_beam(start, ids, cases, beam_size, run=Run(device=device), budget=budget)
    return ranking.items, ranking.scores


def encoder_input(ids: SemanticIds, cases: Cases, device: str) -> tuple[Tensor, Tensor]:
    """Tokens and mask (B, S), padded to the longest history."""
    histories = torch.from_numpy(cases.histories.padded().astype(np.int64)).to(device)
    tokens = ids.tokens(histories).flatten(1)
    return tokens, tokens != PAD_TOKEN


@torch.inference_mode()
def ask_transformers(
    model: T5ForConditionalGeneration, ids: SemanticIds, cases: Cases, beam_size: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """``generate`` with a prefix function, as the published evaluators call it."""
    children = dictionary_trie(ids)
    item_of = {tuple(tokens): item for item, tokens in enumerate(ids.token_table("cpu").tolist())}
    items = np.zeros((len(cases), beam_size), np.int32)
    scores = np.zeros((len(cases), beam_size), np.float32)
    for begin in range(0, len(cases), BATCH):
        rows = np.arange(begin, min(begin + BATCH, len(cases)))
        tokens, mask = encoder_input(ids, cases.take(rows), device)
        found = model.generate(
            input_ids=tokens,
            attention_mask=mask.long(),
            max_new_tokens=ids.levels,
            num_beams=beam_size,
            num_return_sequences=beam_size,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _row, prefix: children[tuple(prefix.tolist()[1:])],
            output_scores=True,
            return_dict_in_generate=True,
        )
        codes = found.sequences[:, 1:].tolist()
        items[rows] = np.array([item_of[tuple(code)] for code in codes]).reshape(len(rows), beam_size)
        scores[rows] = found.sequences_scores.cpu().numpy().reshape(len(rows), beam_size)
    return items, scores


def dictionary_trie(ids: SemanticIds) -> dict[tuple[int, ...], list[int]]:
    """Prefix -> tokens that may follow."""
    children: dict[tuple[int, ...], set[int]] = {}
    for tokens in ids.token_table("cpu")[1:].tolist():
        for depth, token in enumerate(tokens):
            children.setdefault(tuple(tokens[:depth]), set()).add(token)
    return {prefix: sorted(found) for prefix, found in children.items()}


if __name__ == "__main__":
    main()
