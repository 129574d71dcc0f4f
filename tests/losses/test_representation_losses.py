"""The losses against NumPy loops, closed forms, invariances and the inputs that break published code."""

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import bnn_itrd.losses
from bnn_itrd.distillers import METHODS, Weighted
from bnn_itrd.losses import (
    AB,
    AT,
    CC,
    CRD,
    DIST,
    DKD,
    FT,
    ITRD,
    KD,
    RKD,
    SRD,
    VID,
    FitNet,
    VIDLogits,
    WCoRD,
    ab_loss,
    at_loss,
    cc_loss,
    correlation_loss,
    dist_loss,
    dkd_loss,
    factor_loss,
    mutual_information_loss,
    renyi_entropy,
    renyi_mutual_information,
    sinkhorn,
    soft_kl,
    srd_loss,
    vid_loss,
)
from bnn_itrd.losses.renyi import renyi_joint_entropy

Array = np.ndarray[Any, np.dtype[np.float64]]
Loss = Callable[[Tensor, Tensor], Tensor]

SHAPES = [(2, 1), (3, 5), (8, 4), (17, 9)]
LOSSES: dict[str, Loss] = {
    "correlation": correlation_loss,
    "mutual_information": mutual_information_loss,
    "mutual_information_log": lambda s, t: mutual_information_loss(s, t, log=True),
    "soft_kl": soft_kl,
}


def _pair(n: int, d_s: int, d_t: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    z_t = rng.normal(1.0, 2.0, (n, d_t or d_s))
    z_s = rng.normal(-0.5, 0.7, (n, d_s))
    if d_t is None:
        z_s += 0.3 * z_t
    return torch.from_numpy(z_s), torch.from_numpy(z_t)


def _gram(n: int, d: int, seed: int = 0) -> Tensor:
    z, _ = _pair(n, d, seed=seed)
    return z @ z.T


# Independent versions: float64 NumPy loops that follow the papers' formulas.


def _loop_correlation(z_s: Array, z_t: Array, alpha: float) -> float:
    n, d = z_s.shape
    total = 0.0
    for i in range(d):
        a, b = z_s[:, i], z_t[:, i]
        mean_a, mean_b = sum(a) / n, sum(b) / n
        std_a = math.sqrt(sum((x - mean_a) ** 2 for x in a) / (n - 1))
        std_b = math.sqrt(sum((x - mean_b) ** 2 for x in b) / (n - 1))
        dead = std_a == 0 or std_b == 0
        pairs = zip(a, b, strict=True)
        v = 0.0 if dead else sum((x - mean_a) / std_a * (y - mean_b) / std_b for x, y in pairs) / n
        total += abs(v - 1) ** (2 * alpha)
    return math.log2(total)


def _loop_gram(z: Array) -> list[list[float]]:
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in z.tolist()]
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def _loop_potential(gram: list[list[float]]) -> float:
    trace = sum(gram[i][i] for i in range(len(gram)))
    return sum((x / trace) ** 2 for row in gram for x in row)


def _loop_mutual_information(z_s: Array, z_t: Array, log: bool) -> float:
    g_s, g_t = _loop_gram(z_s), _loop_gram(z_t)
    g_st = [[x * y for x, y in zip(a, b, strict=True)] for a, b in zip(g_s, g_t, strict=True)]
    marginal, joint = _loop_potential(g_s), _loop_potential(g_st)
    return math.log2(marginal) - math.log2(joint) if log else marginal - joint


def _loop_soft_kl(student: Array, teacher: Array, tau: float) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        exp_s, exp_t = [math.exp(x / tau) for x in s], [math.exp(x / tau) for x in t]
        for a, b in zip(exp_s, exp_t, strict=True):
            p_s, p_t = a / sum(exp_s), b / sum(exp_t)
            total += p_t * math.log(p_t / p_s)
    return tau * tau * total / len(student)


def _loop_renyi(gram: Array, alpha: int) -> float:
    """Integer alpha above 1, by matrix powers: no eigenvalue."""
    a = gram / sum(gram[i, i] for i in range(len(gram)))
    power = a
    for _ in range(alpha - 1):
        power = power @ a
    return math.log2(float(np.trace(power))) / (1 - alpha)


