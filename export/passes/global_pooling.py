"""A pass that replaces the mean over height and width by the operation GlobalAveragePool, which FINN reads."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.graph import (
    attribute,
    constant,
    insert_named,
    nodes_of,
    optional_input,
    remove_unused,
    replace_value,
)

__all__ = ["write_global_pooling"]


def write_global_pooling(model: ir.Model) -> int:
    """Replaces each ReduceMean over height and width of (n, c, h, w) by GlobalAveragePool; returns how many.

    A Flatten follows if the ReduceMean removes the two axes.
    """
    count = 0
    for node in nodes_of(model, "ReduceMean"):
        axes, x = constant(optional_input(node, 1)), node.inputs[0]
        rank = 0 if x is None or x.shape is None else len(x.shape)
        if axes is None or rank != 4 or sorted(int(a) % 4 for a in axes) != [2, 3]:
            continue
        assert x is not None and x.shape is not None
        y = insert_named(model, node, "GlobalAveragePool", [x], name="mean")
        y.shape, y.type = ir.Shape([*list(x.shape)[:2], 1, 1]), x.type
        if not attribute(node, "keepdims", 1):
            y = insert_named(model, node, "Flatten", [y], {"axis": 1}, name="flatten")
        replace_value(model, node.outputs[0], y)
        count += 1
    remove_unused(model)
    return count
