"""The correlation loss against a NumPy loop, at its floor, under affine maps, and with features that are constant."""

import math

import numpy as np
import pytest
import torch
from helpers.representations import loop_correlation, pair

from bnn_itrd.losses import (
    correlation_loss,
)

SHAPES = [(2, 1), (3, 5), (8, 4), (17, 9)]


@pytest.mark.parametrize("alpha", [0.5, 1.01, 1.5])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_correlation_equals_loop(n: int, d: int, alpha: float) -> None:
    z_s, z_t = pair(n, d)
    want = loop_correlation(z_s.numpy(), z_t.numpy(), alpha)
    got = correlation_loss(z_s, z_t, alpha=alpha)
    assert got.shape == ()
    assert got.item() == pytest.approx(want, abs=1e-12)
    assert correlation_loss(z_s.float(), z_t.float(), alpha=alpha).item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.01, 1.5])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (16, 4), (256, 8)])
def test_identical_representations_reach_the_floor(n: int, d: int, alpha: float) -> None:
    z, _ = pair(n, d)
    want = math.log2(d * (1 / n) ** (2 * alpha))
    assert correlation_loss(z, z, alpha=alpha).item() == pytest.approx(want, abs=1e-9)
    # 1 - v = 1/n is a difference of numbers near 1: float32 leaves n * 1e-7 of it.
    assert correlation_loss(z.float(), z.float(), alpha=alpha).item() == pytest.approx(want, abs=1e-6 * n)


def test_anticorrelated_representations() -> None:
    z, _ = pair(8, 3)
    assert correlation_loss(z, -z).item() == pytest.approx(math.log2(3 * (15 / 8) ** 2.02), abs=1e-12)


def test_correlation_ignores_positive_affine_maps_of_features() -> None:
    z_s, z_t = pair(12, 5)
    base = correlation_loss(z_s, z_t).item()
    scale, shift = torch.tensor([1e-4, 0.5, 1, 30, 1e5]), torch.tensor([3.0, -2, 0, 1e3, -7])
    assert correlation_loss(z_s * scale + shift, z_t).item() == pytest.approx(base, abs=1e-9)
    assert correlation_loss(z_s, z_t * scale + shift).item() == pytest.approx(base, abs=1e-9)
    assert correlation_loss(-z_s, z_t).item() != pytest.approx(base, abs=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1000.3, 1e-12])
@pytest.mark.parametrize("dead", ["student", "teacher", "both", "all"])
def test_dead_features(dead: str, constant: float, dtype: torch.dtype) -> None:
    z_s, z_t = pair(7, 4)
    for name, z in (("student", z_s), ("teacher", z_t)):
        if dead in (name, "both"):
            z[:, 2] = constant
        elif dead == "all":
            z[:] = constant
    # The mean of equal numbers rounds in the loop: hand it the exact one.
    exact_s, exact_t = (np.where(z.numpy() == constant, 0.0, z.numpy()) for z in (z_s, z_t))
    want = loop_correlation(exact_s, exact_t, 1.01)
    z_s, z_t = z_s.to(dtype).requires_grad_(), z_t.to(dtype).requires_grad_()
    loss = correlation_loss(z_s, z_t)
    assert loss.item() == pytest.approx(want, abs=1e-5)
    loss.backward()
    for grad in (z_s.grad, z_t.grad):
        assert grad is not None
        assert grad.isfinite().all()
        assert not grad[:, 2].any()
        assert grad.any() == (dead != "all")


@pytest.mark.parametrize(("centre", "step"), [(1000.0, 1e-4), (0.0, 1e-9)])
def test_features_constant_but_for_rounding_are_dead(centre: float, step: float) -> None:
    z_s, z_t = (z.float() for z in pair(7, 4))
    z_s[:, 2] = centre
    want = correlation_loss(z_s, z_t)
    z_s[0, 2] += step
    assert z_s[0, 2] != centre
    z_s.requires_grad_()
    loss = correlation_loss(z_s, z_t)
    assert loss.item() == want.item()
    loss.backward()
    assert z_s.grad is not None
    assert not z_s.grad[:, 2].any()
    # A thousandth of the value is a signal.
    live = z_s.detach().clone()
    live[0, 2] += 1e-3 * centre + 1e-3
    assert correlation_loss(live, z_t).item() != pytest.approx(want.item(), abs=1e-3)