@pytest.mark.parametrize("alpha", [0.5, 1.01, 1.5])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_correlation_equals_loop(n: int, d: int, alpha: float) -> None:
    z_s, z_t = _pair(n, d)
    want = _loop_correlation(z_s.numpy(), z_t.numpy(), alpha)
    got = correlation_loss(z_s, z_t, alpha=alpha)
    assert got.shape == ()
    assert got.item() == pytest.approx(want, abs=1e-12)
    assert correlation_loss(z_s.float(), z_t.float(), alpha=alpha).item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(2, 1, 3), (3, 5, 5), (8, 4, 7), (17, 9, 2)])
def test_mutual_information_equals_loop(n: int, d_s: int, d_t: int, log: bool) -> None:
    z_s, z_t = _pair(n, d_s, d_t)
    want = _loop_mutual_information(z_s.numpy(), z_t.numpy(), log)
    got = mutual_information_loss(z_s, z_t, log=log)
    assert got.shape == ()
    assert got.item() == pytest.approx(want, abs=1e-12)
    got = mutual_information_loss(z_s.float(), z_t.float(), log=log)
    assert got.item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize(("n", "c"), [(1, 2), (5, 10), (8, 3)])
def test_soft_kl_equals_loop(n: int, c: int, tau: float) -> None:
    student, teacher = _pair(n, c, c)
    want = _loop_soft_kl(student.numpy(), teacher.numpy(), tau)
    assert soft_kl(student, teacher, tau=tau).item() == pytest.approx(want, rel=1e-12)
    assert KD(tau)(student, teacher).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("alpha", [2, 3, 5])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 5), (9, 4)])
def test_renyi_equals_matrix_powers(n: int, d: int, alpha: int) -> None:
    a, b = _gram(n, d), _gram(n, d, seed=1)
    s_a, s_b = _loop_renyi(a.numpy(), alpha), _loop_renyi(b.numpy(), alpha)
    s_ab = _loop_renyi((a * b).numpy(), alpha)
    assert renyi_entropy(a, alpha=alpha).item() == pytest.approx(s_a, abs=1e-12)
    assert renyi_joint_entropy(a, b, alpha=alpha).item() == pytest.approx(s_ab, abs=1e-12)
    got = renyi_mutual_information(a, b, alpha=alpha)
    assert got.item() == pytest.approx(s_a + s_b - s_ab, abs=1e-12)


@pytest.mark.parametrize("alpha", [1.01, 1.5])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (16, 4), (256, 8)])
def test_identical_representations_reach_the_floor(n: int, d: int, alpha: float) -> None:
    z, _ = _pair(n, d)
    want = math.log2(d * (1 / n) ** (2 * alpha))
    assert correlation_loss(z, z, alpha=alpha).item() == pytest.approx(want, abs=1e-9)
    # 1 - v = 1/n is a difference of numbers near 1: float32 leaves n * 1e-7 of it.
    assert correlation_loss(z.float(), z.float(), alpha=alpha).item() == pytest.approx(want, abs=1e-6 * n)


def test_anticorrelated_representations() -> None:
    z, _ = _pair(8, 3)
    assert correlation_loss(z, -z).item() == pytest.approx(math.log2(3 * (15 / 8) ** 2.02), abs=1e-12)


def test_orthogonal_and_collapsed_rows() -> None:
    n = 8
    eye, ones = torch.eye(n), torch.ones(n, 3)
    assert mutual_information_loss(eye, eye).item() == pytest.approx(0, abs=1e-7)
    assert mutual_information_loss(eye, ones).item() == pytest.approx(0, abs=1e-6)
    assert mutual_information_loss(ones, eye).item() == pytest.approx(1 - 1 / n, abs=1e-6)
    assert mutual_information_loss(ones, eye, log=True).item() == pytest.approx(math.log2(n), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 2.0, 4.0])
