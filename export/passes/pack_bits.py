"""Packing: weights of +-1 stored as one bit each, unpacked in the graph by standard operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_initializer,
    add_scalar,
    constant,
    insert,
    nodes_of,
    remove_unused,
    replace_value,
)

__all__ = ["pack_signs", "packed_bits"]

# Below this many elements the nodes that unpack take more room than the bits save.
_SMALLEST = 512


def _unpack(model: ir.Model, before: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    shifts = model.graph.initializers.get("bit_shifts")
    if shifts is None:
        shifts = add_initializer(model, "bit_shifts", np.arange(8, dtype=np.uint8))
    last = model.graph.initializers.get("last_bit")
    if last is None:
        last = add_initializer(model, "last_bit", np.array(7, np.uint8))

    def integers(label: str, numbers: list[int]) -> ir.Value:
        return add_initializer(model, f"{name}.{label}", np.array(numbers, np.int64))

    packed = add_initializer(model, f"{name}.bits", np.packbits(array.reshape(-1) > 0)[:, None])
    y = insert(model, before, "BitShift", [packed, shifts], {"direction": "LEFT"})
    y = insert(model, before, "BitShift", [y, last], {"direction": "RIGHT"})
    y = insert(model, before, "Cast", [y], {"to": ir.DataType.FLOAT.value})
    y = insert(model, before, "Mul", [y, add_scalar(model, "two", 2.0)])
    y = insert(model, before, "Sub", [y, add_scalar(model, "plus_one", 1.0)])
    if array.size % 8:
        y = insert(model, before, "Reshape", [y, integers("flat", [-1])])
        y = insert(model, before, "Slice", [y, integers("start", [0]), integers("size", [array.size])])
    return insert(model, before, "Reshape", [y, integers("shape", list(array.shape))])


def pack_signs(model: ir.Model) -> int:
    """Weights of +-1 (Conv, MatMul) are stored as one bit each, with standard operations that unpack them.

    BitShift left by 0..7, right by 7, Cast, Mul, Sub, [Slice], Reshape. Bit k from the left of byte b is
    element 8 b + k in C order; 1 stands for +1. onnxruntime unpacks once, when it makes the session, and from
    there on computes what it computes with float weights, bit for bit.
    """
    count = 0
    for name, value in list(model.graph.initializers.items()):
        array = constant(value)
        uses = list(value.uses())
        readers = [use.node for use in uses if use.idx == 1 and use.node.op_type in ("Conv", "MatMul")]
        if array is None or array.dtype != np.float32 or array.size < _SMALLEST:
            continue
        if not readers or len(readers) < len(uses):
            continue
        if (np.abs(array) == 1).all():
            first = next(node for node in model.graph if node in readers)
            replace_value(model, value, _unpack(model, first, name, array))
            count += 1
    remove_unused(model)
    return count


def packed_bits(model: ir.Model) -> int:
    """How many bits the packed weights take in the file, whole bytes per tensor."""
    sizes = [constant(node.inputs[0]) for node in nodes_of(model, "BitShift")]
    return 8 * sum(array.size for array in sizes if array is not None)
