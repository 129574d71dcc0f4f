"""A step of the QONNX export that writes float and integer convolutions and linear layers as FINN reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import Writer
from bnn_itrd.export.graph import attribute, constant, layer_path, nodes_of, optional_input
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["write_float_layers"]


def _quantised_weight(node: ir.Node) -> tuple[np.ndarray, ir.Node | None]:
    """Returns the constant weight of a Conv or Gemm, and the Quant node that rounds it to integers, or None.

    Raises ExportError if the weight is not a constant.
    """
    value = node.inputs[1]
    weight = constant(value)
    quant = None if value is None else value.producer()
    if weight is None and quant is not None and quant.op_type == "Quant" and quant.domain == DOMAIN:
        weight = constant(quant.inputs[0])
    else:
        quant = None
    if weight is None:
        raise ExportError(
            f"{layer_path(node)}: the weight of its {node.op_type} must be a constant, not computed from the images"
        )
    return weight, quant


def _write_conv(model: ir.Model, node: ir.Node) -> None:
    """Sets all attributes of a Conv, and replaces the Quant of its weight by QONNX's operation of that name."""
    weight, quant = _quantised_weight(node)
    # FINN and qonnx's inference_cost fail if one of these attributes is left out, although ONNX has defaults.
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(weight.shape[2:]))
    for name, default in (("strides", [1, 1]), ("dilations", [1, 1]), ("pads", [0, 0, 0, 0])):
        if weight.ndim == 4 and name not in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, default)
    if quant is not None:
        writer = Writer(model, node)
        made = writer.integers(writer.constant("weight", weight), quant, name="weight.integers")
        node.replace_input_with(1, made)


def _write_gemm(model: ir.Model, node: ir.Node) -> None:
    """Replaces a Gemm, ONNX's linear layer with bias, by MatMul and Add.

    Raises ExportError if its alpha or beta is not 1, or transA is set.
    """
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
    """Rewrites each Conv and Gemm of the graph for FINN, in place: a Gemm becomes MatMul and Add.

    A weight that is rounded to integers becomes a constant with QONNX's operation Quant. Raises ExportError if a weight
    is not a constant, or a Gemm has alpha, beta or transA.
    """
    for node in nodes_of(model, "Conv"):
        _write_conv(model, node)
    for node in nodes_of(model, "Gemm"):
        _write_gemm(model, node)
