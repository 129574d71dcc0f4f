"""The pass `channels_last` replaces operations on images (n, c, h, w), called NCHW, by ones on (n, h, w, c), NHWC.

It visits the nodes in order. A node whose operation has a rule here is replaced by one on NHWC inputs, with a Transpose
back to NCHW behind it. If the next node has a rule too, it reads the tensor in front of that Transpose, so no Transpose
is left inside a binary network. A rule is a function that returns whether it replaced the rewriter's current node.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, attribute, constant, optional_input, remove_unused, replace_value
from bnn_itrd.export.passes.channels_last.binary import binary_conv, binary_linear
from bnn_itrd.export.passes.channels_last.floats import float_convolution, inner_convolution, is_to_nhwc
from bnn_itrd.export.passes.channels_last.walk import AXIS, TO_LAST, Rewriter, sizes_of
from bnn_itrd.export.runtime.format import DOMAIN, VERSION

__all__ = ["channels_last"]

_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu"}
    | {"Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Tanh"}
)


def _elementwise(rewriter: Rewriter) -> bool:
    """Replaces an elementwise node by the same one on NHWC tensors, if an input is one; returns whether it did."""
    node = rewriter.node
    out = node.outputs[0]
    if not any(rewriter.is_last(value) for value in node.inputs):
        return False
    if out.shape is None:
        # torch's exporter gives no shapes inside an operation that it decomposes, such as a GELU.
        shapes = {tuple(sizes_of(value)) for value in node.inputs if value is not None and constant(value) is None}
        out.shape = ir.Shape([size or "batch" for size in shapes.pop()]) if len(shapes) == 1 else None
    if len(sizes_of(out)) != 4:
        return False
    made = _in_last(rewriter)
    if made is not None:
        rewriter.give(made)
    return made is not None


def _in_last(rewriter: Rewriter) -> ir.Value | None:
    """Adds the current elementwise operation in NHWC; returns its output, or None if an input cannot be NHWC."""
    node = rewriter.node
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        if value is None or (node.op_type == "Clip" and index > 0):
            inputs.append(value)
        elif constant(value) is not None:
            number = rewriter.number(value)
            if number is None:
                return None
            inputs.append(number)
        elif len(sizes_of(value)) == 4:
            inputs.append(rewriter.last(value))
        else:
            return None
    return rewriter.emit(node.op_type, inputs, {k: a.value for k, a in node.attributes.items()})


def _concat(rewriter: Rewriter) -> bool:
    """Replaces a Concat node by a Concat of NHWC tensors, if an input is one; returns whether it did."""
    node = rewriter.node
    if not any(rewriter.is_last(v) for v in node.inputs) or any(len(sizes_of(v)) != 4 for v in node.inputs):
        return False
    axis = AXIS[int(attribute(node, "axis", 1)) % 4]
    rewriter.give(rewriter.emit("Concat", [rewriter.last(v) for v in node.inputs if v is not None], {"axis": axis}))
    return True


def _pad(rewriter: Rewriter) -> bool:
    """Replaces a Pad node with constant sizes by a Pad of the NHWC tensor; returns whether it did."""
    node = rewriter.node
    pads = constant(optional_input(node, 1))
    x = node.inputs[0]
    if x is None or not rewriter.is_last(x) or pads is None or pads.size != 8 or optional_input(node, 3) is not None:
        return False
    before, after = pads.reshape(2, 4)
    moved = [*before[TO_LAST], *after[TO_LAST]]
    inputs = [rewriter.last(x), rewriter.integers(f"{node.outputs[0].name}.pads", moved), optional_input(node, 2)]
    rewriter.give(rewriter.emit("Pad", inputs, {k: a.value for k, a in node.attributes.items()}))
    return True


def _slice(rewriter: Rewriter) -> bool:
    """Replaces a Slice node with constant axes by a Slice of the NHWC tensor; returns whether it did."""
    node = rewriter.node
    x, axes = node.inputs[0], constant(optional_input(node, 3))
    if x is None or not rewriter.is_last(x) or axes is None:
        return False
    moved = rewriter.integers(f"{node.outputs[0].name}.axes", [AXIS[int(a) % 4] for a in axes])
    rest = [optional_input(node, 1), optional_input(node, 2), moved, optional_input(node, 4)]
    rewriter.give(rewriter.emit("Slice", [rewriter.last(x), *rest]))
    return True


def _batchnorm(rewriter: Rewriter) -> bool:
    """Replaces a BatchNormalization of constants by Mul and Add of the NHWC tensor; returns whether it did."""
    node = rewriter.node
    x = node.inputs[0]
    values = [constant(value) for value in node.inputs[1:]]
    if x is None or not rewriter.is_last(x) or any(v is None for v in values) or attribute(node, "training_mode", 0):
        return False
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    name = node.outputs[0].name
    scaled = rewriter.emit(
        "Mul", [rewriter.last(x), add_initializer(rewriter.model, f"{name}.factor", factor.astype(np.float32))]
    )
    shift = add_initializer(rewriter.model, f"{name}.shift", (beta - mean * factor).astype(np.float32))
    rewriter.give(rewriter.emit("Add", [scaled, shift]))
    return True


def _pool(rewriter: Rewriter) -> bool:
    """Replaces a pooling, if its windows tile the image, by one of the NHWC tensor; returns whether it did."""
    node = rewriter.node
    x = node.inputs[0]
    kernel = [int(v) for v in attribute(node, "kernel_shape", ())]
    sizes = sizes_of(x)
    if x is None or not rewriter.is_last(x) or len(sizes) != 4 or len(kernel) != 2 or len(node.outputs) > 1:
        return False
    _, channels, height, width = sizes
    tiles = (
        [int(v) for v in attribute(node, "strides", (1, 1))] == kernel
        and not any(attribute(node, "pads", (0,)))
        and all(int(v) == 1 for v in attribute(node, "dilations", (1, 1)))
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )
    if not tiles or channels is None or height is None or width is None or height % kernel[0] or width % kernel[1]:
        return False
    if node.op_type == "AveragePool":
        if not {*kernel} <= _MEANS:
            return False
        rewriter.give(_mean(rewriter, rewriter.last(x), [height, width], channels, kernel))
        return True
    attributes = {"input_size": [height, width], "channels": channels, "kernel_shape": kernel}
    rewriter.give(rewriter.emit(node.op_type, [rewriter.last(x)], attributes, DOMAIN))
    return True


# Side lengths of an averaged window by which the division is exact in float32.
_MEANS = {1, 2, 4, 8}


def _mean(rewriter: Rewriter, x: ir.Value, size: list[int], channels: int, kernel: list[int]) -> ir.Value:
    """Adds the mean over windows of x (n, h, w, c); returns the result. size: (h, w); kernel: sides of a window.

    A side of 8 is averaged in two steps, 4 and then 2, because onnxruntime adds at most four numbers in a fixed order.
    """
    first = [min(side, 4) for side in kernel]
    second = [side // f for side, f in zip(kernel, first, strict=True)]
    for part in (first, second) if second != [1, 1] else (first,):
        attributes = {"input_size": size, "channels": channels, "kernel_shape": part}
        x = rewriter.emit("AveragePool", [x], attributes, DOMAIN)
        size = [s // p for s, p in zip(size, part, strict=True)]
        x.shape, x.type = ir.Shape(["batch", *size, channels]), ir.TensorType(ir.DataType.FLOAT)
    return x


def _reduce(rewriter: Rewriter) -> bool:
    """Replaces a global pooling, or a reduction over fixed axes, by one of the NHWC tensor; returns whether it did."""
    node = rewriter.node
    x = node.inputs[0]
    if x is None or not rewriter.is_last(x):
        return False
    if node.op_type.startswith("Global"):
        axes, keep = [2, 3], 1
    else:
        given = constant(optional_input(node, 1))
        given = np.array(attribute(node, "axes", ())) if given is None else given
        axes, keep = sorted(int(a) % 4 for a in given), int(attribute(node, "keepdims", 1))
    if not axes or (not keep and axes != [2, 3]):
        return False
    names = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
    op = names.get(node.op_type, node.op_type)
    moved = [AXIS[a] for a in axes]
    _, channels, height, width = [*sizes_of(x), None, None, None, None][:4]
    if op == "ReduceMean" and axes == [2, 3] and channels and height in _MEANS and width in _MEANS:
        made = _mean(rewriter, rewriter.last(x), [height, width], channels, [height, width])
        if not keep:
            made = rewriter.emit("Reshape", [made, rewriter.integers(f"{node.outputs[0].name}.shape", [-1, channels])])
        return _reduced(rewriter, made, keep)
    made = rewriter.emit(
        op, [rewriter.last(x), rewriter.integers(f"{node.outputs[0].name}.axes", moved)], {"keepdims": keep}
    )
    return _reduced(rewriter, made, keep)


def _reduced(rewriter: Rewriter, made: ir.Value, keep: int) -> bool:
    """Replaces the current node's output by `made`, in NHWC if keep is 1, else (n, c); returns True."""
    if keep:
        rewriter.give(made)
    else:
        made.shape, made.type = rewriter.node.outputs[0].shape, rewriter.node.outputs[0].type
        replace_value(rewriter.model, rewriter.node.outputs[0], made)
    return True


