"""Channels last: binary layers as the operations of format.md, and what lies between them brought to NHWC.

One walk over the graph in order. A node with a rule is rebuilt on the NHWC form of its inputs and gives its old readers
a Transpose back; a reader with a rule of its own looks through that Transpose, so inside a binary network none is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import add_initializer, attribute, constant, optional_input, remove_unused, replace_value
from bnn_itrd.export.passes.channels_last.binary import binary_conv, binary_linear
from bnn_itrd.export.passes.channels_last.floats import float_convolution, inner_convolution, is_way
from bnn_itrd.export.passes.channels_last.walk import AXIS, TO_LAST, Walk, sizes_of
from bnn_itrd.export.runtime.format import DOMAIN, VERSION

__all__ = ["channels_last"]

_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu"}
    | {"Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Tanh"}
)


def _elementwise(walk: Walk) -> bool:
    node = walk.node
    out = node.outputs[0]
    if not any(walk.is_last(value) for value in node.inputs):
        return False
    if out.shape is None:
        # What the exporter takes apart itself (a GELU) has no shapes inside.
        shapes = {tuple(sizes_of(value)) for value in node.inputs if value is not None and constant(value) is None}
        out.shape = ir.Shape([size or "batch" for size in shapes.pop()]) if len(shapes) == 1 else None
    if len(sizes_of(out)) != 4:
        return False
    made = _in_last(walk)
    if made is not None:
        walk.give(made)
    return made is not None


def _in_last(walk: Walk) -> ir.Value | None:
    """The present elementwise node on the NHWC forms of its inputs; None where one of them has none."""
    node = walk.node
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        if value is None or (node.op_type == "Clip" and index > 0):
            inputs.append(value)
        elif constant(value) is not None:
            number = walk.number(value)
            if number is None:
                return None
            inputs.append(number)
        elif len(sizes_of(value)) == 4:
            inputs.append(walk.last(value))
        else:
            return None
    return walk.emit(node.op_type, inputs, {k: a.value for k, a in node.attributes.items()})


def _concat(walk: Walk) -> bool:
    node = walk.node
    if not any(walk.is_last(v) for v in node.inputs) or any(len(sizes_of(v)) != 4 for v in node.inputs):
        return False
    axis = AXIS[int(attribute(node, "axis", 1)) % 4]
    walk.give(walk.emit("Concat", [walk.last(v) for v in node.inputs if v is not None], {"axis": axis}))
    return True


def _pad(walk: Walk) -> bool:
    node = walk.node
    pads = constant(optional_input(node, 1))
    x = node.inputs[0]
    if x is None or not walk.is_last(x) or pads is None or pads.size != 8 or optional_input(node, 3) is not None:
        return False
    before, after = pads.reshape(2, 4)
    moved = [*before[TO_LAST], *after[TO_LAST]]
    inputs = [walk.last(x), walk.integers(f"{node.outputs[0].name}.pads", moved), optional_input(node, 2)]
    walk.give(walk.emit("Pad", inputs, {k: a.value for k, a in node.attributes.items()}))
    return True


def _slice(walk: Walk) -> bool:
    node = walk.node
    x, axes = node.inputs[0], constant(optional_input(node, 3))
    if x is None or not walk.is_last(x) or axes is None:
        return False
    moved = walk.integers(f"{node.outputs[0].name}.axes", [AXIS[int(a) % 4] for a in axes])
    rest = [optional_input(node, 1), optional_input(node, 2), moved, optional_input(node, 4)]
    walk.give(walk.emit("Slice", [walk.last(x), *rest]))
    return True


def _batchnorm(walk: Walk) -> bool:
    node = walk.node
    x = node.inputs[0]
    values = [constant(value) for value in node.inputs[1:]]
    if x is None or not walk.is_last(x) or any(v is None for v in values) or attribute(node, "training_mode", 0):
        return False
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    name = node.outputs[0].name
    scaled = walk.emit("Mul", [walk.last(x), add_initializer(walk.model, f"{name}.factor", factor.astype(np.float32))])
    shift = add_initializer(walk.model, f"{name}.shift", (beta - mean * factor).astype(np.float32))
    walk.give(walk.emit("Add", [scaled, shift]))
    return True


def _pool(walk: Walk) -> bool:
    """A pooling whose windows tile the image."""
    node = walk.node
    x = node.inputs[0]
    kernel = [int(v) for v in attribute(node, "kernel_shape", ())]
    sizes = sizes_of(x)
    if x is None or not walk.is_last(x) or len(sizes) != 4 or len(kernel) != 2 or len(node.outputs) > 1:
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
        walk.give(_mean(walk, walk.last(x), [height, width], channels, kernel))
        return True
    attributes = {"input_size": [height, width], "channels": channels, "kernel_shape": kernel}
    walk.give(walk.emit(node.op_type, [walk.last(x)], attributes, DOMAIN))
    return True


# Sides of a mean: division by them is exact.
_MEANS = {1, 2, 4, 8}


def _mean(walk: Walk, x: ir.Value, size: list[int], channels: int, kernel: list[int]) -> ir.Value:
    """The mean over windows of (n, h, w, c): a side of 8 as 4, then 2, because onnxruntime adds no more than four
    numbers in an order one can rely on."""
    first = [min(side, 4) for side in kernel]
    second = [side // f for side, f in zip(kernel, first, strict=True)]
    for part in (first, second) if second != [1, 1] else (first,):
        attributes = {"input_size": size, "channels": channels, "kernel_shape": part}
        x = walk.emit("AveragePool", [x], attributes, DOMAIN)
        size = [s // p for s, p in zip(size, part, strict=True)]
        x.shape, x.type = ir.Shape(["batch", *size, channels]), ir.TensorType(ir.DataType.FLOAT)
    return x


def _reduce(walk: Walk) -> bool:
    """GlobalAveragePool, GlobalMaxPool, ReduceMean, ReduceMax, ReduceSum with constant axes."""
    node = walk.node
    x = node.inputs[0]
    if x is None or not walk.is_last(x):
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
        made = _mean(walk, walk.last(x), [height, width], channels, [height, width])
        if not keep:
            made = walk.emit("Reshape", [made, walk.integers(f"{node.outputs[0].name}.shape", [-1, channels])])
        return _reduced(walk, made, keep)
    made = walk.emit(op, [walk.last(x), walk.integers(f"{node.outputs[0].name}.axes", moved)], {"keepdims": keep})
    return _reduced(walk, made, keep)


def _reduced(walk: Walk, made: ir.Value, keep: int) -> bool:
    if keep:
        walk.give(made)
    else:
        made.shape, made.type = walk.node.outputs[0].shape, walk.node.outputs[0].type
        replace_value(walk.model, walk.node.outputs[0], made)
    return True


def _flatten(walk: Walk) -> bool:
    """Reshape or Flatten of (n, c, 1, 1): the same numbers in the same order in either layout."""
    node = walk.node
    x = node.inputs[0]
    if x is None or not walk.is_last(x) or sizes_of(x)[2:] != [1, 1]:
        return False
    node.replace_input_with(0, walk.last(x))
    return True


_RULES: dict[str, Callable[[Walk], bool]] = {
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
_BINARY_RULES: dict[str, Callable[[Walk], bool]] = {"BinaryConv2d": binary_conv, "BinaryLinear": binary_linear}


def _elementwise_after(model: ir.Model) -> int:
    """What reads one value (n, c, h, w) and is read in NHWC alone reads it in NHWC itself: the way there moves up."""
    count = 0
    for node in reversed(list(model.graph)):
        out = node.outputs[0]
        ways = [use.node for use in out.uses()]
        if node.domain or node.op_type not in _ELEMENTWISE or not ways or not all(map(is_way, ways)):
            continue
        if out.is_graph_output() or len(sizes_of(out)) != 4:
            continue
        read = [value for value in node.inputs if value is not None and constant(value) is None]
        if len(read) != 1 or len(sizes_of(read[0])) != 4:
            continue
        # A way of its own: one made for an operation further down would lie behind this one.
        walk = Walk(model)
        walk.node = node
        made = _in_last(walk)
        if made is None:
            continue
        Walk.set_shape(made, sizes_of(out))
        made.type = out.type
        for way in ways:
            replace_value(model, way.outputs[0], made)
        remove_unused(model)
        count += 1
    # A value that is read on two ways now takes the first of them.
    first: dict[int, ir.Value] = {}
    for way in [node for node in model.graph if is_way(node)]:
        kept = first.setdefault(id(way.inputs[0]), way.outputs[0])
        if kept is not way.outputs[0]:
            replace_value(model, way.outputs[0], kept)
    remove_unused(model)
    return count


def channels_last(model: ir.Model) -> int:
    """Binary layers become `Sign` and `BinaryConv` of docs/reference/format.md; what lies between them reads NHWC.

    Returns how many nodes were rebuilt. Raises ExportError where a layer's constants are computed in the graph or the
    size of its images is not fixed.
    """
    walk, count = Walk(model), 0
    for node in list(model.graph):
        walk.node = node
        rules = _BINARY_RULES if node.domain == DOMAIN else {} if node.domain else _RULES
        rule = rules.get(node.op_type)
        count += rule is not None and rule(walk)
    remove_unused(model)
    count += _elementwise_after(model)
    for node in list(model.graph):
        if is_way(node):
            count += float_convolution(walk, node)
    remove_unused(model)
    model.graph.opset_imports[DOMAIN] = VERSION
    return count
