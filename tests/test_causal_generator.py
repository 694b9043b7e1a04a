"""Generators on named backbones: decoding by steps is teacher forcing, beams are brute force, rooms run end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import methods
import protocols
from benchmark.evaluate import check, mean_metric
from benchmark.method import Method, build_config, config_dict, replace_nested
from benchmark.run import Run
from benchmark.types import Budget, Cases, Split
from methods.blocks import backbones, causal_generator
from methods.blocks.backbones import LanguageModel
from methods.blocks.beam_search import Step, beam_search, rank_by_beam
from methods.blocks.causal_generator import CausalNetwork, generator_network
from methods.blocks.causal_lm import Causal, Prefix
from methods.blocks.exact import item_scores, rank_exact, score_trie
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5
from tests import toys
from tests.beam_world import every_score, make_cases, random_ids

BUDGET = Budget(beam_size=20, list_length=20)
TINY = LanguageModel(name="tiny")
SMALL_GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
LEVELS = (4, 5, 3)


@pytest.fixture(params=["tiny", "tiny-gpt2"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CausalNetwork:
    """A network over the ids of ``ids``: rotary positions, and learned ones."""
    sizes = {**backbones.SIZES, "tiny-gpt2": backbones.Size(kind="causal", architecture=SMALL_GPT2)}
    monkeypatch.setattr(backbones, "SIZES", sizes)
    return strange(LanguageModel(name=request.param))


def ids() -> SemanticIds:
    return random_ids(30, LEVELS)


def strange(settings: LanguageModel = TINY) -> CausalNetwork:
    """In eval mode, with weights so large that everything that is seen matters."""
    torch.manual_seed(3)
    network = generator_network(settings, ids().vocab_size, length=8 * len(LEVELS) + len(LEVELS))
    assert isinstance(network, CausalNetwork)
    for parameter in network.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.3)
    return network.eval()


def embedded(network: CausalNetwork, cases: Cases) -> tuple[Tensor, Tensor]:
    """Memory (B, S, D) of right-padded histories, and its mask (B, S)."""
    tokens = ids().tokens(torch.from_numpy(cases.histories.padded().astype(np.int64))).flatten(1)
    return network.encode(tokens), tokens != PAD_TOKEN


def by_network(network: CausalNetwork) -> Callable[[Cases], Step]:
    return lambda cases: network.decoding(*embedded(network, cases))


# Steps, teacher forcing and what may be seen


@torch.inference_mode()
def test_steps_of_beams_that_cross_give_the_logits_of_teacher_forcing(network: CausalNetwork) -> None:
    """Beams change places, die and branch: every beam's logits are those of its own codes alone."""
    cases, random = make_cases(3, 30), torch.Generator().manual_seed(0)
    memory, mask = embedded(network, cases)
    assert not mask.all()
    step = network.decoding(memory, mask)
    prefixes = torch.full((3, 1, 1), PAD_TOKEN)
    tokens, parents = prefixes[..., 0], None
    for width in (4, 6, 2):
        logits = step(tokens, parents)  # (3, W, V)
        for user in range(3):
            filled = int(mask[user].sum())
            alone = memory[[user], :filled].expand(len(prefixes[user]), -1, -1)
            expected = network.decode(prefixes[user], alone)[:, -1]
            torch.testing.assert_close(logits[user], expected, rtol=1e-5, atol=1e-5)
        parents = torch.randint(tokens.shape[1], (3, width), generator=random)
        tokens = torch.randint(2, ids().vocab_size, (3, width), generator=random)
        of_parents = prefixes.gather(1, parents[..., None].expand(-1, -1, prefixes.shape[2]))
        prefixes = torch.cat([of_parents, tokens[..., None]], 2)


@torch.inference_mode()
def test_places_that_the_mask_leaves_out_do_not_count(network: CausalNetwork) -> None:
    memory, mask = embedded(network, make_cases(5, 30))
    tokens = torch.tensor([[PAD_TOKEN, 3, 7]]).expand(5, -1)
    together = network.decode(tokens, memory, mask)
    for user in range(5):
        alone = network.decode(tokens[:1], memory[[user], : int(mask[user].sum())])
        torch.testing.assert_close(together[[user]], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.decode(tokens, memory.masked_fill(~mask[..., None], 9.0), mask), together)


@torch.inference_mode()
def test_a_code_is_told_by_what_stands_before_it_and_by_the_order_of_the_history(network: CausalNetwork) -> None:
    memory, _ = embedded(network, make_cases(1, 30, seed=1))
    logits = network.decode(torch.tensor([[PAD_TOKEN, 3, 7]]), memory)
    later = network.decode(torch.tensor([[PAD_TOKEN, 3, 8]]), memory)
    torch.testing.assert_close(logits[:, :2], later[:, :2])
    assert (logits[:, 2] - later[:, 2]).abs().max() > 0.1
    assert (logits - network.decode(torch.tensor([[PAD_TOKEN, 3, 7]]), memory.flip(1))).abs().max() > 0.1
    with torch.no_grad():
        network.prompt.rows.mul_(-3)
    assert (logits - network.decode(torch.tensor([[PAD_TOKEN, 3, 7]]), memory)).abs().max() > 0.1


