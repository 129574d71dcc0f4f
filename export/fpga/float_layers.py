"""Float and integer convolutions and linear layers, in the form in which FINN reads them in a QONNX file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import Writer
from bnn_itrd.export.graph import attribute, constant, layer_path, nodes_of, optional_input
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["write_float_layers"]


def _quantised_weight(node: ir.Node) -> tuple[np.ndarray, ir.Node | None]:
    """Returns the constant weight of a Conv or Gemm, and the Quant node that quantises it or None."""
    value = node.inputs[1]
    weight = constant(value)
    quant = None if value is None else value.producer()
    if weight is None and quant is not None and quant.op_type == "Quant" and quant.domain == DOMAIN:
        weight = constant(quant.inputs[0])
    else:
        quant = None
    if weight is None:
        raise ExportError(f"{layer_path(node)}: the weight of its {node.op_type} must be a constant")
    return weight, quant


def _write_conv(model: ir.Model, node: ir.Node) -> None:
    weight, quant = _quantised_weight(node)
    # qonnx's cost and FINN read these attributes without defaults.
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(weight.shape[2:]))
    for name, default in (("strides", [1, 1]), ("dilations", [1, 1]), ("pads", [0, 0, 0, 0])):
        if weight.ndim == 4 and name not in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, default)
    if quant is not None:
        writer = Writer(model, node)
        made = writer.integers(writer.constant("weight", weight), quant, name="weight.integers")
        node.replace_input_with(1, made)


def _write_gemm(model: ir.Model, node: ir.Node) -> None:
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    if not plain or attribute(node, "transA", 0):
        raise ExportError(f"{layer_path(node)}: FINN has no Gemm with alpha, beta or transA: use nn.Linear")
    writer = Writer(model, node)
    weight, quant = _quantised_weight(node)
    value = writer.constant("weight", weight.T if attribute(node, "transB", 0) else weight)
    if quant is not None:
        value = writer.integers(value, quant, name="weight.integers")
    y = writer.emit("MatMul", [node.inputs[0], value], name="product")
    bias = optional_input(node, 2)
    if bias is not None:
        y = writer.emit("Add", [y, bias], name="with_bias")
    writer.give(y)


def write_float_layers(model: ir.Model) -> None:
    """Writes a Conv with its weight's quantiser, and a Gemm as MatMul and Add.

    Raises ExportError where a weight is computed in the graph.
    """
    for node in nodes_of(model, "Conv"):
        _write_conv(model, node)
    for node in nodes_of(model, "Gemm"):
        _write_gemm(model, node)
