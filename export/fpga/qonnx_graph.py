"""Translation of the canonical graph to QONNX: signs and integers are quantiser nodes, and nothing is folded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export import passes
from bnn_itrd.export.fpga.float_layers import write_float_layers
from bnn_itrd.export.fpga.writer import QONNX_DOMAIN, QONNX_VERSION, Writer
from bnn_itrd.export.graph import add_initializer, attribute, constant, layer_path, optional_input, remove_unused
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.tracing.batch_check import refuse_mixing

__all__ = ["STEP", "move_watch", "to_qonnx_graph", "watched_values"]

# FINN's transformations need the operations of this older version, which have axes as attributes.
_OPSET = 13

_LAYER = "layer"
_KIND = "kind"
# Metadata key, at a node whose output are integers, of the factor by which the network's value is larger.
STEP = "step"


def _watch(value: ir.Value, path: str, kind: str) -> None:
    node = value.producer()
    assert node is not None
    node.metadata_props[_LAYER], node.metadata_props[_KIND] = path, kind


def move_watch(old: ir.Node, new: ir.Node) -> None:
    """Moves the metadata that mark a node's output as a layer's signs or integers from `old` to `new`."""
    for key in (_LAYER, _KIND):
        new.metadata_props.pop(key, None)
        if key in old.metadata_props:
            new.metadata_props[key] = old.metadata_props.pop(key)


def _write_sign(model: ir.Model, node: ir.Node) -> None:
    writer = Writer(model, node)
    made = writer.bipolar(node.inputs[0], name="sign")
    _watch(made, writer.path, "sign")
    writer.give(made)


def _write_quant(model: ir.Model, node: ir.Node) -> None:
    if constant(node.inputs[0]) is not None:
        return  # a weight, which is written with its layer
    writer = Writer(model, node)
    made = writer.integers(node.inputs[0], node, name="integers")
    _watch(made, writer.path, "integers")
    writer.give(made)


def _positive(signs: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (signs, scale) with scales >= 0 and the same products; FINN moves only such scales behind a MaxPool."""
    flip = np.where(scale < 0, -1.0, 1.0)
    return signs * flip.reshape(-1, *([1] * (signs.ndim - 1))), scale * flip


def _write_binary(model: ir.Model, node: ir.Node) -> None:
    writer = Writer(model, node)
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(f"{writer.path}: its signs and its scale must be constants")
    is_conv = node.op_type == "BinaryConv2d"
    weight, alpha = _positive(signs.astype(np.float64), scale.astype(np.float64))
    x = node.inputs[0]
    attributes: dict[str, Any] = {}
    if is_conv:
        pads = [int(size) for size in attribute(node, "pads", (0, 0, 0, 0))]
        value = int(attribute(node, "padding_value", 0))
        if value and any(pads):
            sizes = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            border = [add_initializer(model, f"{writer.path}.pads", sizes), writer.number(f"border.{value}", value)]
            x, pads = writer.emit("Pad", [x, *border], {"mode": "constant"}, name="pad"), [0, 0, 0, 0]
        attributes = {
            "kernel_shape": list(signs.shape[2:]),
            "strides": list(attribute(node, "strides", (1, 1))),
            "pads": pads,
            "dilations": list(attribute(node, "dilations", (1, 1))),
            "group": attribute(node, "group", 1),
        }

    def per_channel(name: str, values: np.ndarray) -> ir.Value:
        return writer.constant(name, values.reshape(1, -1, 1, 1) if is_conv else values)

    def product(name: str, array: np.ndarray) -> ir.Value:
        quantised = writer.bipolar(writer.constant(name, array if is_conv else array.T), name=f"{name}.bipolar")
        return writer.emit("Conv" if is_conv else "MatMul", [x, quantised], attributes, name=f"{name}.product")

    # FINN expects the constant as the second input.
    y = writer.emit("Mul", [product("weight", weight), per_channel("alpha", alpha)], name="scaled")
    if offset is not None:
        window = writer.emit(
            "Mul", [product("ones", np.ones_like(weight)), per_channel("offset", offset)], name="window"
        )
        y = writer.emit("Add", [y, window], name="with_offset")
    if bias is not None:
        y = writer.emit("Add", [y, per_channel("bias", bias)], name="with_bias")
    writer.give(y)


_RULES = {
    "Sign": _write_sign,
    "Quant": _write_quant,
    "BinaryConv2d": _write_binary,
    "BinaryLinear": _write_binary,
}


def _to_older_opset(model: ir.Model) -> None:
    """Converts the graph to version _OPSET of ONNX.

    Raises ExportError, with the layer's path, on an operation, or a form of one, that this version does not have.
    """
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
            schema = onnx.defs.get_schema(node.op_type, _OPSET)
        except onnx.defs.SchemaError as error:
            raise ExportError(f"{layer_path(node)}: {node.op_type} does not exist in ONNX {_OPSET}") from error
        axes = constant(optional_input(node, 1)) if "axes" in schema.attributes else None
        if axes is not None and schema.max_input == 1:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
            node.attributes.pop("noop_with_empty_axes", None)
            node.resize_inputs(1)
        if len(node.inputs) > schema.max_input or set(node.attributes) - set(schema.attributes):
            raise ExportError(f"{layer_path(node)}: this form of {node.op_type} does not exist in ONNX {_OPSET}")
    model.graph.opset_imports.clear()
    model.graph.opset_imports.update({"": _OPSET, QONNX_DOMAIN: QONNX_VERSION})


def to_qonnx_graph(model: ir.Model) -> ir.Model:
    """Translates the canonical graph to QONNX, in place: conv -> Mul(alpha) -> BatchNormalization -> BipolarQuant.

    The batch becomes one image. Signs and binary weights are BipolarQuant with scale 1, integers are Quant; a padding
    of +-1 is a Pad in front of a Conv without padding. The values are the network's, except for rounding where a
    BatchNorm is folded into a float classifier. Every alpha is >= 0; for a negative one, the channel's signs are
    negated. Raises ExportError, with the layer's path, on an operation that ONNX does not have in this version, and on
    one that combines the images of a batch.
    """
    refuse_mixing(model)
    passes.apply(model, passes.QONNX)
    write_float_layers(model)
    for node in list(model.graph):
        if node.domain == DOMAIN:
            _RULES[node.op_type](model, node)
    remove_unused(model)
    _to_older_opset(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    return model


def watched_values(model: ir.Model, kind: str) -> list[tuple[str, str, float]]:
    """Returns (path of the layer or quantiser, name of the value, step) of each activation of a kind.

    kind: ``sign`` or ``integers``. The network's value is the step times the value in the graph.
    """
    return [
        (node.metadata_props[_LAYER], node.outputs[0].name or "", float(node.metadata_props.get(STEP, 1.0)))
        for node in model.graph
        if node.metadata_props.get(_KIND) == kind
    ]
