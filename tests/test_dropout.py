"""Dropout of four values a draw: the rate, the scale and the independence of one value from its neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.blocks.dropout import dropout

STEPS = 2**16


def dropped(n: int, p: float, seed: int = 0) -> Tensor:
    """(n,) bool: what a draw of n values dropped."""
    torch.manual_seed(seed)
    return dropout(torch.ones(n), p, True) == 0


@pytest.mark.parametrize("p", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_rate_within_five_sigma(p):
    n = 1_000_000
    assert abs(int(dropped(n, p).sum()) - n * p) < 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("steps", [3, STEPS - 3])
def test_rate_is_exact_to_one_step_of_65536(steps):
    """One step more or less would be 9 sigma away."""
    n, p = 16_000_000, steps / STEPS
    assert abs(int(dropped(n, p).sum()) - n * p) < 4.5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_kept_values_are_scaled_so_that_the_mean_stays(p):
    x = torch.randn(10_001, generator=torch.Generator().manual_seed(0))
    out = dropout(x, p, True)
    kept = out != 0
    share = 1 - round(p * STEPS) / STEPS  # the probability to be kept
    torch.testing.assert_close(out[kept], x[kept] / share, rtol=1e-6, atol=0.0)
    assert share == pytest.approx(1 - p, abs=1 / STEPS)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_neighbours_are_independent(p, shift):
    """Chi-square over the 16 patterns of four neighbours: shift 0 lies in one draw, the others across two."""
    groups = dropped(1_000_004, p)[shift : 1_000_000 + shift].view(-1, 4)  # (250,000, 4)
    patterns = (groups * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    ones = torch.tensor([bin(pattern).count("1") for pattern in range(16)], dtype=torch.double)
    expected = len(groups) * p**ones * (1 - p) ** (4 - ones)
    chi_square = ((patterns - expected) ** 2 / expected).sum().item()
    assert chi_square < 56.5  # one in a million with 15 degrees of freedom


def test_gradient_is_the_mask():
    x = torch.randn(1001, requires_grad=True)
    out = dropout(x, 0.3, True)
    out.sum().backward()
    assert torch.equal(out, x * x.grad)
    assert x.grad.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.4, False), (1.0, False)])
def test_nothing_happens_without_training_or_probability(p, training):
    x = torch.randn(7)
    state = torch.get_rng_state()
    assert dropout(x, p, training) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("p", [0.9999, 1 - 1 / STEPS, 0.999999, 1 - 1e-9, 1.0])
def test_near_one_almost_everything_goes_and_nothing_overflows(p):
    n = 1_000_000
    x = torch.ones(n, requires_grad=True)
    torch.manual_seed(0)
    out = dropout(x, p, True)
    out.sum().backward()
    assert torch.equal(out, x.grad)
    assert out.isfinite().all()
    mean, sigma = n * (1 - p), math.sqrt(n * (1 - p))  # kept, as a Poisson number
    assert abs(int(out.count_nonzero()) - mean) <= 5 * sigma
    assert p < 1 or not out.any()


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match="probability"):
        dropout(torch.ones(3), p, True)


def test_a_probability_below_one_step_drops_nothing():
    x = torch.randn(100_000)
    assert torch.equal(dropout(x, 1e-9, True), x)


def test_reproducible_by_seed_and_resumes_from_the_state():
    x = torch.ones(1003)
    torch.manual_seed(5)
    first = dropout(x, 0.5, True)
    state = torch.get_rng_state()
    second = dropout(x, 0.5, True)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5, True), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5, True), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (5,), (0,), (2, 0, 3), (3, 5, 7)])
def test_any_shape(shape):
    torch.manual_seed(0)
    total = torch.zeros(shape)
    for _ in range(200):
        out = dropout(torch.ones(shape), 0.5, True)
        assert out.shape == shape
        total += out / 2
    assert ((total > 50) & (total < 150)).all()  # every place is kept and dropped; half of 200 +- 7 sigma


def test_views_and_other_types():
    x = torch.ones(6, 9).T
    out = dropout(x, 0.5, True)
    assert out.shape == (9, 6)
    assert set(out.flatten().tolist()) == {0.0, 2.0}
    for dtype in (torch.float64, torch.bfloat16):
        assert dropout(torch.ones(5, dtype=dtype), 0.5, True).dtype is dtype
