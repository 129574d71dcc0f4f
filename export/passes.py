"""Passes from the canonical graph to a portable one: each changes the model and returns how many times."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.functions import DOMAIN
from bnn_itrd.export.graph import (
    add_float32,
    add_initializer,
    add_scalar,
    attribute,
    constant,
    insert,
    nodes_of,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
    with_inputs,
)

__all__ = [
    "drop_clips",
    "drop_zero_biases",
    "fix_reshapes",
    "fold_batchnorm",
    "fold_batchnorm_into_next",
    "merge_prelu",
    "split_prelu",
]


def fix_reshapes(model: ir.Model) -> int:
    """A Reshape to a computed size becomes one to [-1, sizes...] where only the batch is unknown."""
    count = 0
    for node in nodes_of(model, "Reshape"):
        shape = node.outputs[0].shape
        if shape is None or constant(node.inputs[1]) is not None:
            continue
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) != 1 or 0 in sizes:
            continue
        value = add_initializer(model, f"{node.outputs[0].name}.shape", np.array(sizes, np.int64))
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)
        count += 1
    return count


def drop_zero_biases(model: ir.Model) -> int:
    """A Conv's or Gemm's bias that is all zeros goes (the exporter writes one where the module has none)."""
    count = 0
    for node in [*nodes_of(model, "Conv"), *nodes_of(model, "Gemm")]:
        bias = constant(optional_input(node, 2))
        if bias is not None and not bias.any():
            with_inputs(model, node, list(node.inputs[:2]))
            count += 1
    remove_unused(model)
    return count


def _batchnorm_affine(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """BatchNormalization as ``factor * x + shift``, float64, per channel; None where it is not constant."""
    values = [constant(value) for value in node.inputs[1:]]
    if any(value is None for value in values) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return factor, beta - mean * factor


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _fold_after(model: ir.Model, node: ir.Node, factor: np.ndarray, shift: np.ndarray) -> list[ir.Value | None] | None:
    """Inputs with which a Conv, Gemm or binary node gives ``factor * node + shift``; None if it cannot."""
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
    """BatchNormalization right behind a Conv, a Gemm or a binary layer goes into its constants, in float64.

    Only where nothing else reads the value in between, and never across a MaxPool: a negative factor would
    swap the largest and the smallest.
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
    """BatchNormalization of (n, c) goes into the Gemm right behind it, in float64."""
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


def drop_clips(model: ir.Model) -> int:
    """A Clip (hardtanh) that only signs read goes: ``sign(clip(x, a, b)) = sign(x)`` for a < 0 <= b."""
    count = 0
    for node in nodes_of(model, "Clip"):
        x, y = node.inputs[0], node.outputs[0]
        low, high = (constant(optional_input(node, i)) for i in (1, 2))
        if x is None or low is None or high is None or not (low < 0 <= high) or y.is_graph_output():
            continue
        readers = [use.node for use in y.uses()]
        if readers and all(reader.domain == DOMAIN and reader.op_type == "Sign" for reader in readers):
            replace_value(model, y, x)
            count += 1
    remove_unused(model)
    return count


def _is_zero(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and not array.any()


def _side(node: ir.Node | None, kinds: tuple[str, str], bound: int) -> ir.Value | None:
    """x of ``max(x, 0)`` or ``min(x, 0)``: one of `kinds` with 0, or a Clip whose `bound` is 0 and the other free."""
    if node is None or node.domain:
        return None
    x, other = optional_input(node, 0), optional_input(node, 1)
    if node.op_type == "Relu" and "Relu" in kinds:
        return x
    if node.op_type in kinds and len(node.inputs) == 2:
        return x if _is_zero(other) else other if _is_zero(x) else None
    if node.op_type == "Clip" and _is_zero(optional_input(node, bound)):
        free = optional_input(node, 3 - bound)
        limit = None if free is None else constant(free)
        if free is None or (limit is not None and np.isinf(limit).all()):
            return x
    return None


def merge_prelu(model: ir.Model) -> int:
    """``max(x, 0) + slope * min(x, 0)`` with a constant slope becomes PRelu: the same numbers, one operation."""
    count = 0
    for node in nodes_of(model, "Add"):
        for above, below in (node.inputs, reversed(node.inputs)):
            product = None if below is None else below.producer()
            if above is None or below is None or product is None or product.op_type != "Mul" or product.domain:
                continue
            slope = next((value for value in product.inputs if constant(value) is not None), None)
            inner = next((value for value in product.inputs if value is not slope), None)
            x = _side(above.producer(), ("Relu", "Max"), 1)
            if slope is None or inner is None or x is None or x is not _side(inner.producer(), ("Min", "Min"), 2):
                continue
            # PRelu's slope takes on the shape of x, never the other way round.
            sizes = [None] if x.shape is None else list(x.shape)
            if None in sizes or node.outputs[0].shape is None or list(node.outputs[0].shape) != sizes:
                continue
            replace_value(model, node.outputs[0], insert(model, node, "PRelu", [x, slope]))
            count += 1
            break
    remove_unused(model)
    return count


def split_prelu(model: ir.Model) -> int:
    """PRelu becomes ``max(x, 0) + slope * min(x, 0)``, for which onnxruntime takes half the time: see `merge_prelu`."""
    count = 0
    for node in nodes_of(model, "PRelu"):
        x, slope = node.inputs
        above = insert(model, node, "Relu", [x])
        below = insert(model, node, "Min", [x, add_scalar(model, "zero", 0.0)])
        for value in (above, below):
            value.shape, value.type = node.outputs[0].shape, node.outputs[0].type
        product = insert(model, node, "Mul", [below, slope])
        replace_value(model, node.outputs[0], insert(model, node, "Add", [above, product]))
        count += 1
    remove_unused(model)
    return count
