"""AdaBin's levels of weights and activations against a loop, and that they are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.binarisers import Array, channels_last, hard, normal, numerical, polynomial

from bnn_itrd.quant import BinaryConv2d, BinaryLinear


def loop_adabin(layer: BinaryConv2d, x: Array) -> Array:
    """Window by window: inputs a sign + b, a border of a padding_value + b, weights alpha sign + beta."""
    signs, scale, offset = layer.binary_weight()
    assert offset is not None
    weight = signs.detach().numpy() * channels_last(scale.detach().numpy())[:, None]
    weight = weight + channels_last(offset.detach().numpy())[:, None]
    a = layer.activation_binarizer.distance.item()
    b = layer.activation_binarizer.centre.item()
    n, c, h, w = x.shape
    p, s, k = layer.padding[0], layer.stride[0], layer.kernel_size[0]
    padded = np.full((n, c, h + 2 * p, w + 2 * p), float(layer.padding_value))
    padded[:, :, p : p + h, p : p + w] = hard((x - b) / a)
    padded = a * padded + b
    group_in, group_out = c // layer.groups, layer.out_channels // layer.groups
    y = np.zeros((n, layer.out_channels, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1))
    for i, o, u, v in np.ndindex(*y.shape):
        first = o // group_out * group_in
        window = padded[i, first : first + group_in, u * s : u * s + k, v * s : v * s + k]
        y[i, o, u, v] = (weight[o] * window).sum()
    return y if layer.bias is None else y + channels_last(layer.bias.detach().numpy())


@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("options", [{}, {"groups": 2, "bias": True}, {"stride": 2}], ids=str)
def test_adabin_against_a_loop(options: dict[str, Any], padding_value: int) -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(4, 6, 3, padding=1, padding_value=padding_value, scheme="adabin", **options).double()
    with torch.no_grad():
        layer.activation_binarizer.distance.fill_(0.6)
        layer.activation_binarizer.centre.fill_(-0.3)
    x = normal(2, 4, 5, 6)
    for mode in (True, False):
        np.testing.assert_allclose(layer.train(mode)(x).detach().numpy(), loop_adabin(layer, x.numpy()), atol=1e-12)


def test_adabin_learns_its_set() -> None:
    """The gradients of a and b: of the levels, with the sign as it is, and of what is inside the sign."""
    layer = BinaryLinear(3, 2, scheme="adabin").double()
    binarizer: Any = layer.activation_binarizer
    with torch.no_grad():
        binarizer.distance.fill_(0.6)
        binarizer.centre.fill_(-0.3)
    x, g = normal(4, 3, seed=1), normal(4, 2, seed=2)
    (layer(x) * g).sum().backward()
    signs, scale, offset = layer.binary_weight()
    assert offset is not None
    incoming = (g @ (signs * scale[:, None] + offset[:, None])).detach().numpy()
    v, s = x.numpy(), hard((x.numpy() + 0.3) / 0.6)
    for parameter, f in (
        (binarizer.distance, lambda a: float(((a * s + 0.6 * polynomial((v + 0.3) / a)) * incoming).sum())),
        (binarizer.centre, lambda b: float(((b + 0.6 * polynomial((v - b) / 0.6)) * incoming).sum())),
    ):
        want = numerical(f, parameter.detach().numpy().copy())
        np.testing.assert_allclose(parameter.grad.numpy(), want, rtol=1e-6)
