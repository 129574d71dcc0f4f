"""A check that the result for an image does not depend on the other images of its batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["is_size", "refuse_mixing"]

_WAY_OUT = "treat every image alike, whatever others are in the batch"


def _is_batch(value: ir.Value | None, axis: int) -> bool:
    """Whether an axis is the batch axis: the one whose size is not a number, or axis 0 of a value without a shape."""
    if value is None or value.shape is None:
        return axis == 0
    rank = len(value.shape)
    return -rank <= axis < rank and not isinstance(value.shape[axis], int)


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)


def _reduced(node: ir.Node) -> list[int]:
    """Returns the axes that a Reduce operation reduces; all of them where none is named."""
    given = optional_input(node, 1)
    axes = attribute(node, "axes", None) if given is None else constant(given)
    if axes is None or not np.size(axes):
        return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(max(_rank(node.inputs[0]), 1)))
    return [int(axis) for axis in np.atleast_1d(axes)]


def _cut(node: ir.Node) -> list[int]:
    """Returns the axes that a Slice shortens or reorders."""
    starts, ends, axes, steps = (constant(optional_input(node, i)) for i in range(1, 5))
    if starts is None or ends is None:
        return []
    count = len(starts)
    axes = np.arange(count) if axes is None else axes
    steps = np.ones(count, np.int64) if steps is None else steps
    numbers = zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True)
    return [int(axis) for start, end, axis, step in numbers if start or step != 1 or end < np.iinfo(np.int32).max]


def _touched(node: ir.Node) -> list[int]:
    """Returns the axes of its first input along which the operation combines elements, or selects some."""
    kind = node.op_type
    if kind.startswith("Reduce"):
        return _reduced(node)
    if kind == "Slice":
        return _cut(node)
    if kind in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"):
        return [int(attribute(node, "axis", -1))]
    if kind in ("Concat", "Split", "Gather", "ArgMax", "ArgMin"):
        return [int(attribute(node, "axis", 0))]
    if kind in ("CumSum", "TopK"):
        axis = constant(optional_input(node, 1)) if kind == "CumSum" else np.array(attribute(node, "axis", -1))
        return [] if axis is None else [int(axis.reshape(-1)[0])]
    return []


def is_size(value: ir.Value | None) -> bool:
    """Whether the value is computed from the shape of another value, not from its elements."""
    producer = None if value is None else value.producer()
    if producer is None:
        return False
    return producer.op_type == "Shape" or (
        producer.op_type in ("Slice", "Gather", "Cast", "Unsqueeze") and is_size(producer.inputs[0])
    )


def _mixes(node: ir.Node) -> str:
    """Returns how an operation combines different images of a batch, in words; empty where it does not."""
    if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
        return "a BatchNorm with the statistics of the current batch"
    if node.op_type == "Concat" and any(map(is_size, node.inputs)):
        return ""  # joins sizes to a shape, which a Resize or a Reshape reads
    if any(_is_batch(node.inputs[0] if node.inputs else None, axis) for axis in _touched(node)):
        return f"{node.op_type} over the images of a batch"
    if node.op_type in ("MatMul", "Gemm"):
        left, right = node.inputs[:2]
        column = -2 if node.op_type == "Gemm" and attribute(node, "transA", 0) else -1
        row = -1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else -2
        if (_rank(left) and _is_batch(left, column)) or (_rank(right) > 1 and _is_batch(right, row)):
            return "a product that sums over the images of a batch"
    if any(_names_batch_twice(value) for value in node.outputs):
        return "a result with one entry for each pair of images of a batch"
    return ""


def _names_batch_twice(value: ir.Value) -> bool:
    return value.shape is not None and [str(size) for size in value.shape].count("batch") > 1


def refuse_mixing(model: ir.Model) -> None:
    """Raises ExportError, with the layer's path, where the result for an image depends on the others in its batch.

    A file that takes one image at a time would give other numbers. model: the canonical graph, whose batch axis is
    the one without a size.
    """
    for node in model.graph:
        what = "" if node.domain else _mixes(node)
        if what:
            where = node.metadata_props.get("path") or f"the network's {node.op_type}"
            raise ExportError(f"{where}: {what}: {_WAY_OUT}")
