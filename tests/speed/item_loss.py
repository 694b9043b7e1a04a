"""Time and peak memory of SimGR's loss, forwards and backwards; run as ``python -m tests.speed.item_loss``.

Three ways to the same number for 1,280 positions: by token logits (``mean_softmax``), by item vectors in chunks
(``chunked_softmax``), and plain, with a vector per item and all logits at once; at 20,000, 200,000 and 1,000,000 items
of four tokens. Each runs in a process of its own, whose peak counts from after the inputs are made; loss and gradients
are compared with the plain ones of a few positions in double precision. ``--positions`` shrinks the job where plain
does not fit into ``--memory`` GiB: then it is left out, and says so. Target: the factorised form as fast as plain with
a tenth of its memory at 20,000 items.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.run import peak_rss
from methods.blocks.item_softmax import chunked_softmax, mean_softmax

ITEMS = (20_000, 200_000, 1_000_000)
LEVELS, CODES = 4, 256
GIBIBYTE = 2**30
CHECKED = 8
"""Positions compared with double precision."""


@dataclass(frozen=True)
class Job:
    items: int
    positions: int
    width: int
    chunk: int
    rounds: int
    device: str


@dataclass(frozen=True)
class Inputs:
    states: Tensor  # (P, D)
    table: Tensor  # (V, D)
    tokens: Tensor  # (N, L)
    targets: Tensor  # (P,)
    chunk: int


def factorised(of: Inputs) -> Tensor:
    return mean_softmax(of.states, of.table, of.tokens, of.targets, of.chunk)


def chunked(of: Inputs) -> Tensor:
    return chunked_softmax(
        of.states, lambda some: of.table[of.tokens[some]].mean(1), len(of.tokens), of.targets, of.chunk
    )


def plain(of: Inputs) -> Tensor:
    return F.cross_entropy(of.states @ of.table[of.tokens].mean(1).T, of.targets, reduction="none")


WAYS: dict[str, Callable[[Inputs], Tensor]] = {"factorised": factorised, "chunked": chunked, "plain": plain}


def main() -> None:
    args = arguments()
    print(f"{args.positions} positions of width {args.width}, chunks of {args.chunk} items, device {args.device}")
    print(f"{'items':>10} {'way':<11} {'seconds':>8} {'peak MiB':>9}  largest error of loss and of gradient")
    for items in args.items:
        job = Job(items, args.positions, args.width, args.chunk, args.rounds, args.device)
        found: dict[str, tuple[float, int]] = {}
        for way in WAYS:
            if way == "plain" and plain_bytes(job) > args.memory * GIBIBYTE:
                print(f"{items:>10,} plain       needs about {plain_bytes(job) / GIBIBYTE:.0f} GiB: left out")
                continue
            # Not spawn: on Linux a process that is started anew inherits the peak of the one that started it.
            with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
                seconds, peak, errors = process.submit(measure, way, job).result()
            found[way] = seconds, peak
            print(
                f"{items:>10,} {way:<11} {seconds:>8.3f} {peak / 2**20:>9.0f}  {errors[0]:.1e} {errors[1]:.1e}",
                flush=True,
            )
        if "plain" in found:
            compare(items, found["factorised"], found["plain"])


def compare(items: int, ours: tuple[float, int], theirs: tuple[float, int]) -> None:
    """Seconds and bytes of both ways; none means no more than making the inputs took."""
    memory = f"1/{theirs[1] / ours[1]:.0f} of the memory" if ours[1] else "no memory beyond that of making the inputs"
    print(f"{items:>10,} factorised against plain: {theirs[0] / ours[0]:.1f}x as fast, {memory}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--positions", type=int, default=1280)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=24.0, help="GiB that plain may take")
    return parser.parse_args()


def plain_bytes(job: Job) -> float:
    """Logits, their log-softmax and two gradients, token vectors of all items and their gradient, in fp32."""
    return 4.0 * job.items * (4 * job.positions + (2 * LEVELS + 2) * job.width)


def measure(way: str, job: Job) -> tuple[float, int, tuple[float, float]]:
    """Median seconds of a loss and its gradients, peak bytes beyond the inputs, and the largest relative errors."""
    inputs = make(job)
    loss_of = WAYS[way]
    few = Inputs(inputs.states[:8], inputs.table, inputs.tokens[:64], inputs.targets[:8] % 64, 32)
    loss_of(few).sum().backward()  # what the libraries keep for good is no part of the loss
    before = peak(job.device)
    seconds = []
    for _ in range(job.rounds):
        inputs.states.grad = inputs.table.grad = None
        start = now(job.device)
        losses = loss_of(inputs)
        losses.sum().backward()
        seconds.append(now(job.device) - start)
    grew = peak(job.device) - before
    return statistics.median(seconds), grew, errors(inputs, losses.detach())


def make(job: Job) -> Inputs:
    """States of the size that a final norm leaves, and a table at which no item is certain."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(job.positions, job.width, generator=draw)
    table = 0.2 * torch.randn(LEVELS * CODES, job.width, generator=draw)
    tokens = torch.randint(0, CODES, (job.items, LEVELS), generator=draw)
    tokens += CODES * torch.arange(LEVELS)
    targets = torch.randint(0, job.items, (job.positions,), generator=draw)
    states, table, tokens, targets = (one.to(job.device) for one in (states, table, tokens, targets))
    return Inputs(states.requires_grad_(), table.requires_grad_(), tokens, targets, job.chunk)


def errors(inputs: Inputs, losses: Tensor) -> tuple[float, float]:
    """Largest relative error of the losses, and of the states' gradients by their norm, of some positions."""
    states = inputs.states[:CHECKED].detach().double().requires_grad_()
    exact = chunked(
        Inputs(states, inputs.table.detach().double(), inputs.tokens, inputs.targets[:CHECKED], inputs.chunk)
    )
    exact.sum().backward()
    assert inputs.states.grad is not None and states.grad is not None
    wrong = (inputs.states.grad[:CHECKED] - states.grad).norm(dim=1) / states.grad.norm(dim=1)
    return float(((losses[:CHECKED] - exact.detach()) / exact.detach()).abs().max()), float(wrong.max())


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_rss()


if __name__ == "__main__":
    main()
