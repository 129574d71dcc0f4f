"""ICKD against NumPy, and with channels that are zero."""

import math
from typing import Any

import pytest
import torch
from helpers.loss_modules import Array, random_map
from helpers.numpy_layers import numpy_batch_norm, numpy_conv, randomise_norms, to_numpy

from bnn_itrd.losses.ickd import ICKD, ickd_loss


def _loop_ickd(s: Array, t: Array) -> float:
    total = 0.0
    for a, b in zip(s, t, strict=True):
        rows = []
        for x in (a, b):
            gram = [[float((x[i] * x[j]).sum()) for j in range(len(x))] for i in range(len(x))]
            norms = [math.sqrt(sum(g * g for g in row)) for row in gram]
            rows.append([[g / norm if norm else 0.0 for g in row] for row, norm in zip(gram, norms, strict=True)])
        total += sum((x - y) ** 2 for p, q in zip(*rows, strict=True) for x, y in zip(p, q, strict=True))
    return total / (s.shape[0] * s.shape[1])


@pytest.mark.parametrize(("n", "c", "size_s", "size_t"), [(1, 1, 2, 2), (3, 4, 5, 5), (2, 6, 4, 3)])
def test_ickd_loss_equals_loop(n: int, c: int, size_s: int, size_t: int) -> None:
    s, t = random_map(n, (c, size_s, size_s), 1), random_map(n, (c, size_t, size_t), 2)
    want = _loop_ickd(to_numpy(s), to_numpy(t))
    assert ickd_loss(s, t).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert ickd_loss(1e-6 * s, 1e8 * t).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert ickd_loss((1e-6 * s).float(), (1e12 * t).float()).item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert ickd_loss(t, 3 * t).item() == pytest.approx(0, abs=1e-20)


def test_ickd_of_dead_channels() -> None:
    s, t = random_map(3, (4, 2, 2), 1), random_map(3, (4, 2, 2), 2)
    s[:, 1], t[:, 2], s[1] = 0, 0, 0
    assert ickd_loss(s, t).item() == pytest.approx(_loop_ickd(to_numpy(s), to_numpy(t)), rel=1e-12)


def test_ickd_equals_numpy() -> None:
    torch.manual_seed(0)
    ickd: Any = ICKD((3, 4, 4), (4, 2, 2)).double()
    randomise_norms(ickd)
    s, t = random_map(3, (3, 4, 4), 1), random_map(3, (4, 2, 2), 2)
    embedded = numpy_batch_norm(numpy_conv(to_numpy(s), to_numpy(ickd.embed[0].weight)), ickd.embed[1])
    assert ickd(s, t).item() == pytest.approx(_loop_ickd(embedded, to_numpy(t)), rel=1e-10)
    assert {k: tuple(v.shape) for k, v in ICKD((4, 1, 1), (4, 2, 2)).named_parameters()} == {
        "embed.0.weight": (4, 4, 1, 1),
        "embed.1.weight": (4,),
        "embed.1.bias": (4,),
    }
