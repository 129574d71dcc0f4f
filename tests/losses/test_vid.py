"""VID of maps and of logits against NumPy, and the variance with which it starts."""

import math

import numpy as np
import pytest
import torch
from helpers.loss_modules import Array, random_map
from helpers.numpy_layers import numpy_batch_norm, numpy_conv, numpy_pool_both, randomise_norms, to_numpy
from torch import nn

from bnn_itrd.losses.vid import VID, VIDLogits, vid_loss


def _loop_vid(mean: Array, target: Array, variance: Array, reduction: str) -> float:
    total = 0.0
    for index in np.ndindex(*mean.shape):
        sigma = math.sqrt(variance[index[1]])
        total += math.log(sigma) + (target[index] - mean[index]) ** 2 / (2 * sigma**2)
    return total / (mean.size if reduction == "mean" else mean.shape[0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 3, 2, 5)])
def test_vid_loss_equals_loop(shape: tuple[int, ...], reduction: str) -> None:
    mean, target = random_map(shape[0], shape[1:], 1), random_map(shape[0], shape[1:], 2)
    variance = torch.rand(shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    want = _loop_vid(to_numpy(mean), to_numpy(target), to_numpy(variance), reduction)
    assert vid_loss(mean, target, variance, reduction=reduction).item() == pytest.approx(want, rel=1e-12)
    closed = 0.5 * variance.log().sum().item() * math.prod(shape[2:])
    closed = closed / math.prod(shape[1:]) if reduction == "mean" else closed
    assert vid_loss(mean, mean, variance, reduction=reduction).item() == pytest.approx(closed, abs=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("s", "t"), [((3, 4, 4), (2, 4, 4)), ((3, 8, 6), (4, 4, 3)), ((2, 2, 3), (3, 5, 4))])
def test_vid_equals_numpy(s: tuple[int, int, int], t: tuple[int, int, int], batch_norm: bool, reduction: str) -> None:
    torch.manual_seed(0)
    vid = VID(s, t, batch_norm=batch_norm, reduction=reduction, init_variance=1.5).double()
    nn.init.uniform_(vid.raw_variance)
    randomise_norms(vid)
    student, teacher = random_map(3, s, 1), random_map(3, t, 2)
    x, y = numpy_pool_both(to_numpy(student), to_numpy(teacher))
    layers = list(vid.regressor)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = numpy_conv(x, to_numpy(layer.weight), None if layer.bias is None else to_numpy(layer.bias))
        elif isinstance(layer, nn.BatchNorm2d):
            x = numpy_batch_norm(x, layer)
        else:
            x = np.maximum(x, 0)
    kinds = [type(layer).__name__ for layer in layers]
    convs = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"] if batch_norm else ["Conv2d", "ReLU"] * 2 + ["Conv2d"]
    assert kinds == convs
    variance = np.log1p(np.exp(to_numpy(vid.raw_variance))) + 1e-5
    assert vid(student, teacher).item() == pytest.approx(_loop_vid(x, y, variance, reduction), rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (4, 6, 3), (5, 2, 7)])
def test_vid_logits_equals_numpy(n: int, d: int, k: int, reduction: str) -> None:
    torch.manual_seed(0)
    vid = VIDLogits(d, k, reduction=reduction).double()
    nn.init.uniform_(vid.raw_variance)
    z, logits = random_map(n, (d,), 1), random_map(n, (k,), 2)
    mean = to_numpy(z) @ to_numpy(vid.regressor.weight).T + to_numpy(vid.regressor.bias)
    variance = np.log1p(np.exp(to_numpy(vid.raw_variance))) + 1e-5
    want = _loop_vid(mean, to_numpy(logits), variance, reduction)
    assert vid(z, logits).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("variance", [1e-3, 0.1, 5.0, 1e3])
def test_vid_starts_at_its_variance(variance: float) -> None:
    for vid in (VID((2, 1, 1), (3, 1, 1), init_variance=variance), VIDLogits(2, 3, init_variance=variance)):
        torch.testing.assert_close(vid.variance, torch.full((3,), variance), rtol=1e-4, atol=0)
