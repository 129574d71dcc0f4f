"""Adding QONNX nodes to a graph, named after the module they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, add_scalar, attribute, replace_value
from bnn_itrd.export.passes.integers import quantizer_constants

__all__ = ["QONNX_DOMAIN", "QONNX_VERSION", "Writer", "layer_path"]

QONNX_DOMAIN = "qonnx.custom_op.general"
# The version Brevitas writes.
QONNX_VERSION = 2


def layer_path(node: ir.Node) -> str:
    """The module a node is for, or its operation."""
    return str(attribute(node, "path", "") or node.metadata_props.get("path") or node.op_type)


class Writer:
    """Adds nodes in front of the one being replaced, for the same module."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.model, self.node, self.path = model, node, layer_path(node)

    def emit(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        name: str,
        domain: str = "",
    ) -> ir.Value:
        version = QONNX_VERSION if domain else None
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, version=version)
        node.metadata_props.update(self.node.metadata_props)
        self.model.graph.insert_before(self.node, node)
        node.name = node.outputs[0].name = self._unique(f"{self.path}.{name}")
        return node.outputs[0]

    def _unique(self, name: str) -> str:
        taken = {output.name for node in self.model.graph for output in node.outputs}
        count, unique = 1, name
        while unique in taken:
            count += 1
            unique = f"{name}.{count}"
        return unique

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.model, f"{self.path}.{name}", np.asarray(array, np.float32))

    def number(self, name: str, value: float) -> ir.Value:
        """A rank-0 constant shared by all who ask for its name."""
        return add_scalar(self.model, name, value)

    def bipolar(self, x: ir.Value | None, *, name: str) -> ir.Value:
        return self.emit("BipolarQuant", [x, self.number("unit_scale", 1.0)], name=name, domain=QONNX_DOMAIN)

    def integers(self, x: ir.Value | None, quant: ir.Node, *, name: str) -> ir.Value:
        scale, _, _ = quantizer_constants(quant)
        inputs = [x, self.number(f"{layer_path(quant)}.scale", scale), self.number("zero_point", 0.0)]
        inputs.append(self.number(f"bits.{attribute(quant, 'bits', 8)}", float(attribute(quant, "bits", 8))))
        attributes = {"signed": 1, "narrow": int(attribute(quant, "narrow", 0)), "rounding_mode": "ROUND"}
        return self.emit("Quant", inputs, attributes, name=name, domain=QONNX_DOMAIN)

    def give(self, made: ir.Value) -> None:
        """`made` takes the place of the node's output."""
        replace_value(self.model, self.node.outputs[0], made)
