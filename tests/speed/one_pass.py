"""Seconds of a SETRec training epoch in one pass or pair by pair; run as ``python -m tests.speed.one_pass``.

Three ways to train the same decoder-only network on every (prefix, next item) pair of some users: all prefixes of a
history in one forward pass (batches of one exact length), one row per pair in batches of one exact length, and one row
per pair padded to the protocol's history length, as sliding-window loaders do. Target: the first 3 times as fast as the
last. Before that, from the same weights and without dropout, the three losses of the same pairs are compared.
Users are Beauty's, drawn at random, where $GENREC_DATA is set, else the demo data's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import protocols
from benchmark import datasets
from benchmark.types import PAD, Sequences
from methods.blocks.backbones import LanguageModel, build
from methods.blocks.causal_lm import Causal
from methods.blocks.item_softmax import Rivals
from methods.blocks.self_attention import training_windows
from methods.blocks.training import epoch_batches
from methods.setrec.network import SetNetwork
from methods.setrec.sequence import causal_layout
from methods.setrec.tokens import ItemTokens

ALPHA, HISTORY, SEMANTIC = 0.7, 20, 4
BEAUTY_PAIRS = 131_413
TARGET = 3.0


@dataclass(frozen=True)
class Pairs:
    """The windows, and every wanted prefix of them as a row of its own."""

    windows: tuple[Tensor, Tensor, Tensor]  # inputs, targets and wanted, each (R, HISTORY)
    window_lengths: Tensor  # (R,)
    prefixes: Tensor  # (P, HISTORY), right-padded
    prefix_targets: Tensor  # (P,)
    prefix_lengths: Tensor  # (P,)
    rivals: Rivals


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    sequences, n_items = some_users(args.pairs)
    model = network(args.model, n_items).to(args.device)
    pairs = all_pairs(sequences, n_items, args.device)
    count = len(pairs.prefix_targets)
    print(f"{count} pairs of {len(sequences)} users, {n_items} items, {args.model}, batches of {args.batch_size}")
    print(f"{torch.get_num_threads()} CPU threads, device {args.device}", flush=True)
    ways = {"padded": padded, "one by one": one_by_one, "one pass": one_pass}
    compare_losses(model, pairs, ways)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    model.train()
    for _ in range(args.rounds):
        for name, losses in ways.items():
            seconds[name].append(epoch(model, losses(model, pairs, args.batch_size), args.device))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        every = ", ".join(f"{one:.2f}" for one in seconds[name])
        print(f"{name}: {value:.2f} s an epoch (of {every}), {value * BEAUTY_PAIRS / count:.0f} s for Beauty's pairs")
    print(f"one pass against one by one {median['one by one'] / median['one pass']:.1f}x")
    ratio = median["padded"] / median["one pass"]
    print(f"one pass against padded {ratio:.1f}x (target {TARGET:.0f}x): {'met' if ratio >= TARGET else 'missed'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", default="scratch-xs", help="a decoder-only size from scratch")
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=512, help="targets")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def some_users(n_pairs: int) -> tuple[Sequences, int]:
    """As many random users as together have ``n_pairs`` pairs (or all there are), and the size of the catalogue."""
    name = "amazon14-beauty" if os.environ.get("GENREC_DATA") else "demo"
    view = protocols.load("loo").split(datasets.load(name, None)).train
    order = np.random.default_rng(0).permutation(len(view.sequences))
    counts = np.maximum(view.sequences.lengths - 1, 0)[order].cumsum()
    return view.sequences.take(order[: int(np.searchsorted(counts, n_pairs)) + 1]), view.n_items


def network(name: str, n_items: int) -> SetNetwork:
    """The small profile's sizes; vectors of items are random, for no time depends on what they say."""
    lm = build(LanguageModel(name=name, dropout=0.0), max_length=4 + HISTORY * 2 * (1 + SEMANTIC))
    vectors, texts = torch.randn(n_items + 1, 64), torch.randn(n_items + 1, 384)
    items = ItemTokens(vectors, texts, width=lm.width, semantic=SEMANTIC, hidden=(256, 128), bottleneck=64)
    return SetNetwork(items, lm, instruction="", response="", prompt_vectors=4, sparse=True, trained_queries=True)


