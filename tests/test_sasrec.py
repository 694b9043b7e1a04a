"""SASRec's own ideas: every next item asked once, no look ahead, and its losses against brute force."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import protocols
from benchmark.lists import tie_order
from benchmark.method import build_config, config_dict, replace_nested
from benchmark.run import Run
from benchmark.types import PAD, Cases, Sequences
from methods.blocks.self_attention import Network, score_last, training_windows
from methods.sasrec import METHOD, binary_cross_entropy, sampled_softmax
from tests import toys

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


@pytest.mark.parametrize("loss", ["cross-entropy", "sampled-softmax", "bce", "gbce"])
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
            share = 2 / (10 - 1)  # negatives drawn of the other items; the power as the paper writes it, with t = .75
            power = share * (0.75 * (1 - 1 / share) + 1 / share) if loss == "gbce" else 1.0
            likelihood = (1 / (1 + math.exp(-s[target]))) ** power
            for n in drawn:
                likelihood *= 1 - 1 / (1 + math.exp(-s[n]))
            expected.append(-math.log(likelihood))
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
    with pytest.raises(ValueError, match="use cross-entropy, sampled-softmax, bce, gbce"):
        method._loss(one, one, one.bool())


def test_padding_is_no_item(network):
    assert network.item.weight[PAD].abs().sum() == 0


def test_no_score_is_too_large_for_the_calibrated_loss():
    far = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float32, requires_grad=True)
    loss = binary_cross_entropy(far, far[:, None], torch.zeros(3, 1, dtype=torch.bool), power=0.25)
    # A positive at s costs power * max(0, -s) and a negative max(0, s), but for log 2 each at 0.
    assert loss.item() == pytest.approx((0.25 * 1e4 + 1.25 * math.log(2) + 1e4) / 3, rel=1e-6)
    loss.backward()
    assert far.grad is not None and far.grad.tolist() == pytest.approx([-0.25 / 3, (0.5 - 0.125) / 3, 1 / 3])


def test_without_calibration_gbce_is_bce():
    config = METHOD.Config(loss="gbce", negatives=256, calibration=0.0)
    assert METHOD(config)._power(12_101) == 1.0
    assert METHOD(replace_nested(config, {"calibration": 1.0}))._power(257) == 1.0  # every other item is drawn
    assert METHOD(replace_nested(config, {"calibration": 1.0}))._power(2561) == pytest.approx(0.1)
    assert METHOD(config)._drawn(12) == 11 and METHOD(replace_nested(config, {"loss": "bce"}))._drawn(12) == 256


@pytest.mark.parametrize("preset", [None, "sampled", "bce"])
def test_what_came_later_is_not_part_of_published_configs(preset):
    for profile in ("smoke", "small", "full"):
        stated = config_dict(build_config(METHOD, preset, profile))
        assert set(stated) == {"width", "layers", "heads", "dropout", "loss", "negatives", "training"}


def test_the_paper_track_reads_fifty_items_where_the_protocol_shows_twenty():
    world = protocols.load("loo").split(toys.lonely())
    assert world.train.max_history == 20
    config = build_config(METHOD, None, "smoke", "paper")
    assert (config.history, config.drop_seen) == (50, True)
    config = replace_nested(config, {"drop_seen": False, "training": {"epochs": 6}})
    method = METHOD(config, run=Run(seed=0)).fit(world.train)
    assert method.model.position.num_embeddings == 50
    long = [1 + i % 24 for i in range(40)]
    other = [25, *long[1:]]  # differs in an item that the protocol does not show
    scores = []
    for seen in (long, other):
        rows = Sequences.from_rows([seen])
        scores.append(method._score(Cases(np.array([1], np.int32), rows.tail(20), rows, tie_order(25, 0))))
    assert not torch.allclose(scores[0], scores[1])
    method.config = replace_nested(method.config, {"history": None})
    scores = []
    for seen in (long, other):
        rows = Sequences.from_rows([seen])
        scores.append(method._score(Cases(np.array([1], np.int32), rows.tail(20), rows, tie_order(25, 0))))
    assert torch.equal(scores[0], scores[1])
    validated = ["valid" in epoch for epoch in method.report.curve]
    assert validated == [False, False, False, False, True, True]  # every fifth epoch and the last


def test_longer_windows_learn_from_longer_prefixes():
    rows = Sequences.from_rows([list(range(1, 41))])
    assert training_windows(rows, 50)[0].tolist()[0][:39] == list(range(1, 40))
    assert len(training_windows(rows, 50)[0]) == 1 and len(training_windows(rows, 20)[0]) > 1


def test_drop_seen_leaves_every_other_score_alone():
    world = protocols.load("loo").split(toys.lonely())
    config = replace_nested(build_config(METHOD, None, "smoke"), {"training": {"epochs": 2}})
    method = METHOD(config, run=Run(seed=0)).fit(world.train)
    kept = method._score(world.test.cases)
    method.config = replace_nested(method.config, {"drop_seen": True})
    dropped = method._score(world.test.cases)
    for row, seen in enumerate(world.test.cases.seen):
        had = np.isin(np.arange(26), seen)
        assert dropped[row][had].isneginf().all()
        assert torch.equal(dropped[row][~had], kept[row][~had])
