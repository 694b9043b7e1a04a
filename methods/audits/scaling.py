"""Item-level against token-level generation, and small against large: models of one data set timed in one process.

All models of a set are loaded, take turns on the same users under the protocol's budget (a beam search each, or one
pass over all items), and stand beside their recorded scores, their sizes and the arithmetic of an answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmark.method import Method
from benchmark.scoring import limit
from benchmark.types import Cases, Spend
from methods.audits.command import Answer, Asked
from methods.audits.decoders import OnePass, Search
from methods.audits.decoding import refusal as _no_decoder
from methods.audits.recorded import asked_again
from methods.audits.speed import Decoder, milliseconds
from methods.audits.work import flops, size_name, weights
from methods.blocks.generator import Generator
from methods.blocks.ranking import Scorer

VERSION = 1
"""Part of every audit's key; a change that moves its numbers raises it."""
TOGETHER = True
"""The models of one data set and seed are one audit: times are compared only with times of the same process."""
METRICS = ("ndcg@10", "recall@10")
REPEATS = 7
"""More than an audit of one model takes: what is told here are ratios of times."""
SAMPLE = {"cpu": 200, "cuda": 2000}
"""Test users that the timed ones are taken from, and whose lists prove that a model is the recorded one."""


def refusal(method: type[Method]) -> str | None:
    """Why a method cannot be asked, after its name; None when it can."""
    return _no_decoder(method)


def settings(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    return [{"users": args.users or SAMPLE[device], "device": device}]


def answers(asked: Sequence[Asked]) -> list[Answer]:
    """One answer per model. Raises ValueError when a model does not answer as its record says."""
    split, run, budget = asked[0].split, asked[0].run, asked[0].protocol.budget
    cases = limit(split, asked[0].settings["users"]).test.cases
    ready = {one.record.method: _ready(one, cases) for one in asked}
    decoders = {name: decoder for name, (decoder, _) in ready.items()}
    times = milliseconds(decoders, cases, run.device, lambda done, total: run.progress("time", done, total), REPEATS)
    mean = float(split.test.cases.histories.lengths.mean())
    together = [{"method": one.record.method, "config_hash": one.record.fields["config_hash"]} for one in asked]
    shared = {
        "users": len(cases),
        "users_asked": len(split.test),
        "mean_history": mean,
        "beam_size": budget.beam_size,
        "timed_with": together,
        "repeats": REPEATS,
        "threads": torch.get_num_threads(),
    }
    found = []
    for one in asked:
        decoder, spend = ready[one.record.method]
        of_model = {
            "size": size_name(one.method.config),
            "weights": weights(one.method),
            "metrics": {metric: one.record.metrics[metric] for metric in METRICS},
            "spend": asdict(spend),
            "milliseconds": times[one.record.method],
            "flops": flops(decoder, cases, max(1, round(mean))),
        }
        found.append((shared | of_model, {"users": cases.users}))
    return found


def _ready(asked: Asked, cases: Cases) -> tuple[Decoder, Spend]:
    """How a model answers under the protocol's budget, and what it spends, after it has answered as its record says."""
    spend = asked_again(asked, cases).spend
    method, candidates, budget = asked.method, asked.split.candidates, asked.protocol.budget
    if isinstance(method, Generator):
        search = Search(method, candidates, cases.tie_order, budget.list_length, method.config.rule)
        return search.decoder(budget.beam_size, len(cases)), spend
    assert isinstance(method, Scorer)
    return OnePass(method, candidates, cases.tie_order, budget.list_length).decoder(len(cases)), spend