# Search


@pytest.mark.parametrize("rule", ["raw", "renorm"])
def test_a_beam_as_wide_as_the_catalogue_and_exact_scoring_are_brute_force(network: CausalNetwork, rule: str) -> None:
    cases, known = make_cases(4, 30), ids()
    items = np.arange(1, 31)
    expected = every_score(network, known, cases, items, rule)  # type: ignore[arg-type]
    trie = known.trie()
    with torch.inference_mode():
        exact = item_scores(score_trie(by_network(network)(cases), known, trie, 4, rule), trie, 30)[:, 1:]
        found = beam_search(by_network(network)(cases), known, trie, 4, trie.n_leaves, rule)
    np.testing.assert_allclose(exact.numpy(), expected, rtol=1e-4, atol=1e-4)
    by_leaf = torch.zeros(4, trie.n_leaves).scatter_(1, found.leaves, found.scores)
    np.testing.assert_allclose(by_leaf[:, trie.leaf_of_item(30)[1:]].numpy(), expected, rtol=1e-4, atol=1e-4)
    whole = rank_exact(by_network(network), known, cases, 30, run=Run(seed=0), rule=rule)
    np.testing.assert_array_equal(np.sort(whole.items, 1), np.tile(items, (4, 1)))


def test_a_narrow_beam_keeps_the_best_prefixes() -> None:
    """Written with plain lists: at every level the three best of all continuations that lead to an item."""
    network, known, cases = strange(), ids(), make_cases(4, 30)
    ranking = rank_by_beam(
        by_network(network), known, cases, 3, run=Run(seed=0), budget=Budget(beam_size=3, list_length=3)
    )
    for row, history in enumerate(cases.histories):
        memory = network.encode(known.tokens(torch.from_numpy(history.astype(np.int64))).view(1, -1))
        beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for depth in range(len(LEVELS)):
            grown = []
            for score, codes in beams:
                tokens = torch.tensor([[PAD_TOKEN, *(known.level(i).start + code for i, code in enumerate(codes))]])
                with torch.no_grad():
                    log_p = network.decode(tokens, memory)[0, -1].log_softmax(-1)
                nexts = {int(c[depth]) for c in known.codes[1:] if tuple(c[:depth]) == codes}
                grown += [(score + log_p[known.level(depth).start + c].item(), (*codes, c)) for c in nexts]
            beams = sorted(grown, reverse=True)[:3]
        assert [tuple(known.codes[item]) for item in ranking.items[row]] == [codes for _, codes in beams]
        np.testing.assert_allclose(ranking.scores[row], [score for score, _ in beams], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_step_taken_in_parts_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    network, known, cases = strange(), ids(), make_cases(2, 30)
    trie = known.trie()
    whole = score_trie(by_network(network)(cases), known, trie, 2)
    parts: list[int] = []
    plain = Causal.extend

    def watched(self: Causal, prefix: Prefix, x: Tensor, *rest: Tensor) -> Tensor:
        parts.append(x.shape[1])
        return plain(self, prefix, x, *rest)

    monkeypatch.setattr(Causal, "extend", watched)
    monkeypatch.setattr(causal_generator, "BEAMS_AT_ONCE", 3)
    split = score_trie(by_network(network)(cases), known, trie, 2)
    assert sum(parts) == sum(trie.nodes_at[:-1]) and max(parts) == 3
    for one, other in zip(whole.prefixes, split.prefixes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# Training


def test_codes_are_rows_of_their_own_and_start_apart() -> None:
    network = generator_network(TINY, 50, length=20)
    rows = network.embedding.weight.detach()
    assert rows.shape == (50, 32) and rows.std() == pytest.approx(0.02, rel=0.1)
    tokens = torch.tensor([[PAD_TOKEN, 5, 9]])
    network.decode(tokens, network.encode(torch.tensor([[3, 4]]))).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without and network.embedding.weight.grad is not None


def test_only_adapters_prompt_and_codes_learn_under_lora(tmp_path: Path) -> None:
    settings = LanguageModel(name="tiny", tuning="lora", lora_rank=2)
    network = generator_network(settings, 50, length=20)
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {name for name in learned if "lora" not in name} == {"embedding.weight", "prompt.rows"}
    assert len(learned) > 10 and any(not p.requires_grad for p in network.parameters())


# Rooms


@cache
def ring() -> Split:
    """Users who walk over twelve items that stand in a ring."""
    random = np.random.default_rng(0)
    histories = [(random.integers(12) + np.arange(random.integers(4, 10))) % 12 + 1 for _ in range(80)]
    text = ["", *(f"wagon number {i}" for i in range(1, 13))]
    return protocols.load("loo").split(toys.dataset("ring", histories, text))


QUICK: dict[str, Any] = {
    "tokenizer": {"codes": 16, "training": {"epochs": 4, "batch_size": 8}},
    "training": {"epochs": 2, "batch_size": 64, "warmup_steps": 0},
}


def build(spec: str, size: str, **overrides: Any) -> Method:
    entrant = methods.load(spec)
    config = replace_nested(build_config(entrant.cls, entrant.preset, "smoke"), QUICK)
    config = replace_nested(config, {"language_model": {"name": size}, **overrides})
    return entrant.cls(config, argument=entrant.argument, run=Run(seed=0))


def test_the_order_of_a_ring_is_learned() -> None:
    long = {"epochs": 15, "patience": 15, "batch_size": 16, "learning_rate": 5e-3, "warmup_steps": 10}
    method = build("tiger", "tiny", training=long, embedding_rate=1.0).fit(ring().train)
    ranking = method.recommend(ring().test.cases, 10, budget=BUDGET)
    check(ranking, ring().test.cases, 12, 10, BUDGET)
    assert mean_metric(ranking, ring().test.targets, "ndcg@10") > 0.85
    assert ranking.spend.forward_passes == 4


@pytest.mark.parametrize(
    ("spec", "size", "more"),
    [
        ("tiger", "tiny", {"language_model": {"name": "tiny", "tuning": "lora"}, "user_tokens": 7}),
        ("letter", "tiny", {"tokenizer": {"width": 16}, "clusters": {"count": 4, "smallest": 2, "largest": 8}}),
        ("tiger", "tiny-t5", {"user_tokens": 7}),
    ],
)
def test_a_saved_model_on_a_named_size_answers_as_the_fitted_one(
    spec: str, size: str, more: dict[str, Any], tmp_path: Path
) -> None:
    method = build(spec, size, **more).fit(ring().train)
    assert isinstance(method.model, T5 if size == "tiny-t5" else CausalNetwork)  # type: ignore[attr-defined]
    cases = ring().test.cases
    before = method.recommend(cases, 10)
    method.save(tmp_path / "model.ckpt")
    again = build(spec, size, **more).load(tmp_path / "model.ckpt", ring().train)
    np.testing.assert_array_equal(again.recommend(cases, 10).items, before.items)
    np.testing.assert_array_equal(again.recommend(cases, 10).scores, before.scores)
    assert again.parameters() == method.parameters() > 0


def test_an_empty_history_is_answered_alone_and_in_company() -> None:
    method = build("tiger", "tiny").fit(ring().train)
    odd = toys.cases([[], [4, 5]], ring().test.cases.tie_order)
    ranking = method.recommend(odd, 5, budget=BUDGET)
    alone = method.recommend(odd.take(np.array([0])), 5, budget=BUDGET)
    assert np.isfinite(ranking.scores).all()
    np.testing.assert_allclose(alone.scores[0], ranking.scores[0], rtol=1e-5, atol=1e-5)


def test_genplugin_stands_around_a_t5_and_refuses_a_model_without_encoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"GenPlugin aligns .* and tiny has none; set language_model.name to a T5"):
        build("genplugin:tiger", "tiny").fit(ring().train)
    method = build("genplugin:tiger", "tiny-t5").fit(ring().train)
    cases = ring().test.cases
    before = method.recommend(cases, 10)
    method.save(tmp_path / "model.ckpt")
    again = build("genplugin:tiger", "tiny-t5").load(tmp_path / "model.ckpt", ring().train)
    np.testing.assert_array_equal(again.recommend(cases, 10).items, before.items)


# Settings


@pytest.mark.parametrize("spec", ["tiger", "letter", "genplugin:tiger"])
def test_settings_from_before_named_sizes_keep_their_identity(spec: str) -> None:
    config = build_config(methods.load(spec).cls, None, "small")
    assert "language_model" not in config_dict(config)
    assert config_dict(replace(config, language_model=TINY))["language_model"]["name"] == "tiny"


@pytest.mark.parametrize("spec", ["tiger", "letter"])
def test_every_named_size_is_a_preset_and_told(spec: str) -> None:
    room = methods.load(spec).cls
    for name in set(backbones.SIZES) - {"tiny", "tiny-t5"}:
        assert build_config(room, name, "full").language_model == LanguageModel(name=name)
        assert f"``@{name}``" in __import__(room.__module__, fromlist=["METHOD"]).__doc__


def test_estimates_count_the_weights_that_every_token_meets() -> None:
    """By the models themselves, of which only matrices are multiplied with every token."""
    for name in ("tiny", "tiny-t5", "scratch-s"):
        backbone = backbones.build(LanguageModel(name=name), max_length=8)
        layers = backbone.encoder if hasattr(backbone, "encoder") else backbone
        linear = sum(m.weight.numel() for m in layers.modules() if isinstance(m, nn.Linear))
        assert backbones.weights_per_token(name) == linear
