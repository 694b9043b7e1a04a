"""Our T5 is transformers' T5: values, gradients, buckets and masks; cached decoding is teacher forcing step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.blocks import t5
from methods.blocks.t5 import T5, Decoding, Shape, Stack, attend
from methods.blocks.t5_weights import from_transformers, load_pretrained
from tests.reference_t5 import transformers_t5

transformers = pytest.importorskip("transformers", reason="needs transformers, the reference")

VOCAB = 29
SHAPE = Shape(width=24, heads=3, head_width=5, feed=40, encoder_layers=2, decoder_layers=3, dropout=0.0)
GATED = replace(SHAPE, feed_kind="gated-gelu", tied=False, encoder_layers=3, decoder_layers=1)
KINDS = pytest.mark.parametrize("shape", [SHAPE, GATED], ids=["t5", "t5-1.1"])


def their_model(shape: Shape, seed: int = 0, **settings: object) -> transformers.T5ForConditionalGeneration:
    """transformers' T5 with every weight drawn anew: its own start leaves the norms alike and the biases small."""
    torch.manual_seed(seed)
    model = transformers_t5(VOCAB, shape, **settings)
    if not shape.tied:  # transformers ties the tables whatever the config says, until a checkpoint holds two
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, shape.width) * shape.width**-0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
            if "relative_attention_bias" in name:
                parameter.normal_()
    return model


def our_model(shape: Shape, seed: int = 0) -> T5:
    model = T5(VOCAB, shape)
    model.load_state_dict(from_transformers(their_model(shape, seed).state_dict(), shape))
    return model.eval()


