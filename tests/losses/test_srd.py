"""SRD against NumPy, of equal inputs, and in evaluation."""

import math

import pytest
import torch
from helpers.loss_modules import random_map
from helpers.numpy_layers import numpy_batch_norm, to_numpy
from torch import nn

from bnn_itrd.losses.srd import SRD, srd_loss


@pytest.mark.parametrize("exponent", [1.0, 2.5, 4.0])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(2, 1, 1), (5, 3, 4), (9, 6, 6)])
def test_srd_equals_numpy(n: int, d_s: int, d_t: int, exponent: float) -> None:
    torch.manual_seed(0)
    srd = SRD(d_s, d_t, exponent=exponent).double()
    z_s, z_t = random_map(n, (d_s,), 1), random_map(n, (d_t,), 2)
    plain = nn.BatchNorm1d(d_t, eps=1e-4, affine=False)
    a, b = (
        numpy_batch_norm(to_numpy(z_s) @ to_numpy(srd.projector.weight).T, plain),
        numpy_batch_norm(to_numpy(z_t), plain),
    )
    total = sum(abs(x - y) ** exponent for x, y in zip(a.ravel(), b.ravel(), strict=True))
    assert srd(z_s, z_t).item() == pytest.approx(math.log(total), rel=1e-10)
    assert srd_loss(torch.from_numpy(a), torch.from_numpy(b), exponent=exponent).item() == pytest.approx(
        math.log(total), rel=1e-12
    )
    assert set(srd.state_dict()) >= {"projector.weight", "norm_s.running_mean", "norm_t.running_var"}
    assert [name for name, _ in srd.named_parameters()] == ["projector.weight"]


def test_srd_of_equal_inputs_is_finite() -> None:
    z = random_map(4, (3,), 0).float().requires_grad_()
    for exponent in (1.0, 4.0):
        for shift, live in ((0.0, False), (5e-5, False), (2e-4, True)):
            loss = srd_loss(z, z.detach() + shift, exponent=exponent)
            want = math.log(12) + exponent * math.log(max(shift, 1e-4))
            assert loss.item() == pytest.approx(want, abs=1e-2)
            (grad,) = torch.autograd.grad(loss, z)
            assert bool(grad.any()) == live
    assert srd_loss(z, z.detach(), exponent=20.0).item() == pytest.approx(-126 * math.log(2))


def test_srd_in_evaluation_uses_running_statistics() -> None:
    srd = SRD(3, 3)
    z_s, z_t = random_map(4, (3,), 1).float(), random_map(4, (3,), 2).float()
    for _ in range(200):
        srd(z_s, z_t)
    trained = srd(z_s, z_t).item()
    assert srd.eval()(z_s, z_t).item() == pytest.approx(trained, abs=0.8)
    assert srd(z_s[:1], z_t[:1]).isfinite()
