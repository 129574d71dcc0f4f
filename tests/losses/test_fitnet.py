"""FitNet's regressor and hint loss against NumPy."""

import numpy as np
import pytest
import torch
from helpers.classic_losses import Array, loop_hint, same_size, student_and_teacher
from torch import nn

from bnn_itrd.losses.fitnet import FitNet


def _conv1x1(x: Array, weight: Array, bias: Array | None) -> Array:
    n, _, h, w = x.shape
    out = np.zeros((n, len(weight), h, w))
    for b in range(n):
        for o in range(len(weight)):
            for i in range(h):
                for j in range(w):
                    out[b, o, i, j] = float(weight[o, :, 0, 0] @ x[b, :, i, j]) + (0.0 if bias is None else bias[o])
    return out


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("shape_s", "shape_t"), [((3, 4, 4), (5, 4, 4)), ((2, 6, 4), (3, 3, 2)), ((3, 2, 3), (3, 4, 5))]
)
def test_fitnet_equals_loop(shape_s: tuple[int, int, int], shape_t: tuple[int, int, int], batch_norm: bool) -> None:
    torch.manual_seed(0)
    fitnet = FitNet(shape_s, shape_t, batch_norm=batch_norm).double()
    s, t = student_and_teacher(((4, *shape_s), (4, *shape_t)))
    small_s, small_t = same_size(s.numpy(), t.numpy())
    conv = fitnet.regressor[0]
    assert isinstance(conv, nn.Conv2d)
    assert (conv.bias is None) == batch_norm
    weight = conv.weight.detach().numpy()
    mean = _conv1x1(small_s, weight, None if conv.bias is None else conv.bias.detach().numpy())
    if batch_norm:
        for c in range(mean.shape[1]):
            channel = mean[:, c]
            mean[:, c] = np.maximum((channel - channel.mean()) / np.sqrt(channel.var() + 1e-5), 0)
    assert fitnet(s, t).item() == pytest.approx(loop_hint(mean, small_t), rel=1e-10)
