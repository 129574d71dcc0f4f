"""Nodes between a layer and the next quantiser that multiply or shift each channel by constants, such as BatchNorm.

A quantiser is a node that makes signs or integers of its input. In a file for FINN it is replaced by thresholds, and
these nodes become part of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F

from bnn_itrd.export.graph import attribute, constant

__all__ = ["Affine", "affine", "is_quantiser", "per_channel"]


def is_quantiser(node: ir.Node | None) -> bool:
    """Returns whether a node makes signs or integers of its input, in a QONNX graph or in the canonical graph."""
    return node is not None and node.op_type in ("BipolarQuant", "Quant", "Sign")


def per_channel(array: np.ndarray, rank: int, channels: object = None) -> bool:
    """Returns whether a constant broadcasts to a tensor as one number, or as one number per channel (axis 1).

    rank: number of the tensor's axes; channels: number of its channels, if known.
    """
    if array.size == 1:
        return array.ndim <= rank
    if rank not in (2, 4) or array.ndim > rank:
        return False
    full = (1,) * (rank - array.ndim) + array.shape
    return full[1] == array.size and channels in (None, full[1])


class Affine(NamedTuple):
    """A node that computes ``factor * x + shift`` for each channel.

    x: which of the node's inputs is x; factor, shift: float64, (channels,) or (1,).
    """

    node: ir.Node
    x: int
    factor: np.ndarray
    shift: np.ndarray

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the node's result for x, (1, channels, values, 1), rounded in float32 as the network computes it."""
        numbers = [None if v is None else constant(v) for v in self.node.inputs]
        if self.node.op_type == "BatchNormalization":
            gamma, beta, mean, var = (torch.from_numpy(np.array(c, np.float32)) for c in numbers[1:])
            return F.batch_norm(x, mean, var, gamma, beta, eps=attribute(self.node, "epsilon", 1e-5))
        number = numbers[1 - self.x]
        c = torch.from_numpy(np.array(number, np.float32)).reshape(1, -1, 1, 1)
        if self.node.op_type == "Mul":
            return x * c
        if self.node.op_type == "Div":
            return x / c
        if self.node.op_type == "Add":
            return x + c
        return x - c if self.x == 0 else c - x


def _norm(node: ir.Node) -> Affine | None:
    """Returns a BatchNormalization as `Affine`; None if its statistics are not constants."""
    arrays = [constant(v) for v in node.inputs[1:]]
    if any(array is None for array in arrays) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in arrays)
    factor = gamma / np.sqrt(var + attribute(node, "epsilon", 1e-5))
    return Affine(node, 0, factor, beta - mean * factor)


def affine(node: ir.Node | None, rank: int) -> Affine | None:
    """Returns a node as `Affine` if it is a BatchNorm or arithmetic with a constant per channel, else None.

    rank: number of axes of the node's input.
    """
    if node is None or node.domain:
        return None
    if node.op_type == "BatchNormalization":
        return _norm(node)
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    for x in (0, 1):
        array = constant(node.inputs[1 - x])
        if array is None or not per_channel(array, rank):
            continue
        number = np.asarray(array, np.float64).reshape(-1)
        if node.op_type == "Mul":
            return Affine(node, x, number, np.zeros(1))
        if node.op_type == "Div":
            return Affine(node, x, 1 / number, np.zeros(1)) if x == 0 and number.all() else None
        sign = -1.0 if node.op_type == "Sub" else 1.0
        return Affine(node, x, np.array([1.0 if x == 0 else sign]), number if x == 1 else sign * number)
    return None
