"""Which devices the jobs of a grid run on, the profile that goes with them, and what to say when one is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmark.provenance import hardware


def job_devices(wanted: str, n_jobs: int | None, profile: str) -> tuple[str, list[str]]:
    """``--device``, ``--jobs`` and the profile ("" = full on CUDA, else small) -> profile, one device per slot.

    Jobs share the GPUs in turn. Without one there is a single job at a time, but one per core at the smoke profile,
    whose models are too small to use two. Raises ValueError when CUDA is asked for and absent.
    """
    gpus = 0 if wanted == "cpu" else torch.cuda.device_count()
    if wanted == "cuda" and not gpus:
        raise ValueError("--device cuda was asked for, but no CUDA device is visible; use --device cpu")
    profile = profile or ("full" if gpus else "small")
    if gpus:
        return profile, [f"cuda:{place % gpus}" for place in range(n_jobs or gpus)]
    return profile, ["cpu"] * (n_jobs or (hardware()["cores"] if profile == "smoke" else 1))


@contextmanager
def memory_error(sentence: str) -> Iterator[None]:
    """Raise MemoryError with ``sentence`` where CUDA or the CPU allocator runs out; other errors pass as they are."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise MemoryError(sentence) from error
