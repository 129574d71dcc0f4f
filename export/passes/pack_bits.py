"""A pass that stores weights of +1 and -1 with one bit each; standard ONNX operations in the graph unpack them."""

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

# Weights with fewer elements are not packed, because the nodes that unpack them would take more bytes than are saved.
_SMALLEST = 512
# Name of the constant table (256, 8) whose row b holds the eight signs that byte b stands for, highest bit first.
_TABLE = "signs_of_a_byte"


def _unpack(model: ir.Model, before: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """Adds a weight of +1 and -1 as packed bits, and the nodes that unpack it; returns the unpacked weight."""
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
    """Stores the weights of Conv and MatMul that are all +1 or -1 with one bit each; returns the number of weights.

    The added operations Cast, Gather, Cast, [Reshape, Slice], Reshape unpack them: Gather looks up each byte in a table
    of its eight signs. Bit k from the left of byte b is element 8 b + k in C order; 1 stands for +1. A table is used
    because runtimes disagree about shifts of bytes: OpenVINO saturates a left shift and onnxruntime wraps it.
    onnxruntime unpacks once, when it loads the file, and then computes exactly what it computes with float weights.
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
    """Returns the number of bits that the packed weights take in the file; each weight takes whole bytes."""
    bits = 0
    for node in nodes_of(model, "Gather"):
        table, rows = node.inputs
        cast = None if rows is None else rows.producer()
        packed = None if cast is None else constant(optional_input(cast, 0))
        if table is not None and table.name == _TABLE and packed is not None:
            bits += 8 * packed.size
    return bits
