"""The walk over a graph that brings it to NHWC: what each value has become, and nodes in front of the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, constant, replace_value
from bnn_itrd.export.runtime.format import DOMAIN, VERSION

__all__ = ["AXIS", "TO_FIRST", "TO_LAST", "Walk", "sizes_of"]

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# NCHW axis -> NHWC axis.
AXIS = {0: 0, 1: 3, 2: 1, 3: 2}


def sizes_of(value: ir.Value | None) -> list[int | None]:
    """The value's shape, None for a free size; empty where nothing is known."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else None for size in value.shape]


class Walk:
    """The graph being rebuilt: `last` gives a value's NHWC form, `emit` adds a node in front of the present one."""

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
        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, version=VERSION if domain else None)
        node.metadata_props.update(self.node.metadata_props)
        self.model.graph.insert_before(self.node, node)
        return node.outputs[0]

    def integers(self, name: str, numbers: Sequence[int]) -> ir.Value:
        return add_initializer(self.model, name, np.array(numbers, np.int64))

    def is_last(self, value: ir.Value | None) -> bool:
        return value is not None and id(value) in self._last

    def last(self, value: ir.Value) -> ir.Value:
        """The value (n, c, h, w) as (n, h, w, c): what it was made from, or one shared Transpose."""
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
        """`made` (n, h, w, c) takes the place of the present node's output (n, c, h, w)."""
        old = self.node.outputs[0]
        self.set_shape(made, sizes_of(old))
        made.type = old.type
        back = self.emit("Transpose", [made], {"perm": TO_FIRST})
        replace_value(self.model, old, back)
        self._last[id(back)] = made

    def signs(self, value: ir.Value, nhwc: ir.Value) -> ir.Value:
        """The signs of a float (n, h, w, c); made once for all layers that read `value`."""
        found = self._signs.get(id(value))
        if found is None:
            found = self.emit("Sign", [nhwc], domain=DOMAIN)
            found.shape, found.type = nhwc.shape, ir.TensorType(ir.DataType.UINT8)
            self._signs[id(value)] = found
        return found

    def number(self, value: ir.Value | None) -> ir.Value | None:
        """A constant that goes with (n, c, h, w), for (n, h, w, c); None where it is not one or cannot be."""
        array = constant(value)
        if value is None or array is None:
            return None
        if array.ndim <= 1:
            return value if array.size == 1 else None
        if array.ndim > 4:
            return None
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return add_initializer(self.model, f"{value.name}.last", np.ascontiguousarray(full.transpose(TO_LAST)))
