"""The item softmax in chunks against the plain one: values, gradients, and what is in memory at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.types import Sequences
from methods.blocks.item_softmax import chunked_softmax, mean_scores, mean_softmax, rivals
from tests import toys

P, D, V, N, L = 7, 5, 11, 23, 3


def world(n_items: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """states (P, D), table (V, D), tokens (N, L) and targets (P,); a token may stand twice in an item."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(P, D, generator=draw, dtype=torch.float64).requires_grad_()
    table = torch.randn(V, D, generator=draw, dtype=torch.float64).requires_grad_()
    tokens = torch.randint(0, V, (n_items, L), generator=draw)
    tokens[4] = tokens[9] = 2
    return states, table, tokens, torch.randint(0, n_items, (P,), generator=draw)


def plain(states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ vectors.T, targets, reduction="none")


def assert_same(mine: Tensor, theirs: Tensor, leaves: Iterable[Tensor]) -> None:
    """Two losses (P,) and their gradients, where every position weighs something else."""
    leaves, weights = list(leaves), torch.linspace(0.5, 2.0, P, dtype=mine.dtype)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-12)
    found = torch.autograd.grad((mine * weights).sum(), leaves)
    expected = torch.autograd.grad((theirs * weights).sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(made) if isinstance(one, Tensor)]
        self.elements = max([self.elements, *sizes])
        return made


# The mean of token vectors


@pytest.mark.parametrize("chunk", [1, 5, N - 1, N, 1000])
def test_the_factorised_loss_is_the_plain_one_in_value_and_gradient(chunk: int) -> None:
    states, table, tokens, targets = world()
    mine = mean_softmax(states, table, tokens, targets, chunk)
    assert_same(mine, plain(states, table[tokens].mean(1), targets), [states, table])


def test_the_factorised_gradient_is_the_slope() -> None:
    states, table, tokens, targets = world()
    assert torch.autograd.gradcheck(lambda s, t: mean_softmax(s, t, tokens, targets, 6), (states, table))


def test_a_loss_by_hand() -> None:
    """Token logits 2, 6, 0, so item logits (2 + 6) / 2 and (2 + 0) / 2; the loss is log(1 + e^3)."""
    states, table = torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0], [0.0]])
    tokens = torch.tensor([[0, 1], [0, 2]])
    torch.testing.assert_close(mean_scores(states, table, tokens), torch.tensor([[4.0, 1.0]]))
    loss = mean_softmax(states, table, tokens, torch.tensor([1]), 10)
    torch.testing.assert_close(loss, torch.tensor([3.0485873]))


def test_large_logits_do_not_overflow() -> None:
    states, table, tokens, targets = (one.float() if one.is_floating_point() else one for one in world())
    mine = mean_softmax(1000 * states, table, tokens, targets, 5)
    torch.testing.assert_close(mine, plain(1000 * states, table[tokens].mean(1), targets), rtol=1e-5, atol=1e-3)
    assert mine.isfinite().all() and mine.max() > 100


def test_items_with_equal_tokens_tie_exactly() -> None:
    states, table, tokens, _ = world()
    scores = mean_scores(states.float(), table.float(), tokens)
    assert tokens[4].equal(tokens[9]) and scores[:, 4].equal(scores[:, 9])
    torch.testing.assert_close(scores, (states @ table[tokens].mean(1).T).float())


def test_the_factorised_loss_never_holds_a_logit_per_item_nor_an_item_vector() -> None:
    chunk, n_items = 20, 5000
    states, table, tokens, targets = world(n_items)
    with Largest() as largest:
        mean_softmax(states, table, tokens, targets, chunk).sum().backward()
    assert largest.elements <= max(tokens.numel(), chunk * P, V * P) < n_items * D < n_items * P


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 10_000))
def test_both_ways_agree_on_any_items_and_chunks(n_items: int, chunk: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    states, table = (torch.randn(n, D, generator=draw, dtype=torch.float64) for n in (P, V))
    tokens, targets = torch.randint(0, V, (n_items, L), generator=draw), torch.randint(0, n_items, (P,), generator=draw)
    factorised = mean_softmax(states, table, tokens, targets, chunk)
    other = chunked_softmax(states, lambda some: table[tokens[some]].mean(1), n_items, targets, chunk)
    torch.testing.assert_close(factorised, other, rtol=1e-9, atol=1e-9)


# Any other vectors


class Mixed(nn.Module):
    """Token vectors (M, L, D) -> item vectors (M, D), not linear in them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(L * D, D, dtype=torch.float64)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(vectors.flatten(1)).tanh()


@pytest.mark.parametrize("chunk", [1, 5, N - 1, N, 1000])
def test_the_chunked_loss_is_the_plain_one_down_to_what_makes_the_vectors(chunk: int) -> None:
    states, table, tokens, targets = world()
    mixed = Mixed()
    mine = chunked_softmax(states, lambda some: mixed(table[tokens[some]]), N, targets, chunk)
    assert_same(mine, plain(states, mixed(table[tokens]), targets), [states, table, *mixed.parameters()])


def test_the_vectors_of_one_chunk_exist_at_a_time() -> None:
    states, table, tokens, targets = world()
    mixed, chunk = Mixed(), 5
    made: list[weakref.ref[Tensor]] = []

    def vectors_of(some: slice) -> Tensor:
        assert all(one() is None for one in made), "the vectors of an earlier chunk are still there"
        vectors = mixed(table[tokens[some]])
        made.append(weakref.ref(vectors))
        return vectors

    chunked_softmax(states, vectors_of, N, targets, chunk).sum().backward()
    assert len(made) == 2 * -(-N // chunk), "each chunk is made once forwards and once backwards"


def test_the_loss_keeps_its_precision_under_autocast() -> None:
    states, table, tokens, targets = (one.float() if one.is_floating_point() else one for one in world())
    expected = plain(states, table[tokens].mean(1), targets)
    with torch.autocast("cpu", torch.bfloat16):
        factorised = mean_softmax(states, table, tokens, targets, 5)
        chunked = chunked_softmax(states, lambda some: table[tokens[some]].mean(1), N, targets, 5)
        assert mean_scores(states, table, tokens).dtype == torch.float32
    torch.testing.assert_close(factorised, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(chunked, expected, rtol=1e-6, atol=1e-6)


# Who takes part


def test_training_negatives_are_the_items_of_the_training_interactions() -> None:
    view = replace(toys.four_users(), n_items=8, sequences=Sequences.from_rows([[1, 5, 2], [5, 7]]))
    some = rivals(view, "training", "cpu")
    assert some.items.tolist() == [1, 2, 5, 7]
    assert some.places[[1, 2, 5, 7]].tolist() == [0, 1, 2, 3]
    every = rivals(view, "catalogue", "cpu")
    assert every.items.tolist() == list(range(1, 9)) and every.places[1:].tolist() == list(range(8))


def test_other_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown negatives 'all'; use training or catalogue"):
        rivals(toys.four_users(), "all", "cpu")
