"""Seconds and memory of a training epoch against transformers' T5 + Trainer; run as ``python -m tests.speed.train``.

Both sides hold T5s of the same sizes and see the same pairs of history and next item once an epoch: ours through the
real loop (batches of one exact length), theirs as the published code trains (Trainer, DataLoader, random batches that
a collator pads to the longest, AdamW, fp32). Theirs is spared tokenising strings and the end token. Then, without
dropout and from the same weights, both take the same batches in the same order, and their losses are compared.
Pairs are those of Beauty's users where $GENREC_DATA is set, else of the demo data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, T5ForConditionalGeneration, Trainer, TrainingArguments
from transformers.utils import logging

import protocols
from benchmark import datasets
from benchmark.run import Run, peak_rss
from benchmark.types import Sequences, TrainingView
from methods.blocks.next_item import NextItemPairs
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5, Shape
from methods.blocks.t5_weights import from_transformers
from methods.blocks.training import Training, seed_everything, train
from methods.tiger import TIGER
from tests.reference_t5 import transformers_t5
from tests.speed.decode import random_ids

SHAPES = {
    "small": Shape(width=64, heads=4, head_width=32, feed=256, encoder_layers=2, decoder_layers=2),
    "full": Shape(),
}
BEAUTY_PAIRS = 131_413
EQUAL_STEPS, EQUAL_BATCH = 100, 64
LEARNING_RATE = 5e-4
"""Of the full profile. Adam turns rounding into whole steps, so at larger rates equal trainings part sooner."""
MEGABYTE = 1e6

Sample = dict[str, list[int]]
"""``input_ids``, ``labels`` and, once collated, ``attention_mask``."""


@dataclass(frozen=True)
class Job:
    """What is trained on; small enough to be handed to a fresh process."""

    view: TrainingView
    codes: np.ndarray  # (N + 1, 4)
    shape: Shape
    batch_size: int
    device: str

    @property
    def ids(self) -> SemanticIds:
        return SemanticIds(self.codes, [256] * 4)


def main() -> None:
    args = arguments()
    torch.backends.cuda.matmul.allow_tf32 = False
    logging.set_verbosity_error()
    size = args.size or ("full" if args.device == "cuda" else "small")
    job = some_job(args.steps * args.batch_size, SHAPES[size], args.batch_size, args.device)
    pairs = len(NextItemPairs(job.view, torch.device("cpu")).lengths)
    threads = torch.get_num_threads()
    print(f"{pairs} pairs, batch {args.batch_size}, {size} T5, {threads} CPU threads, device {args.device}", flush=True)
    ratio = compare_time(job, pairs, args.rounds)
    compare_memory(job)
    equal = some_job(EQUAL_STEPS * EQUAL_BATCH, replace(job.shape, dropout=0.0), EQUAL_BATCH, args.device)
    difference = largest_loss_difference(equal)
    print(f"largest relative loss difference in the first {EQUAL_STEPS} steps of equal batches {difference:.1e}")
    print(f"ratio {ratio:.1f}x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=tuple(SHAPES), help="default: full on CUDA, small on a CPU")
    parser.add_argument("--steps", type=int, default=50, help="batches in the epoch of transformers")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def some_job(n_pairs: int, shape: Shape, batch_size: int, device: str) -> Job:
    """As many random users as together have at least ``n_pairs`` pairs (or all there are), and nothing else."""
    name = "amazon14-beauty" if os.environ.get("GENREC_DATA") else "demo"
    view = protocols.load("loo").split(datasets.load(name, None)).train
    order = np.random.default_rng(0).permutation(len(view.sequences))
    counts = np.maximum(view.sequences.lengths - 1, 0)[order].cumsum()
    rows = order[: int(np.searchsorted(counts, n_pairs)) + 1]
    view = replace(
        view,
        users=view.users[rows],
        sequences=view.sequences.take(rows),
        valid=view.valid.take(np.arange(0)),
        item_text=(),
        item_fields={},
    )
    return Job(view, random_ids(view.n_items).codes, shape, batch_size, device)


def compare_time(job: Job, pairs: int, rounds: int) -> float:
    """Alternate the two sides, print the medians -> ratio of seconds."""
    sides = {"transformers": their_epoch(job), "ours": our_epoch(job)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, epoch in sides.items():
            start = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        beauty = value * BEAUTY_PAIRS / pairs
        every = ", ".join(f"{one:.2f}" for one in seconds[name])
        print(f"{name}: {value:.2f} s an epoch (of {every}), {beauty:.0f} s for the pairs of Beauty", flush=True)
    return median["transformers"] / median["ours"]


def compare_memory(job: Job) -> None:
    """Train each side for an epoch in a process of its own and print what it took at most."""
    for name, prepare in (("transformers", their_epoch), ("ours", our_epoch)):
        # Not spawn: on Linux a process that is started anew inherits the peak of the one that started it.
        with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
            before, after = process.submit(peaks, prepare, job).result()
        print(f"{name}: peak memory {after / MEGABYTE:.0f} MB, {(after - before) / MEGABYTE:.0f} MB of it for training")


def peaks(prepare: Callable[[Job], Callable[[], object]], job: Job) -> tuple[int, int]:
    """Peak bytes, on the device where there is one, before the data and the model are made and after an epoch."""
    on_cuda = job.device == "cuda"
    read = torch.cuda.max_memory_allocated if on_cuda else peak_rss
    before = read()
    prepare(job)()
    return before, read()


def our_epoch(job: Job) -> Callable[[], object]:
    seed_everything(0)
    model = T5(job.ids.vocab_size, job.shape).to(job.device)
    loss, lengths = our_loss(job, model)
    return lambda: train(model, lengths, loss, settings(job), lambda: 0.0, Run(device=job.device))


def our_loss(job: Job, model: T5) -> tuple[Callable[[Tensor, int], Tensor], Tensor]:
    """TIGER's own loss of a batch of pairs, and the history length of every pair."""
    method = TIGER(TIGER.Config(backbone=job.shape))
    method.ids, method.model = job.ids, model
    pairs = NextItemPairs(job.view, torch.device(job.device))
    return lambda rows, length: method._loss(*pairs.take(rows, length)), pairs.lengths


