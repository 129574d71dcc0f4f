"""Rules that replace the binary nodes of the canonical graph by the NHWC operations of docs/reference/format.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, attribute, constant, optional_input, replace_value
from bnn_itrd.export.passes.channels_last.walk import Rewriter, sizes_of
from bnn_itrd.export.passes.thresholds import pack_weights
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["binary_conv", "binary_linear", "layer_signs"]

# Metadata key, at a layer's convolution, of the layer's path.
_SIGN_OF = "sign_of"


def _binary_constants(node: ir.Node) -> tuple[np.ndarray, ...]:
    """Returns (signs, scale, offset or empty, bias) of a binary node. Raises ExportError where they are computed."""
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(f"{attribute(node, 'path', node.name)}: its signs and its scale must be constants")
    zero = np.zeros_like(scale, np.float32)
    return (
        signs,
        scale.astype(np.float32),
        np.array([], np.float32) if offset is None else offset.astype(np.float32),
        zero if bias is None else bias.astype(np.float32),
    )


def _convolve(
    rewriter: Rewriter, signs_in: ir.Value, image: tuple[int, int, int], attributes: dict[str, Any]
) -> ir.Value:
    """Adds the BinaryConv nodes of the current binary node, on signs (n, h, w, c); image: (h, w, c)."""
    node = rewriter.node
    path = str(attribute(node, "path", "")) or node.op_type
    signs, scale, offset, bias = _binary_constants(node)
    if signs.ndim == 2:
        signs = signs[:, :, None, None]
    attributes = {"input_size": list(image[:2]), "channels": image[2], **attributes}
    grouped = "Grouped" if attributes["group"] > 1 else ""

    def product(name: str, weights: np.ndarray, factor: np.ndarray, added: np.ndarray) -> ir.Value:
        constants = [
            add_initializer(rewriter.model, f"{path}.{name}", pack_weights(weights)),
            add_initializer(rewriter.model, f"{path}.{name}.scale", factor),
            add_initializer(rewriter.model, f"{path}.{name}.bias", added),
        ]
        return rewriter.emit(f"{grouped}BinaryConv", [signs_in, *constants], attributes, DOMAIN)

    y = product("weights", signs, scale, bias if not offset.size else np.zeros_like(bias))
    producer = y.producer()
    if producer is not None:
        producer.metadata_props[_SIGN_OF] = str(attribute(node, "path", ""))
    if not offset.size:
        return y
    # The sum of a window's inputs. With one group it is the same for all output channels and is computed once.
    ones = np.ones_like(signs) if grouped else np.ones_like(signs[:1])
    window = product("ones", ones, np.ones(len(ones), np.float32), np.zeros(len(ones), np.float32))
    y = rewriter.emit(
        "Add", [y, rewriter.emit("Mul", [window, add_initializer(rewriter.model, f"{path}.offset", offset)])]
    )
    return y if not bias.any() else rewriter.emit("Add", [y, add_initializer(rewriter.model, f"{path}.bias", bias)])


def binary_conv(rewriter: Rewriter) -> bool:
    """Replaces a BinaryConv2d. Raises ExportError where its image size is not fixed or its constants are computed."""
    node = rewriter.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    if sign is None or sign.inputs[0] is None:
        raise ExportError(f"{attribute(node, 'path', node.name)} does not read a sign: report this network")
    x = sign.inputs[0]
    _, channels, height, width = sizes_of(x) or [None] * 4
    if channels is None or height is None or width is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the size of its images is not fixed: resize them to fixed sizes"
        )
    attributes = {
        "kernel_shape": list(sizes_of(node.inputs[1])[2:]),
        "strides": [int(v) for v in attribute(node, "strides", (1, 1))],
        "pads": [int(v) for v in attribute(node, "pads", (0, 0, 0, 0))],
        "dilations": [int(v) for v in attribute(node, "dilations", (1, 1))],
        "group": int(attribute(node, "group", 1)),
        "padding_value": int(attribute(node, "padding_value", 0)),
    }
    signs = rewriter.signs(x, rewriter.last(x))
    rewriter.give(_convolve(rewriter, signs, (height, width, channels), attributes))
    return True


def binary_linear(rewriter: Rewriter) -> bool:
    """Replaces a BinaryLinear by a 1x1 BinaryConv. Raises ExportError where a size other than the batch is free."""
    node = rewriter.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    channels = sizes_of(node.inputs[1])[1] if sizes_of(node.inputs[1]) else None
    if sign is None or sign.inputs[0] is None or channels is None:
        raise ExportError(f"{attribute(node, 'path', node.name)} does not read a sign: report this network")
    x, path = sign.inputs[0], str(attribute(node, "path", "")) or "linear"
    attributes = {
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "pads": [0, 0, 0, 0],
        "dilations": [1, 1],
        "group": 1,
        "padding_value": 0,
    }
    image = rewriter.emit("Reshape", [x, rewriter.integers(f"{path}.image", [-1, 1, 1, channels])])
    image.shape = ir.Shape(["batch" if len(sizes_of(x)) == 2 else None, 1, 1, channels])
    y = _convolve(rewriter, rewriter.signs(x, image), (1, 1, channels), attributes)
    sizes = sizes_of(node.outputs[0])
    free = [i for i, size in enumerate(sizes) if size is None]
    if len(free) > 1 or not sizes:
        raise ExportError(
            f"{path}: only the batch of its output may be free, got the shape {sizes}: reshape to fixed sizes"
        )
    shape = [-1 if size is None else size for size in sizes]
    made = rewriter.emit("Reshape", [y, rewriter.integers(f"{path}.shape", shape)])
    made.shape, made.type = node.outputs[0].shape, node.outputs[0].type
    replace_value(rewriter.model, node.outputs[0], made)
    return True


def layer_signs(model: ir.Model) -> list[tuple[str, str]]:
    """Returns (path of the layer, name of its input signs) of each binary layer, in order."""
    return [
        (node.metadata_props[_SIGN_OF], node.inputs[0].name or "")
        for node in model.graph
        if _SIGN_OF in node.metadata_props and node.inputs[0] is not None
    ]
