"""WCoRD against a NumPy loop: Sinkhorn's iterations, the spectral norm, and the odds of its two terms."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.loss_modules import (
    LABELS,
    Array,
    apply_to_floats,
    bank_args,
    build_module,
    crd_reference,
    random_map,
    seeded_loss,
)
from helpers.numpy_layers import to_numpy
from torch import Tensor, nn

from bnn_itrd.losses.crd import crd_loss
from bnn_itrd.losses.wcord import WCoRD, global_contrast_loss, sinkhorn


def _loop_sinkhorn(cost: Array, epsilon: float, iterations: int) -> Array:
    n, m = cost.shape
    kernel = np.exp(-cost / epsilon)
    u, v = np.ones(n), np.ones(m)
    for _ in range(iterations):
        for i in range(n):
            u[i] = (1 / n) / sum(kernel[i, j] * v[j] for j in range(m))
        for j in range(m):
            v[j] = (1 / m) / sum(kernel[i, j] * u[i] for i in range(n))
    return u[:, None] * kernel * v[None, :]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (6, 6)])
def test_sinkhorn_equals_loop(n: int, m: int) -> None:
    cost = random_map(n, (m,), 3).abs()
    for iterations in (1, 7):
        want = _loop_sinkhorn(to_numpy(cost), 0.3, iterations)
        np.testing.assert_allclose(sinkhorn(cost, epsilon=0.3, iterations=iterations).numpy(), want, rtol=1e-10)


def test_sinkhorn_marginals_converge() -> None:
    v_s, v_t = (nn.functional.normalize(random_map(16, (8,), seed)) for seed in (1, 2))
    cost = 1 - v_s @ v_t.T
    errors = []
    for iterations in (1, 10, 50, 1000):
        plan = sinkhorn(cost, iterations=iterations)
        torch.testing.assert_close(plan.sum(dim=0), torch.full((16,), 1 / 16).double(), rtol=1e-12, atol=0)
        errors.append((plan.sum(dim=1) - 1 / 16).abs().max().item() * 16)
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.02
    assert errors[3] < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sinkhorn_of_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    cost = (5 * random_map(6, (6,), 3).abs()).to(dtype)
    # cost / epsilon reaches 1e5, beyond float16.
    for epsilon in (0.1, 1e-3, 1e-4):
        plan = sinkhorn(cost, epsilon=epsilon)
        assert plan.dtype == torch.float32
        want = sinkhorn(cost.float(), epsilon=epsilon)
        assert want.isfinite().all()
        torch.testing.assert_close(plan, want, rtol=0, atol=0)


def test_sinkhorn_nears_the_optimal_coupling() -> None:
    cost = random_map(5, (5,), 4).abs()
    best = min(sum(cost[i, p[i]].item() for i in range(5)) / 5 for p in itertools.permutations(range(5)))
    plan = sinkhorn(cost, epsilon=0.005, iterations=2000)
    assert (plan * cost).sum().item() == pytest.approx(best, abs=1e-3)
    assert (sinkhorn(cost, epsilon=1.0, iterations=2000) * cost).sum().item() > best + 0.01


def test_sinkhorn_plan_is_the_gradient_of_the_regularised_distance() -> None:
    cost, epsilon, step = random_map(4, (4,), 5).abs(), 0.2, 1e-5

    def distance(c: Tensor) -> float:
        plan = sinkhorn(c, epsilon=epsilon, iterations=500)
        return float((plan * c).sum() + epsilon * (plan * plan.log()).sum())

    plan = sinkhorn(cost, epsilon=epsilon, iterations=500)
    for i, j in itertools.product(range(4), range(4)):
        change = torch.zeros_like(cost)
        change[i, j] = step
        slope = (distance(cost + change) - distance(cost - change)) / (2 * step)
        assert slope == pytest.approx(plan[i, j].item(), abs=1e-8)


def test_wcord_equals_loop() -> None:
    wcord = build_module("wcord").double()
    assert isinstance(wcord, WCoRD)
    args = bank_args()
    for _ in range(3):
        wcord(*args)
    wcord.eval()  # The power iteration of the spectral norm rests.
    banks = [to_numpy(wcord.memory.bank_s), to_numpy(wcord.memory.bank_t)]
    torch.manual_seed(7)
    drawn = wcord.memory.draw(args[2])
    samples = np.concatenate([args[2].numpy()[:, None], drawn.numpy()], axis=1)
    v = []
    for embed, x in ((wcord.embed_s, args[0]), (wcord.embed_t, args[1])):
        rows = to_numpy(x) @ to_numpy(embed.linear.weight).T + to_numpy(embed.linear.bias)
        v.append(np.stack([row / math.sqrt(float(row @ row)) for row in rows]))
    z = np.exp(to_numpy(wcord.memory.log_z)).tolist()
    h = crd_reference(v[0], v[1], banks, samples, z, 0.07)
    contrast = sum(h[d, i, 1:].sum() - h[d, i, 0] for d, i in np.ndindex(2, 4)) / 4
    cost = np.array([[1 - sum(a * b for a, b in zip(p, q, strict=True)) for q in v[1]] for p in v[0]])
    local = float((_loop_sinkhorn(cost, 0.1, 50) * cost).sum())
    torch.manual_seed(7)
    parts = wcord.parts(*args)
    assert parts["global"].item() == pytest.approx(0.8 * contrast, rel=1e-9)
    assert parts["local"].item() == pytest.approx(0.5 * local, rel=1e-9)
    assert seeded_loss(wcord, args).item() == pytest.approx(0.8 * contrast + 0.5 * local, rel=1e-9)


def test_wcord_divides_by_the_spectral_norm() -> None:
    wcord = build_module("wcord").float()
    assert isinstance(wcord, WCoRD)
    nn.init.uniform_(wcord.embed_s.linear.parametrizations.weight.original, -3, 3)
    args = apply_to_floats(bank_args(), lambda x: x.float())
    for _ in range(60):
        wcord(*args)
    for embed in (wcord.embed_s, wcord.embed_t):
        assert torch.linalg.matrix_norm(embed.linear.weight, 2).item() == pytest.approx(1, abs=1e-3)


def test_the_spectral_norm_of_wcord_acts_through_the_bias_alone() -> None:
    wcord = build_module("wcord").double().eval()
    assert isinstance(wcord, WCoRD)
    z, _, _ = bank_args()
    linear = wcord.embed_s.linear
    with torch.no_grad():
        weight = 5 * linear.parametrizations.weight.original
        assert not torch.allclose(wcord.embed_s(z), nn.functional.normalize(z @ weight.T + linear.bias), atol=1e-3)
        linear.bias.zero_()
        torch.testing.assert_close(wcord.embed_s(z), nn.functional.normalize(z @ weight.T))
    jacobian = torch.autograd.functional.jacobian(lambda x: wcord.embed_s(x[None])[0], 1e-3 * z[0])
    assert torch.linalg.matrix_norm(jacobian, 2) > 100


def test_wcord_skips_terms_with_beta_zero() -> None:
    args = apply_to_floats(bank_args(), lambda x: x.float())
    kwargs: dict[str, Any] = {"embed_dim": 4, "num_negatives": 3}
    assert list(WCoRD(6, 5, LABELS, beta_local=0, **kwargs).parts(*args)) == ["global"]
    local = WCoRD(6, 5, LABELS, beta_global=0, **kwargs)
    before = local.memory.bank_s.clone()
    assert list(local.parts(*args)) == ["local"]
    assert torch.equal(local.memory.bank_s, before)
    assert WCoRD(6, 5, LABELS, beta_global=0, beta_local=0, **kwargs)(*args).item() == 0


def test_contrast_losses_of_known_odds() -> None:
    log_odds = torch.tensor([[math.log(3), 0.0, -math.log(4)]], dtype=torch.float64)  # h = 3/4, 1/2, 1/5
    assert crd_loss(log_odds).item() == pytest.approx(-math.log(0.75 * 0.5 * 0.8))
    assert global_contrast_loss(log_odds).item() == pytest.approx(0.5 + 0.2 - 0.75)
    sure = torch.tensor([[1e4, -1e4, -1e4]], requires_grad=True)
    for loss in (crd_loss(sure), crd_loss(-sure), global_contrast_loss(sure), global_contrast_loss(-sure)):
        (grad,) = torch.autograd.grad(loss, sure)
        assert loss.isfinite()
        assert grad.isfinite().all()
