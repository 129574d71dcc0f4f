"""`Grid`, which says what integers a tensor of a QONNX graph can hold, and functions that find the grid of a tensor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN
from bnn_itrd.export.graph import add_initializer, add_scalar, attribute, constant
from bnn_itrd.quant import integer_range

__all__ = ["Grid", "grid_of_product", "grid_of_quantiser", "grid_through", "write_weight"]


class Grid(NamedTuple):
    """The values that a tensor of a graph for FINN can hold: ``unit * i`` for the integers low <= i <= high.

    step: the factor by which the same values in the PyTorch network are larger.
    """

    step: float
    unit: float
    low: int
    high: int

    @property
    def signs(self) -> bool:
        """Returns whether the values are signs, whose bounds are -1 and 1 (integers of two bits are -2 to 1)."""
        return (self.low, self.high) == (-1, 1)


def grid_of_quantiser(node: ir.Node) -> Grid | None:
    """Returns which values a node that quantises can return, as a `Grid`.

    node: QONNX's operation BipolarQuant, which returns signs, or Quant, which rounds its input to multiples of a scale.
    Returns None if the scale or the number of bits of a Quant is not constant.
    """
    if node.op_type == "BipolarQuant":
        return Grid(1.0, 1.0, -1, 1)
    scale, bits = constant(node.inputs[1]), constant(node.inputs[3])
    if scale is None or bits is None:
        return None
    return Grid(1.0, float(scale), *integer_range(int(bits), narrow=bool(attribute(node, "narrow", 0))))


def _whole_weight(node: ir.Node) -> tuple[np.ndarray, float] | None:
    """Returns (integers, scale) of a layer's weight, which is their product; None if it is not a quantised constant."""
    made = None if node.inputs[1] is None else node.inputs[1].producer()
    if made is None or made.domain != QONNX_DOMAIN:
        return None
    weight, grid = constant(made.inputs[0]), grid_of_quantiser(made)
    if weight is None or grid is None:
        return None
    if made.op_type == "BipolarQuant":
        return np.where(weight >= 0, np.float32(1), np.float32(-1)), 1.0
    step = np.float32(grid.unit)
    return np.round(np.clip(weight / step, grid.low, grid.high)), grid.unit


def write_weight(model: ir.Model, node: ir.Node, whole: np.ndarray) -> None:
    """Replaces a layer's weight by the integers `whole`, with a quantiser of the same type and scale 1 behind them.

    node: the Conv or MatMul; its weight must be the output of a node that quantises (see `grid_of_quantiser`).
    """
    old = node.inputs[1]
    made = None if old is None else old.producer()
    assert old is not None and made is not None
    values = add_initializer(model, f"{made.name}.whole", np.asarray(whole, np.float32))
    rest = [add_scalar(model, "unit_scale", 1.0), *made.inputs[2:]]
    new = ir.node(made.op_type, [values, *rest], domain=made.domain, version=made.version)
    new.attributes.update(made.attributes)
    model.graph.insert_before(node, new)
    new.name, new.outputs[0].name = made.name, old.name
    old.name, made.name = f"{old.name}.old", f"{made.name}.old"
    node.replace_input_with(1, new.outputs[0])


def grid_of_product(model: ir.Model, node: ir.Node, x: Grid) -> Grid | None:
    """Returns which values a Conv or MatMul node can return, as a `Grid`, and replaces its weights by integers.

    x: the values that its input can hold. Returns None, and changes nothing, if its weights are not quantised
    constants.
    """
    found = _whole_weight(node)
    if found is None:
        return None
    whole, step = found
    if step != 1.0:
        write_weight(model, node, whole)
    axes = tuple(range(1, whole.ndim)) if node.op_type == "Conv" else (0,)
    most = int(np.abs(whole).sum(axes).max()) * max(-x.low, x.high)
    return Grid(x.step * step, x.unit, -most, most)


def grid_through(node: ir.Node, inputs: list[Grid | None]) -> Grid | None:
    """Returns which values an operation without weights, such as MaxPool, Add or Reshape, can return, as a `Grid`.

    inputs: the values that its inputs can hold, None for floats. Returns None if the operation returns floats.
    """
    x = inputs[0] if inputs else None
    if x is None or node.domain:
        return None
    if node.op_type in ("MaxPool", "Flatten", "Reshape", "Identity", "Transpose"):
        return x
    if node.op_type == "Add" and len(inputs) == 2 and inputs[1] is not None:
        other = inputs[1]
        same = np.isclose(x.step, other.step, rtol=1e-6, atol=0) and x.unit == other.unit
        return Grid(x.step, x.unit, x.low + other.low, x.high + other.high) if same else None
    if node.op_type == "GlobalAveragePool":
        shape = None if node.inputs[0] is None else node.inputs[0].shape
        sizes = [size for size in (list(shape)[2:] if shape is not None else []) if isinstance(size, int)]
        if len(sizes) != 2:
            return None
        pixels = sizes[0] * sizes[1]
        return Grid(x.step, x.unit / pixels, x.low * pixels, x.high * pixels)
    return None
