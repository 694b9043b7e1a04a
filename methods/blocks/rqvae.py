"""Item vectors -> semantic IDs: a residual-quantised auto-encoder (RQ-VAE), or residual k-means without a network.

Fitted on training items only; every item is then encoded by nearest neighbour. Nothing here resolves collisions:
the result carries what the last level quantised, so that whoever lays out the IDs can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.run import Run
from methods.blocks.kmeans import (
    ALIKE,
    code_report,
    deviation,
    refuse_collapse,
    residual_codebooks,
    residual_codes,
    scaling,
    sinkhorn,
)
from methods.blocks.training import Report, Training, train

ENCODE_ROWS = 16384


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """How items get their codes. Defaults are the RQ-VAE of the LC-Rec family at full size (METHODS 0.3)."""

    kind: str = "rq-vae"
    """``rq-vae``, or ``rq-kmeans``: k-means level by level on the scaled vectors, which reads only the fields
    ``levels``, ``codes`` and ``scaling``."""
    levels: int = 4
    codes: int = 256
    width: int = 32
    """Dimensions of the latent vector and of the codes."""
    hidden: tuple[int, ...] = (512, 256, 128, 64)
    """Layers of the encoder between the input and the latent vector; the decoder mirrors them."""
    commitment: float = 0.25
    codebook_weight: float = 1.0
    """Weight of codebook and commitment losses against the reconstruction."""
    scaling: str = "standardize"
    """Fitted on training items: ``standardize`` every dimension, ``uniform`` (centred, one scale for all
    dimensions, so that distances keep their proportions) or ``none``."""
    sinkhorn: float = 0.003
    """Epsilon of the balanced assignment on the last level in training, LC-Rec's value; 0 = nearest neighbour."""
    training: Training = field(
        default_factory=lambda: Training(
            epochs=3000,
            batch_size=1024,
            learning_rate=1e-3,
            weight_decay=1e-4,
            schedule="cosine",
            warmup_steps=100,
            patience=1000,
        )
    )
    validate_every: int = 50
    """Epochs between two readings of the reconstruction error, by which weights are chosen."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON brings a list back


@dataclass(frozen=True)
class Quantized:
    """Codes of all items, before any collision is resolved."""

    codes: np.ndarray  # (N + 1, L) int64, row 0 (PAD) = -1
    residuals: np.ndarray  # (N + 1, D) float32: what the last level quantised, row 0 = 0
    codebook: np.ndarray  # (K, D) float32 of the last level
    report: dict[str, Any]
    """``code_report`` over all items, the relative ``reconstruction_error`` of all items, how training ended."""


class Outputs(NamedTuple):
    """What ``extra_loss`` sees of one training batch."""

    items: Tensor  # (B,) item ids
    z: Tensor  # (B, D) latent vectors
    quantized: Tensor  # (B, D) sum of the code vectors in value, z in gradient (straight-through)
    chosen: Tensor  # (L, B, D) code vectors before the straight-through swap: gradients reach the codebooks
    codes: Tensor  # (B, L)
    codebooks: Tensor  # (L, K, D)


def quantize(
    vectors: np.ndarray,
    fit_on: np.ndarray,
    config: Quantizer,
    run: Run,
    *,
    extra_loss: Callable[[Outputs], Tensor] | None = None,
    after_epoch: Callable[[int, Tensor], None] | None = None,
    initialise: Callable[[Tensor], Tensor] | None = None,
) -> Quantized:
    """Fit a tokenizer to the rows of ``vectors`` (N + 1, D) where ``fit_on`` (N + 1,) is True, and encode all items.

    ``extra_loss`` is added to the loss of every batch. If it is a module, its parameters are trained and its
    buffers checkpointed with the tokenizer's. ``after_epoch(epoch, codebooks (L, K, D))`` is called after the
    initialisation (epoch 0) and after every epoch; what it derives must live in such buffers to survive a resume.
    ``initialise`` makes the first codebooks (L, K, D) of the latents (M, D) of the training items; None = k-means
    level by level.
    The global random state of torch is left as it was found, so a cached result changes nothing downstream.
    Raises ValueError for vectors nothing can be fitted to, and when the codes collapsed.
    """
    _check(vectors, fit_on, config)
    device = torch.device(run.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(run.seed)
        everything = torch.from_numpy(np.ascontiguousarray(vectors[1:], np.float32)).to(device)  # (N, D)
        items = torch.from_numpy(np.flatnonzero(fit_on)).to(device)
        if config.kind == "rq-kmeans":
            assert extra_loss is None and after_epoch is None and initialise is None
            encoded = _fit_kmeans(everything, items, config, run)
        else:
            encoded = _Fit(everything, items, config, run, extra_loss, after_epoch, initialise).run_to_end()
    refuse_collapse(encoded.codes[fit_on[1:]], vectors[fit_on], config.codes)
    report = code_report(encoded.codes, config.codes) | encoded.report
    codes = np.concatenate([np.full((1, config.levels), -1), encoded.codes])
    residuals = np.concatenate([np.zeros_like(encoded.residuals[:1]), encoded.residuals])
    return Quantized(codes, residuals, encoded.codebook, report)


class RQVAE(nn.Module):
    """Encoder, residual codebooks, decoder. Works on scaled vectors; ``scaled`` makes them."""

    def __init__(self, fitted: Tensor, config: Quantizer):
        super().__init__()
        widths = [fitted.shape[1], *config.hidden, config.width]
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        self.codebooks = nn.Parameter(torch.zeros(config.levels, config.codes, config.width))
        self.epsilon, self.commitment, self.weight = config.sinkhorn, config.commitment, config.codebook_weight
        shift, scale = scaling(fitted, config.scaling)
        self.shift: Tensor
        self.scale: Tensor
        self.used: Tensor
        self.seen: Tensor
        self.initialised: Tensor
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.register_buffer("used", torch.zeros(config.levels, config.codes, dtype=torch.bool))
        """Codes assigned in training since the last revival, to ``seen`` items."""
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    def scaled(self, vectors: Tensor) -> Tensor:
        return (vectors - self.shift) * self.scale

    @torch.no_grad()
    def assign(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, D) -> codes (B, L), residuals (L, B, D); balanced on the last level while training."""
        codes, residuals = residual_codes(z, self.codebooks)
        if self.training and self.epsilon > 0:
            distances = torch.cdist(residuals[-1], self.codebooks[-1], compute_mode="use_mm_for_euclid_dist").square()
            codes[:, -1] = sinkhorn(distances, self.epsilon).argmax(1)
        return codes, residuals

    def forward(self, x: Tensor, items: Tensor) -> tuple[Tensor, Outputs]:
        """Loss and outputs of scaled vectors (B, D_in): reconstruction + codebook + commitment, METHODS 0.3.

        Residuals subtract code vectors without their gradient, so the commitment loss of every level reaches the
        encoder, and each codebook learns from its own level alone (LC-Rec subtracts the straight-through vector,
        which hides all levels but the first from the encoder).
        """
        z = self.encoder(x)  # (B, D)
        codes, residuals = self.assign(z.detach())
        chosen = self.look_up(codes)  # (L, B, D)
        quantized = z + (chosen.detach().sum(0) - z.detach())
        codebook_loss = F.mse_loss(chosen, residuals)
        commitment_loss = F.mse_loss(residuals + (z - z.detach()), chosen.detach())
        reconstruction_loss = F.mse_loss(self.decoder(quantized), x)
        loss = reconstruction_loss + self.weight * (codebook_loss + self.commitment * commitment_loss)
        return loss, Outputs(items, z, quantized, chosen, codes, self.codebooks)

    def look_up(self, codes: Tensor) -> Tensor:
        """codes (B, L) -> code vectors (L, B, D)."""
        return F.embedding(self._flat(codes), self.codebooks.flatten(0, 1))

    def record(self, codes: Tensor) -> None:
        self.used.view(-1)[self._flat(codes)] = True
        self.seen += len(codes)

    def _flat(self, codes: Tensor) -> Tensor:
        """codes (B, L) -> (L, B) rows of the codebooks laid end to end."""
        levels, n_codes = self.codebooks.shape[:2]
        return codes.T + n_codes * torch.arange(levels, device=codes.device)[:, None]


