"""`Writer`, with which the QONNX export adds nodes to a graph that are named after their PyTorch module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, add_scalar, attribute, insert_named, layer_path, replace_value
from bnn_itrd.export.passes.integers import quantizer_constants

__all__ = ["QONNX_DOMAIN", "QONNX_VERSION", "Writer"]

QONNX_DOMAIN = "qonnx.custom_op.general"
# The version of the QONNX operations that the library Brevitas writes too.
QONNX_VERSION = 2


class Writer:
    """A helper that replaces one node of a graph by QONNX operations.

    It adds them in front of `node`, named after the node's PyTorch module; `give` then replaces the node's output.
    """

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
        """Adds an operation in front of the node that is replaced; returns the operation's output.

        name: the ending of its name; domain: of the operation, "" for standard ONNX.
        """
        version = QONNX_VERSION if domain else None
        return insert_named(
            self.model, self.node, op_type, inputs, attributes, name=name, domain=domain, version=version
        )

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Adds a float32 constant called ``PATH.name``, with the path of the node's module; returns it."""
        return add_initializer(self.model, f"{self.path}.{name}", np.asarray(array, np.float32))

    def number(self, name: str, value: float) -> ir.Value:
        """Returns the scalar constant called `name`; the first call adds it to the graph, later calls share it."""
        return add_scalar(self.model, name, value)

    def bipolar(self, x: ir.Value | None, *, name: str) -> ir.Value:
        """Adds QONNX's operation BipolarQuant, which computes the signs of x, +1 and -1; returns its output."""
        return self.emit("BipolarQuant", [x, self.number("unit_scale", 1.0)], name=name, domain=QONNX_DOMAIN)

    def integers(self, x: ir.Value | None, quant: ir.Node, *, name: str) -> ir.Value:
        """Adds QONNX's Quant, which rounds x as the canonical graph's node `quant` does; returns its output."""
        scale, _, _ = quantizer_constants(quant)
        inputs = [x, self.number(f"{layer_path(quant)}.scale", scale), self.number("zero_point", 0.0)]
        inputs.append(self.number(f"bits.{attribute(quant, 'bits', 8)}", float(attribute(quant, "bits", 8))))
        attributes = {"signed": 1, "narrow": int(attribute(quant, "narrow", 0)), "rounding_mode": "ROUND"}
        return self.emit("Quant", inputs, attributes, name=name, domain=QONNX_DOMAIN)

    def give(self, made: ir.Value) -> None:
        """Replaces the output of `node` by the tensor `made`."""
        replace_value(self.model, self.node.outputs[0], made)
