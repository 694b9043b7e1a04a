"""Training and scoring with large language models, with random weights; run as ``python -m tests.speed.large``.

Each method takes a few steps of its own ``fit`` at a named size: its network, its loss over the whole catalogue, the
training loop with micro-batches. Only what comes before is left out: semantic IDs, text vectors and collaborative
vectors are random. Then it ranks some users: SimGR and SETRec score every item, TIGER decodes with beam 20. Every
method runs in a process of its own, whose peak memory is told. Asserted: losses are finite, frozen weights stay as they
are to the bit (a part of the layers is looked at), adapters and tables of tokens change.
Histories are as long as those of Beauty's users where $GENREC_DATA is set, else of the demo data; their items are
random. Batches are drawn from all of them, so a few steps need not meet the longest ones.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import protocols
from benchmark import datasets
from benchmark.method import build_config, replace_nested
from benchmark.run import Interrupted, Run
from benchmark.types import Cases, Sequences, TrainingView
from methods.blocks.backbones import RANDOM, SIZES
from methods.blocks.self_attention import training_windows
from methods.blocks.training import Report, Training, seed_everything, train
from methods.setrec import SETRec
from methods.simgr import SimGR
from methods.tiger import TIGER
from tests.speed.decode import random_ids
from tests.speed.item_loss import GIBIBYTE, now, peak

METHODS: dict[str, type[SimGR | SETRec | TIGER]] = {"simgr": SimGR, "setrec": SETRec, "tiger": TIGER}
LOOPS = {"simgr": "methods.simgr.train", "setrec": "methods.setrec.train", "tiger": "methods.blocks.generator.train"}
"""Where each method finds the training loop."""
TEXT_WIDTH = 384
WARMUP = 2
"""Steps whose time does not count."""
Loss = Callable[[Tensor, int], Tensor]
STRIDE = 5
"""Of the transformer's weights, every so many are looked at; no layer has a multiple of it, so all kinds are met."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process measures."""

    method: str
    model: str
    tuning: str
    checkpointing: bool
    one_pass: bool
    steps: int
    batch_size: int
    micro_batch: int
    items: int
    users: int
    device: str


@dataclass(frozen=True)
class Step:
    end: float  # seconds on the clock
    loss: float
    vectors: int  # read by the transformer: prompt, history and what is asked after it
    targets: int


def main() -> None:
    args = vars(arguments())
    methods = args.pop("methods")
    args["micro_batch"] = args["micro_batch"] or max(1, args["batch_size"] // 2)
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in args.items() if value), flush=True)
    print(f"histories of {dataset()}, {torch.get_num_threads()} CPU threads", flush=True)
    for method in methods:
        # Not spawn: on Linux a process that is started anew inherits the peak of the one that started it.
        with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
            print(process.submit(measure, Job(method=method, **args)).result(), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", type=method_names, default=tuple(METHODS), help="with commas between them")
    causal = [name for name, size in SIZES.items() if size.kind == "causal"]
    parser.add_argument("--model", choices=causal, default="qwen3-0.6b")
    parser.add_argument("--tuning", choices=("lora", "full"), default="", help="default: as the size says")
    parser.add_argument("--checkpointing", action="store_true", help="compute layers again in the backward pass")
    parser.add_argument("--one-pass", action="store_true", help="simgr and setrec: all prefixes of a row at a time")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64, help="targets")
    parser.add_argument("--micro-batch", type=int, help="rows of a forward pass; default: half of the batch size")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=64, help="ranked after training")
    return parser.parse_args()


def method_names(text: str) -> tuple[str, ...]:
    """The argument of ``--methods``."""
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - METHODS.keys()):
        raise argparse.ArgumentTypeError(f"unknown method '{unknown[0]}'; use {', '.join(METHODS)}")
    return names


