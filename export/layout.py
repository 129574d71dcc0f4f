"""Channels last: binary layers as the operations of docs/format.md, and what lies between them brought to NHWC.

One walk over the graph in order. A node with a rule is rebuilt on the NHWC form of its inputs and gives its old readers
a Transpose back; a reader with a rule of its own looks through that Transpose, so inside a binary network none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.errors import ExportError
from bnn_itrd.export.functions import DOMAIN, VERSION
from bnn_itrd.export.graph import (
    add_initializer,
    attribute,
    constant,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.thresholds import pack

__all__ = ["channels_last", "layer_signs"]

# Metadata of the convolution that is a layer's: the layer's path.
_SIGN_OF = "sign_of"

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# NCHW axis -> NHWC axis.
_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}

_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu"}
    | {"Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Tanh"}
)


def _sizes(value: ir.Value | None) -> list[int | None]:
    """The value's shape, None for a free size; empty where nothing is known."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else None for size in value.shape]


class _Walk:
    """The graph being rebuilt: `last` gives a value's NHWC form, `emit` adds a node in front of the present one."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.node: ir.Node
        self._last: dict[int, ir.Value] = {}
        self._signs: dict[int, ir.Value] = {}

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, version=VERSION if domain else None)
        node.metadata_props.update(self.node.metadata_props)
        self.model.graph.insert_before(self.node, node)
        return node.outputs[0]

    def integers(self, name: str, numbers: Sequence[int]) -> ir.Value:
        return add_initializer(self.model, name, np.array(numbers, np.int64))

    def is_last(self, value: ir.Value | None) -> bool:
        return value is not None and id(value) in self._last

    def last(self, value: ir.Value) -> ir.Value:
        """The value (n, c, h, w) as (n, h, w, c): what it was made from, or one shared Transpose."""
        found = self._last.get(id(value))
        if found is None:
            found = self.emit("Transpose", [value], {"perm": _TO_LAST})
            self._shape(found, _sizes(value))
            self._last[id(value)] = found
        return found

    @staticmethod
    def _shape(value: ir.Value, nchw: Sequence[int | None]) -> None:
        if len(nchw) == 4:
            value.shape = ir.Shape([nchw[0] or "batch", nchw[2], nchw[3], nchw[1]])

    def give(self, made: ir.Value) -> None:
        """`made` (n, h, w, c) takes the place of the present node's output (n, c, h, w)."""
        old = self.node.outputs[0]
        self._shape(made, _sizes(old))
        made.type = old.type
        back = self.emit("Transpose", [made], {"perm": _TO_FIRST})
        replace_value(self.model, old, back)
        self._last[id(back)] = made

    def signs(self, value: ir.Value, nhwc: ir.Value) -> ir.Value:
        """The signs of a float (n, h, w, c); made once for all layers that read `value`."""
        found = self._signs.get(id(value))
        if found is None:
            found = self.emit("Sign", [nhwc], domain=DOMAIN)
            found.shape, found.type = nhwc.shape, ir.TensorType(ir.DataType.UINT8)
            self._signs[id(value)] = found
        return found

    def number(self, value: ir.Value | None) -> ir.Value | None:
        """A constant that goes with (n, c, h, w), for (n, h, w, c); None where it is not one or cannot be."""
        array = constant(value)
        if value is None or array is None:
            return None
        if array.ndim <= 1:
            return value if array.size == 1 else None
        if array.ndim > 4:
            return None
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return add_initializer(self.model, f"{value.name}.last", np.ascontiguousarray(full.transpose(_TO_LAST)))


# ---- binary layers


def _binary_constants(node: ir.Node) -> tuple[np.ndarray, ...]:
    """(signs, scale, offset or empty, bias) of a binary node. Raises ExportError where they are computed."""
    signs, scale, offset, bias = (constant(optional_input(node, i)) for i in range(1, 5))
    if signs is None or scale is None:
        raise ExportError(f"the signs or the scale of {attribute(node, 'path', node.name)} are not constants")
    zero = np.zeros_like(scale, np.float32)
    return (
        signs,
        scale.astype(np.float32),
        np.array([], np.float32) if offset is None else offset.astype(np.float32),
        zero if bias is None else bias.astype(np.float32),
    )


