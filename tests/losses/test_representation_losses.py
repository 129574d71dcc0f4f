"""What losses of logits and representations share: no information, half precision, gradients, bad arguments."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers.representations import gram_matrix, pair
from torch import Tensor

from bnn_itrd.losses import (
    ITRD,
    KD,
    correlation_loss,
    mutual_information_loss,
    renyi_entropy,
    renyi_mutual_information,
    soft_kl,
)
from bnn_itrd.losses.renyi import renyi_joint_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "correlation": correlation_loss,
    "mutual_information": mutual_information_loss,
    "mutual_information_log": lambda s, t: mutual_information_loss(s, t, log=True),
    "soft_kl": soft_kl,
}


@pytest.mark.parametrize("name", ["correlation", "mutual_information", "mutual_information_log", "itrd"])
@pytest.mark.parametrize("case", ["batch of one", "identical", "tiny", "constant", "zero"])
def test_degenerate_batches_are_finite_and_attached(name: str, case: str) -> None:
    loss_fn = ITRD(4, 4) if name == "itrd" else LOSSES[name]
    z, z_t = (x.float() for x in pair(1 if case == "batch of one" else 6, 4))
    z = {"identical": z_t, "tiny": 1e-20 * z, "constant": torch.ones_like(z), "zero": 0 * z}.get(case, z)
    z = z.clone().requires_grad_()
    loss = loss_fn(z, z_t)
    assert loss.isfinite()
    assert loss.requires_grad
    loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_batch_of_one_values() -> None:
    z_s, z_t = pair(1, 4)
    assert correlation_loss(z_s, z_t).item() == pytest.approx(2)
    assert mutual_information_loss(z_s, z_t).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    z_s, z_t = (x.to(dtype) for x in pair(32, 6))
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
    z_s, z_t = (x.to(dtype) for x in pair(16, 6))
    loss_fn: Loss
    if name == "itrd":
        loss_fn = ITRD(6, 6)
    elif name == "renyi":
        z_s, z_t = (x.to(dtype) for x in (gram_matrix(6, 6), gram_matrix(6, 6, seed=1)))
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
    z_s, z_t = (z.requires_grad_() for z in pair(5, 3))
    assert torch.autograd.gradcheck(LOSSES[name], (z_s, z_t))


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: correlation_loss(_z(8, 4), _z(8, 5)),
            r"z_s and z_t must have the same shape \(n, d\), got \(8, 4\) and \(8, 5\)",
        ),
        (lambda: correlation_loss(_z(8, 4), _z(7, 4)), r"have the same shape \(n, d\), got \(8, 4\) and \(7, 4\)"),
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
        (lambda: mutual_information_loss(_z(8, 4), _z(9, 4)), r"the same batch size, got \(8, 4\) and \(9, 4\)"),
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
            r"gram_a and gram_b must have the same shape \(n, n\), got \(3, 3\)",
        ),
        (lambda: renyi_mutual_information(_z(3, 3), _z(1, 1)), r"got \(3, 3\) and \(1, 1\)"),
        (lambda: soft_kl(_z(8, 4), _z(8, 5)), r"student and teacher must have the same shape \(n, c\), got \(8, 4\)"),
        (lambda: soft_kl(_z(8, 4), _z(8, 4), tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: KD(tau=-1.0), r"tau must be > 0 and finite, got -1.0"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
