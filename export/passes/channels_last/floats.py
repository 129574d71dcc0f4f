"""Functions that replace float convolutions by operations on (n, h, w, c), called NHWC.

They are the first layer of a network and those between binary layers; the pass `channels_last` calls the functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, attribute, constant, only_consumer, optional_input, replace_value
from bnn_itrd.export.passes.channels_last.walk import TO_LAST, Rewriter, sizes_of
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["float_convolution", "inner_convolution", "is_to_nhwc"]


def is_to_nhwc(node: ir.Node) -> bool:
    """Returns whether a node is the Transpose from (n, c, h, w) to (n, h, w, c)."""
    return node.op_type == "Transpose" and not node.domain and list(attribute(node, "perm", ())) == TO_LAST


# onnxruntime's matrix product adds the terms of each sum in order if there are at most _DEEPEST terms and at least
# _LEAST_PIXELS rows; otherwise it uses another routine, whose order is not known.
_DEEPEST, _LEAST_PIXELS = 128, 64


def _float_constants(conv: ir.Node) -> tuple[dict[str, Any], np.ndarray, np.ndarray] | None:
    """Returns (attributes, weights (kh, kw, c, o), bias (o,)) of a Conv, for the operations on (n, h, w, c).

    Returns None if the Conv has groups or automatic padding, its images have no fixed size, or its weights are not
    float32 constants.
    """
    weights, bias = constant(optional_input(conv, 1)), constant(optional_input(conv, 2))
    sizes, out = sizes_of(conv.inputs[0]), sizes_of(conv.outputs[0])
    if weights is None or weights.dtype != np.float32 or weights.ndim != 4 or len(sizes) != 4 or len(out) != 4:
        return None
    if None in (*sizes[1:], *out[1:]) or (optional_input(conv, 2) is not None and bias is None):
        return None
    if int(attribute(conv, "group", 1)) != 1 or attribute(conv, "auto_pad", "NOTSET") != "NOTSET":
        return None
    attributes = {
        "input_size": sizes[2:],
        "channels": sizes[1],
        "kernel_shape": list(weights.shape[2:]),
        "strides": [int(v) for v in attribute(conv, "strides", (1, 1))],
        "pads": [int(v) for v in attribute(conv, "pads", (0, 0, 0, 0))],
        "dilations": [int(v) for v in attribute(conv, "dilations", (1, 1))],
    }
    last = np.ascontiguousarray(weights.transpose(2, 3, 1, 0))
    return attributes, last, np.zeros(len(weights), np.float32) if bias is None else bias


def _is_small(conv: ir.Node, weights: np.ndarray) -> bool:
    """Returns whether a convolution is small enough that the order in which onnxruntime adds its products is known.

    Then the native operator can add in the same order and so return the same bits. weights: (kh, kw, c, o).
    """
    _, _, height, width = sizes_of(conv.outputs[0])
    return weights[..., 0].size <= _DEEPEST and (height or 0) * (width or 0) >= _LEAST_PIXELS


def float_convolution(rewriter: Rewriter, transpose: ir.Node) -> bool:
    """Replaces Conv -> Transpose to (n, h, w, c) by one FloatConv; returns whether it did.

    It does so if the Conv is small (see `_is_small`) and only the Transpose reads its output.
    """
    x = transpose.inputs[0]
    conv = x.producer() if x is not None else None
    if x is None or conv is None or conv.op_type != "Conv" or conv.domain or only_consumer(x) is not transpose:
        return False
    found = _float_constants(conv)
    if found is None or not _is_small(conv, found[1]):
        return False
    attributes, weights, bias = found
    rewriter.node = transpose
    name = conv.outputs[0].name
    constants = [
        add_initializer(rewriter.model, f"{name}.weights", weights),
        add_initializer(rewriter.model, f"{name}.bias", bias),
    ]
    made = rewriter.emit("FloatConv", [conv.inputs[0], *constants], attributes, DOMAIN)
    rewriter.set_shape(made, sizes_of(conv.outputs[0]))
    made.type = x.type
    replace_value(rewriter.model, transpose.outputs[0], made)
    return True


def inner_convolution(rewriter: Rewriter) -> bool:
    """Replaces the rewriter's Conv node by one on (n, h, w, c), if its input has that layout; returns whether it did.

    A small Conv (see `_is_small`) becomes InnerFloatConv, and any other 1x1 Conv with stride 1 a matrix product.
    """
    conv = rewriter.node
    x, found = conv.inputs[0], _float_constants(conv)
    if x is None or not rewriter.is_last(x) or found is None:
        return False
    attributes, weights, bias = found
    name = conv.outputs[0].name
    if _is_small(conv, weights):
        constants = [
            add_initializer(rewriter.model, f"{name}.weights", weights),
            add_initializer(rewriter.model, f"{name}.bias", bias),
        ]
        rewriter.give(rewriter.emit("InnerFloatConv", [rewriter.last(x), *constants], attributes, DOMAIN))
        return True
    if weights.shape[:2] != (1, 1) or attributes["strides"] != [1, 1] or any(attributes["pads"]):
        return False
    made = rewriter.emit(
        "MatMul", [rewriter.last(x), add_initializer(rewriter.model, f"{name}.weights", weights[0, 0])]
    )
    rewriter.give(
        rewriter.emit("Add", [made, add_initializer(rewriter.model, f"{name}.bias", bias)]) if bias.any() else made
    )
    return True
