"""A pass that removes each Clip (hardtanh) that cannot change the result because only signs read its output."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.graph import (
    constant,
    nodes_of,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["drop_clips"]


def drop_clips(model: ir.Model) -> int:
    """Removes each Clip (hardtanh) whose output is read by Sign nodes only; returns how many.

    The result is the same because ``sign(clip(x, a, b)) = sign(x)`` for a < 0 <= b; other bounds are left alone.
    """
    count = 0
    for node in nodes_of(model, "Clip"):
        x, y = node.inputs[0], node.outputs[0]
        low, high = (constant(optional_input(node, i)) for i in (1, 2))
        if x is None or low is None or high is None or not (low < 0 <= high) or y.is_graph_output():
            continue
        readers = [use.node for use in y.uses()]
        if readers and all(reader.domain == DOMAIN and reader.op_type == "Sign" for reader in readers):
            replace_value(model, y, x)
            count += 1
    remove_unused(model)
    return count
