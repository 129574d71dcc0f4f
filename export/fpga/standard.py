"""QONNX as standard ONNX, for checking: quantiser nodes become the operations that define them."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN
from bnn_itrd.export.graph import add_scalar, attribute, constant, insert, remove_unused, replace_value
from bnn_itrd.quant import integer_range

__all__ = ["to_standard"]


def _bipolar(model: ir.Model, node: ir.Node) -> ir.Value:
    positive = insert(model, node, "GreaterOrEqual", [node.inputs[0], add_scalar(model, "zero", 0.0)])
    signs = [add_scalar(model, "plus_one", 1.0), add_scalar(model, "minus_one", -1.0)]
    return insert(model, node, "Mul", [insert(model, node, "Where", [positive, *signs]), node.inputs[1]])


def _integers(model: ir.Model, node: ir.Node) -> ir.Value:
    bits = constant(node.inputs[3])
    assert bits is not None
    low, high = integer_range(int(bits), narrow=bool(attribute(node, "narrow", 0)))
    bounds = [add_scalar(model, f"bound.{bound}", float(bound)) for bound in (low, high)]
    y = insert(model, node, "Div", [node.inputs[0], node.inputs[1]])
    y = insert(model, node, "Round", [insert(model, node, "Clip", [y, *bounds])])
    return insert(model, node, "Mul", [y, node.inputs[1]])


def to_standard(model: ir.Model) -> ir.Model:
    """A copy in which BipolarQuant is GreaterOrEqual, Where, Mul and Quant is Div, Clip, Round, Mul; any batch size.

    Values keep their names. With zero_point 0 and signed integers, as this package writes them.
    """
    clone = ir.from_proto(ir.to_proto(model))
    for node in list(clone.graph):
        if node.domain == QONNX_DOMAIN:
            made = (_bipolar if node.op_type == "BipolarQuant" else _integers)(clone, node)
            name = node.outputs[0].name
            replace_value(clone, node.outputs[0], made)
            node.outputs[0].name, made.name = f"{name}.old", name
    remove_unused(clone)
    for value in (*clone.graph.inputs, *clone.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    return clone
