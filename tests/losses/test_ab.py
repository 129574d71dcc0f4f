"""Activation boundaries: the loss, and its connectors, against NumPy."""

import math
from typing import Any

import pytest
import torch
from helpers.loss_modules import Array, random_map, random_maps
from helpers.numpy_layers import numpy_batch_norm, numpy_conv, numpy_conv_transposed, randomise_norms, to_numpy

from bnn_itrd.losses.ab import AB, ab_loss


def _loop_ab(s: Array, t: Array, margin: float) -> float:
    total = 0.0
    for x, y in zip(s.ravel(), t.ravel(), strict=True):
        if y <= 0 and x > -margin:
            total += (x + margin) ** 2
        elif y > 0 and x <= margin:
            total += (x - margin) ** 2
    return total / s.shape[0]


@pytest.mark.parametrize("margin", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 4)])
def test_ab_loss_equals_loop(shape: tuple[int, int, int], margin: float) -> None:
    s, t = random_map(4, shape, 1), random_map(4, shape, 2)
    t[0] = 0
    assert ab_loss(s, t, margin=margin).item() == pytest.approx(_loop_ab(to_numpy(s), to_numpy(t), margin), rel=1e-12)
    on_its_side = torch.where(t > 0, margin + s.abs(), -margin - s.abs())
    assert ab_loss(on_its_side, t, margin=margin).item() == 0
    assert ab_loss(0 * s, t, margin=margin).item() == pytest.approx(margin**2 * math.prod(shape))


@pytest.mark.parametrize(
    ("s", "t", "kind"),
    [
        ((3, 4, 4), (3, 4, 4), "Identity"),
        ((2, 4, 4), (3, 4, 4), "Conv2d"),
        ((2, 8, 8), (3, 4, 4), "Conv2d"),
        ((2, 2, 2), (3, 4, 4), "ConvTranspose2d"),
        ((2, 5, 6), (3, 4, 4), "Conv2d"),
    ],
)
def test_ab_equals_numpy(s: tuple[int, int, int], t: tuple[int, int, int], kind: str) -> None:
    torch.manual_seed(0)
    ab = AB([s, (2, 2, 2), (2, 2, 2)], [t, (2, 2, 2), (2, 2, 2)]).double()
    randomise_norms(ab)
    student, teacher = random_maps(3, [s, (2, 2, 2), (2, 2, 2)], 1), random_maps(3, [t, (2, 2, 2), (2, 2, 2)], 11)
    x = to_numpy(student[0])
    connector: Any = ab.connectors[0]
    first = connector if kind == "Identity" else connector[0]
    assert type(first).__name__ == kind
    if kind == "Conv2d":
        halves = s[1] == 2 * t[1]
        x = numpy_conv(
            x, to_numpy(first.weight), to_numpy(first.bias), stride=2 if halves else 1, padding=1 if halves else 0
        )
    elif kind == "ConvTranspose2d":
        x = numpy_conv_transposed(x, to_numpy(first.weight), to_numpy(first.bias), stride=2, padding=1)
    if kind != "Identity":
        x = numpy_batch_norm(x, connector[1])
    want = _loop_ab(x, to_numpy(teacher[0]), 1.0) / 4
    want += _loop_ab(to_numpy(student[1]), to_numpy(teacher[1]), 1.0) / 2 + _loop_ab(
        to_numpy(student[2]), to_numpy(teacher[2]), 1.0
    )
    assert ab(student, teacher).item() == pytest.approx(want, rel=1e-9)