def _flatten(rewriter: Rewriter) -> bool:
    """Lets a Reshape or Flatten of (n, c, 1, 1) read the NHWC form of its input instead; returns whether it did."""
    # Both layouts have the numbers of such a tensor in the same order.
    node = rewriter.node
    x = node.inputs[0]
    if x is None or not rewriter.is_last(x) or sizes_of(x)[2:] != [1, 1]:
        return False
    node.replace_input_with(0, rewriter.last(x))
    return True


_RULES: dict[str, Callable[[Rewriter], bool]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "BatchNormalization": _batchnorm,
    "Conv": inner_convolution,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": _reduce,
    "GlobalMaxPool": _reduce,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _flatten,
    "Flatten": _flatten,
}
_BINARY_RULES: dict[str, Callable[[Rewriter], bool]] = {"BinaryConv2d": binary_conv, "BinaryLinear": binary_linear}


def _elementwise_after(model: ir.Model) -> int:
    """Moves Transposes to NHWC from behind an elementwise node to the front of it; returns the number of such nodes."""
    count = 0
    for node in reversed(list(model.graph)):
        out = node.outputs[0]
        transposes = [use.node for use in out.uses()]
        if node.domain or node.op_type not in _ELEMENTWISE or not transposes or not all(map(is_to_nhwc, transposes)):
            continue
        if out.is_graph_output() or len(sizes_of(out)) != 4:
            continue
        read = [value for value in node.inputs if value is not None and constant(value) is None]
        if len(read) != 1 or len(sizes_of(read[0])) != 4:
            continue
        # A new rewriter adds a new Transpose, because one that was added for a later node stands behind this node.
        rewriter = Rewriter(model)
        rewriter.node = node
        made = _in_last(rewriter)
        if made is None:
            continue
        Rewriter.set_shape(made, sizes_of(out))
        made.type = out.type
        for transpose in transposes:
            replace_value(model, transpose.outputs[0], made)
        remove_unused(model)
        count += 1
    # If two Transposes now bring the same tensor to NHWC, only the first is kept.
    first: dict[int, ir.Value] = {}
    for transpose in [node for node in model.graph if is_to_nhwc(node)]:
        kept = first.setdefault(id(transpose.inputs[0]), transpose.outputs[0])
        if kept is not transpose.outputs[0]:
            replace_value(model, transpose.outputs[0], kept)
    remove_unused(model)
    return count


def channels_last(model: ir.Model) -> int:
    """Replaces the canonical graph's operations by ones on (n, h, w, c), in place; returns how many it replaced.

    Binary layers become ``Sign`` and ``BinaryConv`` of docs/reference/format.md. Raises ExportError if a binary
    layer's weights are not constants or the size of its images is not fixed.
    """
    rewriter, count = Rewriter(model), 0
    for node in list(model.graph):
        rewriter.node = node
        rules = _BINARY_RULES if node.domain == DOMAIN else {} if node.domain else _RULES
        rule = rules.get(node.op_type)
        count += rule is not None and rule(rewriter)
    remove_unused(model)
    count += _elementwise_after(model)
    for node in list(model.graph):
        if is_to_nhwc(node):
            count += float_convolution(rewriter, node)
    remove_unused(model)
    model.graph.opset_imports[DOMAIN] = VERSION
    return count
