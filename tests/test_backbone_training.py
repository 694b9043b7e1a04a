"""How a backbone is trained: LoRA beside a frozen base, precision, dropout, layers computed twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.blocks.causal_lm import Causal
from tests.backbone_world import KINDS, assert_near, loaded, save_causal, scratch, vectors

BY_KIND = pytest.mark.parametrize("kind", KINDS)

LINEAR = {"qwen3": 7, "qwen2": 7, "gpt2": 4}
"""Linear layers of a transformer's layer: queries, keys, values and so on, which GPT-2 has in one."""


@BY_KIND
def test_lora_starts_as_the_base_and_trains_adapters_beside_every_linear_layer(kind, tmp_path):
    save_causal(tmp_path, kind)
    base, lm = loaded(tmp_path), loaded(tmp_path, tuning="lora", lora_rank=3)
    x = vectors(2, 5, 16)
    assert_near(lm(x), base(x))
    trained = {name: p for name, p in lm.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * LINEAR[kind]  # A and B, two layers
    assert all("lora_" in name and 3 in p.shape for name, p in trained.items())
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    step(lm.train(), x)
    moved = {name for name, p in lm.named_parameters() if not torch.equal(p, before[name])}
    assert moved and moved <= trained.keys()


def loss(lm: Causal, x: Tensor) -> Tensor:
    return (lm(x) * torch.linspace(-1, 1, lm.width)).sum()


def step(lm: Causal, x: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in lm.parameters() if p.requires_grad], lr=0.1)
    loss(lm, x).backward()
    optimizer.step()


def test_lora_scales_by_alpha_over_rank(tmp_path):
    save_causal(tmp_path)
    settings = {"tuning": "lora", "lora_targets": ("down_proj",), "lora_rank": 2, "lora_alpha": 6}
    lm, base = loaded(tmp_path, **settings), loaded(tmp_path)
    for layer, plain in zip(lm.model.layers, base.model.layers, strict=True):
        adapter = layer.mlp.down_proj
        nn.init.normal_(adapter.lora_B["default"].weight)
        change = adapter.lora_B["default"].weight @ adapter.lora_A["default"].weight
        plain.mlp.down_proj.weight.data += 6 / 2 * change
    assert sum(p.requires_grad for p in lm.parameters()) == 2 * 2
    assert_near(lm(vectors(2, 5, 16)), base(vectors(2, 5, 16)))


def test_lora_on_a_layer_that_is_not_there_is_refused(tmp_path):
    save_causal(tmp_path)
    said = r"lora_targets names 'c_attn', which is no linear layer of the model; it has \['down_proj', 'gate_proj'"
    with pytest.raises(ValueError, match=said):
        loaded(tmp_path, tuning="lora", lora_targets=("q_proj", "c_attn"))


@BY_KIND
def test_a_half_precision_base_stays_so_under_lora_and_is_fp32_in_full_training(kind, tmp_path):
    theirs = save_causal(tmp_path, kind)
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    full, lora = loaded(tmp_path), loaded(tmp_path, tuning="lora")
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    assert {p.dtype for p in lora.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in lora.parameters() if not p.requires_grad} == {torch.bfloat16}
    x = vectors(2, 6, 16)
    found, expected = lora(x), full(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)  # bf16 keeps three digits
    step(lora.train(), x)
    prefix = lora.eval().prefix(x)
    assert lora.extend(prefix, x[:, :1], torch.full((2, 1), 6), torch.ones(2, 1, 7).bool()).dtype == torch.float32


def test_dropout_acts_in_training_only_and_on_what_every_layer_adds():
    lm, plain = scratch(dropout=0.5), scratch(dropout=0.0)
    x = vectors(4, 10, 32)
    assert torch.equal(lm(x), plain(x))
    zeros: list[float] = []
    for layer in lm.model.layers:
        for added in (layer.self_attn.o_proj, layer.mlp.down_proj):
            added.register_forward_hook(lambda _layer, _x, y: zeros.append((y == 0).float().mean().item()))
    torch.manual_seed(0)
    lm.train()(x)
    assert len(zeros) == 4 and all(0.4 < share < 0.6 for share in zeros)
    torch.manual_seed(0)
    only_input = scratch(dropout=0.0)
    only_input.dropout = 0.5
    assert not torch.allclose(only_input.train()(x), plain.train()(x))


def test_pretrained_models_keep_their_own_dropout(tmp_path):
    save_causal(tmp_path, "qwen3")
    lm = loaded(tmp_path, dropout=0.5).train()
    x = vectors(2, 5, 16)
    assert torch.equal(lm(x), lm(x))


def test_checkpointing_computes_the_layers_twice_with_the_same_gradients(tmp_path):
    save_causal(tmp_path)
    gradients, calls = [], []
    for checkpointing in (False, True):
        lm = loaded(tmp_path, checkpointing=checkpointing).train()
        count = [0]

        def counted(*_: object, count: list[int] = count) -> None:
            count[0] += 1

        for layer in lm.model.layers:
            layer.mlp.register_forward_pre_hook(counted)
        loss(lm, vectors(2, 5, 16)).backward()
        gradients.append([p.grad for p in lm.parameters()])
        calls.append(count[0])
    assert calls == [2, 4]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_checkpointing_reaches_frozen_layers_through_the_vectors(tmp_path):
    save_causal(tmp_path)
    lm = loaded(tmp_path, tuning="lora", checkpointing=True).train()
    loss(lm, vectors(2, 5, 16)).backward()  # vectors without a gradient of their own
    assert all(p.grad is not None for p in lm.parameters() if p.requires_grad)


def test_double_precision_stays_double():
    lm = scratch().double()
    assert lm(vectors(1, 4, 32).double()).dtype == torch.float64


def test_autocast_of_the_caller_is_kept_and_states_are_fp32():
    lm = scratch()
    kinds = []
    lm.model.layers[0].mlp.up_proj.register_forward_hook(lambda _layer, _x, y: kinds.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = lm(vectors(1, 4, 32))
    assert kinds == [torch.bfloat16] and found.dtype == torch.float32
