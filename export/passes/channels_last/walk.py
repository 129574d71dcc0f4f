"""The rewriter that brings a graph to NHWC, node by node: it keeps the NHWC form of each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, constant, replace_value
from bnn_itrd.export.runtime.format import DOMAIN, VERSION

__all__ = ["AXIS", "TO_FIRST", "TO_LAST", "Rewriter", "sizes_of"]

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# NCHW axis -> NHWC axis.
AXIS = {0: 0, 1: 3, 2: 1, 3: 2}


def sizes_of(value: ir.Value | None) -> list[int | None]:
    """Returns the value's shape, None for a free size; empty where the shape is not known."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else None for size in value.shape]


class Rewriter:
    """Rewrites a graph node by node; `node` is the current one.

    `last` returns a value's NHWC form, `emit` adds a node in front of the current one.
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
        """Adds a node in front of the current one; returns its output."""
        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, version=VERSION if domain else None)
        node.metadata_props.update(self.node.metadata_props)
        self.model.graph.insert_before(self.node, node)
        return node.outputs[0]

    def integers(self, name: str, numbers: Sequence[int]) -> ir.Value:
        return add_initializer(self.model, name, np.array(numbers, np.int64))

    def is_last(self, value: ir.Value | None) -> bool:
        return value is not None and id(value) in self._last

    def last(self, value: ir.Value) -> ir.Value:
        """Returns the value (n, c, h, w) as (n, h, w, c): the value it was transposed from, or a shared Transpose."""
        found = self._last.get(id(value))
        if found is None:
            found = self.emit("Transpose", [value], {"perm": TO_LAST})
            self.set_shape(found, sizes_of(value))
            self._last[id(value)] = found
        return found

    @staticmethod
    def set_shape(value: ir.Value, nchw: Sequence[int | None]) -> None:
        if len(nchw) == 4:
            value.shape = ir.Shape([nchw[0] or "batch", nchw[2], nchw[3], nchw[1]])

    def give(self, made: ir.Value) -> None:
        """Puts `made` (n, h, w, c) in the place of the current node's output (n, c, h, w)."""
        old = self.node.outputs[0]
        self.set_shape(made, sizes_of(old))
        made.type = old.type
        back = self.emit("Transpose", [made], {"perm": TO_FIRST})
        replace_value(self.model, old, back)
        self._last[id(back)] = made

    def signs(self, value: ir.Value, nhwc: ir.Value) -> ir.Value:
        """Returns the signs of a float (n, h, w, c), computed once for all layers that read `value`."""
        found = self._signs.get(id(value))
        if found is None:
            found = self.emit("Sign", [nhwc], domain=DOMAIN)
            found.shape, found.type = nhwc.shape, ir.TensorType(ir.DataType.UINT8)
            self._signs[id(value)] = found
        return found

    def number(self, value: ir.Value | None) -> ir.Value | None:
        """Returns a constant that broadcasts to (n, c, h, w) in the form for (n, h, w, c); None where it has none."""
        array = constant(value)
        if value is None or array is None:
            return None
        if array.ndim <= 1:
            return value if array.size == 1 else None
        if array.ndim > 4:
            return None
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return add_initializer(self.model, f"{value.name}.last", np.ascontiguousarray(full.transpose(TO_LAST)))
