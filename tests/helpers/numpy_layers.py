"""Convolution, batch normalisation and pooling in NumPy, for the tests of losses that have such layers."""

import itertools
import math
from typing import Any

import numpy as np
from torch import nn

from helpers.loss_modules import Array


def to_numpy(x: Any) -> Array:
    return x.detach().double().numpy()


def numpy_conv(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    n, _, h, w = x.shape
    c_out, _, k_h, k_w = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out_h, out_w = (h + 2 * padding - k_h) // stride + 1, (w + 2 * padding - k_w) // stride + 1
    out = np.zeros((n, c_out, out_h, out_w))
    for i, j in itertools.product(range(out_h), range(out_w)):
        window = padded[:, :, i * stride : i * stride + k_h, j * stride : j * stride + k_w]
        for o in range(c_out):
            out[:, o, i, j] = (window * weight[o]).sum(axis=(1, 2, 3)) + (0 if bias is None else bias[o])
    return out


def numpy_conv_transposed(x: Array, weight: Array, bias: Array, *, stride: int = 1, padding: int = 0) -> Array:
    n, c_in, h, w = x.shape
    _, c_out, k_h, k_w = weight.shape
    out = np.zeros((n, c_out, (h - 1) * stride + k_h, (w - 1) * stride + k_w))
    for i, j, c in itertools.product(range(h), range(w), range(c_in)):
        patch = x[:, c, i, j][:, None, None, None] * weight[c][None]
        out[:, :, i * stride : i * stride + k_h, j * stride : j * stride + k_w] += patch
    out = out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]
    return out + bias[None, :, None, None]


def numpy_batch_norm(x: Array, layer: Any) -> Array:
    """Computes batch normalisation with the statistics of the batch x (n, c, h, w); layer: torch's BatchNorm."""
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        standard = (values - values.mean()) / math.sqrt(((values - values.mean()) ** 2).mean() + layer.eps)
        if layer.weight is not None:
            standard = standard * layer.weight[c].item() + layer.bias[c].item()
        out[:, c] = standard
    return out


def numpy_pool(x: Array, height: int, width: int) -> Array:
    n, c, h, w = x.shape
    out = np.zeros((n, c, height, width))
    for i, j in itertools.product(range(height), range(width)):
        rows = slice(i * h // height, -(-(i + 1) * h // height))
        columns = slice(j * w // width, -(-(j + 1) * w // width))
        out[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return out


def numpy_pool_both(a: Array, b: Array) -> tuple[Array, Array]:
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return numpy_pool(a, *size), numpy_pool(b, *size)


def numpy_nearest(x: Array, height: int, width: int) -> Array:
    rows = [i * x.shape[2] // height for i in range(height)]
    columns = [j * x.shape[3] // width for j in range(width)]
    return x[:, :, rows][:, :, :, columns]


def randomise_norms(module: nn.Module) -> None:
    """Gives BatchNorms random scales and shifts, so that a test notices if they are ignored."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
