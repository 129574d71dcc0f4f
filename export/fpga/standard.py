"""`to_standard` translates a QONNX graph to standard ONNX, so that onnxruntime can run it when a file is checked."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN
from bnn_itrd.export.graph import add_initializer, add_scalar, attribute, constant, insert, remove_unused, replace_value
from bnn_itrd.quant import integer_range

__all__ = ["to_standard"]


def _bipolar(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds ONNX operations that compute QONNX's BipolarQuant, ``scale * (x >= 0 ? +1 : -1)``; returns their result."""
    positive = insert(model, node, "GreaterOrEqual", [node.inputs[0], add_scalar(model, "zero", 0.0)])
    signs = [add_scalar(model, "plus_one", 1.0), add_scalar(model, "minus_one", -1.0)]
    return insert(model, node, "Mul", [insert(model, node, "Where", [positive, *signs]), node.inputs[1]])


def _integers(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds ONNX operations that compute QONNX's Quant, ``scale * round(clip(x / scale))``; returns their result."""
    bits = constant(node.inputs[3])
    assert bits is not None
    low, high = integer_range(int(bits), narrow=bool(attribute(node, "narrow", 0)))
    bounds = [add_scalar(model, f"bound.{bound}", float(bound)) for bound in (low, high)]
    y = insert(model, node, "Div", [node.inputs[0], node.inputs[1]])
    y = insert(model, node, "Round", [insert(model, node, "Clip", [y, *bounds])])
    return insert(model, node, "Mul", [y, node.inputs[1]])


# Number of thresholds with which a tensor is compared at once, because comparing it with all 255 thresholds of 8 bits
# at once would take 255 times its memory.
_AT_ONCE = 15


def _thresholds(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds standard operations that compute a MultiThreshold; returns their result.

    It is ``out_scale * count + out_bias``, where count is how many of its channel's thresholds a value reaches.
    """
    table = constant(node.inputs[1])
    assert table is not None
    pixels = (1,) * (len(str(attribute(node, "data_layout", "NCHW"))) - 2)
    last = add_initializer(model, "last_axis", np.array([-1], np.int64))
    wide = insert(model, node, "Unsqueeze", [node.inputs[0], last])
    y = None
    for start in range(0, table.shape[1], _AT_ONCE):
        part = table[:, start : start + _AT_ONCE]
        numbers = add_initializer(model, f"{node.name}.part", part.reshape(len(table), *pixels, -1))
        reached = insert(model, node, "Cast", [insert(model, node, "GreaterOrEqual", [wide, numbers])], {"to": 1})
        count = insert(model, node, "ReduceSum", [reached, last], {"keepdims": 0})
        y = count if y is None else insert(model, node, "Add", [y, count])
    y = insert(model, node, "Mul", [y, add_scalar(model, f"{node.name}.scale", attribute(node, "out_scale", 1.0))])
    return insert(model, node, "Add", [y, add_scalar(model, f"{node.name}.bias", attribute(node, "out_bias", 0.0))])


_RULES = {"BipolarQuant": _bipolar, "Quant": _integers, "MultiThreshold": _thresholds}


def to_standard(model: ir.Model) -> ir.Model:
    """Returns a copy of a QONNX graph in standard ONNX operations, for any batch size.

    BipolarQuant becomes GreaterOrEqual, Where, Mul; Quant becomes Div, Clip, Round, Mul; MultiThreshold becomes a sum
    of comparisons. The tensors keep their names. Each Quant must have zero_point 0 and signed integers, as this package
    writes it.
    """
    clone = ir.from_proto(ir.to_proto(model))
    for node in list(clone.graph):
        if node.domain == QONNX_DOMAIN:
            made = _RULES[node.op_type](clone, node)
            name = node.outputs[0].name
            replace_value(clone, node.outputs[0], made)
            node.outputs[0].name, made.name = f"{name}.old", name
    remove_unused(clone)
    for value in (*clone.graph.inputs, *clone.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    return clone