class _Encoded(NamedTuple):
    codes: np.ndarray  # (N, L) int64
    residuals: np.ndarray  # (N, D) float32
    codebook: np.ndarray  # (K, D) float32
    report: dict[str, Any]


class _Fit:
    """One RQ-VAE training on the rows ``items - 1`` of ``everything`` (N, D_in)."""

    def __init__(
        self,
        everything: Tensor,
        items: Tensor,
        config: Quantizer,
        run: Run,
        extra_loss: Callable[[Outputs], Tensor] | None,
        after_epoch: Callable[[int, Tensor], None] | None,
        initialise: Callable[[Tensor], Tensor] | None = None,
    ):
        self.items, self.config, self.run = items, config, run
        self.extra_loss, self.after_epoch = extra_loss, after_epoch
        self.initialise = initialise or self._kmeans
        self.model = RQVAE(everything[items - 1].cpu(), config).to(everything.device)
        if isinstance(extra_loss, nn.Module):
            self.model.extra_loss = extra_loss.to(everything.device)
        self.everything = self.model.scaled(everything)
        self.x = self.everything[items - 1]  # (M, D_in)
        self.ready = False
        """Whether the codebooks are known to be initialised, without asking the device at every step."""

    def run_to_end(self) -> _Encoded:
        lengths = torch.ones(len(self.x), dtype=torch.long)
        report = train(
            self.model,
            lengths,
            self._loss,
            self.config.training,
            self._validate,
            self.run,
            name="tokenize",
            validate_every=self.config.validate_every,
            after_epoch=self._close_epoch,
        )
        return self._encode(report)

    def _loss(self, rows: Tensor, _length: int) -> Tensor:
        if not self.ready:
            self._initialise()
        # bf16 cannot tell near codes apart, and so small a network gains nothing from it.
        with torch.autocast(self.x.device.type, enabled=False):
            loss, outputs = self.model(self.x[rows], self.items[rows])
            self.model.record(outputs.codes)
            return loss if self.extra_loss is None else loss + self.extra_loss(outputs)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Codebooks from the encoder outputs of all training items, unless a checkpoint brought some along."""
        self.ready = True
        if self.model.initialised:
            return
        self.model.codebooks.copy_(self.initialise(self._latent(self.x)))
        self.model.initialised.fill_(True)
        if self.after_epoch is not None:
            self.after_epoch(0, self.model.codebooks.detach())

    def _kmeans(self, z: Tensor) -> Tensor:
        return residual_codebooks(z, self.config.levels, self.config.codes, self.run.seed)

    def _close_epoch(self, epoch: int) -> None:
        self._revive(epoch)
        if self.after_epoch is not None:
            self.after_epoch(epoch, self.model.codebooks.detach())

    @torch.no_grad()
    def _revive(self, epoch: int) -> None:
        """Move codes that no item took during the epoch onto residuals of random training items.

        A level under Sinkhorn needs none. Every level draws its own items: one that already became a code of an
        earlier level leaves no residual. Seeded by the epoch, so a resumed run repeats it. After an epoch cut short
        by the time cap nothing is known to be dead.
        """
        dead = ~self.model.used & (self.model.seen >= len(self.x))  # (L, K)
        dead[-1] &= self.config.sinkhorn == 0
        self.model.used.zero_()
        self.model.seen.zero_()
        most = int(dead.sum(1).max())
        if most == 0:
            return
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + epoch)
        rows = torch.randint(len(self.x), (len(dead) * most,), generator=generator).to(self.x.device)
        _, residuals = residual_codes(self._latent(self.x[rows]), self.model.codebooks)  # (L, L * most, D)
        for level, which in enumerate(dead):
            places = which.nonzero()[:, 0]
            self.model.codebooks[level, places] = residuals[level, level * most :][: len(places)]

    @torch.no_grad()
    def _validate(self) -> float:
        """Minus the relative reconstruction error of the training items, read out by nearest neighbour."""
        return -self._reconstruction_error(self.x)

    def _reconstruction_error(self, x: Tensor) -> float:
        """Squared error over squared deviation from the mean of scaled vectors (M, D_in)."""
        errors = [(self.model.decoder(self._quantized(part)) - part).square().sum() for part in x.split(ENCODE_ROWS)]
        return float(torch.stack(errors).sum() / deviation(x))

    def _quantized(self, x: Tensor) -> Tensor:
        codes, _ = residual_codes(self.model.encoder(x), self.model.codebooks)
        return self.model.look_up(codes).sum(0)  # (B, D)

    def _latent(self, x: Tensor) -> Tensor:
        return torch.cat([self.model.encoder(part) for part in x.split(ENCODE_ROWS)])

    @torch.no_grad()
    def _encode(self, report: Report) -> _Encoded:
        codes, residuals = residual_codes(self._latent(self.everything), self.model.codebooks)
        facts = {
            "reconstruction_error": round(self._reconstruction_error(self.everything), 6),
            "epochs": report.epochs,
            "best_epoch": report.best_epoch,
            "stopped_by": report.stopped_by,
            "seconds": round(self.run.timings["tokenize"], 2),
        }
        return _encoded(codes, residuals, self.model.codebooks, facts)


def _fit_kmeans(everything: Tensor, items: Tensor, config: Quantizer, run: Run) -> _Encoded:
    """RQ-k-means: no network, so the codes quantise the scaled vectors themselves."""
    with run.stage("tokenize"):
        start = time.perf_counter()
        shift, scale = scaling(everything[items - 1], config.scaling)
        x = (everything - shift) * scale  # (N, D)

        def progress(level: int) -> None:
            run.progress("tokenize", level, config.levels)

        codebooks = residual_codebooks(x[items - 1], config.levels, config.codes, run.seed, progress)
        codes, residuals = residual_codes(x, codebooks)
        left = residuals[-1] - codebooks[-1][codes[:, -1]]  # (N, D)
        error = float(left.square().sum() / deviation(x))
        facts = {"reconstruction_error": round(error, 6), "seconds": round(time.perf_counter() - start, 2)}
    return _encoded(codes, residuals, codebooks, facts)


def _encoded(codes: Tensor, residuals: Tensor, codebooks: Tensor, facts: dict[str, Any]) -> _Encoded:
    return _Encoded(codes.cpu().numpy(), residuals[-1].cpu().numpy(), codebooks[-1].cpu().numpy(), facts)


def _mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, Xavier-normal weights, zero biases."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _check(vectors: np.ndarray, fit_on: np.ndarray, config: Quantizer) -> None:
    """Raises ValueError with one sentence for settings or vectors nothing can be fitted to."""
    assert fit_on.shape == vectors.shape[:1] and fit_on.dtype == bool and not fit_on[0]
    if config.kind not in ("rq-vae", "rq-kmeans"):
        raise ValueError(f"unknown quantizer kind '{config.kind}'; use rq-vae or rq-kmeans")
    if config.levels < 1 or config.codes < 2:
        raise ValueError(f"a quantizer of {config.levels} levels x {config.codes} codes; use at least 1 x 2")
    broken = ~np.isfinite(vectors[1:]).all(1)
    if broken.any():
        first = int(broken.argmax()) + 1
        raise ValueError(
            f"the vectors of {broken.sum()} items (the first is item {first}) hold NaN or infinity; encode them again"
        )
    fitted = vectors[fit_on]
    if len(fitted) == 0:
        raise ValueError("no item occurs in training, so there is nothing to fit semantic IDs on; check the split")
    if len(fitted) > 1 and np.ptp(fitted, axis=0).max() <= ALIKE * np.abs(fitted).max():
        raise ValueError(
            f"the texts of all {len(fitted)} training items are alike, so no semantic IDs can be made from them; "
            "give the items different texts or use a method that needs none"
        )
