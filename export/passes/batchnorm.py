"""Passes that fold a BatchNormalization into the constants of the layer before or after it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_float32,
    attribute,
    constant,
    nodes_of,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
    with_inputs,
)
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["fold_batchnorm", "fold_batchnorm_into_next"]


def _batchnorm_affine(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (factor, shift), float64, (channels,), with which a BatchNorm computes ``factor * x + shift``.

    Returns None if its statistics are not constants.
    """
    values = [constant(value) for value in node.inputs[1:]]
    if any(value is None for value in values) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return factor, beta - mean * factor


def _rank(value: ir.Value) -> int | None:
    """Returns the number of a tensor's axes, or None if its shape is not known."""
    return None if value.shape is None else len(value.shape)


def _fold_after(model: ir.Model, node: ir.Node, factor: np.ndarray, shift: np.ndarray) -> list[ir.Value | None] | None:
    """Returns new inputs for a Conv, Gemm or binary layer, so that it computes ``factor * y + shift`` instead of y.

    Returns None for other nodes, and if the layer's weights are not constants.
    """
    if node.domain == DOMAIN and node.op_type in ("BinaryConv2d", "BinaryLinear"):
        if node.op_type == "BinaryLinear" and _rank(node.outputs[0]) != 2:
            return None
        return _fold_after_binary(model, node, factor, shift)
    weight = constant(optional_input(node, 1))
    given = optional_input(node, 2)
    bias = np.zeros_like(shift) if given is None else constant(given)
    if node.domain or weight is None or bias is None:
        return None
    if node.op_type == "Conv":
        by_output = factor.reshape(-1, *([1] * (weight.ndim - 1)))
    elif node.op_type == "Gemm" and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0:
        by_output = factor[:, None] if attribute(node, "transB", 0) else factor[None]
    else:
        return None
    return [
        node.inputs[0],
        add_float32(model, node, "weight", weight.astype(np.float64) * by_output),
        add_float32(model, node, "bias", bias.astype(np.float64) * factor + shift),
    ]


def _fold_after_binary(
    model: ir.Model, node: ir.Node, factor: np.ndarray, shift: np.ndarray
) -> list[ir.Value | None] | None:
    """Returns new inputs for a binary layer, with which it computes ``factor * y + shift`` instead of y, or None."""
    scale, offset, bias = (optional_input(node, i) for i in (2, 3, 4))
    numbers = [constant(value) for value in (scale, offset, bias)]
    if numbers[0] is None:
        return None
    new_offset = None
    if offset is not None and numbers[1] is not None:
        new_offset = add_float32(model, node, "offset", numbers[1].astype(np.float64) * factor)
    old_bias = 0.0 if numbers[2] is None else numbers[2].astype(np.float64)
    return [
        *node.inputs[:2],
        add_float32(model, node, "scale", numbers[0].astype(np.float64) * factor),
        new_offset,
        add_float32(model, node, "bias", old_bias * factor + shift),
    ]


def fold_batchnorm(model: ir.Model) -> int:
    """Folds each BatchNormalization into the Conv, Gemm or binary layer whose output it normalises; returns how many.

    It is folded only if nothing else reads that output. The constants are computed in float64. A BatchNorm behind a
    MaxPool is not folded, because with a negative factor the largest value would become the smallest.
    """
    count = 0
    for node in nodes_of(model, "BatchNormalization"):
        affine = _batchnorm_affine(node)
        x = node.inputs[0]
        before = None if x is None else x.producer()
        if affine is None or x is None or before is None or only_consumer(x) is not node:
            continue
        inputs = _fold_after(model, before, *affine)
        if inputs is None:
            continue
        replacement = with_inputs(model, before, inputs)
        replace_value(model, node.outputs[0], replacement.outputs[0])
        count += 1
    remove_unused(model)
    return count


def fold_batchnorm_into_next(model: ir.Model) -> int:
    """Folds each BatchNormalization into the Gemm that reads its output (n, c), in float64; returns how many.

    It is folded only if the Gemm is the only node that reads this output.
    """
    count = 0
    for node in nodes_of(model, "BatchNormalization"):
        affine = _batchnorm_affine(node)
        y = node.outputs[0]
        gemm = only_consumer(y)
        if affine is None or gemm is None or gemm.op_type != "Gemm" or gemm.domain or gemm.inputs[0] is not y:
            continue
        weight, given = constant(gemm.inputs[1]), optional_input(gemm, 2)
        bias = 0.0 if given is None else constant(given)
        plain = attribute(gemm, "alpha", 1.0) == attribute(gemm, "beta", 1.0) == 1.0
        if weight is None or bias is None or not plain or attribute(gemm, "transA", 0):
            continue
        factor, shift = affine
        wide = weight.astype(np.float64)
        if attribute(gemm, "transB", 0):
            new_weight, new_bias = wide * factor[None], wide @ shift + bias
        else:
            new_weight, new_bias = wide * factor[:, None], shift @ wide + bias
        with_inputs(
            model,
            gemm,
            [
                node.inputs[0],
                add_float32(model, gemm, "weight", new_weight),
                add_float32(model, gemm, "bias", new_bias),
            ],
        )
        count += 1
    remove_unused(model)
    return count
