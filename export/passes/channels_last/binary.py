"""Functions that replace the canonical graph's binary layers by operations on (n, h, w, c), called NHWC.

docs/reference/format.md defines these operations. The pass `channels_last` calls the functions node by node.
"""

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

# Metadata key of the convolution that stands for a binary layer; its entry is the layer's path.
_SIGN_OF = "sign_of"


def _binary_constants(node: ir.Node) -> tuple[np.ndarray, ...]:
    """Returns a binary layer's constants (signs, scale, offset, bias); the offset is empty if the layer has none.

    Raises ExportError if signs or scale are not constants.
    """
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the binary weights and the scale must be constants, not computed "
            "from the images"
        )
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
    """Adds the BinaryConv nodes that compute the rewriter's current binary layer; returns their result.

    signs_in: the layer's binary inputs, (n, h, w, c); image: (h, w, c); attributes: of the convolution.
    """
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
    # The offset multiplies the sum of the inputs in each window. Without groups this sum is the same for all output
    # channels, so it is computed for one.
    ones = np.ones_like(signs) if grouped else np.ones_like(signs[:1])
    window = product("ones", ones, np.ones(len(ones), np.float32), np.zeros(len(ones), np.float32))
    y = rewriter.emit(
        "Add", [y, rewriter.emit("Mul", [window, add_initializer(rewriter.model, f"{path}.offset", offset)])]
    )
    return y if not bias.any() else rewriter.emit("Add", [y, add_initializer(rewriter.model, f"{path}.bias", bias)])


def binary_conv(rewriter: Rewriter) -> bool:
    """Replaces the rewriter's current node, a BinaryConv2d, by the NHWC operation BinaryConv; returns True.

    Raises ExportError if the size of its images is not fixed or its weights are not constants.
    """
    node = rewriter.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    if sign is None or sign.inputs[0] is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the input of this binary layer is not a sign: report this network"
        )
    x = sign.inputs[0]
    _, channels, height, width = sizes_of(x) or [None] * 4
    if channels is None or height is None or width is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the height and width of its input depend on the images: resize "
            "them to fixed sizes"
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
    """Replaces the rewriter's current node, a BinaryLinear, by a BinaryConv with a 1x1 kernel; returns True.

    Raises ExportError if a size of its output, besides the batch, is not fixed.
    """
    node = rewriter.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    channels = sizes_of(node.inputs[1])[1] if sizes_of(node.inputs[1]) else None
    if sign is None or sign.inputs[0] is None or channels is None:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the input of this binary layer is not a sign: report this network"
        )
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
            f"{path}: all sizes of its output but the batch must be fixed, got the shape {sizes}, where None is not "
            "fixed: reshape to fixed sizes"
        )
    shape = [-1 if size is None else size for size in sizes]
    made = rewriter.emit("Reshape", [y, rewriter.integers(f"{path}.shape", shape)])
    made.shape, made.type = node.outputs[0].shape, node.outputs[0].type
    replace_value(rewriter.model, node.outputs[0], made)
    return True


def layer_signs(model: ir.Model) -> list[tuple[str, str]]:
    """Returns (layer's path, name of the tensor that holds its input signs) for each binary layer.

    model: a graph after the pass `channels_last`.
    """
    return [
        (node.metadata_props[_SIGN_OF], node.inputs[0].name or "")
        for node in model.graph
        if _SIGN_OF in node.metadata_props and node.inputs[0] is not None
    ]
