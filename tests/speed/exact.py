"""Users per second of scoring the whole catalogue against beam 20; run as ``python -m tests.speed.exact``.

Four sides take turns in one process on the same weights and users: exact scoring under ``renorm`` and under ``raw``,
our beam search, and transformers' ``generate`` as the published code runs it (``tests.speed.decode``). Semantic IDs are
those LETTER published for Beauty where $GENREC_DATA is set, else random ones for the demo data. ``--shape small`` is
the T5 of the small profile, ``full`` the published one. On CUDA the program fails when exact scoring under ``renorm``
is slower than transformers' beam, which only approximates it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmark.run import Run
from benchmark.types import Cases, Ranking
from methods.blocks.beam_search import RULES, Step
from methods.blocks.exact import exact_spend, rank_exact
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.t5 import T5, Shape
from methods.blocks.t5_weights import from_transformers
from tests.beam_world import letter_ids
from tests.reference_t5 import transformers_t5
from tests.speed.decode import ask_ours, ask_transformers, encoder_input, random_ids, some_cases

BEAM = 20
SHAPES = {
    "small": Shape(width=64, heads=4, head_width=32, feed=256, encoder_layers=2, decoder_layers=2, dropout=0.0),
    "full": Shape(),
}
USERS = {"cpu": {"raw": 1, "renorm": 8, "beam": 32}, "cuda": {"raw": 128, "renorm": 2048, "beam": 2048}}


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    users = USERS[args.device]
    cases = some_cases(max(users.values()))
    ids = letter_ids() or random_ids(len(cases.tie_order) - 1)
    shape = SHAPES[args.shape]
    theirs = transformers_t5(ids.vocab_size, shape).to(args.device).eval()
    ours = T5(ids.vocab_size, shape).to(args.device).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict(), shape))
    tokens = {rule: int(exact_spend(ids.trie(), rule).decoder_tokens) for rule in RULES}
    print(
        f"{ids.n_items} items, {args.shape} shape, {torch.get_num_threads()} CPU threads, device {args.device}; "
        f"decoder tokens a user: raw {tokens['raw']}, renorm {tokens['renorm']}"
    )
    beam = cases.take(np.arange(users["beam"]))
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        f"exact {rule}": (users[rule], partial(ask_exact, ours, ids, cases, users[rule], rule, args.device))
        for rule in RULES
    }
    sides[f"beam {BEAM}"] = len(beam), partial(ask_ours, ours, ids, beam, BEAM, args.device)
    sides[f"transformers beam {BEAM}"] = len(beam), partial(ask_transformers, theirs, ids, beam, BEAM, args.device)
    speeds = measured(sides, args.rounds)
    ratio = speeds["exact renorm"] / speeds[f"transformers beam {BEAM}"]
    print(f"ratio of exact renorm to transformers' beam {BEAM}: {ratio:.2f}x")
    if args.device == "cuda" and ratio < 1:
        raise SystemExit("exact scoring is slower than the beam search it replaces")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def ask_exact(model: T5, ids: SemanticIds, cases: Cases, users: int, rule: str, device: str) -> Ranking:
    def start(some: Cases) -> Step:
        tokens, mask = encoder_input(ids, some, device)
        return model.decoding(model.encode(tokens, mask), mask)

    return rank_exact(start, ids, cases.take(np.arange(users)), BEAM, run=Run(device=device), rule=rule)


def measured(sides: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Let the sides take turns after one that does not count -> median users per second of each, printed."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, (_, ask) in sides.items():
            start = time.perf_counter()
            ask()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    speeds = {name: users / statistics.median(seconds[name]) for name, (users, _) in sides.items()}
    for name, speed in speeds.items():
        print(f"{name}: {speed:.2f} users/s", flush=True)
    return speeds


if __name__ == "__main__":
    main()
