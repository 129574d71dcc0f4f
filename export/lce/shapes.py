"""Functions that translate operations which move elements to TFLite's: Concat, Pad, Slice, Split, Reshape, Transpose.

Each adds operations to the TFLite network and enters the result in `values`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.lce.network import Tensor
from bnn_itrd.export.lce.tensor_layout import AXIS, PLAIN, Flat, Form, Image, Values, refuse, source

__all__ = ["add_concat", "add_pad", "add_reshape", "add_slice", "add_split", "add_transpose"]

# The most axes of a tensor that TFLite can slice, pad and transpose.
_MOST_AXES = 5


def _form(values: Values, value: ir.Value, node: ir.Node) -> Form:
    """Returns the order of elements (see `tensor_layout`) in which a node's input is fetched.

    Raises ExportError if the input has too many axes for TFLite.
    """
    rank = len(values.sizes(value, node))
    if rank > _MOST_AXES:
        raise refuse(
            node,
            f"it slices, pads or joins a tensor of {rank} axes, and TFLite can do so with at most {_MOST_AXES}",
            f"use at most {_MOST_AXES} axes",
        )
    return values.image_form(value) if rank == 4 else PLAIN


def _is_reversed(form: Form, axis: int) -> bool:
    """Returns whether an axis, by its number in ONNX, is reversed in a tensor that is stored in the order `form`."""
    return isinstance(form, Image) and ((axis == 2 and form.reversed_h) or (axis == 3 and form.reversed_w))


def _stored(form: Form, axis: int) -> int:
    """Returns the number that an axis of the ONNX tensor has in a tensor that is stored in the order `form`."""
    return AXIS[axis] if isinstance(form, Image) else axis


def add_concat(values: Values, node: ir.Node) -> None:
    """Translates a Concat node to CONCATENATION; along an axis that is stored reversed, the parts are reversed too.

    Raises ExportError if a part is a constant, or the parts are joined along the batch.
    """
    known = [x for x in node.inputs if x is not None and values.known(x)]
    if len(known) < len(node.inputs):
        raise refuse(
            node, "it joins a part that is not computed from the images", "use a padding or an addition instead"
        )
    form = _form(values, known[0], node)
    axis = attribute(node, "axis", 0) % len(values.sizes(known[0], node))
    if axis == 0:
        raise refuse(node, "it concatenates along the batch", "join along another axis")
    parts = [values.fetch(x, node, form) for x in known]
    if _is_reversed(form, axis):
        parts.reverse()
    stored = _stored(form, axis)
    shape = list(parts[0].shape)
    shape[stored] = sum(part.shape[stored] for part in parts)
    values.put(node.outputs[0], values.network.emit("CONCATENATION", parts, shape, {"axis": stored}), form)


def add_pad(values: Values, node: ir.Node) -> None:
    """Translates a Pad node to PAD or PADV2, or to MIRROR_PAD if it reflects the image.

    Raises ExportError on computed or negative amounts, and on other kinds of padding.
    """
    network = values.network
    x = source(node)
    form = _form(values, x, node)
    tensor = values.fetch(x, node, form)
    rank = len(tensor.shape)
    given, value = constant(node.inputs[1]), constant(optional_input(node, 2))
    chosen = constant(optional_input(node, 3))
    mode = attribute(node, "mode", "constant")
    if given is None or (given < 0).any() or mode not in ("constant", "reflect"):
        raise refuse(
            node,
            f"its padding (mode {mode}) is computed from the images, negative, or neither constant nor reflecting",
            "pad with a constant or by reflecting, by fixed amounts >= 0",
        )
    amounts = np.zeros((rank, 2), np.int32)
    axes = range(rank) if chosen is None else [int(a) % rank for a in chosen]
    for axis, before, after in zip(axes, given[: len(given) // 2], given[len(given) // 2 :], strict=True):
        amounts[_stored(form, axis)] = (after, before) if _is_reversed(form, axis) else (before, after)
    shape = [size + int(pair.sum()) for size, pair in zip(tensor.shape, amounts, strict=True)]
    inputs = [tensor, network.constant(amounts)]
    if mode == "reflect":
        y = network.emit("MIRROR_PAD", inputs, shape, {"mode": 0})
    elif value is None or not float(value):
        y = network.emit("PAD", inputs, shape)
    else:
        y = network.emit("PADV2", [*inputs, network.constant(np.array(float(value), np.float32))], shape)
    values.put(node.outputs[0], y, form)


def _slice(values: Values, tensor: Tensor, form: Form, cuts: dict[int, tuple[int, int, int]]) -> Tensor:
    """Returns a slice of a tensor, by a STRIDED_SLICE.

    cuts: number of an axis in ONNX -> (first, count, step) of the elements to keep, with step > 0.
    """
    rank = len(tensor.shape)
    begin, end, strides, shape = [0] * rank, [0] * rank, [1] * rank, list(tensor.shape)
    whole = (1 << rank) - 1
    for axis, (first, count, step) in cuts.items():
        stored = _stored(form, axis)
        if _is_reversed(form, axis):
            # On a reversed axis the last element that is kept is stored first.
            first = tensor.shape[stored] - 1 - (first + (count - 1) * step)
        begin[stored], end[stored], strides[stored] = first, first + (count - 1) * step + 1, step
        shape[stored] = count
        whole &= ~(1 << stored)
    vectors = [values.network.integers(numbers) for numbers in (begin, end, strides)]
    return values.network.emit("STRIDED_SLICE", [tensor, *vectors], shape, {"beginMask": whole, "endMask": whole})


def add_slice(values: Values, node: ir.Node) -> None:
    """Translates a Slice node to STRIDED_SLICE.

    Raises ExportError on computed bounds, steps that are not > 0, a slice of the batch, and a slice that is empty.
    """
    x = source(node)
    form = _form(values, x, node)
    tensor = values.fetch(x, node, form)
    rank = len(tensor.shape)
    starts, ends, axes, steps = (constant(optional_input(node, i)) for i in range(1, 5))
    if starts is None or ends is None or (steps is not None and (steps < 1).any()):
        raise refuse(node, "its slice has computed bounds or a negative step", "use constant bounds and steps > 0")
    count = len(starts)
    axes = np.arange(count) if axes is None else axes
    steps = np.ones(count, np.int64) if steps is None else steps
    cuts = {}
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        axis %= rank
        kept = range(tensor.shape[_stored(form, axis)])[slice(start, end, step)]
        if not len(kept):
            raise refuse(node, "its slice keeps nothing", "remove it")
        cuts[axis] = (kept[0], len(kept), step)
    if 0 in cuts and cuts[0] != (0, tensor.shape[0], 1):
        raise refuse(node, "it slices the batch", "treat all images of a batch alike")
    cuts.pop(0, None)
    values.put(node.outputs[0], _slice(values, tensor, form, cuts), form)


def add_split(values: Values, node: ir.Node) -> None:
    """Translates a Split node to one STRIDED_SLICE for each part."""
    x = source(node)
    form = _form(values, x, node)
    tensor = values.fetch(x, node, form)
    axis = attribute(node, "axis", 0) % len(tensor.shape)
    first = 0
    for output in node.outputs:
        count = values.sizes(output, node)[axis]
        values.put(output, _slice(values, tensor, form, {axis: (first, count, 1)}), form)
        first += count


def _is_flattening(sizes: Sequence[int], target: Sequence[int]) -> bool:
    """Returns whether a reshape from shape `sizes` to `target` flattens images (n, c, h, w) to (n, c * h * w)."""
    return len(sizes) == 4 and len(target) == 2 and target[1] == sizes[1] * sizes[2] * sizes[3]


def add_reshape(values: Values, node: ir.Node) -> None:
    """Translates a Reshape, Flatten, Squeeze or Unsqueeze node to RESHAPE.

    A flattened image keeps the order in which it is stored, and the layer that reads it reorders its weights instead.
    Raises ExportError if the batch appears twice in the new shape.
    """
    x, y = source(node), node.outputs[0]
    sizes, shape, target = values.sizes(x, node), values.sizes(y, node), values.target(y, node)
    if target.count(-1) > 1:
        raise refuse(node, "the batch appears twice in its new shape", "keep the batch as the first axis only")
    home = values.home(x)
    if isinstance(home, Image) and _is_flattening(sizes, shape):
        _, channels, height, width = sizes
        rows = values.reshape(values.fetch(x, node, home), target, shape)
        plain = height == width == 1
        values.put(y, rows, PLAIN if plain else Flat(home, channels, height, width))
        return
    values.put(y, values.reshape(values.fetch(x, node), target, shape))


def add_transpose(values: Values, node: ir.Node) -> None:
    """Translates a Transpose node to TRANSPOSE. Raises ExportError on a tensor with too many axes for TFLite."""
    x = source(node)
    if len(values.sizes(x, node)) > _MOST_AXES:
        raise refuse(node, "it transposes more axes than TFLite can", f"use at most {_MOST_AXES}")
    tensor = values.fetch(x, node)
    order = attribute(node, "perm", tuple(reversed(range(len(tensor.shape)))))
    values.put(node.outputs[0], values.transpose(tensor, list(order)))
