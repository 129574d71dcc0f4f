"""A pass that replaces the binary layers of the canonical graph by standard ONNX operations with exact sums."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_float32,
    add_initializer,
    add_scalar,
    attribute,
    constant,
    insert,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["lower_binary", "lowered_signs"]

# Metadata key of a node whose output is a binary layer's input, the signs; its entry is the layer's path.
_SIGN_OF = "sign_of"


def _lower_sign(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds standard operations that compute a Sign node, ``x >= 0 ? +1 : -1``; returns their result."""
    # ONNX has a Sign too, but its result for 0 is 0.
    positive = insert(model, node, "GreaterOrEqual", [node.inputs[0], add_scalar(model, "zero", 0.0)])
    signs = [add_scalar(model, "plus_one", 1.0), add_scalar(model, "minus_one", -1.0)]
    y = insert(model, node, "Where", [positive, *signs])
    producer = y.producer()
    if producer is not None:
        producer.metadata_props[_SIGN_OF] = attribute(node, "path", "")
    return y


def _convolution(model: ir.Model, node: ir.Node) -> tuple[ir.Value | None, dict[str, object]]:
    """Returns (input, attributes) for the Conv that replaces a binary convolution.

    If the layer pads with +1 or -1, a Pad node is added, because a Conv can only pad with 0.
    """
    x = node.inputs[0]
    pads = [int(size) for size in attribute(node, "pads", (0, 0, 0, 0))]
    padding_value = attribute(node, "padding_value", 0)
    if padding_value and any(pads):
        border = add_scalar(model, "plus_one" if padding_value > 0 else "minus_one", float(padding_value))
        path = node.metadata_props.get("path") or node.op_type
        sizes = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        x = insert(model, node, "Pad", [x, add_initializer(model, f"{path}.pads", sizes), border])
        pads = [0, 0, 0, 0]
    attributes = {
        "strides": list(attribute(node, "strides", (1, 1))),
        "pads": pads,
        "dilations": list(attribute(node, "dilations", (1, 1))),
        "group": attribute(node, "group", 1),
    }
    return x, attributes


def _lower_layer(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds standard operations that compute a BinaryConv2d or BinaryLinear; returns their result."""
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the binary weights and the scale must be constants, not computed "
            "from the images"
        )
    signs = signs.astype(np.float32)
    is_conv = node.op_type == "BinaryConv2d"
    x, attributes = _convolution(model, node) if is_conv else (node.inputs[0], {})

    def per_channel(name: str, values: np.ndarray) -> ir.Value:
        return add_float32(model, node, name, values.reshape(-1, 1, 1) if is_conv else values)

    def product(name: str, weight: np.ndarray) -> ir.Value:
        if is_conv:
            sums = insert(model, node, "Conv", [x, add_float32(model, node, name, weight)], attributes)
        else:
            sums = insert(model, node, "MatMul", [x, add_float32(model, node, name, weight.T)])
        return insert(model, node, "Round", [sums])

    # The sum is computed before the scale and the bias: sums of +-1 are exact in float32, so a sum at a threshold gives
    # the same sign as in training. Round does not change the sum; it keeps optimisers from moving the scale into the
    # weights, where every term of the sum would be rounded.
    y = insert(model, node, "Mul", [per_channel("scale", scale), product("signs", signs)])
    if offset is not None:
        # The offset multiplies the sum of the inputs in each window. Without groups this sum is the same for all
        # output channels, so it is computed for one.
        ones = np.ones_like(signs if attribute(node, "group", 1) > 1 else signs[:1])
        window = insert(model, node, "Mul", [per_channel("offset", offset), product("ones", ones)])
        y = insert(model, node, "Add", [y, window])
    if bias is not None:
        y = insert(model, node, "Add", [per_channel("bias", bias), y])
    return y


def lower_binary(model: ir.Model) -> int:
    """Replaces the binary layers and their signs by standard ONNX operations; returns the number of replaced nodes.

    A sign becomes GreaterOrEqual and Where; a layer becomes [Pad,] Conv or MatMul, Round, Mul and [Add for the bias]. A
    layer with an offset gets a second Conv or MatMul, which sums the inputs of each window; offset times this sum is
    added. Raises ExportError if a layer's binary weights or scale are not constants.
    """
    count = 0
    for node in list(model.graph):
        if node.domain == DOMAIN:
            lowered = _lower_sign(model, node) if node.op_type == "Sign" else _lower_layer(model, node)
            replace_value(model, node.outputs[0], lowered)
            count += 1
    remove_unused(model)
    return count


def lowered_signs(model: ir.Model) -> list[tuple[str, str]]:
    """Returns (layer's path, name of the tensor) for each binary layer's input signs, in a graph after `lower_binary`.

    The order is that of the graph.
    """
    return [
        (node.metadata_props[_SIGN_OF], node.outputs[0].name or "")
        for node in model.graph
        if _SIGN_OF in node.metadata_props
    ]
