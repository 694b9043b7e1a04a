"""The shared training loop: every example once, resumable to the bit, stopped for the stated reason."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmark.run import Interrupted, Run
from methods.blocks import training
from methods.blocks.training import Training, epoch_batches, learning_rate_at, seed_everything, train


class Toy:
    """A dropout network on made-up rows of three lengths; its validation score is minus its loss."""

    def __init__(self, run, seed=0, **overrides):
        seed_everything(seed)
        self.run, self.steps = run, 0
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
        self.y = self.x.sum(1, keepdim=True)
        self.lengths = torch.tensor([1, 2, 3]).repeat(20)
        settings = {"epochs": 6, "batch_size": 7, "learning_rate": 0.01, "warmup_steps": 3, "patience": 99}
        self.config = Training(**(settings | overrides))

    def loss(self, rows, length):
        assert (self.lengths[rows] == length).all()
        self.steps += 1
        return (self.model(self.x[rows]) - self.y[rows]).square().mean() + 0.01 * np.random.rand()

    def validate(self):
        with torch.no_grad():
            return -float((self.model(self.x) - self.y).square().mean())

    def train(self, **how):
        return train(self.model, self.lengths, self.loss, self.config, self.validate, self.run, **how)

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=80), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_epoch_holds_every_example_once_in_batches_of_one_length(lengths, size, seed):
    lengths = torch.tensor(lengths)
    batches = epoch_batches(lengths, lambda _: size, torch.Generator().manual_seed(seed))
    rows = torch.cat([rows for rows, _ in batches])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert all((lengths[rows] == length).all() and len(rows) <= size for rows, length in batches)
    again = epoch_batches(lengths, lambda _: size, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(batches, again, strict=True))


def test_epochs_are_shuffled_differently():
    lengths = torch.ones(50, dtype=torch.long)
    orders = [epoch_batches(lengths, lambda _: 50, torch.Generator().manual_seed(s))[0][0].tolist() for s in (0, 1)]
    assert orders[0] != orders[1]


def test_learning_rate_warms_up_then_falls_along_a_cosine():
    config = Training(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate_at(s, 104, config) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate_at(54, 104, config) == pytest.approx(0.5)
    assert learning_rate_at(104, 104, config) == pytest.approx(0.0)
    assert learning_rate_at(90, 104, Training(learning_rate=1.0, schedule="constant")) == 1.0
    with pytest.raises(ValueError, match="cosine or constant"):
        learning_rate_at(9, 10, Training(schedule="linear"))


def test_same_seed_same_weights_other_seed_others():
    weights = []
    for seed in (0, 0, 1):
        toy = Toy(Run(seed=seed), seed=seed)
        toy.train()
        weights.append(toy.weights())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("stop_at", [1, 5, 9, 10, 11, 37])
def test_a_stopped_training_continues_to_the_same_bits(tmp_path, stop_at):
    """9 batches an epoch: inside the first epoch, at its end, right after it, and later."""
    undisturbed = Toy(Run())
    expected = undisturbed.train()
    stopped = Toy(Run(work_dir=tmp_path))
    stopped.run.should_stop = lambda: stopped.steps == stop_at
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = Toy(Run(work_dir=tmp_path), seed=0)
    torch.manual_seed(12345)  # a new process has other random states; the checkpoint must bring its own
    np.random.seed(54321)
    report = resumed.train()
    assert resumed.steps == undisturbed.steps - stop_at
    assert torch.equal(resumed.weights(), undisturbed.weights())
    assert report == expected


def test_a_killed_training_continues_from_its_last_checkpoint_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    undisturbed = Toy(Run())
    undisturbed.train()

    class Killed(BaseException):
        pass

    killed = Toy(Run(work_dir=tmp_path))
    plain_loss = killed.loss

    def dying_loss(rows, length):
        if killed.steps == 21:
            raise Killed
        return plain_loss(rows, length)

    killed.loss = dying_loss
    with pytest.raises(Killed):
        killed.train()
    resumed = Toy(Run(work_dir=tmp_path))
    resumed.train()
    assert 0 < resumed.steps < undisturbed.steps
    assert torch.equal(resumed.weights(), undisturbed.weights())


def test_a_finished_training_is_not_repeated(tmp_path):
    first, second = Toy(Run(work_dir=tmp_path)), Toy(Run(work_dir=tmp_path))
    report = first.train()
    assert second.train() == report
    assert second.steps == 0 and torch.equal(first.weights(), second.weights())


def test_best_weights_are_restored_and_patience_stops():
    toy = Toy(Run(), patience=2, epochs=50)
    scores = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    kept = []
    toy.validate = lambda: (kept.append(toy.weights().clone()), next(scores))[1]
    report = toy.train()
    assert (report.stopped_by, report.epochs, report.best_epoch, report.best_score) == ("patience", 4, 2, 0.5)
    assert torch.equal(toy.weights(), kept[1])


def test_reasons_to_stop():
    assert Toy(Run(), epochs=2).train().stopped_by == "limit"
    capped = Toy(Run(), max_minutes=1e-9).train()
    assert (capped.stopped_by, capped.epochs, capped.steps) == ("cap", 1, 1)


def test_a_last_epoch_cut_by_the_cap_is_told(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    whole = Toy(Run(), epochs=1, batch_size=16, max_minutes=1e6).train()
    cut = Toy(Run(), epochs=1, batch_size=16, max_minutes=5 / 60).train()
    assert whole.stopped_by == "limit"
    assert cut.stopped_by == "cap" and cut.epochs == 1 and cut.steps < whole.steps


def test_the_cap_counts_earlier_sessions(tmp_path):
    stopped = Toy(Run(work_dir=tmp_path))
    stopped.run.should_stop = lambda: stopped.steps == 12
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = Toy(Run(work_dir=tmp_path))
    state = training.read_checkpoint(tmp_path / "train.checkpoint", torch.device("cpu"))
    assert state["seconds"] > 0
    state["seconds"] = 1e9
    state["fingerprint"]["config"]["max_minutes"] = 60.0
    training.write_checkpoint(tmp_path / "train.checkpoint", state)
    resumed.config = Training(**(vars(resumed.config) | {"max_minutes": 60.0}))
    assert resumed.train().stopped_by == "cap" and resumed.steps == 1


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"x" + b[-8:], lambda b: b""])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    Toy(Run(work_dir=tmp_path)).train()
    path = tmp_path / "train.checkpoint"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train\.checkpoint is damaged; delete it"):
        Toy(Run(work_dir=tmp_path)).train()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    Toy(Run(work_dir=tmp_path)).train()
    with pytest.raises(ValueError, match="other settings"):
        Toy(Run(work_dir=tmp_path), learning_rate=0.5).train()


def test_a_loss_that_is_not_finite_is_refused():
    toy = Toy(Run())
    toy.loss = lambda rows, length: toy.model(toy.x[rows]).sum() * math.nan
    with pytest.raises(ValueError, match="lower the learning rate"):
        toy.train()


def test_a_training_stopped_while_it_validates_continues_with_that_validation(tmp_path):
    undisturbed = Toy(Run())
    undisturbed.train()
    stopped = Toy(Run(work_dir=tmp_path))

    def stop():
        raise Interrupted

    stopped.validate = stop
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = Toy(Run(work_dir=tmp_path))
    resumed.train()
    assert resumed.steps == undisturbed.steps - stopped.steps
    assert torch.equal(resumed.weights(), undisturbed.weights())


def test_validation_every_few_epochs_and_after_the_last():
    toy = Toy(Run(), epochs=7)
    report = toy.train(validate_every=3)
    assert ["valid" in entry for entry in report.curve] == [False, False, True, False, False, True, True]
    assert Toy(Run(), epochs=2).train(validate_every=5).curve[-1].keys() == {"loss", "valid"}


def test_patience_counts_validations_not_epochs():
    toy = Toy(Run(), patience=2, epochs=50)
    scores = iter([0.5, 0.3, 0.2])
    toy.validate = lambda: next(scores)
    report = toy.train(validate_every=4)
    assert (report.stopped_by, report.epochs, report.best_epoch) == ("patience", 12, 4)


def test_the_hook_runs_once_after_every_epoch_also_when_validation_is_interrupted(tmp_path):
    """The hook halves the weights, so running it twice or never would show in the bits."""

    def run(toy, seen):
        def hook(epoch):
            seen.append(epoch)
            with torch.no_grad():
                toy.model[0].weight.mul_(0.5)

        return toy.train(after_epoch=hook)

    undisturbed, seen = Toy(Run()), []
    run(undisturbed, seen)
    assert seen == [1, 2, 3, 4, 5, 6]
    stopped, seen = Toy(Run(work_dir=tmp_path)), []
    validate, calls = stopped.validate, []

    def interrupted_validation():
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("told to stop")
        return validate()

    stopped.validate = interrupted_validation
    with pytest.raises(Interrupted):
        run(stopped, seen)
    resumed = Toy(Run(work_dir=tmp_path))
    run(resumed, seen)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert torch.equal(resumed.weights(), undisturbed.weights())


def test_a_bad_loss_names_its_step_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    toy = Toy(Run(work_dir=tmp_path))
    plain_loss = toy.loss
    toy.loss = lambda rows, length: plain_loss(rows, length) * (math.nan if toy.steps == 14 else 1.0)
    with pytest.raises(ValueError, match=r"the loss of train was not finite at step 14, in epoch 2; lower"):
        toy.train()
    state = training.read_checkpoint(tmp_path / "train.checkpoint", torch.device("cpu"))
    assert state["report"]["steps"] == 13
    assert all(value.isfinite().all() for value in state["model"].values())


def test_out_of_memory_says_what_to_lower():
    toy = Toy(Run())

    def full(rows, length):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    toy.loss = full
    with pytest.raises(MemoryError, match=r"out of memory in a step of train with \d rows of length \d; lower tr"):
        toy.train()

    def broken(rows, length):
        raise RuntimeError("shapes do not match")

    toy.loss = broken
    with pytest.raises(RuntimeError, match="shapes do not match"):
        toy.train()


def test_rates_multiply_the_learning_rate_of_the_parameters_they_name(tmp_path):
    """With a rate of 0 and no decay the named weights stay; a checkpoint of other rates is refused."""
    still = Toy(Run(work_dir=tmp_path), epochs=2)
    before = still.model[0].weight.detach().clone(), still.model[2].weight.detach().clone()
    still.train(rates={"0.weight": 0.0})
    assert torch.equal(still.model[0].weight, before[0]) and not torch.equal(still.model[2].weight, before[1])
    with pytest.raises(ValueError, match="made with other settings"):
        Toy(Run(work_dir=tmp_path), epochs=2).train(rates={"0.weight": 2.0})
    names = dict(still.model.named_parameters())
    weights = []
    for rate, how in ((0.01, {}), (0.02, {}), (0.01, {"rates": dict.fromkeys(names, 2.0)})):
        toy = Toy(Run(), learning_rate=rate)
        toy.train(**how)
        weights.append(toy.weights())
    assert torch.equal(weights[2], weights[1]) and not torch.equal(weights[2], weights[0])


@pytest.mark.parametrize("micro", [1, 3, 7])
def test_micro_batches_make_the_same_update(micro):
    class Plain(Toy):
        def loss(self, rows, length):
            self.steps += 1
            return (self.model(self.x[rows]) - self.y[rows]).square().mean()

    whole, split = (Plain(Run(), micro_batch=size, clip_norm=0.5) for size in (None, micro))
    for toy in (whole, split):
        toy.model[1].p = 0.0
        toy.report = toy.train()
    assert split.report.steps == whole.report.steps
    assert split.steps > whole.steps if micro < 7 else split.steps == whole.steps
    torch.testing.assert_close(split.weights(), whole.weights(), rtol=1e-4, atol=1e-6)
    assert [e["loss"] for e in split.report.curve] == pytest.approx([e["loss"] for e in whole.report.curve], rel=1e-4)


def test_frozen_weights_are_neither_moved_nor_kept(tmp_path):
    def frozen(run):
        toy = Toy(run)
        toy.model[0].requires_grad_(False)
        return toy

    toy = frozen(Run(work_dir=tmp_path))
    before = toy.model[0].weight.clone()
    toy.train(rates={"0.weight": 3.0})
    assert torch.equal(toy.model[0].weight, before)
    state = training.read_checkpoint(tmp_path / "train.checkpoint", torch.device("cpu"))
    assert set(state["model"]) == set(state["best"]) == {"2.weight", "2.bias"}
    again = frozen(Run(work_dir=tmp_path))
    again.train(rates={"0.weight": 3.0})
    assert again.steps == 0 and torch.equal(again.weights(), toy.weights())


def test_weights_of_another_model_are_refused():
    toy = Toy(Run())
    state = training.trainable_state(toy.model)
    toy.model[2].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"another model, '2\.bias'"):
        training.load_trainable(toy.model, state)