def _convolve(walk: _Walk, signs_in: ir.Value, image: tuple[int, int, int], attributes: dict[str, Any]) -> ir.Value:
    """BinaryConv nodes for the present binary node, reading signs (n, h, w, c) of `image` = (h, w, c)."""
    node = walk.node
    path = str(attribute(node, "path", "")) or node.op_type
    signs, scale, offset, bias = _binary_constants(node)
    if signs.ndim == 2:
        signs = signs[:, :, None, None]
    attributes = {"input_size": list(image[:2]), "channels": image[2], **attributes}
    grouped = "Grouped" if attributes["group"] > 1 else ""

    def product(name: str, weights: np.ndarray, factor: np.ndarray, added: np.ndarray) -> ir.Value:
        constants = [
            add_initializer(walk.model, f"{path}.{name}", pack(weights)),
            add_initializer(walk.model, f"{path}.{name}.scale", factor),
            add_initializer(walk.model, f"{path}.{name}.bias", added),
        ]
        return walk.emit(f"{grouped}BinaryConv", [signs_in, *constants], attributes, DOMAIN)

    y = product("weights", signs, scale, bias if not offset.size else np.zeros_like(bias))
    producer = y.producer()
    if producer is not None:
        producer.metadata_props[_SIGN_OF] = str(attribute(node, "path", ""))
    if not offset.size:
        return y
    # The window's sum. With one group it is the same for every output channel, and one channel holds it.
    ones = np.ones_like(signs) if grouped else np.ones_like(signs[:1])
    window = product("ones", ones, np.ones(len(ones), np.float32), np.zeros(len(ones), np.float32))
    y = walk.emit("Add", [y, walk.emit("Mul", [window, add_initializer(walk.model, f"{path}.offset", offset)])])
    return y if not bias.any() else walk.emit("Add", [y, add_initializer(walk.model, f"{path}.bias", bias)])


def _binary_conv(walk: _Walk) -> bool:
    node = walk.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    if sign is None or sign.inputs[0] is None:
        raise ExportError(f"{attribute(node, 'path', node.name)} does not read a sign: report this network")
    x = sign.inputs[0]
    _, channels, height, width = _sizes(x) or [None] * 4
    if channels is None or height is None or width is None:
        raise ExportError(f"{attribute(node, 'path', node.name)}: the size of its images is not fixed")
    attributes = {
        "kernel_shape": list(_sizes(node.inputs[1])[2:]),
        "strides": [int(v) for v in attribute(node, "strides", (1, 1))],
        "pads": [int(v) for v in attribute(node, "pads", (0, 0, 0, 0))],
        "dilations": [int(v) for v in attribute(node, "dilations", (1, 1))],
        "group": int(attribute(node, "group", 1)),
        "padding_value": int(attribute(node, "padding_value", 0)),
    }
    signs = walk.signs(x, walk.last(x))
    walk.give(_convolve(walk, signs, (height, width, channels), attributes))
    return True


def _binary_linear(walk: _Walk) -> bool:
    node = walk.node
    sign = node.inputs[0].producer() if node.inputs[0] is not None else None
    channels = _sizes(node.inputs[1])[1] if _sizes(node.inputs[1]) else None
    if sign is None or sign.inputs[0] is None or channels is None:
        raise ExportError(f"{attribute(node, 'path', node.name)} does not read a sign: report this network")
    x, path = sign.inputs[0], str(attribute(node, "path", "")) or "linear"
    attributes = {
        "kernel_shape": [1, 1],
        "strides": [1, 1],
        "pads": [0, 0, 0, 0],
        "dilations": [1, 1],
        "group": 1,
        "padding_value": 0,
    }
    image = walk.emit("Reshape", [x, walk.integers(f"{path}.image", [-1, 1, 1, channels])])
    image.shape = ir.Shape(["batch" if len(_sizes(x)) == 2 else None, 1, 1, channels])
    y = _convolve(walk, walk.signs(x, image), (1, 1, channels), attributes)
    sizes = _sizes(node.outputs[0])
    free = [i for i, size in enumerate(sizes) if size is None]
    if len(free) > 1 or not sizes:
        raise ExportError(f"{path}: more than the batch is free in its shape {sizes}")
    shape = [-1 if size is None else size for size in sizes]
    made = walk.emit("Reshape", [y, walk.integers(f"{path}.shape", shape)])
    made.shape, made.type = node.outputs[0].shape, node.outputs[0].type
    replace_value(walk.model, node.outputs[0], made)
    return True


# ---- what lies between them


def _elementwise(walk: _Walk) -> bool:
    node = walk.node
    out = node.outputs[0]
    if not any(walk.is_last(value) for value in node.inputs):
        return False
    if out.shape is None:
        # What the exporter takes apart itself (a GELU) has no shapes inside.
        shapes = {tuple(_sizes(value)) for value in node.inputs if value is not None and constant(value) is None}
        out.shape = ir.Shape([size or "batch" for size in shapes.pop()]) if len(shapes) == 1 else None
    if len(_sizes(out)) != 4:
        return False
    made = _in_last(walk)
    if made is not None:
        walk.give(made)
    return made is not None


