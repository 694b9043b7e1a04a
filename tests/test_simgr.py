"""SimGR's own story: what a state sees, scores and losses by the formula, one pass, pre-trained models, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import protocols
from benchmark.lists import tie_order
from benchmark.method import build_config, replace_nested
from benchmark.run import Run
from benchmark.types import Budget, Ranking, Sequences, TrainingView
from methods.blocks.causal_lm import Prompt
from methods.blocks.item_softmax import Rivals
from methods.blocks.next_item import NextItemPairs
from methods.blocks.semantic_ids import SemanticIds
from methods.simgr import SimGR
from methods.simgr.network import AGGREGATORS, Network
from methods.tiger import TIGER
from tests import toys
from tests.backbone_world import WORDS, save_causal, scratch

N, LEVELS = 12, 3
CODES = np.array([[-1] * LEVELS, *([i // 4, i // 2 % 2, i % 2] for i in range(N))])
"""Items 1 to 12 on a tree of 3, 2 and 2 branches."""
QUICK = {"tokenizer": {"codes": 8, "training": {"epochs": 2}}, "training": {"epochs": 1}}
"""Just enough training for the plumbing."""


def config(preset: str | None = None, **overrides: Any) -> SimGR.Config:
    return replace_nested(replace_nested(build_config(SimGR, preset, "smoke"), QUICK), overrides)


def untrained(aggregator: str = "mean", **overrides: Any) -> SimGR:
    """A method with a network of random weights, large enough that every token counts, and no dropout."""
    method = SimGR(config(aggregator=aggregator, **overrides))
    method.ids, method.max_history = SemanticIds(CODES, [3, 2, 2]), 8
    method.rivals = Rivals.of(np.ones(N + 1, bool))
    lm = scratch(dropout=0.0)
    method.model = Network(lm, Prompt(lm, "", 2), aggregator, method.ids)
    torch.manual_seed(5)
    for name, parameter in method.model.named_parameters():
        if not name.startswith("lm."):
            torch.nn.init.normal_(parameter, std=0.5)
    return method


def state_of(method: SimGR, history: list[int]) -> Tensor:
    """The state (D,) after prompt and history, token by token."""
    tokens = [token for item in history for token in method.ids.token_table("cpu")[item].tolist()]
    rows = [*method.model.prompt(), *(method.model.embedding.weight[token] for token in tokens)]
    return method.model.lm(torch.stack(rows)[None])[0, -1]


def view_of(sequences: list[list[int]], max_history: int = 8) -> TrainingView:
    users = np.arange(1, 1 + len(sequences), dtype=np.int32)
    text = ("", *(f"item {i}" for i in range(1, N + 1)))
    view = replace(toys.four_users(), n_items=N, users=users, item_text=text, max_history=max_history)
    return replace(view, sequences=Sequences.from_rows(sequences))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# What is read


def test_a_state_has_read_the_prompt_and_its_item_to_the_last_token_and_nothing_after() -> None:
    method = untrained()
    tokens = method.ids.tokens(torch.tensor([[3, 7, 2]]))  # (1, 3, C)
    states = method.model(tokens)
    assert states.shape == (1, 3, method.model.lm.width)
    for item in range(3):
        for level in range(LEVELS):
            changed = tokens.clone()
            changed[0, item, level] = 0
            moved = [
                not torch.allclose(a, b, atol=1e-4) for a, b in zip(states[0], method.model(changed)[0], strict=True)
            ]
            assert moved == [place >= item for place in range(3)]
    method.model.prompt.rows.data[0] += 1
    assert not torch.allclose(method.model(tokens)[0, 0], states[0, 0], atol=1e-4)


def test_no_learned_prompt_is_no_prompt() -> None:
    method = untrained()
    method.model.prompt = Prompt(method.model.lm, "", 0)
    assert_near(method.model(method.ids.tokens(torch.tensor([[4, 9]])))[0, -1], state_of(method, [4, 9]))


# Item vectors, scores and loss


def by_hand(method: SimGR, item: int) -> Tensor:
    """A(E) of an item, from its token vectors e one at a time."""
    vectors = list(method.model.embedding.weight[method.ids.token_table("cpu")[item]])
    part = method.model.aggregate
    linear = getattr(part, "linear", None)
    match method.config.aggregator:
        case "mean":
            return sum(vectors) / LEVELS
        case "concat":
            return linear(torch.cat(vectors))
        case "proj":
            return sum(linear(e) for e in vectors) / LEVELS
        case "attention":
            weights = [math.exp((part.query @ linear(e)).item()) for e in vectors]
            return sum(w / sum(weights) * e for w, e in zip(weights, vectors, strict=True))
        case _:
            gates = [1 / (1 + torch.exp(-linear(e))) for e in vectors]
            return sum(g * e for g, e in zip(gates, vectors, strict=True)) / sum(gates)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_scores_are_inner_products_over_the_temperature(aggregator: str) -> None:
    method = untrained(aggregator, temperature=0.5, decode_batch=2)
    histories = [[5, 2, 9], [1], [12, 3]]
    ranking = method.recommend(toys.cases(histories, tie_order(N, 0)), N)
    for history, items, scores in zip(histories, ranking.items, ranking.scores, strict=True):
        assert sorted(items) == list(range(1, N + 1))
        state = state_of(method, history)
        expected = torch.stack([state @ by_hand(method, int(item)) / 0.5 for item in items])
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("chunk", [5, 100])
def test_the_loss_is_cross_entropy_over_the_whole_catalogue(aggregator: str, chunk: int) -> None:
    method = untrained(aggregator, temperature=2.0, chunk=chunk)
    targets = torch.tensor([4, 12, 1])
    states = torch.stack([state_of(method, history) for history in ([5, 2, 9], [1], [12, 3])])
    items = torch.stack([by_hand(method, item) for item in range(1, N + 1)])
    logits = states @ items.T / 2.0
    expected = logits.logsumexp(1) - logits[torch.arange(3), targets - 1]
    assert_near(method.losses(states, targets), expected)


@pytest.mark.parametrize("factorised", [True, False])
def test_items_that_take_no_part_are_no_negatives(factorised: bool) -> None:
    method = untrained(factorised=factorised, chunk=4)
    present = [1, 3, 4, 6, 7, 12]
    method.rivals = Rivals.of(np.isin(np.arange(N + 1), present))
    state = state_of(method, [4, 7])
    logits = torch.stack([state @ by_hand(method, item) for item in present]) / method.config.temperature
    for target in present:
        expected = logits.logsumexp(0) - logits[present.index(target)]
        assert_near(method.losses(state[None], torch.tensor([target])), expected[None])


def test_the_plain_form_is_the_factorised_one_in_value_and_gradient() -> None:
    found = []
    for factorised in (True, False):
        method = untrained(factorised=factorised, chunk=5)
        states = method.model(method.ids.tokens(torch.tensor([[5, 2, 9], [1, 12, 3]])))[:, -1]
        loss = method.losses(states, torch.tensor([4, 12])).mean()
        loss.backward()
        found.append([loss, *(p.grad for p in method.model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# One pass


def test_one_pass_over_all_prefixes_is_the_loss_of_every_prefix_by_itself() -> None:
    view = view_of([[1, 5, 2, 9], [7, 3], [4, 12, 11, 10, 6, 8, 2], [3]])
    method = untrained()
    loss, lengths, how = method._one_pass(view)
    expected, pairs = 0.0, NextItemPairs(view, torch.device("cpu"))
    for row, length in enumerate(pairs.lengths.tolist()):
        _, histories, targets = pairs.take(torch.tensor([row]), length)
        expected += method.losses(state_of(method, histories[0].tolist())[None], targets).item()
    found = sum(loss(torch.tensor([row]), length).item() * length for row, length in enumerate(lengths.tolist()))
    assert lengths.tolist() == [3, 1, 6] and len(pairs.lengths) == 10
    assert found == pytest.approx(expected, rel=1e-5)
    assert [how["rows_per_batch"](length) for length in (1, 7, 1000)] == [512, 73, 1], "batches count targets"


def test_per_prefix_losses_are_the_mean_over_pairs_and_windows_overlap_beyond_the_limit() -> None:
    view = view_of([[1, 5, 2, 9, 4, 12]], max_history=2)
    method = untrained()
    loss, lengths, _ = method._per_prefix(view)
    assert lengths.tolist() == [1, 2, 2, 2, 2]
    expected = [method.losses(state_of(method, h)[None], torch.tensor([t])) for h, t in (([5, 2], 9), ([2, 9], 4))]
    assert_near(loss(torch.tensor([2, 3]), 2), torch.cat(expected).mean())
    one_pass, window_lengths, _ = method._one_pass(view)
    assert window_lengths.tolist() == [2, 2, 2, 2] and all(one_pass(torch.tensor([r]), 2).isfinite() for r in range(4))


# The whole method


@pytest.fixture(scope="module")
def world() -> Any:
    return protocols.load("loo").split(toys.conveyor(n_items=N, n_users=30, length=5))


def assert_same(a: Ranking, b: Ranking) -> None:
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_array_equal(a.scores, b.scores)


@pytest.mark.parametrize("profile", ["smoke", "small", "full"])
def test_its_identifiers_are_those_of_tiger(profile: str) -> None:
    mine, theirs = build_config(SimGR, None, profile), build_config(TIGER, None, profile)
    assert (mine.tokenizer, mine.collisions) == (theirs.tokenizer, theirs.collisions)


def test_one_forward_pass_scores_what_is_ranked_and_a_saved_model_answers_alike(world: Any, tmp_path: Path) -> None:
    method = SimGR(config("attention")).fit(world.train)
    cases, budget = world.test.cases, Budget(beam_size=20, list_length=20)
    ranking = method.recommend(cases, 5, budget=budget)
    assert (ranking.spend.forward_passes, ranking.spend.items_scored, ranking.spend.beam_size) == (1.0, N, 0)
    few = method.recommend(cases, 5, candidates=np.array([2, 3, 5]), budget=budget)
    assert few.spend.items_scored == 3
    method.save(tmp_path / "model")
    again = SimGR(method.config).load(tmp_path / "model", world.train)
    assert_same(again.recommend(cases, 5, budget=budget), ranking)
    assert again.training_report() == method.training_report() and again.parameters() == method.parameters()


def test_a_pre_trained_model_reads_words_and_only_adapters_and_tokens_are_trained(world: Any, tmp_path: Path) -> None:
    save_causal(tmp_path / "lm", "qwen3")
    lm = {"name": "qwen3-0.6b", "weights": str(tmp_path / "lm"), "lora_rank": 2}
    method = SimGR(config(language_model=lm, prompt=" ".join(WORDS[:3]))).fit(protocol_of(world, 5))
    assert len(method.model.prompt()) == 3 and not method.model.prompt.rows.requires_grad
    trained = {name for name, p in method.model.named_parameters() if p.requires_grad}
    assert "embedding.weight" in trained and all("lora" in name for name in trained - {"embedding.weight"})
    method.save(tmp_path / "model")
    again = SimGR(method.config).load(tmp_path / "model", world.train)
    cases, budget = world.test.cases, Budget(beam_size=20, list_length=20)
    assert_same(again.recommend(cases, 5, budget=budget), method.recommend(cases, 5, budget=budget))
    assert (tmp_path / "model").stat().st_size < sum(p.numel() * 4 for p in method.model.parameters())


def protocol_of(world: Any, max_history: int) -> TrainingView:
    return replace(world.train, max_history=max_history)


# Refusals


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"language_model": {"name": "t5-small"}}, "decoder-only model and t5-small has an encoder"),
        ({"aggregator": "sum"}, "unknown aggregator 'sum'; use mean, concat"),
        ({"temperature": 0.0}, "temperature of 0.0 is not above 0"),
        ({"language_model": {"name": "gtp2"}}, "did you mean|gpt2"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(world: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimGR(config(**overrides)).fit(world.train)


def test_a_history_beyond_the_language_model_is_refused_before_training(world: Any, tmp_path: Path) -> None:
    save_causal(tmp_path, "gpt2")
    lm = {"name": "gpt2", "weights": str(tmp_path)}
    with pytest.raises(ValueError, match="a sequence of 44 vectors is beyond the language model's limit of 40"):
        SimGR(config(language_model=lm, prompt=" ".join(WORDS[:8]))).fit(protocol_of(world, 9))


def test_data_without_any_text_are_skipped_with_the_reason(world: Any) -> None:
    silent = replace(world.train, item_text=("",) * (N + 1))
    assert SimGR.unsuited(silent) == "no item has any text to make semantic IDs from"
    assert SimGR.unsuited(world.train) is None


def test_a_run_without_stops_is_repeated_by_its_seed(world: Any) -> None:
    cases, budget = world.test.cases, Budget(beam_size=20, list_length=20)
    first, again, other = (
        SimGR(config(), run=Run(seed=seed)).fit(world.train).recommend(cases, 5, budget=budget) for seed in (0, 0, 1)
    )
    assert_same(first, again)
    assert not np.array_equal(first.scores, other.scores)