def test_renyi_of_known_spectra(alpha: float) -> None:
    n = 8
    eye, ones = torch.eye(n, dtype=torch.float64), torch.ones(n, n, dtype=torch.float64)
    # Below 1 a power magnifies eigenvalues that are zero but for rounding: 1e-17 ** 0.5 each.
    tolerance = 1e-12 if alpha >= 1 else 1e-7
    assert renyi_entropy(5 * eye, alpha=alpha).item() == pytest.approx(3, abs=1e-12)
    assert renyi_entropy(ones, alpha=alpha).item() == pytest.approx(0, abs=tolerance)
    assert renyi_entropy(0 * eye, alpha=alpha).item() == 0
    assert renyi_joint_entropy(eye, ones, alpha=alpha).item() == pytest.approx(3, abs=1e-12)
    assert renyi_mutual_information(eye, eye, alpha=alpha).item() == pytest.approx(3, abs=1e-12)
    assert renyi_mutual_information(eye, ones, alpha=alpha).item() == pytest.approx(0, abs=tolerance)
    p = [0.5, 0.25, 0.125, 0.125]
    want = 1.75 if alpha == 1 else math.log2(sum(x**alpha for x in p)) / (1 - alpha)
    assert renyi_entropy(6 * torch.tensor(p).diag(), alpha=alpha).item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_renyi_is_continuous_at_one(dtype: torch.dtype) -> None:
    gram = _gram(9, 9).to(dtype)
    shannon = renyi_entropy(gram, alpha=1.0).item()
    assert 0 < shannon < math.log2(9)
    for step in (1e-3, 1e-4, 1e-6, 1e-9):
        for alpha in (1 - step, 1 + step):
            assert renyi_entropy(gram, alpha=alpha).item() == pytest.approx(shannon, abs=3 * step + 2e-3)
            if dtype == torch.float64:
                assert renyi_entropy(gram, alpha=alpha).item() == pytest.approx(shannon, abs=3 * step + 1e-7)


@pytest.mark.parametrize(("n", "d"), [(3, 5), (16, 4)])
def test_eigenvalue_form_equals_frobenius_form(n: int, d: int) -> None:
    z_s, z_t = _pair(n, d)
    unit_s, unit_t = z_s / z_s.norm(dim=1, keepdim=True), z_t / z_t.norm(dim=1, keepdim=True)
    g_s, g_t = unit_s @ unit_s.T, unit_t @ unit_t.T
    frobenius = -math.log2(float(np.linalg.norm(g_s.numpy() / n) ** 2))
    assert renyi_entropy(g_s, alpha=2.0).item() == pytest.approx(frobenius, abs=1e-12)
    # Eq. 9 is -I_2 without the teacher's entropy.
    want = renyi_entropy(g_t) - renyi_mutual_information(g_s, g_t)
    assert mutual_information_loss(z_s, z_t, log=True).item() == pytest.approx(want.item(), abs=1e-12)


def test_soft_kl_closed_forms() -> None:
    student, teacher = _pair(6, 5, 5)
    assert soft_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert soft_kl(student + 7, teacher - 3).item() == pytest.approx(soft_kl(student, teacher).item())
    # A sure teacher against a uniform student: tau^2 * log c.
    sure = 1e4 * torch.eye(5)
    assert soft_kl(torch.zeros(5, 5), sure, tau=2.0).item() == pytest.approx(4 * math.log(5), rel=1e-6)
    student.requires_grad_()
    soft_kl(student, teacher, tau=4.0).backward()
    want = 4.0 * ((student / 4).softmax(1) - (teacher / 4).softmax(1)) / 6
    torch.testing.assert_close(student.grad, want.detach())


def test_correlation_ignores_positive_affine_maps_of_features() -> None:
    z_s, z_t = _pair(12, 5)
    base = correlation_loss(z_s, z_t).item()
    scale, shift = torch.tensor([1e-4, 0.5, 1, 30, 1e5]), torch.tensor([3.0, -2, 0, 1e3, -7])
    assert correlation_loss(z_s * scale + shift, z_t).item() == pytest.approx(base, abs=1e-9)
    assert correlation_loss(z_s, z_t * scale + shift).item() == pytest.approx(base, abs=1e-9)
    assert correlation_loss(-z_s, z_t).item() != pytest.approx(base, abs=1e-2)


