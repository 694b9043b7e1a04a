"""SimGR (Zhao et al., "Escaping the Pitfalls of Generative Decoding"): the item nearest to the user's state is next.

text -> semantic IDs; prompt and history as code tokens -> decoder-only transformer -> state of the last token;
a softmax over the whole catalogue of its inner products with the items' aggregated token vectors. Nothing is generated:
one forward pass scores every item. The identifiers are TIGER's, so that only the model differs; ``docs/simgr.md``.

Presets: ``@concat``, ``@proj``, ``@attention`` and ``@gating`` make an item's vector otherwise than by the mean of its
token vectors; ``@catalogue`` takes items that nobody has in training as negatives too; ``@plain`` computes the mean's
loss by item vectors, the same number at a higher price; ``@one-pass`` trains all prefixes of a sequence in one pass,
``@per-prefix`` each by itself; ``@gpt2``, ``@qwen3-4b`` and so on choose the language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from benchmark.evaluate import mean_metric
from benchmark.method import Estimate
from benchmark.types import Cases, Ranking, TrainingView
from methods.blocks.backbones import build, check, check_again, size_of
from methods.blocks.causal_lm import Causal, Prompt, too_long
from methods.blocks.item_softmax import Rivals, chunked_softmax, mean_scores, mean_softmax, rivals
from methods.blocks.next_item import NextItemPairs, sample
from methods.blocks.ranking import Scorer
from methods.blocks.self_attention import Windows, rows_of_targets
from methods.blocks.semantic_ids import SemanticIds
from methods.blocks.tokenizer import item_ids, without_ids
from methods.blocks.training import (
    Report,
    load_trainable,
    read_model,
    seed_everything,
    told,
    train,
    trainable_state,
    trained_weights,
    write_checkpoint,
)
from methods.simgr.network import AGGREGATORS, Network
from methods.simgr.settings import PRESETS, PROFILES, SEARCH, TRACKS, SimGRConfig, simgr_estimate


class SimGR(Scorer):
    """A language model whose state after the history is compared with every item."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SimGRConfig):
        """See there."""

    config: Config
    reads_text = True
    saves = True
    presets = PRESETS
    profiles = PROFILES
    tracks = TRACKS
    search = SEARCH

    ids: SemanticIds
    model: Network
    rivals: Rivals
    vectors: Tensor
    """Of all items, as the ranking under way needs them."""
    report: Report
    tokenizer_report: dict[str, Any]
    max_history: int

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        return without_ids(view)

    def fit(self, view: TrainingView) -> Self:
        self._check()
        weights = check(self.config.language_model, self.run.language_models)
        self.max_history = view.max_history
        self.rivals = rivals(view, self.config.negatives, self.run.device)
        self.ids, report = item_ids(view, self.run, self.config.tokenizer, self.config.collisions)
        self.tokenizer_report = report | weights
        self.model = self._network()
        loss, lengths, how = self._one_pass(view) if self.config.one_pass else self._per_prefix(view)
        questions = sample(view.valid, self.config.validation_users)

        def validate() -> float:
            ranking = self._rank(questions.cases, 10, "validate", view.candidates)
            return mean_metric(ranking, questions.targets, view.selection)

        rates = {"embedding.weight": self.config.embedding_rate}
        self.report = train(self.model, lengths, loss, self.config.training, validate, self.run, rates=rates, **how)
        return self

    def _check(self) -> None:
        """Raises ValueError for what no code path here can do, before anything is trained or loaded."""
        name = self.config.language_model.name
        if size_of(name).kind != "causal":
            raise ValueError(
                f"simgr reads its users with a decoder-only model and {name} has an encoder; choose scratch-s, gpt2 or "
                "a qwen"
            )
        if self.config.aggregator not in AGGREGATORS:
            raise ValueError(f"unknown aggregator '{self.config.aggregator}'; use {', '.join(AGGREGATORS)}")
        if self.config.temperature <= 0:
            raise ValueError(f"a temperature of {self.config.temperature} is not above 0; SimGR divides by it")

    def _network(self) -> Network:
        """A new network for ``self.ids``; the same seed gives the same. Raises ValueError when a row is too long."""
        seed_everything(self.run.seed)
        history = self.max_history * self.ids.levels
        settings, length = self.config.language_model, history + self.config.prompt_vectors
        lm = cast(Causal, build(settings, max_length=length, models=self.run.language_models))
        # A space begins the next word, and here a vector stands in its place.
        prompt = Prompt(lm, self.config.prompt.rstrip(), self.config.prompt_vectors)
        if (longest := len(prompt()) + history) > lm.max_length:
            raise too_long(longest, lm.max_length)
        return Network(lm, prompt, self.config.aggregator, self.ids).to(self.run.device)

    def _per_prefix(self, view: TrainingView) -> tuple[Callable[[Tensor, int], Tensor], Tensor, dict[str, Any]]:
        """The mean loss of some pairs, the history length of every pair, and how to train on them."""
        pairs = NextItemPairs(view, torch.device(self.run.device))

        def loss(rows: Tensor, length: int) -> Tensor:
            _, histories, targets = pairs.take(rows, length)
            return self.losses(self.model(self.ids.tokens(histories))[:, -1], targets).mean()

        return loss, pairs.lengths, {}

    def _one_pass(self, view: TrainingView) -> tuple[Callable[[Tensor, int], Tensor], Tensor, dict[str, Any]]:
        """The same over windows, where the mean is over all targets of the given rows."""
        windows = Windows(view.sequences, view.max_history, self.run.device)

        def loss(rows: Tensor, length: int) -> Tensor:
            inputs, targets, wanted = windows.take(rows, length)
            states = self.model(self.ids.tokens(inputs))  # (B, L, D)
            return self.losses(states[wanted], targets[wanted]).mean()

        return loss, windows.lengths, {"rows_per_batch": rows_of_targets(self.config.training.batch_size)}

    def losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """Eq. 29: states (P, D) and next items (P,) -> cross-entropy (P,) among ``self.rivals``."""
        states, chunk = states / self.config.temperature, self.config.chunk
        tokens, places = self.ids.token_table(states.device)[self.rivals.items], self.rivals.places[targets]
        if self.config.aggregator == "mean" and self.config.factorised:
            return mean_softmax(states, self.model.embedding.weight, tokens, places, chunk)
        return chunked_softmax(states, lambda some: self.model.vectors(tokens[some]), len(tokens), places, chunk)

    def _rank(self, cases: Cases, k: int, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        if self.config.aggregator != "mean":  # whose items have no vectors
            with torch.inference_mode():
                self.vectors = self.model.vectors(self.ids.token_table(torch.device(self.run.device)))  # (N + 1, D)
        return super()._rank(cases, k, stage, candidates)

    def _score(self, cases: Cases) -> Tensor:
        parts = range(0, len(cases), self.config.decode_batch)
        rows = np.arange(len(cases))
        states = torch.cat([self._states(cases.take(rows[i : i + self.config.decode_batch])) for i in parts])
        states = states / self.config.temperature
        if self.config.aggregator == "mean":
            return mean_scores(states, self.model.embedding.weight, self.ids.token_table(states.device))
        return states @ self.vectors.T

    def _states(self, cases: Cases) -> Tensor:
        """(B, D) at the end of each history; causal attention makes right padding harmless."""
        histories = cases.histories.tail(self.max_history)
        lengths = np.maximum(histories.lengths, 1)  # an empty history is read as one PAD
        padded = torch.from_numpy(histories.padded(int(lengths.max())).astype(np.int64)).to(self.run.device)
        last = torch.from_numpy(lengths - 1).to(self.run.device)
        return self.model(self.ids.tokens(padded))[torch.arange(len(last), device=last.device), last]

    def parameters(self) -> int:
        return trained_weights(self.model)

    def training_report(self) -> Mapping[str, Any]:
        """Under-trained when the time cap ended either stage."""
        return told(self.report, self.tokenizer_report)

    def save(self, path: Path) -> None:
        state = {
            "codes": torch.from_numpy(self.ids.codes),
            "sizes": list(self.ids.sizes),
            "max_history": self.max_history,
            "model": trainable_state(self.model),
            "report": asdict(self.report),
            "tokenizer_report": json.dumps(self.tokenizer_report),
        }
        write_checkpoint(path, state)

    def load(self, path: Path, view: TrainingView) -> Self:
        state = read_model(path, self.run.device)
        self.ids = SemanticIds(state["codes"].cpu().numpy(), state["sizes"])
        self.tokenizer_report = json.loads(state["tokenizer_report"])
        self.report, self.max_history = Report(**state["report"]), state["max_history"]
        check_again(self.config.language_model, self.run.language_models, self.tokenizer_report)
        self.model = self._network()
        load_trainable(self.model, state["model"])
        self.model.eval()
        return self

    @classmethod
    def estimate(cls, config: SimGRConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        return simgr_estimate(config, n_users, n_items, n_interactions)


METHOD = SimGR
