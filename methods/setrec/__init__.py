"""SETRec (Lin et al., SIGIR 2025): an item is a set of tokens without order, generated all at once.

A set has one token of collaborative filtering (SASRec's item vector through a linear layer) and ``tokens`` of the
item's text (an auto-encoder, trained along). A language model reads the sets of the history, blind to the order
within a set; one learned query per token generates the next set in a single forward pass, and every item is scored by
inner products with its own tokens. ``docs/setrec.md`` lists every choice.

Presets: what is left out: ``@no-sem`` (no semantic tokens), ``@no-cf`` (no collaborative token), ``@no-query`` (queries
stay random), ``@no-sparse-mask`` (tokens of an item see their siblings). ``@n-1`` to ``@n-6`` semantic tokens;
``@catalogue`` takes items that nobody has in training as negatives too; ``@alpha-0.1`` to ``@alpha-0.9`` weight of
rebuilding the texts; ``@beta-0`` to ``@beta-1`` weight of the semantic scores, fixed in place of chosen; ``@one-pass``
and ``@per-prefix`` train on all prefixes of a history in one pass or one by one (the same loss; encoder-decoders can
only do the latter). Language models: ``@scratch-xs``, ``@scratch-s``, ``@scratch-s-t5`` from scratch; ``@t5-small``,
``@gpt2``, ``@qwen2.5-1.5b``, ``@qwen2.5-3b``, ``@qwen2.5-7b``, ``@qwen3-0.6b``, ``@qwen3-1.7b``, ``@qwen3-4b``
pre-trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.evaluate import mean_metric
from benchmark.method import Estimate
from benchmark.types import Cases, Ranking, Spend, TrainingView
from methods.blocks.backbones import Seq2Seq, build, check, check_again, size_of
from methods.blocks.causal_lm import Causal, too_long
from methods.blocks.collaborative import collaborative_model
from methods.blocks.item_softmax import Rivals, rivals
from methods.blocks.kmeans import scaling
from methods.blocks.next_item import NextItemPairs, sample, without_pairs
from methods.blocks.ranking import Scorer, rank_by_score
from methods.blocks.self_attention import Windows, rows_of_targets
from methods.blocks.text_encoder import encode_texts, has_text
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
from methods.setrec.network import SetNetwork
from methods.setrec.settings import (
    BETAS,
    PRESETS,
    PROFILES,
    SEARCH,
    SEARCH_PROFILES,
    TRACKS,
    SETRecConfig,
    setrec_estimate,
)
from methods.setrec.tokens import Features, ItemTokens, Sought

READ_TOKENS = 1 << 16
"""Item tokens of the histories that are read at once when scoring."""
PLACEHOLDER = "{history}"


class SETRec(Scorer):
    """Set identifiers, simultaneous generation, grounding by the tokens of all items."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SETRecConfig):
        """See there."""

    config: Config
    reads_text = True
    paper_text_encoder = "sentence-transformers/sentence-t5-base"
    saves = True
    presets = PRESETS
    profiles = PROFILES
    tracks = TRACKS
    search = SEARCH
    search_profiles = SEARCH_PROFILES

    model: SetNetwork
    beta: float
    report: Report
    facts: dict[str, Any]
    features: Features
    max_history: int

    @classmethod
    def unsuited(cls, view: TrainingView) -> str | None:
        return without_pairs(view)

    def fit(self, view: TrainingView) -> Self:
        self._check()
        self.facts = check(self.config.language_model, self.run.language_models)
        among = rivals(view, self.config.negatives, self.run.device)
        view = replace(view, max_history=self.config.history or view.max_history)
        self.max_history = view.max_history
        seed_everything(self.run.seed)
        lm = self._language_model(self.config.cf, has_text(view.item_text))  # refused before anything else is trained
        vectors, texts = self._vectors(view), self._texts(view)
        self.model = self._network(lm, vectors, texts).to(self.run.device)
        self.beta = 0.5 if self.config.beta is None else self.config.beta  # of both kinds alike until one is chosen
        self.report = self._train(view, among)
        self._choose_beta(view)
        return self

    def _check(self) -> None:
        """Raises ValueError for settings that do not go together."""
        config = self.config
        if config.one_pass and size_of(config.language_model.name).kind != "causal":
            raise ValueError(
                f"one pass over all prefixes needs a decoder-only language model, which {config.language_model.name} "
                "is not: its encoder shows an item those after it; set one_pass to False"
            )
        if config.prompt.count(PLACEHOLDER) != 1:
            raise ValueError(f"the prompt '{config.prompt}' must hold {PLACEHOLDER} exactly once")
        if config.beta is not None and not 0 <= config.beta <= 1:
            raise ValueError(f"beta must lie between 0 and 1, not at {config.beta}")

    def _vectors(self, view: TrainingView) -> Tensor | None:
        """Collaborative vectors (N + 1, C) around their mean, which is what items that nobody has in training get.

        A shift of all vectors changes neither a softmax nor a ranking of them; at zero as it was, a new item would
        stand above most others, whose products training pushes below zero.
        """
        if not self.config.cf:
            return None
        model = collaborative_model(view, self.config.collaborative, self.run)
        self.facts["collaborative"] = model.report
        vectors, known = torch.from_numpy(model.items), torch.from_numpy(view.item_counts > 0)
        return (vectors - vectors[known].mean(0)) * known[:, None]

    def _texts(self, view: TrainingView) -> Tensor | None:
        """Scaled text vectors (N + 1, F); zero for items without text, None for a dataset without any."""
        if not self.config.tokens:
            return None
        if not has_text(view.item_text):
            self.facts["semantic"] = "no text"
            return None
        vectors = torch.from_numpy(encode_texts(view.item_text, self.run.text_encoder, self.run))
        shift, scale = scaling(vectors[torch.from_numpy(view.item_counts > 0)], self.config.scaling)
        return (vectors - shift) * scale * vectors.any(1, keepdim=True)

    def _language_model(self, collaborative: bool, text: bool) -> Causal | Seq2Seq:
        """For items with tokens of these kinds. Raises ValueError when a whole input is longer than it reads."""
        config = self.config
        per_item = max(1, collaborative + text * config.tokens)
        prefixes = self.max_history if config.one_pass else 1
        longest = config.prompt_vectors + (self.max_history + prefixes) * per_item
        lm = build(config.language_model, max_length=longest, models=self.run.language_models)
        if lm.vocabulary is not None and isinstance(lm, Causal):
            instruction, response = (len(lm.text(part)) for part in self._prompt())
            longest = instruction + self.max_history * per_item + prefixes * (response + per_item)
            if longest > lm.max_length:
                raise too_long(longest, lm.max_length)
        return lm

    def _prompt(self) -> tuple[str, str]:
        """What stands before and after the history."""
        instruction, response = self.config.prompt.split(PLACEHOLDER)
        return instruction.rstrip(), response  # a space begins the next word, and here a vector stands in its place

    def _network(self, lm: Causal | Seq2Seq, vectors: Tensor | None, texts: Tensor | None) -> SetNetwork:
        config = self.config
        items = ItemTokens(
            vectors,
            texts,
            width=lm.width,
            semantic=config.tokens,
            hidden=config.hidden,
            bottleneck=config.bottleneck,
        )
        instruction, response = self._prompt()
        return SetNetwork(
            items,
            lm,
            instruction=instruction,
            response=response,
            prompt_vectors=config.prompt_vectors,
            sparse=config.sparse,
            trained_queries=config.trained_queries,
        )

    def _train(self, view: TrainingView, among: Rivals) -> Report:
        training, alpha = self.config.training, self.config.alpha
        if not self.config.one_pass:
            pairs = NextItemPairs(view, torch.device(self.run.device))

            def of_pairs(rows: Tensor, length: int) -> Tensor:
                _, history, target = pairs.take(rows, length)
                return self.model.loss(history, target, among, alpha)

            return train(self.model, pairs.lengths, of_pairs, training, lambda: self._validate(view), self.run)
        windows = Windows(view.sequences, view.max_history, self.run.device)

        def of_windows(rows: Tensor, length: int) -> Tensor:
            return self.model.loss_of_prefixes(*windows.take(rows, length), among, alpha)

        return train(
            self.model,
            windows.lengths,
            of_windows,
            training,
            lambda: self._validate(view),
            self.run,
            rows_per_batch=rows_of_targets(training.batch_size),
        )

    def _validate(self, view: TrainingView) -> float:
        asked = sample(view.valid, self.config.validation_users)
        ranking = self._rank(asked.cases, 10, "validate", view.candidates)
        return mean_metric(ranking, asked.targets, view.selection)

    def _choose_beta(self, view: TrainingView) -> None:
        """Take the beta above 0 that ranks the validation answers best; histories are read once for all of them.

        At 0 items that are new have no score of their own. The report shows it, and the released code's grid lacks it.
        """
        items = self.model.items
        if self.config.beta is not None or items.text is None or items.collaborative is None:
            return
        asked = sample(view.valid, self.config.validation_users)
        with torch.inference_mode(), self.run.stage("beta"):
            self.features = items.features()
            sought = self._sought(asked.cases)
            place = np.zeros(asked.cases.users.max(initial=0) + 1, np.int64)  # row of every user
            place[asked.cases.users] = np.arange(len(asked))

            def score(cases: Cases) -> Tensor:
                return sought.take(place[cases.users]).scores(self.features, self.beta)

            curve = []
            for self.beta in BETAS:
                spend = Spend(rule="scores", items_scored=view.n_items)
                how: dict[str, Any] = {"run": self.run, "spend": spend, "candidates": view.candidates, "stage": "beta"}
                ranking = rank_by_score(score, asked.cases, 10, **how)
                curve.append([self.beta, round(mean_metric(ranking, asked.targets, view.selection), 6)])
        self.beta = max((point for point in curve if point[0] > 0), key=lambda point: point[1])[0]
        self.facts |= {"beta": self.beta, "beta_curve": curve}

    def _rank(self, cases: Cases, k: int, stage: str, candidates: np.ndarray | None = None) -> Ranking:
        with torch.inference_mode():
            self.features = self.model.items.features()
        return super()._rank(cases, k, stage, candidates)

    def _score(self, cases: Cases) -> Tensor:
        """(B, N + 1)"""
        return self._sought(cases).scores(self.features, self.beta)

    def _sought(self, cases: Cases) -> Sought:
        """Generated sets after the histories, which are read in groups of one length."""
        histories = (cases.histories if self.config.history is None else cases.seen).tail(self.max_history)
        order = np.argsort(histories.lengths, kind="stable")
        lengths, starts = np.unique(histories.lengths[order], return_index=True)
        parts = []
        for length, rows in zip(lengths.tolist(), np.split(order, starts[1:]), strict=True):
            at_once = max(1, READ_TOKENS // ((length + 1) * self.model.items.per_item))
            for start in range(0, len(rows), at_once):
                some = histories.take(rows[start : start + at_once]).padded(length).astype(np.int64)
                parts.append(self._read(torch.from_numpy(some).to(self.run.device)))
        return Sought.joined(parts).take(np.argsort(order))

    def _read(self, history: Tensor) -> Sought:
        """history (B, L)"""
        items = self.model.items
        return items.sought(self.model(items.tokens(history, self.features)))

    def parameters(self) -> int:
        return trained_weights(self.model)

    def training_report(self) -> Mapping[str, Any]:
        """Under-trained when the time cap ended either training."""
        return told(self.report, self.facts)

    def save(self, path: Path) -> None:
        items = self.model.items
        inputs = {"collaborative": items.collaborative, "text": items.text}
        write_checkpoint(
            path,
            {
                "inputs": {name: tensor for name, tensor in inputs.items() if tensor is not None},
                "model": trainable_state(self.model),
                "max_history": self.max_history,
                "beta": self.beta,
                "report": asdict(self.report),
                "facts": json.dumps(self.facts),
            },
        )

    def load(self, path: Path, view: TrainingView) -> Self:
        state = read_model(path, self.run.device)
        self.report, self.facts = Report(**state["report"]), json.loads(state["facts"])
        self.beta, self.max_history = state["beta"], state["max_history"]
        check_again(self.config.language_model, self.run.language_models, self.facts)
        seed_everything(self.run.seed)  # frozen weights without a file are drawn as they were in fit
        vectors, texts = state["inputs"].get("collaborative"), state["inputs"].get("text")
        lm = self._language_model(vectors is not None, texts is not None)
        self.model = self._network(lm, vectors, texts)
        self.model.to(self.run.device)
        load_trainable(self.model, state["model"])
        self.model.eval()
        return self

    @classmethod
    def estimate(cls, config: SETRecConfig, n_users: int, n_items: int, n_interactions: int) -> Estimate:
        return setrec_estimate(config, n_users, n_items, n_interactions)


METHOD = SETRec
