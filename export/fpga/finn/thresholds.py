"""A pass for FINN that replaces quantisers by MultiThreshold nodes, which compare integer sums with thresholds.

In this file a level is one of the values that a quantiser returns, and a chain is the list of nodes between a layer's
sum and the quantiser that multiply or shift channels by constants (`Affine`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from bnn_itrd.export.fpga.finn.affine import Affine, affine, is_quantiser
from bnn_itrd.export.fpga.finn.grids import Grid, grid_of_product, grid_of_quantiser, grid_through, write_weight
from bnn_itrd.export.fpga.finn.images import HostImages
from bnn_itrd.export.fpga.qonnx_graph import STEP, move_watch
from bnn_itrd.export.fpga.writer import QONNX_DOMAIN, QONNX_VERSION
from bnn_itrd.export.graph import add_initializer, add_scalar, constant, layer_path, only_consumer, remove_unused
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["first_numbers", "write_thresholds"]

# Distances from a computed threshold of the integers for which the network's own arithmetic is evaluated.
_AROUND = np.arange(-2, 3)


def _chain(quantiser: ir.Node, rank: int) -> tuple[list[Affine], ir.Value | None]:
    """Returns (chain, value): the nodes in front of a quantiser that multiply or shift channels, and their input.

    The chain, in order, ends at a tensor that several nodes read. rank: number of axes of the quantiser's input.
    """
    chain: list[Affine] = []
    value = quantiser.inputs[0]
    while value is not None and only_consumer(value) is not None:
        found = affine(value.producer(), rank)
        if found is None:
            break
        chain.insert(0, found)
        value = found.node.inputs[found.x]
    return chain, value


def _levels(chain: list[Affine], grid: Grid, y: torch.Tensor) -> torch.Tensor:
    """Returns the integers or signs that the network computes from sums y, (1, channels, values, 1).

    chain: the nodes between sum and quantiser; grid: the values that the quantiser returns.
    """
    for one in chain:
        y = one.apply(y)
    if grid.signs:
        return torch.where(y >= 0, 1.0, -1.0)
    return (y / grid.unit).clamp(grid.low, grid.high).round()


def first_numbers(chain: list[Affine], grid: Grid, source: Grid, turn: np.ndarray) -> np.ndarray:
    """Returns the smallest integer sum of a layer for which its quantiser returns at least v, for each of its values v.

    The result is int64, (channels, values - 1), without the lowest v; source.high + 1 stands for no sum. chain: the
    nodes between sum and quantiser; grid: the values that the quantiser returns; source: those that the sum can have;
    turn: (channels,), -1 where the chain multiplies by a negative number, so that the layer's weights are to be
    negated, else +1. The result is computed in float64 and then corrected by evaluating the network's own float32
    arithmetic for the integers around it.
    """
    levels = np.array([1]) if grid.signs else np.arange(grid.low + 1, grid.high + 1)
    edges = np.zeros(1) if grid.signs else (levels - 0.5) * grid.unit
    factor, shift = np.ones(len(turn)), np.zeros(len(turn))
    for one in chain:
        factor, shift = factor * one.factor, shift * one.factor + one.shift
    size = source.step * source.unit
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = (edges[None] - shift[:, None]) / (np.abs(factor) * size)[:, None]
    exact = np.nan_to_num(exact, nan=source.low, posinf=source.high + 1, neginf=source.low)
    near = np.floor(np.clip(exact, source.low, source.high + 1)).astype(np.int64)
    numbers = near[..., None] + _AROUND
    sums = (numbers * turn[:, None, None] * size).astype(np.float32).reshape(1, len(turn), -1, 1)
    reached = _levels(chain, grid, torch.from_numpy(sums)).numpy().reshape(numbers.shape) >= levels[:, None]
    first = numbers[..., 0] + (~reached).sum(-1)
    # If a factor is 0, either all sums reach a level or none does.
    first = np.where(reached.any(-1), first, np.where(factor[:, None] == 0, source.high + 1, first))
    return np.clip(np.maximum.accumulate(first, axis=1), source.low, source.high + 1)


def _turned(model: ir.Model, chain: list[Affine], value: ir.Value, turn: np.ndarray) -> bool:
    """Negates a layer's weights in the channels where `turn` is -1; returns whether it did. value: the layer's output.

    It does not if `value` is not the sum of a layer with quantised weights, or other nodes than the chain read it.
    """
    layer = value.producer()
    if layer is None or layer.op_type not in ("Conv", "MatMul") or only_consumer(value) is not chain[0].node:
        return False
    made = None if layer.inputs[1] is None else layer.inputs[1].producer()
    whole = None if made is None else constant(made.inputs[0])
    if whole is None:
        return False
    write_weight(model, layer, whole * (turn.reshape(-1, 1, 1, 1) if layer.op_type == "Conv" else turn))
    return True


def _threshold(model: ir.Model, node: ir.Node, grids: dict[ir.Value, Grid]) -> Grid | None:
    """Replaces a node that makes signs or integers by a MultiThreshold, which compares sums with thresholds.

    Returns the values that the MultiThreshold can return, or None if the node must stay. grids: the values that each
    tensor can hold; the new tensor is added. Raises ExportError if the node reads images that were scaled or shifted.
    """
    shape, grid = node.outputs[0].shape, grid_of_quantiser(node)
    rank = 0 if shape is None else len(shape)
    if shape is None or rank not in (2, 4) or not isinstance(shape[1], int) or grid is None:
        return None
    chain, value = _chain(node, rank)
    if value is not None and value.is_graph_input():
        raise ExportError(
            f"{layer_path(node)}: the network shifts or scales the images before it quantises them, and FINN has no "
            "thresholds on floats: normalise them outside the network, pass to_qonnx(normalization=(mean, std)), and "
            "let the first layer read them"
        )
    if value is None or value not in grids:
        return None
    source = grids[value]
    factor = np.ones(shape[1])
    for one in chain:
        factor = factor * one.factor
    turn = np.where(factor < 0, -1, 1)
    if (turn < 0).any() and not _turned(model, chain, value, turn):
        return None
    first = first_numbers(chain, grid, source, turn)
    table = np.asarray(source.unit * (first - 0.5), np.float32)
    if source.unit == 1.0:
        # FINN counts the products that are +1 in a binary sum and accepts no threshold below a count of 0, which is the
        # lowest sum.
        table = np.maximum(table, np.float32(source.low))
    table = table[:1] if (table == table[:1]).all() else table
    bipolar = node.op_type == "BipolarQuant"
    attributes: dict[str, Any] = {
        "out_dtype": "BIPOLAR" if bipolar else f"INT{int(constant(node.inputs[3]) or 0)}",
        "out_scale": 2.0 if bipolar else 1.0,
        "out_bias": float(grid.low),
        "data_layout": "NCHW" if rank == 4 else "NC",
    }
    constants = add_initializer(model, f"{node.name}.thresholds", table)
    made = ir.node("MultiThreshold", [value, constants], attributes, domain=QONNX_DOMAIN, version=QONNX_VERSION)
    made.metadata_props.update(node.metadata_props)
    model.graph.insert_before(node, made)
    old = node.outputs[0]
    made.name, made.outputs[0].name = node.name, old.name
    node.name, old.name = f"{node.name}.old", f"{old.name}.old"
    made.outputs[0].shape, made.outputs[0].type = old.shape, old.type
    move_watch(node, made)
    for user, index in list(old.uses()):
        user.replace_input_with(index, made.outputs[0])
    # If a MaxPool was moved behind the quantiser, its output is compared with the network's too.
    for reader in (made, *(use.node for use in made.outputs[0].uses() if use.node.op_type == "MaxPool")):
        reader.metadata_props[STEP] = repr(grid.unit)
    grids[made.outputs[0]] = behind = Grid(grid.unit, 1.0, grid.low, grid.high)
    return behind


def _put_steps_back(model: ir.Model, grids: dict[ir.Value, Grid], whole: set[ir.Node]) -> None:
    """Adds a Mul behind each tensor of integers that is an output or is read as floats, so that it has its real values.

    grids: the values that each tensor of integers can hold, with the step to multiply by; whole: the nodes that compute
    with integers.
    """
    for value, grid in grids.items():
        others = [use for use in value.uses() if use.node not in whole]
        if grid.step == 1.0 or not (others or value.is_graph_output()):
            continue
        producer = value.producer()
        step = add_scalar(model, f"{value.name}.step", grid.step)
        made = ir.node("Mul", [value, step])
        made.outputs[0].shape, made.outputs[0].type = value.shape, value.type
        made.name = made.outputs[0].name = f"{value.name}.scaled"
        if producer is None:
            model.graph.insert_before(model.graph[0], made)
        else:
            made.metadata_props.update({"path": layer_path(producer)})
            model.graph.insert_after(producer, made)
        for user, index in others:
            user.replace_input_with(index, made.outputs[0])
        for index, output in enumerate(model.graph.outputs):
            if output is value:
                name = value.name
                value.name, made.outputs[0].name = f"{name}.whole", name
                model.graph.outputs[index] = made.outputs[0]


def write_thresholds(model: ir.Model, images: HostImages) -> int:
    """Replaces each node that makes signs or integers of a sum of integers by a MultiThreshold; returns how many.

    Scales, BatchNorm and the integers' scales become part of the thresholds, and the weights are negated where a factor
    is negative. A threshold is halfway between two integers, so that no rounding, here or in FINN, moves a sum to its
    other side; only the threshold of a level that every sum reaches is the lowest sum. All values between thresholds
    are integers. Where an operation on floats reads them, and for the logits, a Mul makes them the network's values.
    images: which images the graph takes. Raises ExportError if the network scales the images before it quantises them.
    """
    grids: dict[ir.Value, Grid] = {}
    whole: set[ir.Node] = set()
    if images.datatype != "FLOAT32":
        grids[model.graph.inputs[0]] = Grid(images.scale, 1.0, *images.bounds())
    count = 0
    for node in list(model.graph):
        if node.domain == QONNX_DOMAIN and is_quantiser(node):
            if constant(node.inputs[0]) is not None:
                continue
            if _threshold(model, node, grids) is not None:
                count += 1
            elif (stays := grid_of_quantiser(node)) is not None:
                grids[node.outputs[0]] = stays
            continue
        inputs = [None if value is None else grids.get(value) for value in node.inputs]
        grid = None
        if node.op_type in ("Conv", "MatMul") and inputs and inputs[0] is not None:
            grid = grid_of_product(model, node, inputs[0])
        elif node.op_type not in ("Conv", "MatMul"):
            grid = grid_through(node, inputs)
        if grid is not None:
            grids[node.outputs[0]] = grid
            whole.add(node)
    whole.update(node for node in model.graph if node.op_type == "MultiThreshold")
    remove_unused(model)
    _put_steps_back(model, grids, whole)
    return count
