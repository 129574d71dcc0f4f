"""What lies between the binary layers, in the older forms of standard ONNX that FINN reads."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN, QONNX_VERSION, Writer, layer_path
from bnn_itrd.export.graph import (
    attribute,
    constant,
    nodes_of,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["QONNX_OPSET", "quantise_before_reshapes", "to_older_opset", "write_float_layers", "write_pooling"]

# FINN's transformations read the operations' older forms (axes as attributes).
QONNX_OPSET = 13


def _quantised_weight(node: ir.Node) -> tuple[np.ndarray, ir.Node | None]:
    """The constant second input of a Conv or Gemm, and the Quant node it comes through."""
    value = node.inputs[1]
    weight = constant(value)
    quant = None if value is None else value.producer()
    if weight is None and quant is not None and quant.op_type == "Quant" and quant.domain == DOMAIN:
        weight = constant(quant.inputs[0])
    else:
        quant = None
    if weight is None:
        raise ExportError(f"{layer_path(node)}: the weight of its {node.op_type} is computed in the graph")
    return weight, quant


def _write_conv(model: ir.Model, node: ir.Node) -> None:
    weight, quant = _quantised_weight(node)
    # What reads a node's attributes without defaults (qonnx's cost, FINN) finds them all.
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
        raise ExportError(f"{layer_path(node)}: a Gemm with alpha, beta or transA has no form in FINN: use nn.Linear")
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
    """Conv with its weight's quantiser; Gemm as MatMul and Add. Raises ExportError where a weight is computed."""
    for node in nodes_of(model, "Conv"):
        _write_conv(model, node)
    for node in nodes_of(model, "Gemm"):
        _write_gemm(model, node)


def quantise_before_reshapes(model: ir.Model) -> None:
    """Quant of a reshaped map becomes the Quant of the map: one threshold set per channel, not one per pixel."""
    for node in nodes_of(model, "Quant", DOMAIN):
        reshape = None if node.inputs[0] is None else node.inputs[0].producer()
        if reshape is None or reshape.op_type not in ("Reshape", "Flatten") or reshape.domain:
            continue
        if only_consumer(reshape.outputs[0]) is not node or reshape.inputs[0] is None:
            continue
        moved = ir.node(
            "Quant", [reshape.inputs[0], node.inputs[1]], domain=DOMAIN, version=node.version, attributes={}
        )
        moved.attributes.update(node.attributes)
        moved.metadata_props.update(node.metadata_props)
        model.graph.insert_before(reshape, moved)
        moved.outputs[0].shape, moved.outputs[0].type = reshape.inputs[0].shape, reshape.inputs[0].type
        replace_value(model, node.outputs[0], reshape.outputs[0])
        reshape.replace_input_with(0, moved.outputs[0])
    remove_unused(model)


def write_pooling(model: ir.Model) -> None:
    """ReduceMean over the image as GlobalAveragePool; Reshape to (n, -1) as Flatten."""
    for node in nodes_of(model, "ReduceMean"):
        axes = constant(optional_input(node, 1))
        rank = 0 if node.inputs[0] is None or node.inputs[0].shape is None else len(node.inputs[0].shape)
        if axes is not None and rank == 4 and sorted(int(a) % 4 for a in axes) == [2, 3]:
            writer = Writer(model, node)
            y = writer.emit("GlobalAveragePool", [node.inputs[0]], name="mean")
            keep = attribute(node, "keepdims", 1)
            writer.give(y if keep else writer.emit("Flatten", [y], {"axis": 1}, name="flatten"))
    for node in nodes_of(model, "Reshape"):
        shape, x = constant(optional_input(node, 1)), node.inputs[0]
        if shape is None or shape.size != 2 or x is None or x.shape is None:
            continue
        sizes = [size for size in list(x.shape)[1:] if isinstance(size, int)]
        if len(sizes) == len(x.shape) - 1 and int(shape[1]) == math.prod(sizes):
            writer = Writer(model, node)
            writer.give(writer.emit("Flatten", [x], {"axis": 1}, name="flatten"))


def to_older_opset(model: ir.Model) -> None:
    """Version QONNX_OPSET of ONNX. Raises ExportError on an operation, or a form of one, that is newer, by layer."""
    import onnx

    for node in model.graph:
        if node.domain:
            continue
        node.version = None
        if node.op_type == "BatchNormalization":
            node.attributes.pop("training_mode", None)
        if node.op_type == "Reshape":
            node.attributes.pop("allowzero", None)
        if node.op_type == "AveragePool":
            node.attributes.pop("dilations", None)
        try:
            schema = onnx.defs.get_schema(node.op_type, QONNX_OPSET)
        except onnx.defs.SchemaError as error:
            raise ExportError(f"{layer_path(node)}: {node.op_type} does not exist in ONNX {QONNX_OPSET}") from error
        axes = constant(optional_input(node, 1)) if "axes" in schema.attributes else None
        if axes is not None and schema.max_input == 1:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
            node.attributes.pop("noop_with_empty_axes", None)
            node.resize_inputs(1)
        if len(node.inputs) > schema.max_input or set(node.attributes) - set(schema.attributes):
            raise ExportError(f"{layer_path(node)}: this form of {node.op_type} does not exist in ONNX {QONNX_OPSET}")
    model.graph.opset_imports.clear()
    model.graph.opset_imports.update({"": QONNX_OPSET, QONNX_DOMAIN: QONNX_VERSION})
