"""`Rewriter`, with which the pass `channels_last` brings a graph from (n, c, h, w) to (n, h, w, c) node by node.

The two layouts are called NCHW and NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, constant, replace_value
from bnn_itrd.export.runtime.format import DOMAIN, VERSION

__all__ = ["AXIS", "TO_FIRST", "TO_LAST", "Rewriter", "sizes_of"]

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# Number of an axis in (n, c, h, w) -> its number in (n, h, w, c).
AXIS = {0: 0, 1: 3, 2: 1, 3: 2}


def sizes_of(value: ir.Value | None) -> list[int | None]:
    """Returns a tensor's shape, with None for each size that is not fixed; an empty list if the shape is not known."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else None for size in value.shape]


class Rewriter:
    """A helper that rewrites a graph from (n, c, h, w) to (n, h, w, c), one node at a time.

    The caller sets `node` to the current node. `last` returns a tensor as (n, h, w, c), `emit` adds an operation in
    front of the current node, and `give` replaces the current node's output by a tensor (n, h, w, c).
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.node: ir.Node
        self._last: dict[int, ir.Value] = {}
        self._signs: dict[int, ir.Value] = {}

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Adds an operation in front of the current node; returns its output."""
        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, version=VERSION if domain else None)
        node.metadata_props.update(self.node.metadata_props)
        self.model.graph.insert_before(self.node, node)
        return node.outputs[0]

    def integers(self, name: str, numbers: Sequence[int]) -> ir.Value:
        """Adds a constant int64 vector to the graph; returns it."""
        return add_initializer(self.model, name, np.array(numbers, np.int64))

    def is_last(self, value: ir.Value | None) -> bool:
        """Returns whether the tensor is available as (n, h, w, c) without adding a Transpose."""
        return value is not None and id(value) in self._last

    def last(self, value: ir.Value) -> ir.Value:
        """Returns a tensor (n, c, h, w) as (n, h, w, c).

        If the tensor was made by transposing one in that layout, the original is returned. Otherwise a Transpose is
        added, which later calls share.
        """
        found = self._last.get(id(value))
        if found is None:
            found = self.emit("Transpose", [value], {"perm": TO_LAST})
            self.set_shape(found, sizes_of(value))
            self._last[id(value)] = found
        return found

    @staticmethod
    def set_shape(value: ir.Value, nchw: Sequence[int | None]) -> None:
        """Sets the shape of a tensor (n, h, w, c) from its sizes in the order n, c, h, w; None is the batch."""
        if len(nchw) == 4:
            value.shape = ir.Shape([nchw[0] or "batch", nchw[2], nchw[3], nchw[1]])

    def give(self, made: ir.Value) -> None:
        """Replaces the current node's output (n, c, h, w) by `made` (n, h, w, c), with a Transpose between them."""
        old = self.node.outputs[0]
        self.set_shape(made, sizes_of(old))
        made.type = old.type
        back = self.emit("Transpose", [made], {"perm": TO_FIRST})
        replace_value(self.model, old, back)
        self._last[id(back)] = made

    def signs(self, value: ir.Value, nhwc: ir.Value) -> ir.Value:
        """Returns the signs of `nhwc`, the float tensor `value` as (n, h, w, c).

        The Sign operation is added once and shared by all layers that read the signs of `value`.
        """
        found = self._signs.get(id(value))
        if found is None:
            found = self.emit("Sign", [nhwc], domain=DOMAIN)
            found.shape, found.type = nhwc.shape, ir.TensorType(ir.DataType.UINT8)
            self._signs[id(value)] = found
        return found

    def number(self, value: ir.Value | None) -> ir.Value | None:
        """Returns a constant that broadcasts to (n, c, h, w), transposed so that it broadcasts to (n, h, w, c).

        Returns None if `value` is not such a constant.
        """
        array = constant(value)
        if value is None or array is None:
            return None
        if array.ndim <= 1:
            return value if array.size == 1 else None
        if array.ndim > 4:
            return None
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return add_initializer(self.model, f"{value.name}.last", np.ascontiguousarray(full.transpose(TO_LAST)))