def padded_batch(length: int, side: str) -> tuple[Tensor, Tensor]:
    """Tokens (3, S) and mask (3, S); every token is a real one, so only the mask can tell what is padding."""
    tokens = torch.randint(1, VOCAB, (3, length), generator=torch.Generator().manual_seed(length))
    places, lengths = torch.arange(length), torch.tensor([length, max(1, length // 3), max(1, length - 2)])[:, None]
    masks = {"none": places >= 0 * lengths, "right": places < lengths, "left": places >= length - lengths}
    return tokens, masks[side]


def random_tokens(*size: int, seed: int = 1) -> Tensor:
    return torch.randint(1, VOCAB, size, generator=torch.Generator().manual_seed(seed))


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-5, said: str = "") -> None:
    """Within the tolerance of the largest expected value (of 1, where all are smaller)."""
    assert found.shape == expected.shape, said
    assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item()), said


# --- transformers ----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize(("source", "target"), [(9, 1), (7, 2), (1, 3), (8, 4), (5, 5), (12, 6), (170, 4), (5, 150)])
def test_values_and_gradients_equal_transformers(shape, side, source, target):
    theirs, ours = their_model(shape), our_model(shape)
    tokens, mask = padded_batch(source, side)
    decoded = F.pad(random_tokens(3, target - 1), (1, 0))  # start token first
    expected = theirs(input_ids=tokens, attention_mask=mask.long(), decoder_input_ids=decoded).logits
    found = ours.decode(decoded, ours.encode(tokens, mask), mask)
    assert_near(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    gradients = from_transformers({name: p.grad for name, p in theirs.named_parameters()}, shape)
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert_near(parameter.grad, gradients[name], said=name)
        assert parameter.grad.any() or 1 in (source, target), f"no gradient for {name}"
    with torch.inference_mode():  # another attention kernel
        assert_near(ours.decode(decoded, ours.encode(tokens, mask), mask), expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (32, 40)])
def test_buckets_equal_transformers(causal, buckets, max_distance):
    stack = Stack(replace(SHAPE, buckets=buckets, max_distance=max_distance), 1, causal)
    with torch.no_grad():
        stack.bias_table.weight[:] = torch.arange(buckets)[:, None]  # a bias that is the bucket's number
    distances = torch.arange(-200, 201)
    found = stack.position_bias(torch.zeros(1, dtype=torch.long), distances)  # (1, H, 1, 401)
    reference = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    expected = reference(distances, bidirectional=not causal, num_buckets=buckets, max_distance=max_distance)
    assert torch.equal(found[0, 0, 0].long(), expected)
    assert len(expected.unique()) >= buckets - (not causal)  # 0 ahead is 0 back: its second bucket stays empty


def test_dropout_stands_where_transformers_has_it(monkeypatch):
    shape = replace(SHAPE, dropout=0.25)
    calls: dict[str, Counter[tuple[int, ...]]] = {"ours": Counter(), "theirs": Counter()}

    def recorded(side: str, x: Tensor, p: float, training: bool) -> Tensor:
        if training:
            assert p == 0.25
            calls[side][tuple(x.shape)] += 1
        return x

    monkeypatch.setattr(t5, "dropout", partial(recorded, "ours"))
    monkeypatch.setattr(F, "dropout", lambda x, p, training, inplace=False: recorded("theirs", x, p, training))
    tokens, decoded = random_tokens(2, 7), random_tokens(2, 4)
    ours, theirs = our_model(shape).train(), their_model(shape, attn_implementation="eager").train()
    ours.decode(decoded, ours.encode(tokens))
    theirs(input_ids=tokens, decoder_input_ids=decoded)
    assert calls["ours"] == calls["theirs"]
    assert calls["ours"][(2, 3, 4, 7)] == SHAPE.decoder_layers  # the cross-attention weights of every layer


def test_dropout_acts_in_training_only():
    model = our_model(replace(SHAPE, dropout=0.3))
    tokens, decoded = random_tokens(2, 7), random_tokens(2, 4)

    def ask() -> Tensor:
        return model.decode(decoded, model.encode(tokens))

    calm = ask()
    assert torch.equal(calm, ask())
    assert_near(calm, our_model(SHAPE).decode(decoded, our_model(SHAPE).encode(tokens)))
    model.train()
    assert not torch.allclose(ask(), ask(), atol=1e-3)
    model.eval()
    assert torch.equal(calm, ask())


# --- masks and position bias -----------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_batch_gives_what_each_row_gives_alone(shape, side):
    model = our_model(shape)
    tokens, mask = padded_batch(9, side)
    decoded = random_tokens(3, 4)
    together = model.decode(decoded, model.encode(tokens, mask), mask)
    for row in range(3):
        alone = model.decode(decoded[row : row + 1], model.encode(tokens[row : row + 1, mask[row]]))
        assert_near(together[row : row + 1], alone)


def test_a_row_that_may_attend_to_nothing_stays_finite():
    model = our_model(SHAPE)
    tokens, mask = padded_batch(6, "right")
    mask[1] = False
    for grad in (True, False):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=not grad):
            assert model.decode(random_tokens(3, 4), model.encode(tokens, mask), mask).isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_two_rows_packed_into_one_by_masks_per_query(grad):
    """A (B, Q, S) mask keeps the packed rows apart, a position bias lets the second start again at 0."""
    model = our_model(SHAPE)
    rows, targets = [random_tokens(1, 5, seed=3), random_tokens(1, 7, seed=4)], [random_tokens(1, n) for n in (2, 4)]
    source, target = (torch.cat([torch.full((n,), row) for row, n in enumerate(sizes)]) for sizes in [(5, 7), (2, 4)])
    apart, across = source[:, None] == source, target[:, None] == source  # (Q, S)
    places, steps = (torch.cat([torch.arange(n) for n in sizes]) for sizes in [(5, 7), (2, 4)])
    with torch.set_grad_enabled(grad):
        bias = model.encoder.position_bias(places, places)
        memory = model.encoder(model.embedding(torch.cat(rows, 1)), mask=apart[None], position_bias=bias)
        states = model.decoder(
            model.embedding(torch.cat(targets, 1)),
            mask=(target[:, None] == target)[None],
            position_bias=model.decoder.position_bias(steps, steps),
            memory=memory,
            memory_mask=across[None],
        )
        expected = [model.decode(decoded, model.encode(row)) for row, decoded in zip(rows, targets, strict=True)]
        assert_near(model.logits(states), torch.cat(expected, 1))
        assert_near(memory, torch.cat([model.encode(row) for row in rows], 1))


def test_key_masks_are_query_masks_that_do_not_depend_on_the_query():
    model = our_model(SHAPE)
    tokens, mask = padded_batch(6, "right")
    x, y = model.embedding(tokens), model.embedding(random_tokens(3, 4))
    assert torch.equal(model.encoder(x, mask=mask), model.encoder(x, mask=mask[:, None].expand(3, 6, 6)))
    memory, own = model.encode(tokens, mask), padded_batch(4, "right")[1]
    expected = model.decoder(y, mask=own, memory=memory, memory_mask=mask)
    found = model.decoder(
        y, mask=own[:, None].expand(3, 4, 4), memory=memory, memory_mask=mask[:, None].expand(3, 4, 6)
    )
    assert torch.equal(found, expected)


