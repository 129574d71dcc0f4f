"""The kind of each value in a graph, as FINN treats it, and the pass over the graph that determines it."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from bnn_itrd.export.fpga.report import FpgaLayer
from bnn_itrd.export.graph import layer_path
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["FLOAT", "FinnWalk", "ValueKind"]


class ValueKind(NamedTuple):
    """The kind of a value, as FINN treats it.

    name: ``sign`` or ``integer`` (integers of `bits` bits times `scale`), ``sum`` (of integers, also with a scale and
    shift per channel, which the next thresholds absorb), ``image`` (the network's input) or ``float``.
    """

    name: str
    scale: float = 1.0
    bits: int = 0


FLOAT = ValueKind("float")


class FinnWalk:
    """Keeps the kinds of the values and the report's layers while the rules visit the graph's nodes in order."""

    def __init__(self, model: ir.Model) -> None:
        self.kinds: dict[int, ValueKind] = {id(value): ValueKind("image") for value in model.graph.inputs}
        self.layers: list[FpgaLayer] = []
        self.node: ir.Node
        self.seen_weighted = False
        self.any_binary = any(node.domain == DOMAIN and node.op_type.startswith("Binary") for node in model.graph)

    def kind(self, value: ir.Value | None) -> ValueKind:
        """Returns the kind of a value."""
        return FLOAT if value is None else self.kinds.get(id(value), FLOAT)

    def give(self, kind: ValueKind) -> None:
        """Sets the kind of the current node's outputs."""
        for output in self.node.outputs:
            self.kinds[id(output)] = kind

    def note(self, operation: str, becomes: str, *problems: tuple[str, str]) -> None:
        """Adds the current layer to the report. problems: (why it does not map, what to do); none where it maps."""
        why, ways_out = "; ".join(problem for problem, _ in problems), tuple(way for _, way in problems)
        self.layers.append(FpgaLayer(layer_path(self.node), operation, not problems, why or becomes, ways_out))

    def sizes(self) -> list[int]:
        """Returns (h, w) of the first input; empty where it is not a map of fixed size."""
        value = self.node.inputs[0]
        shape = [] if value is None or value.shape is None else list(value.shape)[2:]
        return [size for size in shape if isinstance(size, int)] if len(shape) == 2 else []
