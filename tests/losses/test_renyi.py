"""Rényi's entropy and mutual information of Gram matrices: matrix powers, known spectra, the limit at 1, gradients."""

import math

import numpy as np
import pytest
import torch
from helpers.representations import Array, gram_matrix, pair
from torch import Tensor

from bnn_itrd.losses import (
    renyi_entropy,
    renyi_mutual_information,
)
from bnn_itrd.losses.renyi import renyi_joint_entropy


def _loop_renyi(gram: Array, alpha: int) -> float:
    """Integer alpha above 1, by matrix powers: no eigenvalue."""
    a = gram / sum(gram[i, i] for i in range(len(gram)))
    power = a
    for _ in range(alpha - 1):
        power = power @ a
    return math.log2(float(np.trace(power))) / (1 - alpha)


@pytest.mark.parametrize("alpha", [2, 3, 5])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 5), (9, 4)])
def test_renyi_equals_matrix_powers(n: int, d: int, alpha: int) -> None:
    a, b = gram_matrix(n, d), gram_matrix(n, d, seed=1)
    s_a, s_b = _loop_renyi(a.numpy(), alpha), _loop_renyi(b.numpy(), alpha)
    s_ab = _loop_renyi((a * b).numpy(), alpha)
    assert renyi_entropy(a, alpha=alpha).item() == pytest.approx(s_a, abs=1e-12)
    assert renyi_joint_entropy(a, b, alpha=alpha).item() == pytest.approx(s_ab, abs=1e-12)
    got = renyi_mutual_information(a, b, alpha=alpha)
    assert got.item() == pytest.approx(s_a + s_b - s_ab, abs=1e-12)


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
    gram = gram_matrix(9, 9).to(dtype)
    shannon = renyi_entropy(gram, alpha=1.0).item()
    assert 0 < shannon < math.log2(9)
    for step in (1e-3, 1e-4, 1e-6, 1e-9):
        for alpha in (1 - step, 1 + step):
            assert renyi_entropy(gram, alpha=alpha).item() == pytest.approx(shannon, abs=3 * step + 2e-3)
            if dtype == torch.float64:
                assert renyi_entropy(gram, alpha=alpha).item() == pytest.approx(shannon, abs=3 * step + 1e-7)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_gradcheck_renyi(alpha: float) -> None:
    z_s, z_t = (z.requires_grad_() for z in pair(4, 6))

    def information(a: Tensor, b: Tensor) -> Tensor:
        return renyi_mutual_information(a @ a.T, b @ b.T, alpha=alpha)

    assert torch.autograd.gradcheck(information, (z_s, z_t))


def test_renyi_gradient_is_finite_at_rank_one() -> None:
    for alpha in (0.5, 1.0, 2.0):
        gram = torch.diag(torch.tensor([1.0, 0, 0])).requires_grad_()
        renyi_entropy(gram, alpha=alpha).backward()
        assert gram.grad is not None
        assert gram.grad.isfinite().all()