def test_the_decoder_never_looks_ahead_whatever_the_mask():
    model = our_model(SHAPE)
    memory, tokens = model.encode(random_tokens(2, 5)), random_tokens(2, 6)
    changed = tokens.clone()
    changed[:, 4] = changed[:, 4] % (VOCAB - 1) + 1
    for mask in (None, torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 6, 6, dtype=torch.bool)):
        one, other = (model.decoder(model.embedding(x), mask=mask, memory=memory) for x in (tokens, changed))
        assert torch.equal(one[:, :4], other[:, :4])
        assert not torch.allclose(one[:, 4:], other[:, 4:], atol=1e-3)


def test_a_bias_from_shared_positions_makes_an_item_a_set():
    model = our_model(SHAPE)
    tokens = random_tokens(2, 12)  # 3 items of 4 tokens
    order = torch.arange(12)
    order[4:8] = torch.tensor([6, 4, 7, 5])
    items = torch.arange(3).repeat_interleave(4)
    bias = model.encoder.position_bias(items, items)  # (1, H, 12, 12)
    plain, moved = (model.encoder(model.embedding(x), position_bias=bias) for x in (tokens, tokens[:, order]))
    assert_near(moved, plain[:, order])
    assert not torch.allclose(model.encode(tokens[:, order]), model.encode(tokens)[:, order], atol=1e-2)
    plain.square().sum().backward()
    used = model.encoder.bias_table.weight.grad.any(1).nonzero().flatten().tolist()
    assert used == [0, 1, 2, 17, 18]  # distances -2..2: 0, 1, 2 back, and 1, 2 ahead in the second half of 32


def test_a_given_bias_replaces_the_own_one_row_by_row():
    model = our_model(SHAPE)
    tokens = random_tokens(2, 6)
    bias = torch.randn(2, SHAPE.heads, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    both = model.encoder(model.embedding(tokens), position_bias=bias)
    for row in range(2):
        alone = model.encoder(model.embedding(tokens[row : row + 1]), position_bias=bias[row : row + 1])
        assert_near(both[row : row + 1], alone)
    both[1].square().sum().backward()
    assert model.encoder.bias_table.weight.grad is None
    assert not bias.grad[0].any()
    assert bias.grad[1].flatten(1).any(1).all()  # every head


@pytest.mark.parametrize("kind", ["none", "keys", "positions"])
def test_the_two_ways_to_attend_agree(kind):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 5, generator=generator, requires_grad=True) for n in (4, 7, 7))
    biases = {
        "none": None,
        "keys": torch.where(torch.arange(7) < torch.tensor([7, 3])[:, None], 0.0, -3e38)[:, None, None],
        "positions": torch.randn(1, 3, 4, 7, generator=generator),
    }
    plain = attend(query, key, value, biases[kind], 0.0)
    with torch.no_grad():
        assert_near(attend(query, key, value, biases[kind], 0.0), plain)
    kernel = F.scaled_dot_product_attention(query, key, value, biases[kind], scale=1.0)
    for ours, theirs in zip(
        torch.autograd.grad(plain.square().sum(), (query, key, value)),
        torch.autograd.grad(kernel.square().sum(), (query, key, value)),
        strict=True,
    ):
        assert_near(ours, theirs)


# --- decoding step by step -------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_decoding_in_steps_equals_teacher_forcing(shape, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    model = our_model(shape, seed)
    tokens, mask = padded_batch(8, "right") if masked else (padded_batch(8, "none")[0], None)
    memory = model.encode(tokens, mask)
    decoding = Decoding(model, memory, mask)
    prefixes = torch.zeros(3, 1, 0, dtype=torch.long)  # (B, W, t)
    parents = None
    for beams in (1, 5, 3, 3, 7):
        if parents is not None:
            parents = torch.randint(0, prefixes.shape[1], (3, beams), generator=generator)
            prefixes = prefixes.gather(1, parents[..., None].expand(-1, -1, prefixes.shape[2]))
        new = torch.randint(0, VOCAB, (3, beams), generator=generator)
        prefixes = torch.cat([prefixes, new[..., None]], 2)
        found = decoding.step(new, parents)
        memory_mask = None if mask is None else mask.repeat_interleave(beams, 0)
        expected = model.decode(prefixes.flatten(0, 1), memory.repeat_interleave(beams, 0), memory_mask)
        assert_near(found, expected[:, -1].unflatten(0, (3, beams)))
        parents = torch.empty(0)


