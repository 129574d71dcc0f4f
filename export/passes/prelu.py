"""Passes that replace ``max(x, 0) + slope * min(x, 0)`` by the operation PRelu, and PRelu by that expression.

`merge_prelu` runs first, because the fusion of RPReLU looks for PRelu. `split_prelu` runs last, because onnxruntime
computes the expression faster.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_scalar,
    constant,
    insert,
    nodes_of,
    optional_input,
    remove_unused,
    replace_value,
)

__all__ = ["merge_prelu", "split_prelu"]


def _is_zero(value: ir.Value | None) -> bool:
    """Returns whether a tensor is the constant scalar 0."""
    array = constant(value)
    return array is not None and array.size == 1 and not array.any()


def _side(node: ir.Node | None, kinds: tuple[str, str], bound: int) -> ir.Value | None:
    """Returns x if a node computes ``max(x, 0)`` (or ``min(x, 0)``), else None.

    kinds: names of the operations that compute it, such as Relu and Max; bound: the index of the Clip input, 1 for the
    lower and 2 for the upper bound, that must be 0 while the other bound is infinite or missing.
    """
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
    """Replaces each ``max(x, 0) + slope * min(x, 0)`` with a constant slope by PRelu(x, slope); returns how many.

    PRelu computes the same numbers.
    """
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
            # PRelu broadcasts the slope to the shape of x, but not x to the shape of the slope.
            sizes = [None] if x.shape is None else list(x.shape)
            if None in sizes or node.outputs[0].shape is None or list(node.outputs[0].shape) != sizes:
                continue
            replace_value(model, node.outputs[0], insert(model, node, "PRelu", [x, slope]))
            count += 1
            break
    remove_unused(model)
    return count


def split_prelu(model: ir.Model) -> int:
    """Replaces each PRelu by ``max(x, 0) + slope * min(x, 0)``, which onnxruntime computes in half the time.

    Returns the number of replaced nodes.
    """
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