def measure(job: Job) -> str:
    """Train and rank -> one line of figures. Raises AssertionError when training does not do what it should."""
    seed_everything(0)
    view, cases = some_data(job)
    watch = Watch(job, view)
    run = Run(device=job.device, should_stop=watch.step_over)
    method = METHODS[job.method](config(job), run=run)
    with ExitStack() as stack:
        for place, stand_in in stand_ins(job, watch).items():
            stack.enter_context(patch(place, stand_in))
        stack.enter_context(suppress(Interrupted))
        method.fit(view)
    peak_bytes = peak(job.device)
    watch.check(method.model)
    speed = users_per_second(method, cases, job.device)
    return f"{job.method}: {sizes(method.model)}; {watch.figures()}; peak {peak_bytes / GIBIBYTE:.2f} GiB; {speed}"


def dataset() -> str:
    return "amazon14-beauty" if os.environ.get("GENREC_DATA") else "demo"


def some_data(job: Job) -> tuple[TrainingView, Cases]:
    """Histories of real lengths with random items: all for training, and those of some users to rank for."""
    split = protocols.load("loo").split(datasets.load(dataset(), None))
    rng = np.random.default_rng(0)

    def redrawn(sequences: Sequences) -> Sequences:
        return replace(sequences, items=rng.integers(1, job.items + 1, len(sequences.items), dtype=np.int32))

    view = replace(
        split.train,
        n_items=job.items,
        sequences=redrawn(split.train.sequences),
        valid=split.train.valid.take(np.arange(0)),
        item_text=("", *["text"] * job.items),
        item_fields={},
    )
    asked = split.test.cases.take(rng.permutation(len(split.test))[: job.users])
    histories = redrawn(asked.histories)
    return view, Cases(asked.users, histories, histories, tie_order=np.arange(job.items + 1))


def config(job: Job) -> Any:
    """The method's preset of that size, where it has one, with random weights and the job's batches."""
    cls = METHODS[job.method]
    language_model = {"name": job.model, "weights": RANDOM, "tuning": job.tuning, "checkpointing": job.checkpointing}
    training = {"epochs": 1, "batch_size": job.batch_size, "micro_batch": job.micro_batch, "warmup_steps": 0}
    overrides: dict[str, Any] = {"language_model": language_model, "training": training}
    if job.method != "tiger":
        overrides |= {"negatives": "catalogue", "one_pass": job.one_pass}
    if job.method == "setrec":
        overrides |= {"beta": 0.5}
    return replace_nested(build_config(cls, job.model if job.model in cls.presets else None, "full"), overrides)


def stand_ins(job: Job, watch: Watch) -> dict[str, Any]:
    """Random inputs for the method, and its loop under watch, by where the method finds them."""
    if job.method != "setrec":
        ids = random_ids(job.items)
        return {LOOPS[job.method]: watch.train, f"methods.{job.method}.item_ids": lambda *_: (ids, {})}
    rng = np.random.default_rng(1)
    width = SETRec.Config().collaborative.width
    vectors, texts = (rng.standard_normal((job.items + 1, size), np.float32) for size in (width, TEXT_WIDTH))
    return {
        LOOPS[job.method]: watch.train,
        "methods.setrec.collaborative_model": lambda *_: SimpleNamespace(items=vectors, report={}),
        "methods.setrec.encode_texts": lambda *_: texts,
    }


