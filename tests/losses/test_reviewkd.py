"""ReviewKD and its hierarchical context loss against NumPy."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.loss_modules import Array, random_map, random_maps
from helpers.numpy_layers import numpy_batch_norm, numpy_conv, numpy_nearest, numpy_pool, randomise_norms, to_numpy

from bnn_itrd.losses.reviewkd import ReviewKD, hierarchical_context_loss


def _loop_context(s: Array, t: Array) -> float:
    def mse(a: Array, b: Array) -> float:
        return sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)) / a.size

    terms, weights = [mse(s, t)], [1.0]
    for size in (4, 2, 1):
        if size < min(s.shape[2:]):
            terms.append(mse(numpy_pool(s, size, size), numpy_pool(t, size, size)))
            weights.append(weights[-1] / 2)
    return sum(w * x for w, x in zip(weights, terms, strict=True)) / sum(weights)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 7), (8, 8)])
def test_hierarchical_context_equals_loop(size: tuple[int, int]) -> None:
    s, t = random_map(2, (3, *size), 1), random_map(2, (3, *size), 2)
    assert hierarchical_context_loss(s, t).item() == pytest.approx(_loop_context(to_numpy(s), to_numpy(t)), rel=1e-10)
    assert hierarchical_context_loss(t, t).item() == 0
    # A shift by a constant is the same at every scale.
    assert hierarchical_context_loss(t + 0.5, t).item() == pytest.approx(0.25)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def test_reviewkd_equals_numpy() -> None:
    torch.manual_seed(0)
    s_shapes, t_shapes = [(3, 8, 8), (4, 4, 4), (5, 1, 1)], [(4, 8, 8), (4, 6, 6), (3, 1, 1)]
    review = ReviewKD(s_shapes, t_shapes).double()
    randomise_norms(review)
    student, teacher = random_maps(3, s_shapes, 1), random_maps(3, t_shapes, 11)
    want, residual = 0.0, None
    for k in (2, 1, 0):
        fusion: Any = review.fusions[k]
        x = numpy_batch_norm(numpy_conv(to_numpy(student[k]), to_numpy(fusion.reduce[0].weight)), fusion.reduce[1])
        assert x.shape[1] == 5
        if residual is not None:
            y = numpy_nearest(residual, *x.shape[2:])
            both = np.concatenate([x, y], axis=1)
            gates = _sigmoid(numpy_conv(both, to_numpy(fusion.attention.weight), to_numpy(fusion.attention.bias)))
            x = gates[:, :1] * x + gates[:, 1:] * y
        residual = numpy_nearest(x, *teacher[k].shape[2:])
        out = numpy_batch_norm(numpy_conv(residual, to_numpy(fusion.expand[0].weight), padding=1), fusion.expand[1])
        want += _loop_context(out, to_numpy(teacher[k]))
    assert review(student, teacher).item() == pytest.approx(want, rel=1e-9)
    assert [f.attention is None for f in review.fusions] == [False, False, True]
    # Published: uniform within sqrt(3 / fan_in). PyTorch's own start is within sqrt(1 / fan_in).
    for fusion in ReviewKD([(64, 4, 4)], [(64, 4, 4)]).fusions:
        for block in (fusion.reduce, fusion.expand):
            limit = math.sqrt(3 / block[0].weight[0].numel())
            assert 0.95 * limit < block[0].weight.abs().max().item() <= limit
    assert ReviewKD([(600, 1, 1)], [(2, 1, 1)]).fusions[0].reduce[0].out_channels == 512
