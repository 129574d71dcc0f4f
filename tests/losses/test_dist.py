"""DIST against a NumPy loop, with constant rows and columns, and with rare classes."""

import math

import numpy as np
import pytest
import torch
from helpers.loss_modules import Array, random_map
from helpers.numpy_layers import to_numpy

from bnn_itrd.losses.dist import DIST, dist_loss


def _loop_pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    square_a, square_b = sum((x - mean_a) ** 2 for x in a), sum((y - mean_b) ** 2 for y in b)
    return cross / math.sqrt(square_a * square_b) if square_a > 1e-30 and square_b > 1e-30 else 0.0


def _loop_dist(s: Array, t: Array, beta: float, gamma: float, tau: float) -> float:
    p_s, p_t = (np.exp(x / tau) / np.exp(x / tau).sum(axis=1, keepdims=True) for x in (s, t))
    rows = [1 - _loop_pearson(list(a), list(b)) for a, b in zip(p_s, p_t, strict=True)]
    columns = [1 - _loop_pearson(list(a), list(b)) for a, b in zip(p_s.T, p_t.T, strict=True)]
    return tau**2 * (beta * sum(rows) / len(rows) + gamma * sum(columns) / len(columns))


@pytest.mark.parametrize(("beta", "gamma", "tau"), [(1.0, 1.0, 1.0), (2.0, 0.0, 4.0), (0.0, 3.0, 0.5)])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 2), (7, 5), (16, 10)])
def test_dist_equals_loop(n: int, k: int, beta: float, gamma: float, tau: float) -> None:
    s, t = random_map(n, (k,), 1), random_map(n, (k,), 2)
    want = _loop_dist(to_numpy(s), to_numpy(t), beta, gamma, tau)
    assert dist_loss(s, t, beta=beta, gamma=gamma, tau=tau).item() == pytest.approx(want, rel=1e-10)
    assert DIST(beta=beta, gamma=gamma, tau=tau)(s, t).item() == pytest.approx(want, rel=1e-10)
    assert dist_loss(t, t).item() == pytest.approx(1.0 if n == 1 else 0.0, abs=1e-12)


def test_dist_of_constant_rows_and_columns() -> None:
    s, t = random_map(6, (4,), 1), random_map(6, (4,), 2)
    s[2] = 0.7
    want = _loop_dist(to_numpy(s), to_numpy(t), 1, 1, 1)
    for dtype in (torch.float64, torch.float32):
        x = s.to(dtype, copy=True).requires_grad_()
        loss = dist_loss(x, t.to(dtype))
        assert loss.item() == pytest.approx(want, abs=1e-5)
        loss.backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
    # All rows alike: every column is constant.
    x = s[:1].expand(6, 4).float().requires_grad_()
    loss = dist_loss(x, t.float(), beta=0.0)
    assert loss.item() == 1
    loss.backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_dist_counts_rare_classes() -> None:
    """A column of probabilities near 1e-7 still correlates; one near 1e-9 is dead."""
    s, t = random_map(6, (4,), 1), random_map(6, (4,), 2)
    for shift, live in ((-14.0, True), (-22.0, False)):
        rare = s.clone()
        rare[:, 0] += shift
        p_s, p_t = (np.exp(to_numpy(x)) / np.exp(to_numpy(x)).sum(axis=1, keepdims=True) for x in (rare, t))
        columns = [_loop_pearson(list(a), list(b)) for a, b in zip(p_s.T, p_t.T, strict=True)]
        want = 1 - (columns[0] * live + sum(columns[1:])) / 4
        assert abs(columns[0]) > 0.1
        assert dist_loss(rare, t, beta=0.0).item() == pytest.approx(want, abs=1e-6)
