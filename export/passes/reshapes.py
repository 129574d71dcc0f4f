"""Passes for FINN that move quantisers in front of reshapes and replace a flattening Reshape by Flatten."""

from __future__ import annotations

import math

import onnx_ir as ir

from bnn_itrd.export.graph import (
    constant,
    insert_named,
    nodes_of,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["quantise_before_reshapes", "write_flattenings"]


def quantise_before_reshapes(model: ir.Model) -> int:
    """Changes Reshape -> Quant to Quant -> Reshape, where nothing else reads the Reshape; returns how many.

    The result is the same. In FINN a quantiser becomes thresholds for each channel: in front of the Reshape these are
    the channels of (n, c, h, w), and behind it every pixel would need thresholds of its own.
    """
    count = 0
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
        count += 1
    remove_unused(model)
    return count


def write_flattenings(model: ir.Model) -> int:
    """Replaces each Reshape that flattens (n, ...) to two axes (n, features) by Flatten; returns how many."""
    count = 0
    for node in nodes_of(model, "Reshape"):
        shape, x = constant(optional_input(node, 1)), node.inputs[0]
        if shape is None or shape.size != 2 or x is None or x.shape is None:
            continue
        sizes = [size for size in list(x.shape)[1:] if isinstance(size, int)]
        if len(sizes) == len(x.shape) - 1 and int(shape[1]) == math.prod(sizes):
            made = insert_named(model, node, "Flatten", [x], {"axis": 1}, name="flatten")
            replace_value(model, node.outputs[0], made)
            count += 1
    remove_unused(model)
    return count
