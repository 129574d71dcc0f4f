"""The soft KL divergence of knowledge distillation against a NumPy loop and closed forms."""

import math

import pytest
import torch
from helpers.representations import Array, pair

from bnn_itrd.losses import (
    KD,
    soft_kl,
)


def _loop_soft_kl(student: Array, teacher: Array, tau: float) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        exp_s, exp_t = [math.exp(x / tau) for x in s], [math.exp(x / tau) for x in t]
        for a, b in zip(exp_s, exp_t, strict=True):
            p_s, p_t = a / sum(exp_s), b / sum(exp_t)
            total += p_t * math.log(p_t / p_s)
    return tau * tau * total / len(student)


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize(("n", "c"), [(1, 2), (5, 10), (8, 3)])
def test_soft_kl_equals_loop(n: int, c: int, tau: float) -> None:
    student, teacher = pair(n, c, c)
    want = _loop_soft_kl(student.numpy(), teacher.numpy(), tau)
    assert soft_kl(student, teacher, tau=tau).item() == pytest.approx(want, rel=1e-12)
    assert KD(tau)(student, teacher).item() == pytest.approx(want, rel=1e-12)


def test_soft_kl_closed_forms() -> None:
    student, teacher = pair(6, 5, 5)
    assert soft_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert soft_kl(student + 7, teacher - 3).item() == pytest.approx(soft_kl(student, teacher).item())
    # A sure teacher against a uniform student: tau^2 * log c.
    sure = 1e4 * torch.eye(5)
    assert soft_kl(torch.zeros(5, 5), sure, tau=2.0).item() == pytest.approx(4 * math.log(5), rel=1e-6)
    student.requires_grad_()
    soft_kl(student, teacher, tau=4.0).backward()
    want = 4.0 * ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / 6
    torch.testing.assert_close(student.grad, want.detach())
