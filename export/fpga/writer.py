"""A writer that adds QONNX nodes to a graph and names them after their module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, add_scalar, attribute, insert_named, layer_path, replace_value
from bnn_itrd.export.passes.integers import quantizer_constants

__all__ = ["QONNX_DOMAIN", "QONNX_VERSION", "Writer"]

QONNX_DOMAIN = "qonnx.custom_op.general"
# The version Brevitas writes.
QONNX_VERSION = 2


class Writer:
    """Adds nodes in front of the node that is being replaced, for the same module."""

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
        return insert_named(
            self.model, self.node, op_type, inputs, attributes, name=name, domain=domain, version=version
        )

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.model, f"{self.path}.{name}", np.asarray(array, np.float32))

    def number(self, name: str, value: float) -> ir.Value:
        """Returns the scalar constant of this name; it is added at the first call and shared by later ones."""
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
        """Puts `made` in the place of the node's output."""
        replace_value(self.model, self.node.outputs[0], made)
