"""A check that a network's result for one image does not depend on the other images of the batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["is_size", "refuse_mixing"]

_WAY_OUT = "change the network so that an image's result does not depend on the other images of the batch"


def _is_batch(value: ir.Value | None, axis: int) -> bool:
    """Returns whether `axis` of a tensor is the batch axis.

    That is the axis whose size is a name instead of a number, or axis 0 if the tensor's shape is not known.
    """
    if value is None or value.shape is None:
        return axis == 0
    rank = len(value.shape)
    return -rank <= axis < rank and not isinstance(value.shape[axis], int)


def _rank(value: ir.Value | None) -> int:
    """Returns the number of a tensor's axes; 0 if there is no tensor or its shape is not known."""
    return 0 if value is None or value.shape is None else len(value.shape)


def _reduced(node: ir.Node) -> list[int]:
    """Returns the axes over which a Reduce operation (ReduceMean and the like) reduces; all if it names none."""
    given = optional_input(node, 1)
    axes = attribute(node, "axes", None) if given is None else constant(given)
    if axes is None or not np.size(axes):
        return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(max(_rank(node.inputs[0]), 1)))
    return [int(axis) for axis in np.atleast_1d(axes)]


def _cut(node: ir.Node) -> list[int]:
    """Returns the axes that a Slice operation shortens or reorders."""
    starts, ends, axes, steps = (constant(optional_input(node, i)) for i in range(1, 5))
    if starts is None or ends is None:
        return []
    count = len(starts)
    axes = np.arange(count) if axes is None else axes
    steps = np.ones(count, np.int64) if steps is None else steps
    numbers = zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True)
    return [int(axis) for start, end, axis, step in numbers if start or step != 1 or end < np.iinfo(np.int32).max]


def _touched(node: ir.Node) -> list[int]:
    """Returns the axes of an operation's first input along which it combines elements or selects some of them."""
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
    """Returns whether a tensor holds sizes, which means that it is computed from another tensor's shape alone."""
    producer = None if value is None else value.producer()
    if producer is None:
        return False
    return producer.op_type == "Shape" or (
        producer.op_type in ("Slice", "Gather", "Cast", "Unsqueeze") and is_size(producer.inputs[0])
    )


def _mixes(node: ir.Node) -> str:
    """Returns a phrase that says how an operation combines different images of a batch; "" if it does not."""
    if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
        return "a BatchNorm with the statistics of the current batch"
    if node.op_type == "Concat" and any(map(is_size, node.inputs)):
        return ""  # This Concat joins sizes to a shape, which a Resize or a Reshape reads.
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
    """Returns whether two axes of a tensor have the size of the batch, as those of ``x @ x.T`` have."""
    return value.shape is not None and [str(size) for size in value.shape].count("batch") > 1


def refuse_mixing(model: ir.Model) -> None:
    """Raises ExportError, with the layer's path, if the result for an image depends on other images of its batch.

    The exporters to LCE and QONNX call it, because their files take one image at a time and would give other results.
    model: the canonical graph, in which the batch axis is the one whose size is not a number.
    """
    for node in model.graph:
        what = "" if node.domain else _mixes(node)
        if what:
            where = node.metadata_props.get("path") or f"the network's {node.op_type}"
            raise ExportError(f"{where}: {what}: {_WAY_OUT}")
