"""Passes that move padding with -1 from a Pad node into the convolution, as FINN reads it, and back for execution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN
from bnn_itrd.export.graph import (
    add_initializer,
    add_scalar,
    attribute,
    constant,
    insert,
    layer_path,
    nodes_of,
    remove_unused,
)
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["merge_padding", "put_borders_back"]


def _has_binary_weight(node: ir.Node) -> bool:
    """Returns whether the weights of a Conv are signs, computed by QONNX's operation BipolarQuant."""
    weight = None if node.inputs[1] is None else node.inputs[1].producer()
    return weight is not None and weight.op_type == "BipolarQuant" and weight.domain == QONNX_DOMAIN


def merge_padding(model: ir.Model) -> int:
    """Moves the padding of each binary convolution from a Pad node with -1 into the Conv; returns how many.

    FINN takes the padding of such a Conv for -1. Raises ExportError, with the layer's path, on a binary convolution
    that pads with another number.
    """
    count = 0
    for node in nodes_of(model, "Conv"):
        if not _has_binary_weight(node):
            continue
        pad = None if node.inputs[0] is None else node.inputs[0].producer()
        border = constant(pad.inputs[2]) if pad is not None and pad.op_type == "Pad" else None
        if any(attribute(node, "pads", (0,))) or (border is not None and border.reshape(()) != -1):
            raise ExportError(
                f"{layer_path(node)} pads with {0 if border is None else int(border.reshape(()))}, and FINN's binary "
                "convolutions only with -1: train the network with padding_value=-1"
            )
        if pad is None or border is None:
            continue
        sizes = constant(pad.inputs[1])
        assert sizes is not None
        node.attributes["pads"] = ir.AttrInt64s("pads", [int(v) for v in (*sizes[2:4], *sizes[6:8])])
        node.replace_input_with(0, pad.inputs[0])
        count += 1
    remove_unused(model)
    return count


def put_borders_back(model: ir.Model) -> ir.Model:
    """Moves the padding of each binary convolution into a Pad node with -1, in place; returns the graph.

    It undoes `merge_padding`, because a runtime that executes the graph would pad with 0.
    """
    for node in nodes_of(model, "Conv"):
        pads = [int(size) for size in attribute(node, "pads", ())]
        if not _has_binary_weight(node) or not any(pads):
            continue
        sizes = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        border = [add_initializer(model, f"{node.name}.pads", sizes), add_scalar(model, "border.back", -1.0)]
        made = insert(model, node, "Pad", [node.inputs[0], *border], {"mode": "constant"})
        made.name = f"{node.name}.border"
        node.replace_input_with(0, made)
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    return model
