"""One training loop for every learned method: buckets, AdamW, early stop on validation, resumable to the bit.

Examples stay on the device as tensors owned by the method; the loop knows only their lengths. It asks the method
for the loss of some rows that share one exact length, so no batch holds padding.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.files import read_sealed, write_sealed
from benchmark.method import config_dict, later
from benchmark.run import Interrupted, Run, peak_rss
from methods.blocks.devices import memory_error

CHECKPOINT_SECONDS = 30.0
"""A killed process loses at most about this much work."""
REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained. Defaults are placeholders of no paper; every room pins its own."""

    epochs: int = 200
    batch_size: int = 256
    """Rows per optimiser step, unless the room passes ``rows_per_batch``."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    """``cosine`` to zero at the last epoch, or ``constant``, after a linear warm-up."""
    patience: int = 10
    """Stop after this many validations in a row without a better score."""
    clip_norm: float | None = None
    max_minutes: float | None = None
    """Cap on the training time of one job, summed over resumed sessions; reaching it marks the row under-trained."""
    micro_batch: int | None = later(None)
    """Rows of one forward pass, for models of which a batch does not fit; their gradients add up to the batch's mean,
    so the update stays the same. None = the whole batch at once."""

    def capped(self, seconds: float) -> float:
        """What is left of an estimate under the cap."""
        return seconds if self.max_minutes is None else min(seconds, 60 * self.max_minutes)


@dataclass
class Report:
    """How a training ended."""

    stopped_by: str = ""
    """``patience`` (no better score), ``limit`` (all epochs done) or ``cap`` (out of training time)."""
    best_epoch: int = 0
    best_score: float = -math.inf
    epochs: int = 0
    steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    """One entry an epoch: mean training loss, validation score."""


def seed_everything(seed: int) -> None:
    """Seed torch, and the global generators third-party models may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def train(
    model: nn.Module,
    lengths: Tensor,
    loss: Callable[[Tensor, int], Tensor],
    config: Training,
    validate: Callable[[], float],
    run: Run,
    *,
    rows_per_batch: Callable[[int], int] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    validate_every: int = 1,
    rates: Mapping[str, float] | None = None,
    name: str = "train",
) -> Report:
    """Train ``model`` and leave its best weights in it.

    ``lengths`` (n,) gives each example's length; ``loss(rows (B,), length)`` is the mean loss of examples that
    share it. ``validate()`` is called every ``validate_every`` epochs and after the last one, in eval mode; larger is
    better. ``rates`` multiplies the learning rate of the parameters it names. ``after_epoch(n)`` may change the model
    after epoch n = 1, 2, ..., before it is validated. With ``run.work_dir`` the state is checkpointed there and a later
    call with the same arguments continues; on CPU the result is bit-identical to an undisturbed run. Raises Interrupted
    after checkpointing when the run is told to stop, ValueError when a checkpoint is damaged or belongs to other
    settings or the loss is not finite (the last good checkpoint is kept), and MemoryError when a step does not fit.
    """
    hooks = (rows_per_batch, after_epoch, validate_every)
    loop = _Loop(model, lengths, loss, config, validate, run, *hooks, dict(rates or {}), name)
    return loop.run_to_end()


