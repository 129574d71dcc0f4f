"""A pass that stores weights of +-1 as one bit each; standard operations in the graph unpack them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_initializer,
    constant,
    insert,
    nodes_of,
    optional_input,
    remove_unused,
    replace_value,
)

__all__ = ["pack_signs", "packed_bits"]

# With fewer elements the nodes that unpack a weight take more bytes than packing saves.
_SMALLEST = 512
# Name of the initializer whose row b holds the eight signs of byte b, highest bit first.
_TABLE = "signs_of_a_byte"


def _unpack(model: ir.Model, before: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    table = model.graph.initializers.get(_TABLE)
    if table is None:
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        table = add_initializer(model, _TABLE, np.where(bits, 1, -1).astype(np.int8))

    def integers(label: str, numbers: list[int]) -> ir.Value:
        return add_initializer(model, f"{name}.{label}", np.array(numbers, np.int64))

    packed = add_initializer(model, f"{name}.bits", np.packbits(array.reshape(-1) > 0))
    y = insert(model, before, "Cast", [packed], {"to": ir.DataType.INT32.value})
    y = insert(model, before, "Gather", [table, y])
    y = insert(model, before, "Cast", [y], {"to": ir.DataType.FLOAT.value})
    if array.size % 8:
        y = insert(model, before, "Reshape", [y, integers("flat", [-1])])
        y = insert(model, before, "Slice", [y, integers("start", [0]), integers("size", [array.size])])
    return insert(model, before, "Reshape", [y, integers("shape", list(array.shape))])


def pack_signs(model: ir.Model) -> int:
    """Stores the weights of +-1 of Conv and MatMul as one bit each, with operations that unpack them; returns how many.

    Gather selects a row of a table for each byte: Cast, Gather, Cast, [Reshape, Slice], Reshape. Bit k from the left of
    byte b is element 8 b + k in C order; 1 stands for +1. A table is used because runtimes differ in arithmetic on
    bytes: OpenVINO saturates a left shift, which onnxruntime wraps, and divides for a right shift. onnxruntime unpacks
    once, when it makes the session, and its results are those of float weights, bit for bit.
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
    """Returns how many bits the packed weights take in the file, in whole bytes per tensor."""
    bits = 0
    for node in nodes_of(model, "Gather"):
        table, rows = node.inputs
        cast = None if rows is None else rows.producer()
        packed = None if cast is None else constant(optional_input(cast, 0))
        if table is not None and table.name == _TABLE and packed is not None:
            bits += 8 * packed.size
    return bits