# --- weights of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["shared.weight", "decoder.block.2.layer.1.EncDecAttention.v.weight", "encoder.block.1.layer.1.layer_norm.weight"],
)
def test_missing_weights_are_named(name):
    state = dict(their_model(SHAPE).state_dict())
    del state[name]
    with pytest.raises(ValueError, match=f"the weights hold no '{name}'; they are not those of a T5 of these sizes"):
        from_transformers(state, SHAPE)


def test_weights_of_another_kind_are_missing():
    with pytest.raises(ValueError, match=r"DenseReluDense\.wi_0\.weight"):
        from_transformers(their_model(SHAPE).state_dict(), replace(SHAPE, feed_kind="gated-gelu"))


@KINDS
def test_a_saved_model_is_loaded_with_its_sizes(shape, tmp_path):
    shape = replace(shape, dropout=0.2, buckets=16, max_distance=50)
    theirs = their_model(shape, relative_attention_num_buckets=16, relative_attention_max_distance=50).eval()
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)  # loads as fp32 all the same
    ours = load_pretrained(str(tmp_path)).eval()
    assert ours.shape == shape
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    tokens, decoded = random_tokens(2, 70), random_tokens(2, 4)
    expected = theirs.float()(input_ids=tokens, decoder_input_ids=decoded).logits
    assert_near(ours.decode(decoded, ours.encode(tokens)), expected)


def unusable(folder: Path, what: str) -> None:
    """Save to ``folder`` what ``load_pretrained`` must refuse."""
    if what == "other architecture":
        transformers.BertConfig().save_pretrained(folder)
    elif what == "encoder only":
        transformers.T5EncoderModel(their_model(SHAPE).config).save_pretrained(folder)
    elif what == "second table":
        model = their_model(SHAPE)
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, SHAPE.width))
        model.save_pretrained(folder)
    elif what == "no weights":
        their_model(SHAPE).config.save_pretrained(folder)
    elif what == "other activation":
        their_model(replace(SHAPE, feed_kind="gated-silu")).save_pretrained(folder)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("empty folder", "config.json"),
        ("no weights", "model.safetensors"),
        ("other architecture", "it is a 'bert'"),
        ("other activation", "unknown feed_kind 'gated-silu'"),
        ("encoder only", r"of its weights are missing, decoder\."),
        ("second table", "has a second table"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(what, said, tmp_path):
    unusable(tmp_path, what)
    with pytest.raises(ValueError, match=said) as caught:
        load_pretrained(str(tmp_path))
    sentence = str(caught.value)
    assert sentence.startswith(f"no T5 can be loaded from '{tmp_path}' (")
    assert sentence.endswith("or the folder of a T5ForConditionalGeneration saved with save_pretrained")
    assert "\n" not in sentence


def test_an_unknown_kind_of_feed_forward_is_refused():
    with pytest.raises(ValueError, match="unknown feed_kind 'swish'; use relu or gated-gelu"):
        T5(VOCAB, replace(SHAPE, feed_kind="swish"))


def test_a_given_position_bias_reaches_every_door():
    """encode, decode and Decoding take the bias that a method brings, and answer alike."""
    torch.manual_seed(0)
    model = T5(40, Shape(width=16, heads=2, head_width=8, feed=32, encoder_layers=1, decoder_layers=2)).eval()
    tokens, targets = torch.randint(2, 40, (3, 6)), torch.randint(2, 40, (3, 4))
    own, bias = torch.randn(1, 2, 6, 6), torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        memory = model.encode(tokens, position_bias=own)
        assert not torch.allclose(memory, model.encode(tokens), atol=1e-3)
        whole = model.decode(targets, memory, position_bias=bias)  # (B, T, V)
        assert not torch.allclose(whole, model.decode(targets, memory), atol=1e-3)
        decoding, same = Decoding(model, memory, position_bias=bias), torch.zeros(3, 1, dtype=torch.long)
        steps = [decoding.step(targets[:, t : t + 1], same if t else None) for t in range(4)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)
    forbidden = torch.ones(3, 4, dtype=torch.bool)
    forbidden[:, 1] = False
    with torch.no_grad():
        masked = model.decode(targets, memory, mask=forbidden)
        assert torch.allclose(masked[:, 0], model.decode(targets, memory)[:, 0], atol=1e-6)
        assert not torch.allclose(masked[:, 2], model.decode(targets, memory)[:, 2], atol=1e-4)
