"""Milliseconds a user of several decoders, measured in turns so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.types import Cases

REPEATS = 3
ALONE = {"cpu": 4, "cuda": 32}
"""Users asked one by one."""
BATCHES = {"cpu": (8, 32), "cuda": (128, 1024)}
"""Sizes that are tried for the best batch, or as many users as there are and fit."""


class Decoder(NamedTuple):
    """Cases -> their lists; and how many cases it takes at once."""

    decode: Callable[[Cases], Tensor]
    at_most: int


def milliseconds(
    decoders: Mapping[str, Decoder],
    cases: Cases,
    device: str,
    report: Callable[[int, int], None],
    repeats: int = REPEATS,
) -> dict[str, dict[str, Any]]:
    """Per decoder: ``alone`` and ``best`` (ms a user, medians of ``repeats``), ``best_batch``, ``peak_memory_bytes``.

    A user alone, then batches of users with histories of about the median length. Memory is the device's own and None
    on a CPU, where it cannot be told apart from what the process held before.
    """
    kind = device.partition(":")[0]
    order = np.argsort(cases.histories.lengths, kind="stable")
    sizes = {
        name: {min(size, decoder.at_most, len(cases)) for size in (1, *BATCHES[kind])}
        for name, decoder in decoders.items()
    }
    rounds = [(size, _samples(order, size, ALONE[kind])) for size in sorted(set.union(*sizes.values()))]
    spent: dict[str, dict[int, list[float]]] = {name: {} for name in decoders}
    peaks = dict.fromkeys(decoders, 0)
    for done, (size, samples) in enumerate(rounds * repeats):
        report(done, repeats * len(rounds))
        for name, decoder in decoders.items():
            if size in sizes[name]:
                seconds, peak = _timed(decoder.decode, [cases.take(rows) for rows in samples], kind)
                spent[name].setdefault(size, []).append(1000 * seconds / sum(map(len, samples)))
                peaks[name] = max(peaks[name], peak)
    return {name: _summary(by_size, peaks[name] if kind == "cuda" else None) for name, by_size in spent.items()}


def _samples(order: np.ndarray, size: int, alone: int) -> list[np.ndarray]:
    """Rows of the cases to ask together: some users one by one, or one batch from the middle of ``order``."""
    if size == 1:
        return [order[[place]] for place in np.linspace(0, len(order) - 1, min(alone, len(order))).astype(int)]
    start = (len(order) - size) // 2
    return [order[start : start + size]]


def _timed(decode: Callable[[Cases], Tensor], samples: list[Cases], kind: str) -> tuple[float, int]:
    """Seconds for all samples, one after the other, and the device's peak memory."""
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
        for some in samples:
            decode(some).cpu()  # waits for the device
    seconds = time.perf_counter() - start
    return seconds, torch.cuda.max_memory_allocated() if kind == "cuda" else 0


def _summary(by_size: Mapping[int, list[float]], peak: int | None) -> dict[str, Any]:
    medians = {size: round(float(np.median(values)), 4) for size, values in by_size.items()}
    best = min(medians, key=lambda size: medians[size])
    return {"alone": medians[1], "best": medians[best], "best_batch": best, "peak_memory_bytes": peak}