@pytest.mark.parametrize("log", [False, True])
def test_mutual_information_ignores_positive_row_scales(log: bool) -> None:
    z_s, z_t = _pair(6, 5, 3)
    base = mutual_information_loss(z_s, z_t, log=log).item()
    scale = torch.tensor([1e-4, 0.1, 1, 2, 50, 1e4])[:, None]
    assert mutual_information_loss(z_s * scale, z_t, log=log).item() == pytest.approx(base, abs=1e-12)
    assert mutual_information_loss(z_s, z_t * scale, log=log).item() == pytest.approx(base, abs=1e-12)
    assert mutual_information_loss(z_s + 1, z_t, log=log).item() != pytest.approx(base, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1000.3, 1e-12])
@pytest.mark.parametrize("dead", ["student", "teacher", "both", "all"])
def test_dead_features(dead: str, constant: float, dtype: torch.dtype) -> None:
    z_s, z_t = _pair(7, 4)
    for name, z in (("student", z_s), ("teacher", z_t)):
        if dead in (name, "both"):
            z[:, 2] = constant
        elif dead == "all":
            z[:] = constant
    # The mean of equal numbers rounds in the loop: hand it the exact one.
    exact_s, exact_t = (np.where(z.numpy() == constant, 0.0, z.numpy()) for z in (z_s, z_t))
    want = _loop_correlation(exact_s, exact_t, 1.01)
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
    z_s, z_t = (z.float() for z in _pair(7, 4))
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


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("log", [False, True])
def test_zero_rows(log: bool, side: int) -> None:
    z = [x.float() for x in _pair(5, 4, 6)]
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
    z_s, z_t = _pair(5, 4)
    live = torch.tensor([0, 1, 2, 4])
    z_s[3] = z_t[3] = 0
    want = mutual_information_loss(z_s[live], z_t[live])
    assert mutual_information_loss(z_s, z_t).item() == pytest.approx(want.item(), abs=1e-12)
    assert mutual_information_loss(0 * z_s, z_t).item() == 0


@pytest.mark.parametrize("name", ["correlation", "mutual_information", "mutual_information_log", "itrd"])
@pytest.mark.parametrize("case", ["batch of one", "identical", "tiny", "constant", "zero"])
def test_degenerate_batches_are_finite_and_attached(name: str, case: str) -> None:
    loss_fn = ITRD(4, 4) if name == "itrd" else LOSSES[name]
    z, z_t = (x.float() for x in _pair(1 if case == "batch of one" else 6, 4))
    z = {"identical": z_t, "tiny": 1e-20 * z, "constant": torch.ones_like(z), "zero": 0 * z}.get(case, z)
    z = z.clone().requires_grad_()
    loss = loss_fn(z, z_t)
    assert loss.isfinite()
    assert loss.requires_grad
    loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_batch_of_one_values() -> None:
    z_s, z_t = _pair(1, 4)
    assert correlation_loss(z_s, z_t).item() == pytest.approx(2)
    assert mutual_information_loss(z_s, z_t).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    z_s, z_t = (x.to(dtype) for x in _pair(32, 6))
    want = LOSSES[name](z_s.double(), z_t.double()).item()
    z_s.requires_grad_()
    loss = LOSSES[name](z_s, z_t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, abs=1e-5)
    loss.backward()
    assert z_s.grad is not None
    assert z_s.grad.dtype == dtype
    assert z_s.grad.isfinite().all()
    assert LOSSES[name](z_s.detach(), z_t.float()).item() == pytest.approx(want, abs=1e-5)
    assert LOSSES[name](z_s.detach().double(), z_t.float()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*LOSSES, "itrd", "renyi"])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    z_s, z_t = (x.to(dtype) for x in _pair(16, 6))
    loss_fn: Loss
    if name == "itrd":
        loss_fn = ITRD(6, 6)
    elif name == "renyi":
        z_s, z_t = (x.to(dtype) for x in (_gram(6, 6), _gram(6, 6, seed=1)))
        loss_fn = renyi_mutual_information
    else:
        loss_fn = LOSSES[name]
    want = loss_fn(z_s, z_t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z_s @ z_s.T).dtype == torch.bfloat16
        got = loss_fn(z_s, z_t)
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    z_s, z_t = (z.requires_grad_() for z in _pair(5, 3))
    assert torch.autograd.gradcheck(LOSSES[name], (z_s, z_t))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_gradcheck_renyi(alpha: float) -> None:
    z_s, z_t = (z.requires_grad_() for z in _pair(4, 6))

    def information(a: Tensor, b: Tensor) -> Tensor:
        return renyi_mutual_information(a @ a.T, b @ b.T, alpha=alpha)

    assert torch.autograd.gradcheck(information, (z_s, z_t))