class Watch:
    """Stands in for the training loop, which it calls; keeps what every step did and ends the training after enough.

    The loop asks whether to stop after every step (``step_over``): so steps are told apart, whatever their parts.
    """

    def __init__(self, job: Job, view: TrainingView):
        self.job, self.view = job, view
        self.start, self.before = 0.0, dict[str, str]()
        self.targets = torch.empty(0)  # of every row
        self.steps: list[Step] = []
        self.parts: list[tuple[Tensor, Tensor]] = []  # loss and rows of the micro-batches of this step
        self.vectors, self.largest = 0, (0, 0)

    def train(
        self, model: Any, lengths: Tensor, loss: Loss, config: Training, _validate: object, run: Run, **how: Any
    ) -> Report:
        """As ``training.train``, without validation."""
        if "rows_per_batch" in how:
            wanted = training_windows(self.view.sequences, self.view.max_history)[2]
            self.targets = torch.from_numpy(wanted.sum(1))
        else:
            self.targets = torch.ones_like(lengths)

        def watched(rows: Tensor, length: int) -> Tensor:
            value = loss(rows, length)
            self.parts.append((value.detach(), rows))
            return value

        self.before = digests(model)
        with model.lm.register_forward_pre_hook(self._read):
            self.start = now(self.job.device)
            return train(model, lengths, watched, config, lambda: 0.0, run, **how)

    def _read(self, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows, length = arguments[0].shape[:2]
        self.vectors += rows * length
        self.largest = max(self.largest, (rows * length, length))

    def step_over(self) -> bool:
        """Close a step, if one was taken since the last call -> whether that was the last one."""
        if not self.parts:
            return False
        end = now(self.job.device)
        rows = torch.cat([rows for _, rows in self.parts]).cpu()
        loss = sum(loss.item() * len(part) for loss, part in self.parts) / len(rows)
        self.steps.append(Step(end, loss, self.vectors, int(self.targets[rows].sum())))
        self.parts, self.vectors = [], 0
        return len(self.steps) >= self.job.steps

    def check(self, model: nn.Module) -> None:
        """Raises AssertionError when a loss is not finite or the wrong weights changed."""
        assert all(math.isfinite(step.loss) for step in self.steps), "a loss is not finite"
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        after = digests(model)
        changed = {name for name, digest in after.items() if digest != self.before[name]}
        assert not changed - trained, f"frozen weights changed: {sorted(changed - trained)}"
        assert any(name.startswith("lm.") for name in changed), "no adapter or layer of the transformer changed"
        still = {name for name in trained - changed if not name.startswith("lm.")}
        assert not still, f"trained, but as they were: {sorted(still)}"

    def figures(self) -> str:
        """Seconds a step, speeds and losses; the first steps' time counts only when there are no others."""
        ends = [self.start, *(step.end for step in self.steps)]
        seconds = np.diff(ends)
        counted = slice(WARMUP if len(seconds) > WARMUP else len(seconds) - 1, None)
        total = seconds[counted].sum()
        vectors = sum(step.vectors for step in self.steps[counted]) / total
        targets = sum(step.targets for step in self.steps[counted]) / total
        places, length = self.largest
        return (
            f"{len(seconds)} steps, {statistics.median(seconds[counted]):.3f} s each, {vectors:,.0f} vectors/s, "
            f"{targets:,.1f} targets/s, at most {places // length} x {length} vectors at once; "
            f"loss {self.steps[0].loss:.4f}, at last {self.steps[-1].loss:.4f}"
        )


def digests(model: nn.Module) -> dict[str, str]:
    """SHA-256 of the weights outside the transformer, and of every fifth in it, of the frozen and of the trained."""
    named = dict(model.named_parameters())
    layers = [name for name in named if name.startswith("lm.")]
    frozen, trained = ([name for name in layers if named[name].requires_grad == grad] for grad in (False, True))
    some = [*frozen[::STRIDE], *trained[::STRIDE], *(named.keys() - layers)]
    bits = (named[name].detach().cpu().flatten().view(torch.uint8).numpy() for name in some)
    return {name: hashlib.sha256(of_one).hexdigest() for name, of_one in zip(some, bits, strict=True)}


def sizes(model: nn.Module) -> str:
    """Parameters in all, trained, and the precision of the frozen ones."""
    count = {grad: sum(p.numel() for p in model.parameters() if p.requires_grad == grad) for grad in (False, True)}
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if not p.requires_grad and len(p)})
    frozen = f", {count[False] / 1e6:.2f} M frozen in {' and '.join(kinds)}" if count[False] else ""
    return f"{sum(count.values()) / 1e6:.2f} M parameters, {count[True] / 1e6:.2f} M trained{frozen}"


def users_per_second(method: SimGR | SETRec | TIGER, cases: Cases, device: str) -> str:
    """Of one ranking, after one of two users."""
    method.model.eval()
    method.recommend(cases.take(np.arange(2)), 10)
    start = now(device)
    ranking = method.recommend(cases, 10)
    speed = len(cases) / (now(device) - start)
    assert (ranking.items[:, 0] > 0).all(), "a list is empty"
    beam = f"beam {ranking.spend.beam_size}" if ranking.spend.beam_size else "every item scored"
    return f"{speed:.1f} users/s, {beam}"


if __name__ == "__main__":
    main()