def epoch_batches(
    lengths: Tensor, rows_per_batch: Callable[[int], int], generator: torch.Generator
) -> list[tuple[Tensor, int]]:
    """A shuffled epoch: every example once, in batches of one exact length and near-equal sizes."""
    shuffled = torch.randperm(len(lengths), generator=generator)
    grouped = shuffled[lengths[shuffled].argsort(stable=True)]
    batches: list[tuple[Tensor, int]] = []
    start = 0
    values, counts = lengths.unique(return_counts=True)
    for length, count in zip(values.tolist(), counts.tolist(), strict=True):
        parts = math.ceil(count / rows_per_batch(length))
        rows = grouped[start : start + count]
        batches.extend((part, length) for part in rows.tensor_split(parts))
        start += count
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def learning_rate_at(step: int, total: int, config: Training) -> float:
    """Linear warm-up, then the schedule; ``step`` counts from 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule != "cosine":
        raise ValueError(f"unknown schedule '{config.schedule}'; use cosine or constant")
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class _Loop:
    """The state of one training: what a checkpoint holds is exactly what is set here."""

    def __init__(
        self,
        model: nn.Module,
        lengths: Tensor,
        loss: Callable[[Tensor, int], Tensor],
        config: Training,
        validate: Callable[[], float],
        run: Run,
        rows_per_batch: Callable[[int], int] | None,
        after_epoch: Callable[[int], None] | None,
        validate_every: int,
        rates: Mapping[str, float],
        name: str,
    ):
        self.model, self.lengths, self.loss, self.config = model, lengths.cpu(), loss, config
        self.validate, self.run, self.name = validate, run, name
        self.rows_per_batch = rows_per_batch or (lambda _length: config.batch_size)
        self.validate_every = validate_every
        self.after_epoch = after_epoch or (lambda _epoch: None)
        self.device = torch.device(run.device)
        on_cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            _groups(model, rates), lr=config.learning_rate, weight_decay=config.weight_decay, fused=on_cuda
        )
        self.report = Report()
        self.epoch, self.batch, self.bad_epochs = 0, 0, 0
        self.seconds = 0.0
        self.epoch_left = False  # all steps of this epoch are taken, only its validation is missing
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.bad_step = torch.full((), -1, device=self.device)  # first step with a loss that is not finite
        self.best_weights: dict[str, Tensor] | None = None
        self.finished = False
        self.path = None if run.work_dir is None else run.work_dir / f"{name}.checkpoint"
        self.saved_at = self.reported_at = self.clock = time.perf_counter()

    def run_to_end(self) -> Report:
        if self.path is not None and self.path.exists():
            self._restore(self.path)
        self.clock = time.perf_counter()
        while not self.finished:
            self._epoch()
        self._keep_time()
        self.run.timings[self.name] = self.seconds
        self.run.peak_memory[self.name] = self._peak_memory()
        assert self.best_weights is not None
        load_trainable(self.model, self.best_weights)
        self.model.eval()
        return self.report

    def _epoch(self) -> None:
        # The order of an epoch depends on (seed, epoch) alone, so a resumed run re-derives it.
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + self.epoch)
        batches = epoch_batches(self.lengths, self.rows_per_batch, generator)
        total_steps = self.config.epochs * len(batches)
        self.model.train()
        while self.batch < len(batches) and not self.epoch_left:
            rows, length = batches[self.batch]
            with memory_error(
                f"out of memory in a step of {self.name} with {len(rows)} rows of length {length}; lower "
                "training.batch_size in the method's Config"
            ):
                self._step(rows.to(self.device), length, total_steps)
            self.batch += 1
            if self._out_of_time():
                break
            self._pause(len(batches))
        if not self.epoch_left:
            self._refuse_bad_loss()
            self.after_epoch(self.epoch + 1)
            self.epoch_left = True
        self._close_epoch(len(batches))

    def _step(self, rows: Tensor, length: int, total_steps: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate_at(self.report.steps, total_steps, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for part in rows.split(self.config.micro_batch or len(rows)):
            # bf16 keeps fp32 master weights; on CPU it is slower than fp32, so it is for CUDA only.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                share = self.loss(part, length) * (len(part) / len(rows))
            share.backward()
            loss += share.detach()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        # Without reading the loss on the host, which would make a GPU wait at every step.
        first_bad = (self.bad_step < 0) & ~loss.isfinite()
        self.bad_step = torch.where(first_bad, self.report.steps, self.bad_step)
        self.report.steps += 1
        self.loss_sum += loss

    def _refuse_bad_loss(self) -> None:
        """Raises ValueError when some step's loss was not finite; called before anything is kept of it."""
        step = int(self.bad_step.item())
        if step >= 0:
            raise ValueError(
                f"the loss of {self.name} was not finite at step {step + 1}, in epoch {self.epoch + 1}; lower the "
                "learning rate (the checkpoint from before that step is kept)"
            )

    def _close_epoch(self, n_batches: int) -> None:
        """Validate when it is due, keep the best weights, decide whether to stop."""
        entry = {"loss": round(self.loss_sum.item() / max(1, self.batch), 6)}
        last = self.epoch + 1 >= self.config.epochs or self._out_of_time()
        if last or (self.epoch + 1) % self.validate_every == 0:
            entry["valid"] = round(self._validated(), 6)
        self.epoch += 1
        self.report.epochs = self.epoch
        self.report.curve.append(entry)
        self.report.stopped_by = self._reason_to_stop(last, cut=self.batch < n_batches)
        self.finished = bool(self.report.stopped_by)
        self.batch, self.epoch_left = 0, False
        self.loss_sum.zero_()
        if self.finished:
            self._save()
        else:
            self._pause(n_batches)

    def _validated(self) -> float:
        self.model.eval()
        try:
            score = float(self.validate())
        except Interrupted:
            self._save()  # with the epoch's steps done: the next session begins with this validation
            raise
        if score > self.report.best_score:
            self.report.best_score, self.report.best_epoch, self.bad_epochs = score, self.epoch + 1, 0
            self.best_weights = {k: v.detach().clone() for k, v in trainable_state(self.model).items()}
        else:
            self.bad_epochs += 1
        return score

    def _reason_to_stop(self, last: bool, cut: bool) -> str:
        """``cut``: out of time within the epoch, be it the last one."""
        if self.bad_epochs >= self.config.patience:
            return "patience"
        if cut:
            return "cap"
        if self.epoch >= self.config.epochs:
            return "limit"
        return "cap" if last else ""

    def _out_of_time(self) -> bool:
        self._keep_time()
        return self.config.max_minutes is not None and self.seconds >= 60 * self.config.max_minutes

    def _keep_time(self) -> None:
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def _pause(self, n_batches: int) -> None:
        """Between two steps: tell the progress, checkpoint now and then, stop when told to."""
        now = time.perf_counter()
        if now - self.reported_at >= REPORT_SECONDS:
            self.reported_at = now
            best = "" if self.report.best_epoch == 0 else f" best {self.report.best_score:.4f}"
            note = f"epoch {self.epoch + 1}/{self.config.epochs}{best}"
            self._refuse_bad_loss()
            self.run.report(self.name, self.epoch * n_batches + self.batch, self.config.epochs * n_batches, note)
        stopping = self.run.should_stop()
        if stopping or now - self.saved_at >= CHECKPOINT_SECONDS:
            self._save()
        if stopping:
            raise Interrupted(f"stopped in epoch {self.epoch + 1} of {self.name}; the same command continues")

    def _peak_memory(self) -> int:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_rss()

    def _fingerprint(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        shapes = {k: list(v.shape) for k, v in trainable_state(self.model).items()}
        rates = [group["rate"] for group in self.optimizer.param_groups]
        told = {
            "config": config_dict(self.config),
            "rates": rates,
            "seed": self.run.seed,
            "examples": len(self.lengths),
            "shapes": shapes,
        }
        return told | ({"frozen": self.frozen} if self.frozen else {})

    @cached_property
    def frozen(self) -> str:
        """Hash of the weights that are not trained, which no checkpoint holds; "" where all are."""
        weights = [p.detach() for p in self.model.parameters() if not p.requires_grad]
        digest = hashlib.sha256()
        for weight in weights:
            digest.update(weight.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
        return digest.hexdigest() if weights else ""

    def _save(self) -> None:
        self._refuse_bad_loss()
        if self.path is None:
            return
        self._keep_time()
        state = {
            "fingerprint": self._fingerprint(),
            "model": trainable_state(self.model),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "random": _random_state(self.device),
            "report": asdict(self.report),
            "position": [self.epoch, self.batch, self.bad_epochs, self.finished, self.epoch_left],
            "seconds": self.seconds,
            "loss_sum": self.loss_sum.item(),
        }
        write_checkpoint(self.path, state)
        self.saved_at = time.perf_counter()

    def _restore(self, path: Path) -> None:
        state = read_checkpoint(path, self.device)
        if state["fingerprint"] != self._fingerprint():
            raise ValueError(f"{path} was made with other settings; delete it to train this job from the start")
        load_trainable(self.model, state["model"])
        self.best_weights = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.report = Report(**state["report"])
        self.epoch, self.batch, self.bad_epochs, self.finished, self.epoch_left = state["position"]
        self.seconds = state["seconds"]
        self.loss_sum.fill_(state["loss_sum"])
        _set_random_state(state["random"], self.device)


def _groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parameters that are trained, by their multiple of the learning rate, those without one first."""
    named = dict(model.named_parameters())
    unknown = sorted(rates.keys() - named.keys())
    assert not unknown, f"no parameter is called {unknown}"
    trained = {name: p for name, p in named.items() if p.requires_grad}
    groups: list[dict[str, Any]] = [{"params": [p for name, p in trained.items() if name not in rates], "rate": 1.0}]
    return groups + [{"params": [trained[name]], "rate": rate} for name, rate in rates.items() if name in trained]


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters, such as the base of a language model under LoRA."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def trained_weights(model: nn.Module) -> int:
    """How many weights are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def told(report: Report, before: Mapping[str, Any]) -> dict[str, Any]:
    """A training and what came before it; under-trained, too, when the time cap ended one of the stages before."""
    capped = any(isinstance(stage, Mapping) and stage.get("stopped_by") == "cap" for stage in before.values())
    return {**vars(report), **({"stopped_by": "cap"} if capped else {}), **before}


def load_trainable(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what ``trainable_state`` gave. Raises ValueError when the model has other trainable weights."""
    if differing := sorted(state.keys() ^ trainable_state(model).keys()):
        raise ValueError(f"the saved weights are of another model, '{differing[0]}' for one; make them again")
    model.load_state_dict(dict(state), strict=False)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """One sealed file, written atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_sealed(path, buffer.getvalue())


def read_checkpoint(
    path: Path,
    device: torch.device,
    kind: str = "checkpoint",
    advice: str = "delete it to train this job from the start",
) -> dict[str, Any]:
    """Raises ValueError naming the ``kind`` of file and what to do when it is damaged. No pickled code is ever run."""
    payload = read_sealed(path)
    if payload is None:
        raise ValueError(f"the {kind} {path} is damaged; {advice}")
    return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)


def read_model(path: Path, device: str) -> dict[str, Any]:
    """The file of a fitted model. Raises ValueError when it is damaged."""
    return read_checkpoint(path, torch.device(device), "saved model", "make it again with --overwrite always")


def _random_state(device: torch.device) -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],  # type: ignore[union-attr]
    }


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))
