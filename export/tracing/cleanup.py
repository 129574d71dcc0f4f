"""Passes that simplify the graph of torch's exporter; each changes the model and returns how many nodes it changed."""

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
    """Replaces the computed size of a Reshape by the constant [-1, sizes...] where only the batch is unknown."""
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
    """Removes a Conv's or Gemm's bias of zeros (the exporter writes one where the module has none)."""
    count = 0
    for node in [*nodes_of(model, "Conv"), *nodes_of(model, "Gemm")]:
        bias = constant(optional_input(node, 2))
        if bias is not None and not bias.any():
            with_inputs(model, node, list(node.inputs[:2]))
            count += 1
    remove_unused(model)
    return count
