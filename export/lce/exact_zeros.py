"""Functions that tell whether a binary layer's result can be exactly 0, and whether a later sign depends on that.

The sign of 0 is +1, but LCE may compute a slightly negative number instead of 0, whose sign is -1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["may_be_zero", "only_signs_read", "zero_decides"]


def _is_sign(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type == "Sign"


def only_signs_read(value: ir.Value) -> bool:
    """Returns whether a tensor is read by Sign nodes and by nothing else."""
    readers = [use.node for use in value.uses()]
    return bool(readers) and not value.is_graph_output() and all(_is_sign(reader) for reader in readers)


def _moves_zero(node: ir.Node) -> bool:
    """Returns whether an operation turns 0 into other numbers, so that no sign behind it depends on an exact 0.

    A layer with weights does, and a BatchNormalization whose shift is not 0 in any channel.
    """
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        return True
    numbers = [constant(value) for value in node.inputs[1:5]] if node.op_type == "BatchNormalization" else []
    if len(numbers) < 4 or any(n is None for n in numbers):
        return False
    gamma, beta, mean, variance = (np.asarray(n, np.float64) for n in numbers)
    return bool((beta - mean * gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))).all())


def zero_decides(value: ir.Value) -> bool:
    """Returns whether a later sign may change if this tensor holds a tiny negative number in place of an exact 0."""
    found, todo = {value}, [value]
    while todo:
        for node in {use.node for use in todo.pop().uses()}:
            if _is_sign(node):
                return True
            if not _moves_zero(node):
                todo += [output for output in node.outputs if output not in found]
                found.update(node.outputs)
    return False


def may_be_zero(scale: np.ndarray, bias: np.ndarray, largest: int) -> bool:
    """Returns whether ``scale * sum + bias`` is exactly 0 in float32 for some integer sum in some channel.

    scale, bias: (channels,); largest: the largest possible absolute value of the sum.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        nearest = np.where(scale == 0, 0, np.round(-bias / scale)).clip(-largest, largest).astype(np.float32)
    return bool((nearest * scale.astype(np.float32) + bias.astype(np.float32) == 0).any())
