"""QONNX as FINN reads it: borders of -1 as a convolution's own padding, pooling behind the thresholds."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.qonnx_graph import move_watch
from bnn_itrd.export.fpga.writer import QONNX_DOMAIN
from bnn_itrd.export.graph import (
    add_initializer,
    add_scalar,
    attribute,
    constant,
    insert,
    layer_path,
    nodes_of,
    only_consumer,
    remove_unused,
)
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["POOLED", "for_finn", "put_borders_back"]

# Ends the name of a value that is pooled behind its quantiser; the quantiser's own is in front of it.
POOLED = ".pooled"


def _has_binary_weight(node: ir.Node) -> bool:
    weight = None if node.inputs[1] is None else node.inputs[1].producer()
    return weight is not None and weight.op_type == "BipolarQuant" and weight.domain == QONNX_DOMAIN


def _merge_padding(model: ir.Model) -> int:
    """Pad(-1) + Conv as Conv(pads), which FINN reads as a border of -1. Returns how many.

    Raises ExportError on a binary convolution with another border, by layer: FINN would compute something else.
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


def _pool_last(model: ir.Model) -> int:
    """MaxPool -> BatchNormalization -> quantiser becomes BatchNormalization -> quantiser -> MaxPool; how many.

    Only where no factor is negative: then normalising and quantising keep the order of values, rounding included, so
    the largest stays the largest, bit for bit. FINN has no way past a MaxPool for the correction that XNOR sums need.
    """
    count = 0
    for pool in nodes_of(model, "MaxPool"):
        norm = only_consumer(pool.outputs[0])
        if norm is None or norm.op_type != "BatchNormalization" or norm.inputs[0] is not pool.outputs[0]:
            continue
        gamma = constant(norm.inputs[1])
        quantiser = only_consumer(norm.outputs[0])
        if gamma is None or (gamma < 0).any() or quantiser is None:
            continue
        if quantiser.op_type not in ("BipolarQuant", "Quant") or quantiser.outputs[0].is_graph_output():
            continue
        readers = list(quantiser.outputs[0].uses())
        norm.replace_input_with(0, pool.inputs[0])
        # What stands in front of the pooling now is as large as what was pooled.
        for value in (norm.outputs[0], quantiser.outputs[0]):
            value.shape = None if pool.inputs[0] is None else pool.inputs[0].shape
        moved = ir.node("MaxPool", [quantiser.outputs[0]], {k: a.value for k, a in pool.attributes.items()})
        moved.metadata_props.update(pool.metadata_props)
        model.graph.insert_after(quantiser, moved)
        moved.outputs[0].shape, moved.outputs[0].type = pool.outputs[0].shape, quantiser.outputs[0].type
        moved.name, moved.outputs[0].name = f"{quantiser.name}{POOLED}", f"{quantiser.outputs[0].name}{POOLED}"
        move_watch(quantiser, moved)
        for user, index in readers:
            user.replace_input_with(index, moved.outputs[0])
        count += 1
    remove_unused(model)
    return count


def for_finn(model: ir.Model) -> ir.Model:
    """The graph of `to_qonnx_graph` for FINN, in place. Raises ExportError on a binary border that is not -1."""
    _merge_padding(model)
    _pool_last(model)
    return model


def put_borders_back(model: ir.Model) -> ir.Model:
    """The graph of `for_finn`, in place, as it can be executed: a binary convolution's padding is a Pad with -1."""
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
