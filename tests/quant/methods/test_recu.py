"""ReCU's weights and activations against loops: values, gradients, its tau, and filters that are dead."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.numbers import numerical_gradient, rand
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, recu_activation, recu_tau, recu_weight, set_progress

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def loop_recu(w: np.ndarray, tau: float) -> tuple[np.ndarray, float]:
    """(w^, Q), filter by filter and entry by entry, in float64."""
    standardised = np.empty_like(w)
    for o in range(w.shape[0]):
        entries = [float(v) for v in w[o].flat]
        n = len(entries)
        mean = sum(entries) / n
        variance = sum((v - mean) ** 2 for v in entries) / (n - 1) if n > 1 else 0.0
        for i in np.ndindex(*w.shape[1:]):
            standardised[(o, *i)] = (w[(o, *i)] - mean) * 2 * math.sqrt(2) / math.sqrt(variance + 1e-5)
    b = sum(abs(float(v)) for v in standardised.flat) / standardised.size
    return standardised, -b * math.log(2 - 2 * tau)


@pytest.mark.parametrize("tau", [0.85, 0.93, 0.99])
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7), (3, 1, 5, 1)])
def test_recu_weight_forward(shape: tuple[int, ...], tau: float) -> None:
    w = rand(*shape, dtype=torch.float64)
    standardised, bound = loop_recu(w.numpy(), tau)
    assert bound > 0
    want = np.where(np.clip(standardised, -bound, bound) >= 0, 1.0, -1.0)
    np.testing.assert_array_equal(recu_weight(w, tau=tau).numpy(), want)
    np.testing.assert_array_equal(recu_weight(w.float(), tau=torch.tensor(tau)).numpy(), want)


@pytest.mark.parametrize("tau", [0.85, 0.95])
def test_recu_weight_gradient(tau: float) -> None:
    w = rand(3, 2, 2, 3, seed=1, dtype=torch.float64).requires_grad_()
    incoming = rand(3, 2, 2, 3, seed=2, dtype=torch.float64)
    recu_weight(w, tau=tau).backward(incoming)
    start = w.detach().numpy()
    standardised, bound = loop_recu(start, tau)
    assert 0 < (np.abs(standardised) > bound).sum() < start.size, "some entries are clamped, not all"
    assert np.abs(np.abs(standardised) - bound).min() > 1e-4, "no entry sits on the kink"

    def surrogate(v: np.ndarray) -> float:
        # The sign is the identity, Q a constant: what the backward pass differentiates.
        return float((incoming.numpy() * np.clip(loop_recu(v, tau)[0], -bound, bound)).sum())

    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), numerical_gradient(surrogate, start), rtol=1e-6, atol=1e-7)


def test_recu_weight_gradient_is_cut_outside_the_bound() -> None:
    w = rand(3, 2, 3, 3, seed=1, dtype=torch.float64).requires_grad_()
    standardised, bound = loop_recu(w.detach().numpy(), 0.85)
    outside = torch.from_numpy(np.abs(standardised) > bound)
    signs = recu_weight(w, tau=0.85)
    (cut,) = torch.autograd.grad(signs, w, outside.double(), retain_graph=True)
    assert outside.any() and torch.count_nonzero(cut) == 0
    (passed,) = torch.autograd.grad(signs, w, (~outside).double())
    assert torch.count_nonzero(passed) == w.numel(), "mean and variance reach every entry"


@pytest.mark.parametrize("w", [rand(4, 1, 1, 1), rand(4, 1), torch.full((3, 2, 3, 3), 0.25), torch.zeros(2, 5)])
def test_recu_weight_survives_one_element_and_dead_filters(w: Tensor) -> None:
    w = w.clone().requires_grad_()
    signs = recu_weight(w, tau=0.9)
    signs.sum().backward()
    assert torch.equal(signs, torch.ones_like(w)), "w - mean is 0, and the sign of 0 is +1"
    assert w.grad is not None and w.grad.isfinite().all()


def test_a_dead_filter_leaves_the_others_alone() -> None:
    w = rand(4, 3, 3, 3)
    w[1] = 0
    signs = recu_weight(w, tau=0.9)
    assert torch.equal(signs[[0, 2, 3]], recu_weight(w[[0, 2, 3]], tau=0.9))


def test_recu_tau() -> None:
    assert recu_tau(torch.tensor(0.0)).item() == pytest.approx(0.85)
    assert recu_tau(torch.tensor(1.0)).item() == pytest.approx(0.99)
    for p in np.linspace(0, 1, 7):
        a = (0.97 - 0.6) / (math.e - 1)
        got = recu_tau(torch.tensor(p, dtype=torch.float64), tau_min=0.6, tau_max=0.97)
        assert got.item() == pytest.approx(a * math.exp(p) + 0.6 - a)


def test_recu_weight_anneals_the_gradient_and_not_the_signs() -> None:
    layer = BinaryConv2d(3, 4, 3)
    values, gradients = [], []
    for p in (0.0, 1.0):
        set_progress(layer, p)
        layer.zero_grad()
        signs = layer.binary_weight().signs
        (signs * rand(4, 3, 3, 3)).sum().backward()
        assert layer.weight.grad is not None
        values.append(signs.detach())
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*values) and not torch.allclose(*gradients)


def numpy_surrogate_of_activation(x: np.ndarray, incoming: np.ndarray) -> float:
    """sum(g * F(x / sqrt(var + eps))) per sample, F the integral of max(2 - 2|a|, 0)."""
    total = 0.0
    for sample, g in zip(x, incoming, strict=True):
        n, mean = sample.size, sample.sum() / sample.size
        variance = ((sample - mean) ** 2).sum() / (n - 1)
        a = np.clip(sample / math.sqrt(variance + 1e-5), -1, 1)
        total += float((g * (2 * a - a * np.abs(a))).sum())
    return total


def test_recu_activation_gradient() -> None:
    x = (2 + 3 * rand(2, 3, 2, 2, seed=3, dtype=torch.float64)).requires_grad_()
    incoming = rand(2, 3, 2, 2, seed=4, dtype=torch.float64)
    recu_activation(x).backward(incoming)
    want = numerical_gradient(lambda v: numpy_surrogate_of_activation(v, incoming.numpy()), x.detach().numpy())
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_recu_activation_has_the_signs_of_x(dtype: torch.dtype) -> None:
    x = (5 * rand(4, 3, 5, 5, dtype=dtype)).to(dtype)
    x[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    y = recu_activation(x)
    assert y.dtype == dtype
    assert torch.equal(y, torch.where(x >= 0, 1.0, -1.0).to(dtype))


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
@pytest.mark.parametrize("x", [torch.zeros(2, 3, 4, 4), torch.full((2, 1), -3.0), torch.empty(0, 3, 4, 4)])
def test_recu_activation_of_constant_single_and_empty_samples(x: Tensor) -> None:
    x = x.clone().requires_grad_()
    y = recu_activation(x)
    y.sum().backward()
    assert torch.equal(y, torch.where(x >= 0, 1.0, -1.0))
    assert x.grad is not None and x.grad.isfinite().all()


def test_recu_activation_of_one_axis_is_one_sample() -> None:
    """Its gradient depends on the variance, which has to be the row's."""
    row, one = (3 * rand(1, 9)).requires_grad_(), (3 * rand(9)).requires_grad_()
    (recu_activation(row) * rand(1, 9, seed=1)).sum().backward()
    (recu_activation(one) * rand(9, seed=1)).sum().backward()
    assert row.grad is not None and one.grad is not None and one.grad.abs().max() > 0
    torch.testing.assert_close(one.grad, row.grad[0])


def test_recu_scale_is_learned_and_starts_in_the_unit_interval() -> None:
    layer = BinaryConv2d(2, 500, 1)
    alpha = layer.binary_weight().scale
    assert isinstance(alpha, nn.Parameter) and 0 <= alpha.min() < 0.05 and 0.95 < alpha.max() <= 1
    layer(rand(2, 2, 3, 3)).sum().backward()
    assert alpha.grad is not None and alpha.grad.abs().max() > 0