def _in_last(walk: _Walk) -> ir.Value | None:
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
        elif len(_sizes(value)) == 4:
            inputs.append(walk.last(value))
        else:
            return None
    return walk.emit(node.op_type, inputs, {k: a.value for k, a in node.attributes.items()})


def _concat(walk: _Walk) -> bool:
    node = walk.node
    if not any(walk.is_last(v) for v in node.inputs) or any(len(_sizes(v)) != 4 for v in node.inputs):
        return False
    axis = _AXIS[int(attribute(node, "axis", 1)) % 4]
    walk.give(walk.emit("Concat", [walk.last(v) for v in node.inputs if v is not None], {"axis": axis}))
    return True


def _pad(walk: _Walk) -> bool:
    node = walk.node
    pads = constant(optional_input(node, 1))
    x = node.inputs[0]
    if x is None or not walk.is_last(x) or pads is None or pads.size != 8 or optional_input(node, 3) is not None:
        return False
    before, after = pads.reshape(2, 4)
    moved = [*before[_TO_LAST], *after[_TO_LAST]]
    inputs = [walk.last(x), walk.integers(f"{node.outputs[0].name}.pads", moved), optional_input(node, 2)]
    walk.give(walk.emit("Pad", inputs, {k: a.value for k, a in node.attributes.items()}))
    return True


def _slice(walk: _Walk) -> bool:
    node = walk.node
    x, axes = node.inputs[0], constant(optional_input(node, 3))
    if x is None or not walk.is_last(x) or axes is None:
        return False
    moved = walk.integers(f"{node.outputs[0].name}.axes", [_AXIS[int(a) % 4] for a in axes])
    rest = [optional_input(node, 1), optional_input(node, 2), moved, optional_input(node, 4)]
    walk.give(walk.emit("Slice", [walk.last(x), *rest]))
    return True


def _batchnorm(walk: _Walk) -> bool:
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


def _pool(walk: _Walk) -> bool:
    """A pooling whose windows tile the image."""
    node = walk.node
    x = node.inputs[0]
    kernel = [int(v) for v in attribute(node, "kernel_shape", ())]
    sizes = _sizes(x)
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


def _mean(walk: _Walk, x: ir.Value, size: list[int], channels: int, kernel: list[int]) -> ir.Value:
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


def _reduce(walk: _Walk) -> bool:
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
    moved = [_AXIS[a] for a in axes]
    _, channels, height, width = [*_sizes(x), None, None, None, None][:4]
    if op == "ReduceMean" and axes == [2, 3] and channels and height in _MEANS and width in _MEANS:
        made = _mean(walk, walk.last(x), [height, width], channels, [height, width])
        if not keep:
            made = walk.emit("Reshape", [made, walk.integers(f"{node.outputs[0].name}.shape", [-1, channels])])
        return _reduced(walk, made, keep)
    made = walk.emit(op, [walk.last(x), walk.integers(f"{node.outputs[0].name}.axes", moved)], {"keepdims": keep})
    return _reduced(walk, made, keep)


def _reduced(walk: _Walk, made: ir.Value, keep: int) -> bool:
    if keep:
        walk.give(made)
    else:
        made.shape, made.type = walk.node.outputs[0].shape, walk.node.outputs[0].type
        replace_value(walk.model, walk.node.outputs[0], made)
    return True


def _flatten(walk: _Walk) -> bool:
    """Reshape or Flatten of (n, c, 1, 1): the same numbers in the same order in either layout."""
    node = walk.node
    x = node.inputs[0]
    if x is None or not walk.is_last(x) or _sizes(x)[2:] != [1, 1]:
        return False
    node.replace_input_with(0, walk.last(x))
    return True


