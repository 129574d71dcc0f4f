"""BiPer's penalty: the quantisation error of the first stage's sine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.binarisers import normal

from bnn_itrd.quant import BinaryConv2d, Scheme, penalty, set_progress


def test_biper_penalty() -> None:
    layer = BinaryConv2d(3, 4, 3, scheme=Scheme("biper", omega=7.0, tau_min=0.2, tau_max=0.6)).double()
    for p, tau in ((0.0, 0.2), (1.0, 0.6)):
        set_progress(layer, p)
        layer(normal(2, 3, 5, 5))
        w = layer.weight.detach().numpy()
        want = tau * sum(math.sin(7 * float(v)) ** 2 for v in w.flat) / w.size
        found = penalty(layer)
        assert found is not None and float(found.detach()) == pytest.approx(want)
    (gradient,) = torch.autograd.grad(found, layer.weight)
    np.testing.assert_allclose(gradient.numpy(), 0.6 * 7 * np.sin(14 * w) / w.size, rtol=1e-9, atol=1e-12)
