"""SASRec's own ideas: every next item asked once, no look ahead, and the three losses against brute force."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark.lists import tie_order
from benchmark.types import PAD, Cases, Sequences
from methods.sasrec import METHOD, Network, binary_cross_entropy, sampled_softmax, score_last, training_windows

CONFIG = METHOD.Config(width=8, layers=2, heads=2, dropout=0.0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(30, 6, CONFIG).eval()


@given(
    rows=st.lists(st.lists(st.integers(1, 9), min_size=0, max_size=30), min_size=1, max_size=6),
    width=st.integers(1, 8),
)
def test_every_next_item_is_asked_exactly_once_after_what_came_before_it(rows, width):
    inputs, targets, wanted = training_windows(Sequences.from_rows(rows), width)
    asked = sorted((tuple(inputs[r, : c + 1]), targets[r, c]) for r, c in zip(*np.nonzero(wanted), strict=True))
    # what may be asked: a target with a contiguous piece of the items right before it
    for history, target in asked:
        assert any(
            row[t] == target and tuple(row[t - len(history) : t]) == history
            for row in rows
            for t in range(len(history), len(row))
        )
    assert len(asked) == sum(max(0, len(row) - 1) for row in rows)
    assert sorted(t for _, t in asked) == sorted(item for row in rows for item in row[1:])


@given(length=st.integers(2, 40))
def test_long_histories_keep_at_least_half_a_window_of_context(length):
    inputs, _, wanted = training_windows(Sequences.from_rows([list(range(1, length + 1))]), 8)
    contexts = [c + 1 for r, c in zip(*np.nonzero(wanted), strict=True) if inputs[r, 0] > 1]
    assert all(context > 4 for context in contexts)


@pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="needs the real data: set GENREC_DATA")
def test_beauty_has_the_published_number_of_training_pairs():
    import protocols
    from benchmark.datasets import load

    view = protocols.load("loo").split(load("beauty")).train
    assert training_windows(view.sequences, view.max_history)[2].sum() == 131_413


def test_a_state_does_not_see_later_items(network):
    history = torch.tensor([[3, 7, 2, 9, 4]])
    changed = history.clone()
    changed[0, 3:] = torch.tensor([11, 12])
    before, after = network(history), network(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_a_state_sees_every_earlier_item_and_their_order(network):
    base = network(torch.tensor([[3, 7, 2, 9, 4]]))[0, -1]
    for position in range(4):
        changed = torch.tensor([[3, 7, 2, 9, 4]])
        changed[0, position] = 20
        assert not torch.allclose(network(changed)[0, -1], base)
    assert not torch.allclose(network(torch.tensor([[7, 3, 2, 9, 4]]))[0, -1], base)


def test_scores_do_not_depend_on_the_padding_of_the_batch(network):
    rows = Sequences.from_rows([[5], [1, 2, 3, 4, 5, 6], [8, 9, 10]])
    cases = Cases(np.array([1, 2, 3], np.int32), rows, rows, tie_order(30, 0))
    together = score_last(network, "cpu", cases)
    for row in range(3):
        alone = score_last(network, "cpu", cases.take(np.array([row])))
        torch.testing.assert_close(alone[0], together[row])
    states = network(torch.tensor([[8, 9, 10]]))[0, -1]
    torch.testing.assert_close(together[2], network.item.weight @ states)


@pytest.mark.parametrize("loss", ["cross-entropy", "sampled-softmax", "bce"])
def test_the_loss_is_what_its_formula_says(loss, monkeypatch):
    # Drawn items that are the target itself (2 and 7) must not push against it.
    shared = torch.tensor([[[4, 2]], [[9, 9]]])  # (B, 1, M)
    own = torch.tensor([[[4, 2], [2, 8]], [[9, 9], [7, 1]]])  # (B, L, M)
    negatives = own if loss == "bce" else shared
    method = METHOD(METHOD.Config(width=8, layers=1, heads=1, dropout=0.0, loss=loss, negatives=2))
    torch.manual_seed(1)
    method.model = Network(10, 4, method.config)
    inputs, targets = torch.tensor([[1, 3], [5, 6]]), torch.tensor([[3, 2], [6, 7]])
    wanted = torch.tensor([[True, True], [False, True]])

    def drawn_items(low, high, shape, device):
        assert (low, high, shape) == (1, 11, negatives.shape)
        return negatives

    monkeypatch.setattr(torch, "randint", drawn_items)
    found = method._loss(inputs, targets, wanted).item()
    scores = (method.model(inputs) @ method.model.item.weight.T).tolist()
    expected = []
    for row, column in [(0, 0), (0, 1), (1, 1)]:
        s, target = scores[row][column], int(targets[row, column])
        drawn = [n for n in negatives.expand(2, 2, 2)[row, column].tolist() if n != target]
        if loss == "cross-entropy":
            expected.append(math.log(sum(math.exp(x) for x in s[1:])) - s[target])
        elif loss == "sampled-softmax":
            expected.append(math.log(math.exp(s[target]) + sum(math.exp(s[n]) for n in drawn)) - s[target])
        else:
            pushed = sum(math.log1p(math.exp(s[n])) for n in drawn)
            expected.append(math.log1p(math.exp(-s[target])) + pushed)
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_drawn_positive_is_ignored_by_both_sampled_losses():
    positive, negative = torch.tensor([1.0]), torch.tensor([[2.0, 0.5]])
    for loss in (sampled_softmax, binary_cross_entropy):
        masked = loss(positive, negative, torch.tensor([[True, False]]))
        torch.testing.assert_close(masked, loss(positive, negative[:, 1:], torch.tensor([[False]])))


def test_an_unknown_loss_is_refused():
    method = METHOD(METHOD.Config(loss="hinge"))
    method.model = Network(10, 4, method.config)
    one = torch.ones(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="use cross-entropy, sampled-softmax or bce"):
        method._loss(one, one, one.bool())


def test_padding_is_no_item(network):
    assert network.item.weight[PAD].abs().sum() == 0