_RULES: dict[str, Callable[[_Walk], bool]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "BatchNormalization": _batchnorm,
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
_BINARY_RULES: dict[str, Callable[[_Walk], bool]] = {"BinaryConv2d": _binary_conv, "BinaryLinear": _binary_linear}


# ---- the first layer


def _is_way(node: ir.Node) -> bool:
    """Whether it brings a value to NHWC."""
    return node.op_type == "Transpose" and not node.domain and list(attribute(node, "perm", ())) == _TO_LAST


def _elementwise_after(model: ir.Model) -> int:
    """What reads one value (n, c, h, w) and is read in NHWC alone reads it in NHWC itself: the way there moves up."""
    walk, count = _Walk(model), 0
    for node in reversed(list(model.graph)):
        out = node.outputs[0]
        ways = [use.node for use in out.uses()]
        if node.domain or node.op_type not in _ELEMENTWISE or not ways or not all(map(_is_way, ways)):
            continue
        if out.is_graph_output() or len(_sizes(out)) != 4:
            continue
        read = [value for value in node.inputs if value is not None and constant(value) is None]
        if len(read) != 1 or len(_sizes(read[0])) != 4:
            continue
        walk.node = node
        made = _in_last(walk)
        if made is None:
            continue
        _Walk._shape(made, _sizes(out))
        made.type = out.type
        for way in ways:
            replace_value(model, way.outputs[0], made)
        remove_unused(model)
        count += 1
    # A value that is read on two ways now takes the first of them.
    first: dict[int, ir.Value] = {}
    for way in [node for node in model.graph if _is_way(node)]:
        kept = first.setdefault(id(way.inputs[0]), way.outputs[0])
        if kept is not way.outputs[0]:
            replace_value(model, way.outputs[0], kept)
    remove_unused(model)
    return count


# The depth of a matrix product that is one chain of sums, and the pixels that keep it from being another routine.
_DEEPEST, _LEAST_PIXELS = 128, 64


def _float_convolution(walk: _Walk, way: ir.Node) -> bool:
    """Conv -> the way to NHWC, read by nobody else."""
    x = way.inputs[0]
    conv = x.producer() if x is not None else None
    if x is None or conv is None or conv.op_type != "Conv" or conv.domain or only_consumer(x) is not way:
        return False
    images, weights = conv.inputs[0], constant(optional_input(conv, 1))
    bias = constant(optional_input(conv, 2))
    sizes, out = _sizes(images), _sizes(conv.outputs[0])
    if images is None or weights is None or weights.dtype != np.float32 or weights.ndim != 4 or len(sizes) != 4:
        return False
    known = all(isinstance(size, int) for size in [*sizes[1:], *out[1:]]) and len(out) == 4
    if not known or (optional_input(conv, 2) is not None and bias is None):
        return False
    if int(attribute(conv, "group", 1)) != 1 or attribute(conv, "auto_pad", "NOTSET") != "NOTSET":
        return False
    if weights[0].size > _DEEPEST or (out[2] or 0) * (out[3] or 0) < _LEAST_PIXELS:
        return False
    attributes = {
        "input_size": sizes[2:],
        "channels": sizes[1],
        "kernel_shape": list(weights.shape[2:]),
        "strides": [int(v) for v in attribute(conv, "strides", (1, 1))],
        "pads": [int(v) for v in attribute(conv, "pads", (0, 0, 0, 0))],
        "dilations": [int(v) for v in attribute(conv, "dilations", (1, 1))],
    }
    walk.node = way
    name = conv.outputs[0].name
    last = np.ascontiguousarray(weights.transpose(2, 3, 1, 0))
    inputs: list[ir.Value | None] = [
        images,
        add_initializer(walk.model, f"{name}.weights", last),
        add_initializer(walk.model, f"{name}.bias", np.zeros(len(weights), np.float32) if bias is None else bias),
    ]
    made = walk.emit("FloatConv", inputs, attributes, DOMAIN)
    walk._shape(made, out)
    made.type = x.type
    replace_value(walk.model, way.outputs[0], made)
    return True


def channels_last(model: ir.Model) -> int:
    """Binary layers become `Sign` and `BinaryConv` of docs/format.md; what lies between them reads NHWC.

    Returns how many nodes were rebuilt. Raises ExportError where a layer's constants are computed in the graph or the
    size of its images is not fixed.
    """
    walk, count = _Walk(model), 0
    for node in list(model.graph):
        walk.node = node
        rules = _BINARY_RULES if node.domain == DOMAIN else {} if node.domain else _RULES
        rule = rules.get(node.op_type)
        count += rule is not None and rule(walk)
    remove_unused(model)
    count += _elementwise_after(model)
    for node in list(model.graph):
        if _is_way(node):
            count += _float_convolution(walk, node)
    remove_unused(model)
    model.graph.opset_imports[DOMAIN] = VERSION
    return count


def layer_signs(model: ir.Model) -> list[tuple[str, str]]:
    """(path of the layer, name of the signs it reads) of each binary layer, in order."""
    return [
        (node.metadata_props[_SIGN_OF], node.inputs[0].name or "")
        for node in model.graph
        if _SIGN_OF in node.metadata_props and node.inputs[0] is not None
    ]