def all_pairs(sequences: Sequences, n_items: int, device: str) -> Pairs:
    inputs, targets, wanted = (torch.from_numpy(a).to(device) for a in training_windows(sequences, HISTORY))
    rows, places = wanted.nonzero(as_tuple=True)
    filled = torch.arange(HISTORY, device=device) <= places[:, None]
    windows = inputs, targets, wanted
    lengths = (inputs != PAD).sum(1)
    rivals = Rivals.of(np.ones(n_items + 1, bool), device)
    return Pairs(windows, lengths, inputs[rows] * filled, targets[rows, places], places + 1, rivals)


def batches(lengths: Tensor, rows: Callable[[int], int]) -> list[tuple[Tensor, int]]:
    return epoch_batches(lengths.cpu(), rows, torch.Generator().manual_seed(0))


def one_pass(model: SetNetwork, pairs: Pairs, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Loss and number of pairs of every batch of an epoch."""
    for rows, length in batches(pairs.window_lengths, lambda length: max(1, batch_size // length)):
        inputs, targets, wanted = (tensor[rows, :length] for tensor in pairs.windows)
        yield model.loss_of_prefixes(inputs, targets, wanted, pairs.rivals, ALPHA), int(wanted.sum())


def one_by_one(model: SetNetwork, pairs: Pairs, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    for rows, length in batches(pairs.prefix_lengths, lambda _: batch_size):
        yield model.loss(pairs.prefixes[rows, :length], pairs.prefix_targets[rows], pairs.rivals, ALPHA), len(rows)


def padded(model: SetNetwork, pairs: Pairs, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Random batches, every row as long as the longest history there may be."""
    order = torch.randperm(len(pairs.prefix_targets), generator=torch.Generator().manual_seed(0))
    for rows in order.split(batch_size):
        history, lengths = pairs.prefixes[rows], pairs.prefix_lengths[rows]
        features = model.items.features()
        tokens = model.items.tokens(history, features)  # (B, HISTORY, T, D)
        states, targets = padded_states(model, tokens, lengths), pairs.prefix_targets[rows]
        loss = model.items.generation_loss(states, targets, features, pairs.rivals)
        weights = (history != PAD) / lengths[:, None]
        yield loss + ALPHA * model.items.reconstruction_error(history, tokens, weights), len(rows)


def padded_states(model: SetNetwork, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The states (B, T, D) of the queries after histories of different lengths, whose padding nobody sees."""
    assert isinstance(model.lm, Causal)
    parts = model.parts(tokens)
    layout = causal_layout(parts, [HISTORY], sparse=True, device=tokens.device)
    place = torch.arange(len(layout.positions), device=tokens.device)
    item = (place - parts.instruction).div(parts.tokens, rounding_mode="floor")
    seen = (item < lengths[:, None]) | (place >= parts.history_end)  # (B, S)
    ending = place >= parts.history_end
    positions = layout.positions - ending * (HISTORY - lengths[:, None])  # (B, S)
    rows = len(tokens)
    prompt, queries = model.instruction().expand(rows, -1, -1), model.queries.expand(rows, -1, -1)
    x = torch.cat([prompt, tokens.flatten(1, 2), queries], 1)  # (B, S, D)
    states = model.lm(x, mask=layout.mask & seen[:, None], positions=positions)
    return states[:, parts.history_end :]


def compare_losses(
    model: SetNetwork, pairs: Pairs, ways: dict[str, Callable[..., Iterator[tuple[Tensor, int]]]]
) -> None:
    """The mean loss over all pairs in each of the three ways, which is one number."""
    means = {}
    with torch.no_grad():
        for name, losses in ways.items():
            every = [(loss.item(), count) for loss, count in losses(model.eval(), pairs, 256)]
            means[name] = sum(loss * count for loss, count in every) / sum(count for _, count in every)
    spread = (max(means.values()) - min(means.values())) / min(means.values())
    print(", ".join(f"{name} {value:.6f}" for name, value in means.items()), f"relative difference {spread:.1e}")
    assert spread < 1e-5, "the three ways do not have one loss"


def epoch(model: SetNetwork, losses: Iterator[tuple[Tensor, int]], device: str) -> float:
    """Seconds of an epoch of forward and backward passes and AdamW steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)  # weights stay, so every round does the same work
    start = time.perf_counter()
    for loss, _ in losses:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
