"""GenPlugin: a language encoder beside the ID encoder in training, and retrieved users' states beside it afterwards.

A wrapper around any generator of semantic IDs: ``genplugin:tiger`` is the paper's TIGER++, ``genplugin:letter`` its
LETTER++. DSA aligns the states of the ID encoder with those of a language encoder over the items' text vectors, item
by item and user by user; SSG feeds the decoder some codes as the language branch predicts them; RAR freezes the
encoders and fine-tunes the decoder with the cached states of retrieved users in front of the user's own.
``docs/genplugin.md`` lists every choice. The base is trained by its own settings, so that both rows cost the same
optimiser steps.

Presets: what is left out: ``@no-dsa``, ``@no-ssg``, ``@no-rar``, ``@dsa`` (neither SSG nor RAR). Of RAR: ``@content``
(BM25 alone), ``@collaborative`` (user vectors alone), ``@similarity`` (nearest by ID states alone), ``@no-rerank``,
``@neighbours-10``, ``@neighbours-50``, ``@no-neighbours`` (the decoder is fine-tuned all the same: what retrieval
itself is worth is told by this row). Of the losses: ``@no-item-alignment``, ``@no-user-alignment`` (the released code),
``@no-divergence``, ``@item-weight-0.01``, ``@item-weight-0.5``, ``@user-weight-0.01``, ``@user-weight-0.1``,
``@divergence-weight-0.1``. Of SSG:
``@replace-0.1``, ``@replace-0.4`` (effective shares of codes), ``@fusion-1``, ``@fusion-10``, ``@fusion-share`` (the
released code's weights).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.artifacts import cached
from benchmark.files import sha256_of
from benchmark.method import Estimate, Method, config_dict
from benchmark.types import Budget, Cases, Ranking, TrainingView
from methods.blocks.backbones import REPORTED, size_of
from methods.blocks.collaborative import PROFILES as COLLABORATIVE
from methods.blocks.collaborative import Collaborative, collaborative_seconds, view_hashes
from methods.blocks.generator import Generator, Network, shifted
from methods.blocks.kmeans import scaling
from methods.blocks.next_item import NextItemPairs
from methods.blocks.t5 import T5
from methods.blocks.text_encoder import encode_texts
from methods.blocks.training import Report, Training, seed_everything, train
from methods.genplugin import language
from methods.genplugin.language import Alignment, LanguageEncoder, Substitution
from methods.genplugin.retrieval import Neighbours, Retrieval

VERSION = 2
"""Part of every cached pre-training; a change that moves its weights raises it."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What the plug-in adds; the defaults are the paper's, at full size."""

    align: bool = True
    """DSA: without it there is no language branch, and so no SSG either."""
    substitute: bool = True
    """SSG"""
    retrieve: bool = True
    """RAR"""
    layers: int = 4
    """Of the language encoder; its other sizes are the backbone's."""
    projection: int = 2048
    """Width between the two linear layers that bring text vectors to the width of the backbone."""
    scaling: str = "standardize"
    """Of the text vectors, fitted on training items (``blocks/kmeans.scaling``). ``none`` suits LLaMA's, which are
    long; vectors of length 1 would drown in the biases of the projection."""
    alignment: Alignment = field(default_factory=Alignment)
    substitution: Substitution = field(default_factory=Substitution)
    retrieval: Retrieval = field(default_factory=Retrieval)
    collaborative: Collaborative = field(default_factory=Collaborative)
    """The model whose user vectors are one of the two ways neighbours are found."""
    tuning: Training = field(
        default_factory=lambda: Training(
            epochs=6, batch_size=512, learning_rate=2e-3, weight_decay=0.02, schedule="cosine", patience=6
        )
    )
    """Of RAR. The paper's cosine is planned for 200 epochs and cut after 6, so its rate never falls; here it ends."""


PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "layers": 1,
        "projection": 64,
        "substitution": {"first_epoch": 1},
        "collaborative": COLLABORATIVE["smoke"],
        "tuning": {"epochs": 2, "batch_size": 64},
    },
    "small": {
        "layers": 2,
        "projection": 192,
        # A twentieth of the epochs, as 10 of 200.
        "substitution": {"first_epoch": 1},
        "collaborative": COLLABORATIVE["small"],
        "tuning": {"epochs": 3, "batch_size": 128, "max_minutes": 15.0},
    },
}


CAPS: dict[str, dict[str, float]] = {"smoke": {}, "small": {"max_minutes": 60.0}}
"""On pre-training: as many steps as the base takes in at most 25 minutes, each up to twice as long."""


class GenPlugin(Generator):
    """The part that does not depend on the base; ``around`` puts it before a generator."""

    wraps = Generator
    lineup = (":tiger", ":letter")
    paper_text_encoder = ""
    """The paper's is LLaMA-2, which the suite does not read; the base's own paper is another one."""

    @classmethod
    def around(cls, base: type[Method]) -> type[Method]:
        return _around(cast(type[Generator], base))

    @property
    def _plugin(self) -> Plugin:
        return self.config.plugin  # type: ignore[attr-defined]

    def network(self) -> nn.Module:
        """The base's network; in training the language encoder rides along in it, so that one checkpoint has both."""
        model = super().network()
        if self._plugin.align:
            width = self.text.shape[1]
            shape = model.shape if isinstance(model, T5) else self.config.backbone
            model.language = LanguageEncoder(width, self._plugin.projection, shape, self._plugin.layers)
        return model

    def _refuse_decoder_only(self) -> None:
        """Raises ValueError for a base whose histories have no states before something is decoded."""
        name = self.config.language_model.name
        if name and size_of(name).kind != "t5":
            raise ValueError(
                f"GenPlugin aligns and retrieves the states of an encoder, and {name} has none; set "
                "language_model.name to a T5 such as t5-small, or leave it empty"
            )

    def fit(self, view: TrainingView) -> Self:
        self._refuse_decoder_only()
        self.near: Neighbours | None = None
        self._read(view)
        self._identify(view)
        self.max_history = view.max_history
        stored = cached(
            self.run.artifacts_dir,
            self._pretraining(view),
            lambda: self._pretrained(view),
            lambda: self.run.progress("wait for another job", 0, 1),
        )
        self._take(stored)
        if self._plugin.retrieve:
            self._tune(view)
        return self

    def _read(self, view: TrainingView) -> None:
        """Text vectors (N + 1, M) of all items, on the device."""
        vectors = torch.from_numpy(encode_texts(view.item_text, self.run.text_encoder, self.run))
        shift, scale = scaling(vectors[torch.from_numpy(view.item_counts > 0)], self._plugin.scaling)
        self.text = ((vectors - shift) * scale).to(self.run.device)

    def _pretraining(self, view: TrainingView) -> dict[str, Any]:
        """All that the weights before RAR depend on, so that rows which differ in RAR alone share them."""
        config = config_dict(self.config)
        later = ("retrieve", "retrieval", "collaborative", "tuning")
        plugin = {k: v for k, v in config["plugin"].items() if k not in later}
        return {
            "stage": "genplugin",
            "version": VERSION,
            "code": [sha256_of(Path(path)) for path in (inspect.getfile(type(self).__mro__[2]), language.__file__)],
            "users": hashlib.sha256(view.users.tobytes()).hexdigest(),
            "config": config | {"plugin": plugin},
            "ids": hashlib.sha256(self.ids.codes.tobytes()).hexdigest(),
            "text": hashlib.sha256(self.text.cpu().numpy().tobytes()).hexdigest(),
            "view": view_hashes(view),
            "seed": self.run.seed,
            **{k: v for k, v in self.tokenizer_report.items() if k == REPORTED},  # weights of a named size
        }

    def _pretrained(self, view: TrainingView) -> dict[str, np.ndarray]:
        super().fit(view)
        report = asdict(self.report) | {"seconds": round(self.run.timings["train"], 2)}
        weights = {name: value.detach().cpu().numpy() for name, value in self.model.state_dict().items()}
        return weights | {"report": np.array(json.dumps(report))}

    def _take(self, stored: Mapping[str, np.ndarray]) -> None:
        """The network as pre-trained, whether just now or by another job."""
        report = json.loads(str(stored["report"]))
        self.pretraining_seconds = report.pop("seconds")
        self.run.timings["train"] = self.pretraining_seconds  # whoever spent them
        self.report = Report(**report)
        self.model = self.network().to(self.run.device)
        weights = {name: torch.from_numpy(array) for name, array in stored.items() if name != "report"}
        self.model.load_state_dict(weights)
        self.model.eval()

    def _after_epoch(self, epoch: int) -> None:
        super()._after_epoch(epoch)
        if self._plugin.align:
            cast(LanguageEncoder, self.model.language).epochs.fill_(epoch)

    def _loss(self, users: Tensor, histories: Tensor, targets: Tensor) -> Tensor:
        """Equation 5 for the next items (B,) given histories (B, L): both branches, alignment, divergence."""
        if not self._plugin.align:
            return super()._loss(users, histories, targets)
        model, alignment, substitution = cast(Network, self.model), self._plugin.alignment, self._plugin.substitution
        encoder = cast(LanguageEncoder, self.model.language)
        codes = self.ids.tokens(targets)  # (B, C)
        memory = self.encode(users, histories)  # (B, S, D)
        states = encoder(self.text[histories])  # (B, L + 1, D)
        x = model.embedding(shifted(codes))  # (B, C, D)
        spoken = model.decode_embedded(x, states)  # (B, C, V), teacher-forced
        if self._substitutes(encoder):
            x = language.substituted(x, spoken, model.embedding.weight, substitution)
        logits = model.decode_embedded(x, memory)  # (B, C, V)
        items = language.item_states(memory, histories.shape[1], codes.shape[1])  # (B, L, D)
        loss = self.token_loss(spoken, codes) + self.token_loss(logits, codes)
        loss = loss + alignment.item_weight * language.contrast(
            states[:, :-1].flatten(0, 1), items.flatten(0, 1), alignment.temperature
        )
        loss = loss + alignment.user_weight * language.contrast(states.mean(1), memory.mean(1), alignment.temperature)
        if self._plugin.substitute:
            divergence = language.divergence(spoken, logits, substitution.temperature)
            loss = loss + substitution.divergence_weight * divergence
        return loss

    def _substitutes(self, encoder: LanguageEncoder) -> bool:
        """Whether this batch is one with substitution."""
        settings = self._plugin.substitution
        if not self._plugin.substitute or int(encoder.epochs) < settings.first_epoch:
            return False
        return float(torch.rand(())) < settings.batch_probability

    def _tune(self, view: TrainingView) -> None:
        """RAR: only the decoder learns, with the states of the neighbours of every training pair before its own."""
        seed_everything(self.run.seed)
        near = Neighbours(view, self._plugin.retrieval, self._plugin.collaborative, self.run)
        near.remember(self._pooled)
        pairs = NextItemPairs(view, torch.device(self.run.device))
        rows = torch.from_numpy(near.of_pairs(self._pooled_pairs(pairs))).to(self.run.device)  # (P, n)
        self.near = near
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("decoder."))

        def loss(some: Tensor, length: int) -> Tensor:
            users, histories, targets = pairs.take(some, length)
            with torch.no_grad():
                memory = self.encode(users, histories)  # (B, S, D)
            near.asked = "train"  # validation asked for its own
            memory, mask = self._with_neighbours(memory, None, rows[some].long())
            codes = self.ids.tokens(targets)
            return self.token_loss(cast(Network, self.model).decode(shifted(codes), memory, mask), codes)

        self.tuning = train(
            self.model, pairs.lengths, loss, self._plugin.tuning, self._validation(view), self.run, name="tune"
        )
        self.run.timings["train"] += self.run.timings.pop("tune")

    def _with_neighbours(self, memory: Tensor, mask: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Put the cached states of neighbours (B, n), -1 = none, before memory (B, S, D) -> memory and its mask."""
        assert self.near is not None
        states = self.near.states.to(memory.dtype)[rows.clamp(min=0)]  # (B, n, D)
        filled = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device) if mask is None else mask
        return torch.cat([states, memory], 1), torch.cat([rows >= 0, filled], 1)

    def _pooled(self, cases: Cases) -> Tensor:
        """(B, D) mean of the ID encoder's states of each history: what users are compared by and remembered as."""
        return _mean(*super().memory(cases))

    def _pooled_pairs(self, pairs: NextItemPairs) -> np.ndarray:
        """(P, D) the same of every training prefix."""
        pooled = np.empty((len(pairs.lengths), cast(Network, self.model).embedding.embedding_dim), np.float32)
        self.model.eval()
        done = 0
        with torch.inference_mode():
            for length in pairs.lengths.unique().tolist():
                for rows in (pairs.lengths == length).nonzero()[:, 0].split(1024):
                    users, histories, _ = pairs.take(rows.to(self.run.device), length)
                    pooled[rows.numpy()] = self.encode(users, histories).float().mean(1).cpu().numpy()
                    done += len(rows)
                    self.run.progress("retrieve", done, len(pooled))
        return pooled

    def memory(self, cases: Cases) -> tuple[Tensor, Tensor | None]:
        memory, mask = super().memory(cases)
        if self.near is None:
            return memory, mask
        rows = self.near.of_cases(cases, _mean(memory, mask).cpu().numpy())  # (B, n)
        return self._with_neighbours(memory, mask, torch.from_numpy(rows).long().to(memory.device))

    def _rank(self, cases: Cases, k: int, budget: Budget, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        if self.near is not None:
            self.near.look_up(cases, "valid" if stage == "validate" else "test")
        return super()._rank(cases, k, budget, stage, candidates)

    @classmethod
    def estimate(cls, config: Any, n_users: int, n_items: int, n_interactions: int) -> Estimate | None:
        """The base's, with half as much again for the language branch; RAR is an encoder pass less per pair."""
        base = super().estimate(config, n_users, n_items, n_interactions)
        if base is None:
            return None
        seconds = base.seconds * (1.5 if config.plugin.align else 1.0)
        if config.plugin.retrieve:
            tuned = base.seconds * 0.7 * config.plugin.tuning.epochs / config.training.epochs
            seconds += config.plugin.tuning.capped(tuned) + n_interactions / 1000
            seconds += collaborative_seconds(config.plugin.collaborative, n_users, n_items, n_interactions)
        return Estimate(seconds, base.memory_bytes + 1e9)

    def parameters(self) -> int:
        """Of what answers; the language encoder is done after training."""
        return sum(p.numel() for name, p in self.model.named_parameters() if not name.startswith("language."))

    def training_report(self) -> Mapping[str, Any]:
        """Of pre-training, and of RAR as ``tuning``; under-trained when the time cap ended any stage."""
        report = dict(super().training_report()) | {"pretraining_seconds": self.pretraining_seconds}
        if self.near is None:
            return report
        capped = "cap" in (self.tuning.stopped_by, self.near.report.get("stopped_by"))
        found = {"tuning": vars(self.tuning), "user_model": self.near.report}
        return report | found | ({"stopped_by": "cap"} if capped else {})

    def _state(self) -> dict[str, Any]:
        whole = {"model": self.model.state_dict()}  # with what RAR held still
        state = super()._state() | whole
        state |= {"pretraining_seconds": self.pretraining_seconds, "text_width": self.text.shape[1]}
        if self.near is None:
            return state
        return state | {"tuning": asdict(self.tuning), "near": self.near.state()}

    def _restore(self, state: dict[str, Any], view: TrainingView) -> None:
        self.text = torch.empty(0, state["text_width"])
        self.pretraining_seconds, self.near = state["pretraining_seconds"], None
        super()._restore(state, view)
        if "near" in state:
            self.tuning = Report(**state["tuning"])
            self.near = Neighbours(view, self._plugin.retrieval, self._plugin.collaborative, self.run)
            self.near.load(state["near"])


def _mean(memory: Tensor, mask: Tensor | None) -> Tensor:
    """memory (B, S, D), filled where the mask (B, S) says -> (B, D) float32"""
    if mask is None:
        return memory.float().mean(1)
    filled = mask[..., None].float()
    return (memory.float() * filled).sum(1) / filled.sum(1)


@cache
def _around(base: type[Generator]) -> type[Method]:
    """GenPlugin before ``base``: the base's Config with the plug-in's, at the sizes of both."""

    @dataclass(frozen=True, kw_only=True)
    class Config(base.Config):  # type: ignore[name-defined]
        plugin: Plugin = field(default_factory=Plugin)

    sizes: dict[str, dict[str, Any]] = {}
    for name, plugin in PROFILES.items():
        own = base.profiles.get(name, {})
        sizes[name] = {**own, "training": {**own.get("training", {}), **CAPS[name]}, "plugin": plugin}
    members = {
        "Config": Config,
        "profiles": sizes,
        "presets": {name: {"plugin": changes} for name, changes in PRESETS.items()},
        "tracks": {"paper": {**base.as_base, **PAPER}},
        "__doc__": f"GenPlugin around {base.__name__}.",
    }
    return type(f"GenPlugin{base.__name__}", (GenPlugin, base), members)


PRESETS: dict[str, dict[str, Any]] = {
    "no-dsa": {"align": False},
    "no-ssg": {"substitute": False},
    "no-rar": {"retrieve": False},
    "dsa": {"substitute": False, "retrieve": False},
    "content": {"retrieval": {"paths": "content"}},
    "collaborative": {"retrieval": {"paths": "collaborative"}},
    "similarity": {"retrieval": {"paths": "similarity"}},
    "no-rerank": {"retrieval": {"rerank": False}},
    "neighbours-10": {"retrieval": {"neighbours": 10}},
    "neighbours-50": {"retrieval": {"neighbours": 50}},
    "no-item-alignment": {"alignment": {"item_weight": 0.0}},
    "no-user-alignment": {"alignment": {"user_weight": 0.0}},
    "no-divergence": {"substitution": {"divergence_weight": 0.0}},
    "no-neighbours": {"retrieval": {"neighbours": 0}},
    "item-weight-0.01": {"alignment": {"item_weight": 0.01}},
    "item-weight-0.5": {"alignment": {"item_weight": 0.5}},
    "user-weight-0.01": {"alignment": {"user_weight": 0.01}},
    "user-weight-0.1": {"alignment": {"user_weight": 0.1}},
    "divergence-weight-0.1": {"substitution": {"divergence_weight": 0.1}},
    "replace-0.1": {"substitution": {"probability": 0.2}},
    "replace-0.4": {"substitution": {"probability": 0.8}},
    "fusion-1": {"substitution": {"fusion": 1}},
    "fusion-10": {"substitution": {"fusion": 10}},
    "fusion-share": {"substitution": {"fusion_rule": "share"}},
}
PAPER: dict[str, Any] = {
    # The base as these papers have it: LC-Rec's identifiers and their own optimiser.
    "embedding_rate": 1.0,
    "training": {"batch_size": 512, "learning_rate": 2e-3, "warmup_steps": 514},
    "plugin": {
        "retrieval": {"corpus": "paper", "text": "title", "exclude_self": False},
        "tuning": {"schedule": "constant"},
    },
}

METHOD = GenPlugin
