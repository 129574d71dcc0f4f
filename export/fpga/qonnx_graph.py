"""`to_qonnx_graph` translates the canonical graph to QONNX, where nodes called quantisers make signs and integers."""

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

# FINN needs the operations of this older ONNX version, which have their axes as attributes.
_OPSET = 13

# Metadata keys of a node whose output is compared with the network's: the path of its layer or quantiser, and whether
# the output is a ``sign`` or ``integers``.
_LAYER = "layer"
_KIND = "kind"
# Metadata key of a node whose output holds integers; its entry is the factor that makes them the network's values.
STEP = "step"


def _watch(value: ir.Value, path: str, kind: str) -> None:
    """Marks a tensor, by metadata of its node, as signs or integers that are compared with the network's.

    `watched_values` returns the marked tensors. kind: ``sign`` or ``integers``; path: of the layer or quantiser.
    """
    node = value.producer()
    assert node is not None
    node.metadata_props[_LAYER], node.metadata_props[_KIND] = path, kind


def move_watch(old: ir.Node, new: ir.Node) -> None:
    """Moves the mark that a node's output is compared with the network's (`watched_values`) from `old` to `new`."""
    for key in (_LAYER, _KIND):
        new.metadata_props.pop(key, None)
        if key in old.metadata_props:
            new.metadata_props[key] = old.metadata_props.pop(key)


def _write_sign(model: ir.Model, node: ir.Node) -> None:
    """Replaces a Sign node of the canonical graph by BipolarQuant, QONNX's operation for signs."""
    writer = Writer(model, node)
    made = writer.bipolar(node.inputs[0], name="sign")
    _watch(made, writer.path, "sign")
    writer.give(made)


def _write_quant(model: ir.Model, node: ir.Node) -> None:
    """Replaces a node that rounds an activation to integers by Quant, QONNX's operation for that."""
    if constant(node.inputs[0]) is not None:
        return  # The quantiser of a weight is written with its layer.
    writer = Writer(model, node)
    made = writer.integers(node.inputs[0], node, name="integers")
    _watch(made, writer.path, "integers")
    writer.give(made)


def _positive(signs: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (signs, scale) with the same products but no negative scale; both are negated where it was negative.

    FINN can move only scales >= 0 behind a MaxPool. signs: binary weights, (o, ...); scale: (o,).
    """
    flip = np.where(scale < 0, -1.0, 1.0)
    return signs * flip.reshape(-1, *([1] * (signs.ndim - 1))), scale * flip


def _write_binary(model: ir.Model, node: ir.Node) -> None:
    """Replaces a binary layer by Conv or MatMul with BipolarQuant weights, Mul by its scale and Add of its bias."""
    writer = Writer(model, node)
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(
            f"{writer.path}: the binary weights and the scale must be constants, not computed from the images"
        )
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
    """Changes the graph's operations to those of the ONNX version `_OPSET`, in place.

    Raises ExportError, with the layer's path, on an operation, input or attribute that this version does not have.
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
            raise ExportError(
                f"{layer_path(node)}: {node.op_type} does not exist in ONNX opset {_OPSET}, which FINN needs: replace "
                "it by other operations"
            ) from error
        axes = constant(optional_input(node, 1)) if "axes" in schema.attributes else None
        if axes is not None and schema.max_input == 1:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
            node.attributes.pop("noop_with_empty_axes", None)
            node.resize_inputs(1)
        if len(node.inputs) > schema.max_input or set(node.attributes) - set(schema.attributes):
            raise ExportError(
                f"{layer_path(node)}: this form of {node.op_type} does not exist in ONNX opset {_OPSET}, which FINN "
                "needs: replace it by other operations"
            )
    model.graph.opset_imports.clear()
    model.graph.opset_imports.update({"": _OPSET, QONNX_DOMAIN: QONNX_VERSION})


def to_qonnx_graph(model: ir.Model) -> ir.Model:
    """Translates the canonical graph to QONNX, in place, for a batch of one image; returns it.

    A binary layer becomes Conv or MatMul, Mul by the scale alpha, BatchNormalization. Signs and binary weights are
    BipolarQuant with scale 1, integers are Quant, and padding with +1 or -1 is a Pad node. No alpha is negative: a
    negative one is made positive by negating the channel's weights. All values are the network's, except for rounding
    where a BatchNorm is folded into a float classifier. Raises ExportError, with the layer's path, on an operation
    that ONNX opset 13 does not have, and on one that combines the images of a batch.
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
    """Returns (path, tensor's name, step) for each tensor to compare with the network's signs or integers.

    kind: which of them, ``sign`` or ``integers``; path: of the binary layer or quantiser. The network's values are step
    times those of the graph.
    """
    return [
        (node.metadata_props[_LAYER], node.outputs[0].name or "", float(node.metadata_props.get(STEP, 1.0)))
        for node in model.graph
        if node.metadata_props.get(_KIND) == kind
    ]
