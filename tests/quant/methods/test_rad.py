"""The RAD penalty of activations against a loop: its value, its gradient, of one layer and of a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.binarisers import Array, normal, numerical
from torch import nn

from bnn_itrd.quant import RAD, BinaryConv2d, BinaryLinear, Scheme, penalty, rad_penalty, set_progress


def loop_rad(x: Array) -> float:
    """(n, c, ...), channel by channel."""
    parts = []
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        mu = values.sum() / values.size
        sigma = math.sqrt(((values - mu) ** 2).sum() / values.size + 1e-10)
        saturation = max(min(2 - mu - sigma, 2 + mu - sigma), 0) ** 2
        parts.append((saturation, max(sigma - 4, 0) ** 2, max(mu**2 - sigma**2, 0)))
    return float(np.array(parts).mean(0).sum())


def test_rad_penalty_and_gradient() -> None:
    spread = torch.tensor([0.5, 6.0, 0.4, 2.0]).reshape(-1, 1, 1)
    x = (normal(3, 4, 2, 2, seed=3) * spread + torch.tensor([0.1, 0.0, -1.5, 3.0]).reshape(-1, 1, 1)).requires_grad_()
    value = rad_penalty(x)
    assert value.item() == pytest.approx(loop_rad(x.detach().numpy()))
    value.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numerical(loop_rad, x.detach().numpy()), rtol=1e-5, atol=1e-8)
    features = x.detach().flatten(2).transpose(1, 2)
    assert float(rad_penalty(features, axis=-1)) == pytest.approx(value.item())


def test_rad_of_a_network() -> None:
    torch.manual_seed(0)
    scheme = Scheme("xnor", "rsign", rad=2.0, rad_until=0.5)
    net = nn.Sequential(BinaryConv2d(3, 4, 3, scheme=scheme), nn.Flatten(1), BinaryLinear(36, 2, scheme=scheme))
    assert sum(isinstance(m, RAD) for m in net.modules()) == 2
    assert penalty(net) is None, "no forward yet"
    x = (3 + normal(6, 3, 5, 5, dtype=torch.float32)).requires_grad_()
    net(x)
    found = penalty(net)
    with torch.no_grad():
        hidden = net[1](net[0](x)).double().numpy()
    assert found is not None
    # The mean over the layers, as in the published code, whose weight 2 this is.
    want = 2 * (loop_rad(x.detach().double().numpy()) + loop_rad(hidden)) / 2
    net(x)
    assert found.item() == pytest.approx(want, rel=1e-4)
    found.backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    set_progress(net, 0.5)
    net(x)
    off = penalty(net)
    assert off is not None and off.item() == 0
    net.eval()(x)
    assert penalty(net) is None