def settings(job: Job) -> Training:
    return Training(epochs=1, batch_size=job.batch_size, learning_rate=LEARNING_RATE, schedule="constant")


def their_epoch(job: Job) -> Callable[[], object]:
    seed_everything(0)
    return trainer(job, transformers_t5(job.ids.vocab_size, job.shape), samples(job)).train


def samples(job: Job) -> list[Sample]:
    """The pairs of ``NextItemPairs``, in its order, as lists of tokens."""
    table = job.ids.token_table("cpu").tolist()
    return [
        {"input_ids": [token for item in history for token in table[item]], "labels": table[target]}
        for history, target in histories_and_targets(job.view.sequences, job.view.max_history)
    ]


def histories_and_targets(sequences: Sequences, max_history: int) -> Iterator[tuple[list[int], int]]:
    for sequence in sequences:
        items = sequence.tolist()
        for place in range(1, len(items)):
            yield items[max(0, place - max_history) : place], items[place]


def collate(batch: list[Sample]) -> dict[str, Tensor]:
    """Histories padded at the right to the longest of the batch."""
    longest = max(len(sample["input_ids"]) for sample in batch)
    lengths = [len(sample["input_ids"]) for sample in batch]
    tokens = [sample["input_ids"] + [PAD_TOKEN] * (longest - len(sample["input_ids"])) for sample in batch]
    masks = [[1] * length + [0] * (longest - length) for length in lengths]
    labels = [sample["labels"] for sample in batch]
    return {
        "input_ids": torch.tensor(tokens),
        "attention_mask": torch.tensor(masks),
        "labels": torch.tensor(labels),
    }


class WatchedTrainer(Trainer):
    """A Trainer that is told its batches, and keeps the loss of every step."""

    batches: list[list[int]]
    losses: list[Tensor]

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss


def trainer(job: Job, model: T5ForConditionalGeneration, pairs: list[Sample], kind: type[Trainer] = Trainer) -> Trainer:
    """Trainer with nothing to save, log or evaluate."""
    options = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        num_train_epochs=1,
        per_device_train_batch_size=job.batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_grad_norm=0.0,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=job.device == "cpu",
    )
    made = kind(model=model, args=options, train_dataset=pairs, data_collator=collate)
    made.remove_callback(PrinterCallback)
    return made


def largest_loss_difference(job: Job) -> float:
    """Train both sides in fp32 from the same weights on the batches that our loop draws -> largest relative one."""
    seed_everything(0)
    theirs = transformers_t5(job.ids.vocab_size, job.shape)
    ours = T5(job.ids.vocab_size, job.shape)
    ours.load_state_dict(from_transformers(theirs.state_dict(), job.shape))
    loss, lengths = our_loss(job, ours.to(job.device))
    batches: list[list[int]] = []
    losses: list[Tensor] = []

    def watched(rows: Tensor, length: int) -> Tensor:
        with torch.autocast(job.device, enabled=False):
            value = loss(rows, length)
        batches.append(rows.tolist())
        losses.append(value.detach())
        return value

    train(ours, lengths, watched, settings(job), lambda: 0.0, Run(device=job.device))
    other = trainer(job, theirs, samples(job), WatchedTrainer)
    assert isinstance(other, WatchedTrainer)
    other.batches, other.losses = batches[:EQUAL_STEPS], []
    other.train()
    mine, their = (torch.stack(values[:EQUAL_STEPS]).double().cpu() for values in (losses, other.losses))
    assert len(mine) == len(their) == EQUAL_STEPS, "too few pairs for that many steps"
    return float(((mine - their) / their).abs().max())


if __name__ == "__main__":
    main()
