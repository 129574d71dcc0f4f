"""`FinnWalk`, which keeps what `check_fpga` has found out while its rules visit the nodes of a graph in order."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from bnn_itrd.export.fpga.report import FpgaLayer
from bnn_itrd.export.graph import layer_path
from bnn_itrd.export.runtime.format import DOMAIN

__all__ = ["FLOAT", "FinnWalk", "ValueKind"]


class ValueKind(NamedTuple):
    """The kind of values that a tensor of the graph holds, as FINN treats them.

    name: ``sign``; ``integer``, which is an integer of `bits` bits times `scale`; ``sum`` of such products, also after
    a scale and shift per channel; ``image``, the network's input; or ``float``.
    """

    name: str
    scale: float = 1.0
    bits: int = 0


FLOAT = ValueKind("float")


class FinnWalk:
    """The state of `check_fpga` while its rules visit the nodes of a graph in order.

    node: the current node; kinds: the kind of each tensor, by ``id``; layers: the report so far; seen_weighted: whether
    a convolution or linear layer has been visited; any_binary: whether the network has a binary layer.
    """

    def __init__(self, model: ir.Model) -> None:
        self.kinds: dict[int, ValueKind] = {id(value): ValueKind("image") for value in model.graph.inputs}
        self.layers: list[FpgaLayer] = []
        self.node: ir.Node
        self.seen_weighted = False
        self.any_binary = any(node.domain == DOMAIN and node.op_type.startswith("Binary") for node in model.graph)

    def kind(self, value: ir.Value | None) -> ValueKind:
        """Returns the kind of values, such as signs or floats, that a tensor holds; unknown ones count as floats."""
        return FLOAT if value is None else self.kinds.get(id(value), FLOAT)

    def give(self, kind: ValueKind) -> None:
        """Records the kind of values, such as signs or floats, that the current node's outputs hold."""
        for output in self.node.outputs:
            self.kinds[id(output)] = kind

    def note(self, operation: str, becomes: str, *problems: tuple[str, str]) -> None:
        """Adds the current node to the report as a layer.

        operation: what it computes, in words; becomes: the hardware that it becomes; problems: (why FINN cannot map it,
        what to do) for each problem, none if FINN can map it.
        """
        why, ways_out = "; ".join(problem for problem, _ in problems), tuple(way for _, way in problems)
        self.layers.append(FpgaLayer(layer_path(self.node), operation, not problems, why or becomes, ways_out))

    def sizes(self) -> list[int]:
        """Returns [h, w] of the current node's first input, (n, c, h, w); sizes that are not fixed are left out."""
        value = self.node.inputs[0]
        shape = [] if value is None or value.shape is None else list(value.shape)[2:]
        return [size for size in shape if isinstance(size, int)] if len(shape) == 2 else []
