"""Functions that translate poolings of the graph, and means, sums and maxima over whole axes, to TFLite's operations.

Each adds operations to the TFLite network and enters the result in `values`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.lce.convolutions import PADDING, border, choose_padding, window_axes
from bnn_itrd.export.lce.tensor_layout import AXIS, PLAIN, Values, refuse, source
from bnn_itrd.export.lce.windows import WindowAxis, named_padding

__all__ = ["add_average_pool", "add_global_pool", "add_max_pool", "add_reduction"]

_LOWEST = float(np.finfo(np.float32).min)


def _options(axes: Sequence[WindowAxis], padding: str) -> dict[str, int]:
    """Returns the options of TFLite's pooling operations for windows along height and width, and SAME or VALID."""
    return {
        "padding": PADDING[padding],
        "strideH": axes[0].stride,
        "strideW": axes[1].stride,
        "filterHeight": axes[0].reach,
        "filterWidth": axes[1].reach,
    }


def add_max_pool(values: Values, node: ir.Node) -> None:
    """Translates a MaxPool node to MAX_POOL_2D, after padding with the lowest float if TFLite has no such padding.

    Raises ExportError on dilation, and if the indices of the maxima are used.
    """
    x, y = source(node), node.outputs[0]
    if max(attribute(node, "dilations", (1, 1))) > 1:
        raise refuse(node, "it is a pooling with dilation", "pool without dilation")
    if len([output for output in node.outputs if list(output.uses())]) > 1:
        raise refuse(node, "the network uses the indices of its max pooling", "use only the values")
    form = values.image_form(x)
    axes = window_axes(values, node, attribute(node, "kernel_shape", (1, 1)), form)
    tensor, padding = choose_padding(values.network, values.fetch(x, node, form), axes, _LOWEST)
    shape = [tensor.shape[0], axes[0].out, axes[1].out, tensor.shape[3]]
    values.put(y, values.network.emit("MAX_POOL_2D", [tensor], shape, _options(axes, padding)), form)


def _counted(axis: WindowAxis, before: int, after: int) -> np.ndarray:
    """Returns how many pixels each window of an average pooling counts along one axis, (windows,).

    before, after: how many pixels of padding at the beginning and the end of the axis are counted too.
    """
    starts = np.arange(axis.out) * axis.stride - axis.before
    last = np.minimum(starts + axis.reach, axis.size + after)
    return np.asarray(last - np.maximum(starts, -before))


def add_average_pool(values: Values, node: ir.Node) -> None:
    """Translates an AveragePool node to AVERAGE_POOL_2D; a MUL corrects windows in which TFLite counts other pixels."""
    network = values.network
    x, y = source(node), node.outputs[0]
    form = values.image_form(x)
    axes = window_axes(values, node, attribute(node, "kernel_shape", (1, 1)), form)
    pads = attribute(node, "pads", (0, 0, 0, 0))
    counted = []
    for i, axis in enumerate(axes):
        edge = (pads[i], pads[2 + i]) if attribute(node, "count_include_pad", 0) else (0, 0)
        counted.append(_counted(axis, *(edge[::-1] if form[i] else edge)))
    tensor = values.fetch(x, node, form)
    own = [_counted(axis, 0, 0) for axis in axes]
    padding = named_padding(axes)
    # TFLite divides by the number of pixels inside the image, which is right if no padding is counted.
    fits = all(np.array_equal(a, b) for a, b in zip(own, counted, strict=True))
    if padding is None or not fits:
        fits, tensor, padding = False, border(network, tensor, axes), "VALID"
    shape = [tensor.shape[0], axes[0].out, axes[1].out, tensor.shape[3]]
    result = network.emit("AVERAGE_POOL_2D", [tensor], shape, _options(axes, padding))
    window = axes[0].reach * axes[1].reach
    factor = window / (counted[0][:, None] * counted[1][None])
    if not fits and (factor != 1).any():
        result = network.emit("MUL", [result, network.constant(factor[None, :, :, None])], shape)
    values.put(y, result, form)


_REDUCTIONS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}


def _reduce(values: Values, node: ir.Node, code: str, axes: Sequence[int], keep: bool) -> None:
    """Adds the reduction `code` over ONNX's `axes` for a node; keep: whether the axes stay with size 1."""
    network = values.network
    x, y = source(node), node.outputs[0]
    rank = len(values.sizes(x, node))
    axes = sorted({axis % rank for axis in axes})
    # An image reduced over h and w is (n, c), which is the same in both layouts.
    as_image = rank == 4 and (keep or axes == [2, 3])
    form = values.image_form(x) if as_image else PLAIN
    tensor = values.fetch(x, node, form)
    stored = [AXIS[axis] for axis in axes] if as_image else axes
    shape = [1 if axis in stored else size for axis, size in enumerate(tensor.shape)]
    if not keep:
        shape = [size for axis, size in enumerate(tensor.shape) if axis not in stored]
    result = network.emit(code, [tensor, network.integers(stored)], shape, {"keepDims": keep})
    values.put(y, result, form if keep else PLAIN)


def add_reduction(values: Values, node: ir.Node) -> None:
    """Translates a ReduceMean, ReduceSum, ReduceMax or ReduceMin node. Raises ExportError if it names no fixed axes."""
    given = optional_input(node, 1)
    axes = constant(given) if given is not None else attribute(node, "axes", None)
    if axes is None or not len(np.atleast_1d(axes)):
        raise refuse(node, "it reduces over all axes or over computed ones", "name the axes, without the batch axis")
    _reduce(
        values,
        node,
        _REDUCTIONS[node.op_type],
        [int(a) for a in np.atleast_1d(axes)],
        bool(attribute(node, "keepdims", 1)),
    )


def add_global_pool(values: Values, node: ir.Node) -> None:
    """Translates a GlobalAveragePool or GlobalMaxPool node to MEAN or REDUCE_MAX over height and width."""
    _reduce(values, node, "MEAN" if node.op_type == "GlobalAveragePool" else "REDUCE_MAX", [2, 3], True)
