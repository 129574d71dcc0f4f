"""A convolution of signs as plain loops in NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def sums(signs: np.ndarray, weights: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    """Computes a convolution of signs (n, h, w, c) with weights (o, i, kh, kw), one window at a time.

    Returns int64 (n, h', w', o). how: pads, strides, dilations, group and padding_value, as in the ONNX operation.
    """
    top, left, bottom, right = how["pads"]
    padded = np.pad(
        signs.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=how["padding_value"]
    )
    (kh, kw), (sh, sw), (dh, dw) = how["kernel_shape"], how["strides"], how["dilations"]
    height = (padded.shape[1] - dh * (kh - 1) - 1) // sh + 1
    width = (padded.shape[2] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((len(signs), height, width, len(weights)), np.int64)
    per_group, outputs = weights.shape[1], len(weights) // how["group"]
    for o in range(len(weights)):
        first = (o // outputs) * per_group
        for y, x in itertools.product(range(height), range(width)):
            rows, columns = y * sh + dh * np.arange(kh), x * sw + dw * np.arange(kw)
            window = padded[:, rows][:, :, columns, first : first + per_group]
            out[:, y, x, o] = (window * weights[o].transpose(1, 2, 0)).sum((1, 2, 3))
    return out
