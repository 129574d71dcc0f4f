"""The mutual information loss against a NumPy loop, for known rows, under scales of rows, and with rows of zeros."""

import math

import numpy as np
import pytest
import torch
from helpers.representations import loop_mutual_information, pair

from bnn_itrd.losses import (
    mutual_information_loss,
    renyi_entropy,
    renyi_mutual_information,
)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(2, 1, 3), (3, 5, 5), (8, 4, 7), (17, 9, 2)])
def test_mutual_information_equals_loop(n: int, d_s: int, d_t: int, log: bool) -> None:
    z_s, z_t = pair(n, d_s, d_t)
    want = loop_mutual_information(z_s.numpy(), z_t.numpy(), log)
    got = mutual_information_loss(z_s, z_t, log=log)
    assert got.shape == ()
    assert got.item() == pytest.approx(want, abs=1e-12)
    got = mutual_information_loss(z_s.float(), z_t.float(), log=log)
    assert got.item() == pytest.approx(want, abs=1e-5)


def test_orthogonal_and_collapsed_rows() -> None:
    n = 8
    eye, ones = torch.eye(n), torch.ones(n, 3)
    assert mutual_information_loss(eye, eye).item() == pytest.approx(0, abs=1e-7)
    assert mutual_information_loss(eye, ones).item() == pytest.approx(0, abs=1e-6)
    assert mutual_information_loss(ones, eye).item() == pytest.approx(1 - 1 / n, abs=1e-6)
    assert mutual_information_loss(ones, eye, log=True).item() == pytest.approx(math.log2(n), abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(3, 5), (16, 4)])
def test_eigenvalue_form_equals_frobenius_form(n: int, d: int) -> None:
    z_s, z_t = pair(n, d)
    unit_s, unit_t = z_s / z_s.norm(dim=1, keepdim=True), z_t / z_t.norm(dim=1, keepdim=True)
    g_s, g_t = unit_s @ unit_s.T, unit_t @ unit_t.T
    frobenius = -math.log2(float(np.linalg.norm(g_s.numpy() / n) ** 2))
    assert renyi_entropy(g_s, alpha=2.0).item() == pytest.approx(frobenius, abs=1e-12)
    # Eq. 9 is -I_2 without the teacher's entropy.
    want = renyi_entropy(g_t) - renyi_mutual_information(g_s, g_t)
    assert mutual_information_loss(z_s, z_t, log=True).item() == pytest.approx(want.item(), abs=1e-12)


@pytest.mark.parametrize("log", [False, True])
def test_mutual_information_ignores_positive_row_scales(log: bool) -> None:
    z_s, z_t = pair(6, 5, 3)
    base = mutual_information_loss(z_s, z_t, log=log).item()
    scale = torch.tensor([1e-4, 0.1, 1, 2, 50, 1e4])[:, None]
    assert mutual_information_loss(z_s * scale, z_t, log=log).item() == pytest.approx(base, abs=1e-12)
    assert mutual_information_loss(z_s, z_t * scale, log=log).item() == pytest.approx(base, abs=1e-12)
    assert mutual_information_loss(z_s + 1, z_t, log=log).item() != pytest.approx(base, abs=1e-3)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("log", [False, True])
def test_zero_rows(log: bool, side: int) -> None:
    z = [x.float() for x in pair(5, 4, 6)]
    z[side][3] = 0
    z_s, z_t = (x.requires_grad_() for x in z)
    loss = mutual_information_loss(z_s, z_t, log=log)
    assert loss.isfinite()
    loss.backward()
    for grad in (z_s.grad, z_t.grad):
        assert grad is not None
        assert grad.isfinite().all()
        assert grad.abs().max() < 10
    grad = (z_s, z_t)[side].grad
    assert grad is not None
    assert not grad[3].any()


def test_zero_rows_leave_the_graph_of_the_others() -> None:
    z_s, z_t = pair(5, 4)
    live = torch.tensor([0, 1, 2, 4])
    z_s[3] = z_t[3] = 0
    want = mutual_information_loss(z_s[live], z_t[live])
    assert mutual_information_loss(z_s, z_t).item() == pytest.approx(want.item(), abs=1e-12)
    assert mutual_information_loss(0 * z_s, z_t).item() == 0
