"""Passes that simplify the graph which torch's exporter makes.

Each changes the model in place and returns the number of nodes that it changed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_initializer,
    constant,
    nodes_of,
    optional_input,
    remove_unused,
    with_inputs,
)

__all__ = ["drop_zero_biases", "fix_reshapes"]


def fix_reshapes(model: ir.Model) -> int:
    """Replaces the target shape of a Reshape by a constant with -1 for the batch, if only the batch size is unknown.

    torch's exporter computes such a shape by operations in the graph, which are not needed then. Returns the number of
    changed nodes.
    """
    count = 0
    for node in nodes_of(model, "Reshape"):
        shape = node.outputs[0].shape
        if shape is None or constant(node.inputs[1]) is not None:
            continue
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) != 1 or 0 in sizes:
            continue
        value = add_initializer(model, f"{node.outputs[0].name}.shape", np.array(sizes, np.int64))
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)
        count += 1
    return count


def drop_zero_biases(model: ir.Model) -> int:
    """Removes the bias of a Conv or Gemm if all its values are 0; returns the number of changed nodes.

    torch's exporter writes such a bias for modules without bias.
    """
    count = 0
    for node in [*nodes_of(model, "Conv"), *nodes_of(model, "Gemm")]:
        bias = constant(optional_input(node, 2))
        if bias is not None and not bias.any():
            with_inputs(model, node, list(node.inputs[:2]))
            count += 1
    remove_unused(model)
    return count