def test_renyi_gradient_is_finite_at_rank_one() -> None:
    for alpha in (0.5, 1.0, 2.0):
        gram = torch.diag(torch.tensor([1.0, 0, 0])).requires_grad_()
        renyi_entropy(gram, alpha=alpha).backward()
        assert gram.grad is not None
        assert gram.grad.isfinite().all()


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (4, 6)])
def test_itrd_gradcheck(d_s: int, d_t: int) -> None:
    torch.manual_seed(0)
    itrd = ITRD(d_s, d_t).double()
    z_s, z_t = _pair(5, d_s, d_t)
    assert torch.autograd.gradcheck(itrd, (z_s.requires_grad_(), z_t))


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (4, 6)])
def test_itrd_is_the_weighted_sum_of_its_terms(d_s: int, d_t: int) -> None:
    torch.manual_seed(0)
    itrd = ITRD(d_s, d_t, alpha=1.5, beta_corr=3.0, beta_mi=0.5).double()
    z_s, z_t = _pair(9, d_s, d_t)
    weight, bias = itrd.embed.weight.detach().numpy(), itrd.embed.bias.detach().numpy()
    embedded = z_s.numpy() @ weight.T + bias
    corr = 3.0 * _loop_correlation(embedded, z_t.numpy(), 1.5)
    mi = 0.5 * _loop_mutual_information(z_s.numpy() if d_s == d_t else embedded, z_t.numpy(), False)
    parts = itrd.parts(z_s, z_t)
    assert list(parts) == ["corr", "mi"]
    assert parts["corr"].item() == pytest.approx(corr, abs=1e-10)
    assert parts["mi"].item() == pytest.approx(mi, abs=1e-10)
    assert itrd(z_s, z_t).item() == pytest.approx(corr + mi, abs=1e-10)
    assert itrd(z_s, z_t).dtype == torch.float64


def test_itrd_defaults_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    itrd = ITRD(4, 4)
    z_s, z_t = (z.float() for z in _pair(9, 4))
    with torch.no_grad():
        want = 2 * correlation_loss(itrd.embed(z_s), z_t, alpha=1.01) + mutual_information_loss(z_s, z_t)
        torch.testing.assert_close(itrd(z_s, z_t), want)
    assert {k: tuple(v.shape) for k, v in itrd.named_parameters()} == {
        "embed.weight": (4, 4),
        "embed.bias": (4,),
    }


def test_itrd_skips_terms_with_beta_zero() -> None:
    z_s, z_t = (z.float() for z in _pair(9, 4))
    assert list(ITRD(4, 4, beta_mi=0).parts(z_s, z_t)) == ["corr"]
    assert list(ITRD(4, 4, beta_corr=0).parts(z_s, z_t)) == ["mi"]
    assert ITRD(4, 4, beta_corr=0, beta_mi=0)(z_s, z_t).item() == 0
    itrd = ITRD(4, 4, beta_corr=0)
    z_s.requires_grad_()
    itrd(z_s, z_t).backward()
    assert itrd.embed.weight.grad is None
    assert z_s.grad is not None
    other = ITRD(4, 6, beta_corr=0)
    other(z_s, torch.randn(9, 6)).backward()
    assert other.embed.weight.grad is not None


