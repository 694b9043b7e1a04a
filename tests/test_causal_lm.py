"""Decoder-only transformers that read vectors, against transformers' own forward pass of token ids."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from methods.blocks.causal_lm import Prompt
from tests.backbone_world import KINDS, LIMIT, ROWS, assert_near, causal_model, loaded, save_causal, scratch, vectors

BY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def pair(kind, tmp_path):
    """Ours, loaded from a folder, and transformers' model that was saved there."""
    theirs = save_causal(tmp_path, kind)
    return loaded(tmp_path), theirs


def random_ids(*size: int) -> Tensor:
    return torch.randint(0, ROWS, size, generator=torch.Generator().manual_seed(1))


def triangle(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def reference(theirs, x: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
    """transformers' eager attention under an additive mask of pairs (1 or B, S, S)."""
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None]
    positions = torch.arange(x.shape[1]) if positions is None else positions
    positions = positions.expand(x.shape[:2])
    added = added.expand(len(x), -1, -1, -1)
    return theirs.base_model(inputs_embeds=x, attention_mask=added, position_ids=positions).last_hidden_state


@BY_KIND
def test_states_equal_those_of_token_ids(pair):
    ours, theirs = pair
    ids = random_ids(3, 9)
    expected = theirs.base_model(input_ids=ids).last_hidden_state
    assert ours.vocabulary is not None
    assert_near(ours(ours.vocabulary.table[ids]), expected)


@BY_KIND
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", [3, 7], ids=["3 rows", "as many rows as keys"])
def test_padding_is_not_seen(pair, side, rows):
    ours, theirs = pair
    ids = random_ids(rows, 7)
    count = torch.arange(7) < (torch.arange(rows) % 7 + 1)[:, None]
    shown = count.flip(1) if side == "left" else count
    expected = theirs.base_model(input_ids=ids, attention_mask=shown.long()).last_hidden_state
    x = theirs.get_input_embeddings()(ids)
    found = ours(x, mask=shown, positions=torch.arange(7))
    assert_near(found[shown], expected[shown])
    assert found.isfinite().all()


@BY_KIND
@pytest.mark.parametrize("rows", [1, 3])
def test_shared_positions_do_not_split_a_row(pair, rows):
    """transformers reads positions that do not rise by one as several sequences packed into a row."""
    ours, theirs = pair
    positions = torch.tensor([0, 1, 2, 2, 2, 3, 3, 3, 4])
    x = vectors(rows, 9, 16)
    expected = reference(theirs, x, triangle(9)[None], positions)
    assert_near(ours(x, positions=positions), expected)
    assert_near(ours(x, positions=positions.expand(rows, -1)), expected)
    assert (expected - theirs.base_model(inputs_embeds=x).last_hidden_state).abs().max() > 1e-2


@BY_KIND
@pytest.mark.parametrize("rows", [1, 8])
def test_a_mask_of_pairs_is_used_as_it_is(pair, rows):
    ours, theirs = pair
    mask = torch.rand(rows, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.5
    mask |= torch.eye(8, dtype=torch.bool)
    x = vectors(8, 8, 16)
    assert_near(ours(x, mask=mask), reference(theirs, x, mask))


def test_a_row_that_may_attend_to_nothing_stays_finite():
    lm = scratch()
    mask = triangle(5)[None].repeat(2, 1, 1)
    mask[0, 2] = False
    x = vectors(2, 5, 32).requires_grad_()
    found = lm(x, mask=mask)
    (found * torch.linspace(-1, 1, 32)).sum().backward()
    assert found.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    alone = mask.clone()
    alone[0, 2, 2] = True
    assert_near(found, lm(x, mask=alone))


@BY_KIND
def test_beams_of_a_user_in_one_row_equal_each_path_alone(kind, tmp_path):
    save_causal(tmp_path, kind)
    lm = loaded(tmp_path)
    history, shown = vectors(2, 6, 16), torch.tensor([[True] * 6, [True, True, False, True, True, False]])
    places = shown.cumsum(1) - 1
    first, second = vectors(2, 3, 16) + 1, vectors(2, 4, 16) - 1
    parents = torch.tensor([[0, 0, 2, 1], [2, 1, 1, 0]])
    prefix = lm.prefix(history, shown, positions=places)
    own = torch.eye(3, dtype=torch.bool).expand(2, -1, -1)
    seen = shown[:, None].expand(-1, 3, -1)
    start = shown.sum(1, keepdim=True)
    lm.extend(prefix, first, start.expand(-1, 3), torch.cat([seen, own], 2))
    ancestors = nn.functional.one_hot(parents, 3).bool()
    mask = torch.cat([shown[:, None].expand(-1, 4, -1), ancestors, torch.eye(4).bool().expand(2, -1, -1)], 2)
    found = lm.extend(prefix, second, start.expand(-1, 4) + 1, mask)
    assert prefix.length == 6 + 3 + 4
    for user in range(2):
        before = history[user, shown[user]]
        assert_near(prefix.states[user, shown[user]], lm(before[None])[0])
        for beam, parent in enumerate(parents[user].tolist()):
            path = torch.cat([before, first[user, parent, None], second[user, beam, None]])
            assert_near(found[user, beam], lm(path[None])[0, -1])


def test_a_prefix_has_no_dropout():
    with pytest.raises(AssertionError, match="call eval"):
        scratch().train().prefix(vectors(1, 3, 32))


@BY_KIND
def test_a_sequence_beyond_the_limit_is_refused(kind, tmp_path):
    save_causal(tmp_path, kind)
    lm = loaded(tmp_path)
    said = "a sequence of 41 vectors is beyond the language model's limit of 40; shorten the history"
    with pytest.raises(ValueError, match=said):
        lm(vectors(1, LIMIT + 1, 16))
    prefix = lm.prefix(vectors(1, LIMIT, 16))
    with pytest.raises(ValueError, match=said):
        lm.extend(prefix, vectors(1, 1, 16), torch.full((1, 1), LIMIT), torch.ones(1, 1, LIMIT + 1).bool())
    beams = lm.extend(prefix, vectors(1, 3, 16), torch.full((1, 3), LIMIT - 1), torch.ones(1, 3, LIMIT + 3).bool())
    assert beams.shape == (1, 3, 16), "beams share a position, so more vectors than positions may be appended"


@BY_KIND
def test_neither_the_old_table_nor_an_output_head_is_part_of_the_model(kind, tmp_path):
    theirs = save_causal(tmp_path, kind)
    ours = loaded(tmp_path)
    table = theirs.get_input_embeddings().weight
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - table.numel()
    assert not any(ROWS in value.shape for value in ours.state_dict().values())
    assert ours.vocabulary is not None and torch.equal(ours.vocabulary.table, table)


def test_a_text_is_read_without_special_tokens(tmp_path):
    save_causal(tmp_path)
    lm = loaded(tmp_path)
    assert lm.text("word0 nonsense word19").tolist() == [2, 1, 21]
    assert lm.text("").shape == (0,)
    assert lm.tokenizer is not None and lm.tokenizer.pad_token is None


def test_from_scratch_there_is_no_text():
    assert scratch().tokenizer is None
    with pytest.raises(ValueError, match="from scratch has no tokenizer; use learned prompt vectors or pre-trained"):
        scratch().text("word0")


def test_new_rows_scatter_around_the_old_mean(tmp_path):
    theirs = save_causal(tmp_path)
    with torch.no_grad():
        theirs.get_input_embeddings().weight += torch.linspace(-5, 5, 16)
    theirs.save_pretrained(tmp_path)
    rows = loaded(tmp_path).new_rows(4000)
    assert rows.shape == (4000, 16)
    torch.testing.assert_close(rows.mean(0), theirs.get_input_embeddings().weight.mean(0).detach(), rtol=0, atol=2e-3)
    torch.testing.assert_close(rows.std(0), torch.full((16,), 0.02), rtol=0.1, atol=0)
    rows = scratch().new_rows(4000)
    torch.testing.assert_close(rows.mean(0), torch.zeros(32), rtol=0, atol=2e-3)
    torch.testing.assert_close(rows.std(0), torch.full((32,), 0.02), rtol=0.1, atol=0)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_prompt_of_text_is_rows_of_the_old_table(tuning, tmp_path):
    theirs = save_causal(tmp_path)
    prompt = Prompt(loaded(tmp_path, tuning=tuning), "word3 word0 word3", 7)
    assert torch.equal(prompt(), theirs.get_input_embeddings().weight[[5, 2, 5]])
    assert [p.requires_grad for p in prompt.parameters()] == [tuning == "full"]


def test_a_prompt_from_scratch_is_learned_vectors():
    prompt = Prompt(scratch(), "these words are not read", 200)
    assert prompt().shape == (200, 32) and prompt.rows.requires_grad
    assert 0.015 < prompt().std().item() < 0.025
    assert Prompt(scratch(), "these words are not read", 0)().shape == (0, 32)


def test_the_references_differ_from_each_other():
    """Else a comparison with them would say nothing."""
    x = vectors(1, 4, 16)
    states = [causal_model(kind).base_model(inputs_embeds=x).last_hidden_state for kind in KINDS]
    assert all((a - b).abs().max() > 1e-2 for a, b in pairwise(states))
