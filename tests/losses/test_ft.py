"""Factor transfer against NumPy, the parameters of its phases, and its paraphraser."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.loss_modules import CASES, Array, apply_to_floats, build_module, random_map
from helpers.numpy_layers import (
    numpy_batch_norm,
    numpy_conv,
    numpy_conv_transposed,
    numpy_pool_both,
    randomise_norms,
    to_numpy,
)
from torch import Tensor, nn

from bnn_itrd.losses.ft import FT, factor_loss


def _loop_factor(s: Array, t: Array, attention: bool) -> float:
    s, t = numpy_pool_both(s, t)
    total, count = 0.0, 0
    for a, b in zip(s, t, strict=True):
        flat = [(x**2).mean(axis=0).ravel() if attention else x.ravel() for x in (a, b)]
        norms = [math.sqrt(sum(x * x for x in f)) for f in flat]
        unit = [f / norm if norm else f for f, norm in zip(flat, norms, strict=True)]
        total += sum(abs(x - y) for x, y in zip(*unit, strict=True))
        count += len(unit[0])
    return total / count


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("c", "s", "t"), [(1, 1, 1), (3, 4, 4), (4, 8, 4), (2, 3, 5)])
def test_factor_loss_equals_loop(c: int, s: int, t: int, attention: bool) -> None:
    a, b = random_map(3, (c, s, s), 1), random_map(3, (c, t, t), 2)
    want = _loop_factor(to_numpy(a), to_numpy(b), attention)
    assert factor_loss(a, b, attention=attention).item() == pytest.approx(want, rel=1e-10, abs=1e-15)
    assert factor_loss(2 * a, a, attention=attention).item() == pytest.approx(0, abs=1e-15)
    a[1] = 0
    want = _loop_factor(to_numpy(a), to_numpy(b), attention)
    assert factor_loss(a, b, attention=attention).item() == pytest.approx(want, rel=1e-10)


def _leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.1 * x)


def _run_blocks(x: Array, layers: Any) -> Array:
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            x = numpy_conv_transposed(x, to_numpy(layer.weight), to_numpy(layer.bias), padding=1)
        elif isinstance(layer, nn.Conv2d):
            x = numpy_conv(x, to_numpy(layer.weight), to_numpy(layer.bias), padding=1)
        elif isinstance(layer, nn.BatchNorm2d):
            x = numpy_batch_norm(x, layer)
        else:
            x = _leaky(x)
    return x


@pytest.mark.parametrize("name", ["ft", "ft_paper"])
def test_ft_equals_numpy(name: str) -> None:
    ft = build_module(name).double()
    assert isinstance(ft, FT)
    randomise_norms(ft)
    student, teacher = CASES[name][1](2)
    encoder, decoder = ft.paraphraser["encoder"], ft.paraphraser["decoder"]
    factor = _run_blocks(to_numpy(teacher), encoder)
    assert factor.shape[1] == (2 if name == "ft" else 3)
    want = float(((_run_blocks(factor, decoder) - to_numpy(teacher)) ** 2).mean())
    assert ft.paraphraser_loss(teacher).item() == pytest.approx(want, rel=1e-10)
    want = _loop_factor(_run_blocks(to_numpy(student), ft.translator), factor, name == "ft")
    assert ft(student, teacher).item() == pytest.approx(want, rel=1e-9)


def test_ft_phases_train_their_own_parameters() -> None:
    ft = build_module("ft").float()
    assert isinstance(ft, FT)
    student, teacher = (x.float().requires_grad_() for x in CASES["ft"][1](2))
    ft.paraphraser_loss(teacher.detach()).backward()
    assert all(p.grad is not None and p.grad.any() for p in ft.paraphraser.parameters())
    assert all(p.grad is None for p in ft.translator.parameters())
    ft.zero_grad()
    ft(student, teacher).backward()
    assert all(p.grad is None for p in ft.paraphraser.parameters())
    assert all(p.grad is not None for p in ft.translator.parameters())
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


def test_ft_paraphraser_learns() -> None:
    ft = build_module("ft").float()
    assert isinstance(ft, FT)
    teacher = CASES["ft"][1](4)[1].float()
    optimiser = torch.optim.Adam(ft.paraphraser.parameters(), lr=0.01)
    before = ft.paraphraser_loss(teacher).item()
    for _ in range(60):
        optimiser.zero_grad()
        ft.paraphraser_loss(teacher).backward()
        optimiser.step()
    assert ft.paraphraser_loss(teacher).item() < 0.9 * before


def test_autocast_leaves_the_paraphraser_in_float32() -> None:
    ft, (_, teacher) = FT((3, 4, 4), (4, 8, 8)), apply_to_floats(CASES["ft"][1](2), Tensor.float)
    want = ft.paraphraser_loss(teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ft.paraphraser_loss(teacher), want, rtol=1e-6, atol=1e-7)