def test_itrd_learns() -> None:
    """Gradient descent on the embedding alone finds a linear relation between the two sides."""
    torch.manual_seed(0)
    z_s = torch.randn(64, 4)
    z_t = z_s @ torch.randn(4, 4)
    itrd = ITRD(4, 4)
    optimiser = torch.optim.Adam(itrd.parameters(), lr=0.05)
    before = itrd.parts(z_s, z_t)["corr"].item()
    for _ in range(150):
        optimiser.zero_grad()
        itrd(z_s, z_t).backward()
        optimiser.step()
    floor = 2 * math.log2(4 * (1 / 64) ** 2.02)
    after = itrd.parts(z_s, z_t)["corr"].item()
    assert before > floor + 10
    assert floor - 1e-3 <= after < floor + 2


@pytest.mark.compiles
@pytest.mark.parametrize("autocast", [False, True])
def test_itrd_compiles_without_a_graph_break(autocast: bool) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    itrd = ITRD(4, 6)
    z_s, z_t = (z.float() for z in _pair(9, 4, 6))
    compiled = torch.compile(itrd, fullgraph=True, backend="aot_eager")
    want = itrd(z_s, z_t)
    (want_grad,) = torch.autograd.grad(want, itrd.embed.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = compiled(z_s, z_t)
    (got_grad,) = torch.autograd.grad(got, itrd.embed.weight)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    # The compiler traces the backward pass under the autocast of the call, which eager mode does not.
    tolerance = 5e-2 if autocast else 1e-5
    torch.testing.assert_close(got_grad, want_grad, rtol=tolerance, atol=tolerance)


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: correlation_loss(_z(8, 4), _z(8, 5)),
            r"z_s and z_t must share \(n, d\), got \(8, 4\) and \(8, 5\)",
        ),
        (lambda: correlation_loss(_z(8, 4), _z(7, 4)), r"share \(n, d\), got \(8, 4\) and \(7, 4\)"),
        (lambda: correlation_loss(_z(8), _z(8)), r"z_s must be 2-D without an empty axis, got shape \(8,\)"),
        (lambda: correlation_loss(_z(8, 4), _z(8, 4, 1)), r"z_t must be 2-D .*, got shape \(8, 4, 1\)"),
        (lambda: correlation_loss(_z(0, 4), _z(0, 4)), r"z_s must be 2-D .*, got shape \(0, 4\)"),
        (
            lambda: correlation_loss(_z(2, 1).to(torch.cfloat), _z(2, 1)),
            r"z_s must be real, got torch.complex64",
        ),
        (lambda: correlation_loss(_z(8, 4), _z(8, 4), alpha=0), r"alpha must be > 0 and finite, got 0"),
        (
            lambda: correlation_loss(_z(8, 4), _z(8, 4), alpha=math.nan),
            r"alpha must be > 0 and finite, got nan",
        ),
        (lambda: mutual_information_loss(_z(8, 4), _z(9, 4)), r"must share n, got \(8, 4\) and \(9, 4\)"),
        (lambda: mutual_information_loss(_z(8), _z(8, 4)), r"z_s must be 2-D .*, got shape \(8,\)"),
        (lambda: mutual_information_loss(_z(8, 4), _z(8, 0)), r"z_t must be 2-D .*, got shape \(8, 0\)"),
        (lambda: ITRD(0, 4), r"student_dim must be an integer >= 1, got 0"),
        (lambda: ITRD(4, -1), r"teacher_dim must be an integer >= 1, got -1"),
        (lambda: ITRD(4, 4, alpha=-1.0), r"alpha must be > 0 and finite, got -1.0"),
        (lambda: ITRD(4, 4, beta_corr=-2.0), r"beta_corr must be >= 0 and finite, got -2.0"),
        (lambda: ITRD(4, 4, beta_mi=math.inf), r"beta_mi must be >= 0 and finite, got inf"),
        (lambda: ITRD(4, 6)(_z(8, 5), _z(8, 6)), r"z_s must be \(n, 4\) with n >= 1, got \(8, 5\)"),
        (lambda: ITRD(4, 6)(_z(8, 4), _z(8, 4)), r"z_t must be \(n, 6\) with n >= 1, got \(8, 4\)"),
        (lambda: ITRD(4, 6)(_z(8, 4), _z(7, 6)), r"got \(8, 6\) and \(7, 6\)"),
        (lambda: renyi_entropy(_z(3, 4)), r"gram must be square, got \(3, 4\)"),
        (lambda: renyi_entropy(_z(3, 3), alpha=0), r"alpha must be > 0 and finite, got 0"),
        (lambda: renyi_entropy(_z(3, 3), alpha=-2.0), r"alpha must be > 0 and finite, got -2.0"),
        (
            lambda: renyi_joint_entropy(_z(3, 3), _z(4, 4)),
            r"gram_a and gram_b must share \(n, n\), got \(3, 3\)",
        ),
        (lambda: renyi_mutual_information(_z(3, 3), _z(1, 1)), r"got \(3, 3\) and \(1, 1\)"),
        (lambda: soft_kl(_z(8, 4), _z(8, 5)), r"student and teacher must share \(n, c\), got \(8, 4\)"),
        (lambda: soft_kl(_z(8, 4), _z(8, 4), tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: KD(tau=-1.0), r"tau must be > 0 and finite, got -1.0"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Published weights, each for the reduction of its loss here (RepDistiller's, or the method's own code).
WEIGHTS = {
    "kd": 0.9, "dkd": 1, "dist": 1, "itrd": 1, "cc": 0.02, "rkd": 1, "pkt": 3e4, "srd": 2, "crd": 0.8, "wcord": 1,
    "vid": 1, "fitnet": 100, "at": 1000, "sp": 3000, "nst": 50, "ickd": 2.5, "fsp": 50, "ab": 3e-3, "ft": 200,
    "reviewkd": 1,
}  # fmt: skip


def test_weights_are_the_published_ones() -> None:
    assert {name: METHODS[name]().weight for name in WEIGHTS} == WEIGHTS
    assert {name for name in WEIGHTS if METHODS[name]().warmup_epochs == 20} == {"dkd", "reviewkd"}


def _defaults(call: Callable[..., object]) -> dict[str, Any]:
    parameters = inspect.signature(call).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("name", METHODS)
def test_settings_have_the_defaults_of_their_loss(name: str) -> None:
    loss = {m.lower(): getattr(bnn_itrd.losses, m) for m in bnn_itrd.losses.__all__}.get(name)
    kept = {"embed_dim", "num_negatives", "temperature", "momentum"} if name in ("crd", "wcord") else set()
    if loss is None:  # a function without settings
        options = {field.name for field in fields(METHODS[name])} - {field.name for field in fields(Weighted)}
        assert options <= {"stage"}
        return
    config = METHODS[name]()
    own = {{"negatives": "num_negatives"}.get(f.name, f.name): getattr(config, f.name) for f in fields(config)}
    both = own.keys() & _defaults(loss).keys()
    assert both >= kept
    assert {k: own[k] for k in both} == {k: _defaults(loss)[k] for k in both}


@pytest.mark.parametrize(
    ("module", "function", "shared"),
    [
        (KD, soft_kl, {"tau": 4}),
        (DIST, dist_loss, {"beta": 1, "gamma": 1, "tau": 1}),
        (DKD, dkd_loss, {"alpha": 1, "beta": 8, "tau": 4}),
        (AT, at_loss, {"p": 2}),
        (CC, cc_loss, {"gamma": 0.4, "order": 2}),
        (SRD, srd_loss, {"exponent": 4}),
        (AB, ab_loss, {"margin": 1}),
        (FT, factor_loss, {"attention": True}),
        (VID, vid_loss, {"reduction": "mean"}),
        (VIDLogits, vid_loss, {"reduction": "mean"}),
        (WCoRD, sinkhorn, {"epsilon": 0.1, "iterations": 50}),
        (ITRD, correlation_loss, {"alpha": 1.01}),
    ],
)
def test_module_and_function_have_the_same_defaults(
    module: Callable[..., object], function: Callable[..., object], shared: dict[str, Any]
) -> None:
    for call in (module, function):
        assert {k: v for k, v in _defaults(call).items() if k in shared} == shared


def test_defaults_of_modules_alone() -> None:
    bank = {"embed_dim": 128, "num_negatives": 16384, "temperature": 0.07, "momentum": 0.5}
    assert _defaults(CRD) == bank
    assert _defaults(WCoRD) == {**bank, "beta_global": 0.8, "beta_local": 0.05, "epsilon": 0.1, "iterations": 50}
    for vid in (VID, VIDLogits):
        assert _defaults(vid)["init_variance"] == 5
    assert not _defaults(VID)["batch_norm"] and not _defaults(FitNet)["batch_norm"]
    assert _defaults(FT)["rate"] == 0.5
    assert _defaults(CC)["form"] == "consecutive"
    correlation = {"corr_log": True, "off_diagonal": 0, "decorrelation": 0}
    information = {"log": False, "order": 2, "degree": 1}
    assert _defaults(ITRD) == {"alpha": 1.01, "beta_corr": 2, "beta_mi": 1, **correlation, **information}
    assert _defaults(SRD) == {"exponent": 4, "norm": "batch", "projector": "linear", "form": "log_sum"}
    assert _defaults(RKD) == {"distance": 25, "angle": 50}


@pytest.fixture(scope="module")
def benchmark() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "losses.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_losses", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_benchmark_has_every_method_between_two_plain_steps(benchmark: Any) -> None:
    ways = benchmark._ways()
    names = list(ways)
    assert (names[0], names[-1]) == ("plain", "plain again")
    assert {name for config, _ in ways.values() for name in config.methods} == METHODS.keys()


class _Costly:
    """A way whose step takes `cost`, and its teacher 1, on a clock that doubles its pace from turn to turn."""

    log: ClassVar[list[str]]
    now: ClassVar[float]
    pace: ClassVar[float]

    def __init__(self, name: str, cost: float) -> None:
        self.name, self.cost = name, cost

    def _take(self, name: str, cost: float) -> None:
        if name == "plain" and _Costly.log and _Costly.log[-1] != "plain":
            _Costly.pace *= 2
        _Costly.log.append(name)
        _Costly.now += _Costly.pace * cost

    def step(self, batch: object) -> None:
        self._take(self.name, self.cost)

    def look(self, batch: object) -> None:
        self._take("teacher", 1.0)


def test_benchmark_takes_turns_and_takes_the_teacher_off(benchmark: Any) -> None:
    _Costly.log, _Costly.now, _Costly.pace = [], 0.0, 1.0
    ways = {name: _Costly(name, cost) for name, cost in (("plain", 2.0), ("kd", 4.0), ("plain again", 2.0))}
    rows = benchmark.measure(ways, (torch.zeros(1),), turns=3, steps=2, clock=lambda: _Costly.now)
    order = ["plain", "kd", "plain again", "teacher"]
    warm_up, turn = ([name for name in order for _ in range(times)] for times in (2, 3))
    assert _Costly.log == warm_up + 3 * turn + order, "and once each for the memory"
    for name, want in (("plain", 1), ("plain again", 1), ("kd", (4 - 1) / 2), ("teacher forward", 1 / 2)):
        assert rows[name]["over_plain"] == pytest.approx(want)
        assert rows[name]["over_plain_range"] == pytest.approx([want, want])
    assert rows["plain"]["step_ms"] == pytest.approx(1000 * 2 * 4)  # the median turn, at 4 times the first pace


def test_every_loss_has_public_names_which_its_file_names_too() -> None:
    folder = Path(bnn_itrd.losses.__file__).parent
    files = {f"bnn_itrd.losses.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_")}
    found = {name: getattr(bnn_itrd.losses, name).__module__ for name in bnn_itrd.losses.__all__}
    assert set(found.values()) == files
    for name, module in found.items():
        assert name in importlib.import_module(module).__all__
