"""Chains: operations of ours in a row become one, so that the native library takes each image through all of them.

The function's body is the operations themselves; the native operator reads the same steps from the attribute `program`
(docs/format.md). An image's values then stay in the cache, and a batch is divided between threads by images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bnn_itrd.export.runtime.format import DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS, VERSION

if TYPE_CHECKING:
    import onnx

__all__ = ["CHAINS", "chain"]

# Names the native library knows of each kind: a name is one function in a file.
CHAINS = 16

_SIGN, _POOLING, _CONVOLUTION, _FLOAT_CONVOLUTION, _RSIGN, _INNER = 0, 1, 2, 3, 4, 5
# Of a value from outside.
_FLOATS, _SIGNS, _PLANES = 0, 1, 2
_FORMS = {"Add": 2, "Clip": 4, "Sign": 8, "RPReLU": 16, "RSign": 32}
_RESIDUAL = 4  # index among the inputs of a convolution that adds one

Size = tuple[int, int, int]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _is_convolution(node: onnx.NodeProto) -> bool:
    return "BinaryConv" in node.op_type


def _is_float_convolution(node: onnx.NodeProto) -> bool:
    return node.op_type in FLOAT_CONVOLUTIONS


def _is_inner(node: onnx.NodeProto) -> bool:
    """Whether a convolution of floats reads (n, h, w, c)."""
    return node.op_type.startswith("Inner")


def _residual(node: onnx.NodeProto) -> list[str]:
    return [node.input[_RESIDUAL]] if _is_convolution(node) and "Add" in node.op_type else []


def _out_size(a: dict[str, Any]) -> tuple[int, int]:
    def along(axis: int) -> int:
        span = a["dilations"][axis] * (a["kernel_shape"][axis] - 1) + 1
        padded: int = a["input_size"][axis] + a["pads"][axis] + a["pads"][axis + 2]
        return (padded - span) // a["strides"][axis] + 1

    return along(0), along(1)


def _sizes(nodes: Sequence[onnx.NodeProto], outputs: dict[str, int]) -> dict[str, Size]:
    """(h, w, c) of every value the operations read and give. `outputs`: channels by the name of the weights."""
    sizes: dict[str, Size] = {}
    for node in nodes:
        a = _attributes(node)
        if _is_convolution(node) or _is_float_convolution(node):
            sizes[node.input[0]] = (*a["input_size"], a["channels"])
            made = (*_out_size(a), outputs[node.input[1]])
            residual = _residual(node)
            sizes.update(dict.fromkeys([*residual, *node.output], made))
        elif node.op_type in POOLINGS:
            height, width = a["input_size"]
            kernel = a["kernel_shape"]
            sizes[node.input[0]] = (height, width, a["channels"])
            sizes[node.output[0]] = (height // kernel[0], width // kernel[1], a["channels"] + sum(a.get("zeros", [])))
    for node in nodes:
        if node.op_type in SIGNS and node.output[0] in sizes:
            sizes[node.input[0]] = sizes[node.output[0]]
    return sizes


def _length(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> int:
    """How many of these neighbours, from the first on, make the longest chain; 0 where none of two or more do.

    Of a chain only the last operation may be read from outside, and it gives floats. `wanted`: what the graph gives and
    what operations behind these read.
    """
    best = 0
    for end in range(2, len(nodes) + 1):
        outside = wanted.union(*(node.input for node in nodes[end:]))
        inside = {name for node in nodes[: end - 1] for name in node.output}
        last = nodes[end - 1].op_type
        if last not in SIGNS and not last.endswith("Threshold") and not inside & outside:
            best = end
    return best if any(map(_is_convolution, nodes[:best])) else 0


def _step(node: onnx.NodeProto, index: dict[str, int], weights: int) -> tuple[list[int], list[float]]:
    """The operation as numbers of the program, and its limits. `weights`: where its constants begin."""
    a, x = _attributes(node), index[node.input[0]]
    if node.op_type == "Sign":
        return [_SIGN, x], []
    if node.op_type == "RSign":
        return [_RSIGN, x, weights], []
    if node.op_type in POOLINGS:
        mean = int(node.op_type.startswith("Average"))
        return [_POOLING, x, mean, *a["kernel_shape"], *a.get("zeros", [0, 0])], []
    window = [v for name in ("kernel_shape", "strides", "pads", "dilations") for v in a[name]]
    form = 0
    if not node.op_type.endswith("Threshold"):
        form = 1 + sum(bit for part, bit in _FORMS.items() if part in node.op_type)
    bounds = [a["low"], a["high"]] if form & _FORMS["Clip"] else []
    if _is_float_convolution(node):
        return [_INNER if _is_inner(node) else _FLOAT_CONVOLUTION, x, form, weights, *window], bounds
    residual = index[name] if (name := next(iter(_residual(node)), "")) else -1
    numbers = [_CONVOLUTION, x, residual, form, weights, *window, a["group"], a["padding_value"]]
    return numbers, bounds


def _as_one(nodes: Sequence[onnx.NodeProto], constants: set[str], sizes: dict[str, Size], number: int) -> Any:
    """(node, function) of these operations."""
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    values = list(dict.fromkeys(i for node in nodes for i in node.input if i not in made | constants))
    forms = {node.input[0]: _SIGNS for node in nodes if _is_convolution(node)}
    forms |= {node.input[0]: _PLANES for node in nodes if _is_float_convolution(node) and not _is_inner(node)}
    # A constant that two operations share is an input of its own for each: so an operation's stand side by side.
    inner: list[onnx.NodeProto] = []
    inputs, actual = list(values), list(values)
    program = [len(values)]
    for name in values:
        program += [forms.get(name, _FLOATS), *sizes[name]]
    limits: list[float] = []
    index = {name: i for i, name in enumerate(values)}
    for step, node in enumerate(nodes):
        numbers, bounds = _step(node, index, len(inputs))
        program += numbers
        limits += bounds
        copy = type(node)()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in constants:
                copy.input[i] = f"constant_{step}_{i}"
                inputs.append(copy.input[i])
                actual.append(name)
        inner.append(copy)
        for name in node.output:
            index[name] = len(index)
    last = nodes[-1]
    name = f"{'Chain' if len(last.output) == 1 else 'ChainSign'}{number}"
    attributes: dict[str, Any] = {"program": program, "output_size": sizes[last.output[0]]}
    if limits:
        attributes["limits"] = limits
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    function = helper.make_function(DOMAIN, name, inputs, list(last.output), inner, opsets, list(attributes))
    return helper.make_node(name, actual, list(last.output), last.name, domain=DOMAIN, **attributes), function


def chain(proto: onnx.ModelProto) -> int:
    """Puts neighbouring operations of ours into functions `Chain0`, ..., in place; how many chains it made."""
    import onnx

    graph = proto.graph
    constants = {entry.name: list(entry.dims) for entry in graph.initializer}
    outputs = {name: dims[3] for name, dims in constants.items() if len(dims) == 4}
    nodes, result, made, at = list(graph.node), [], 0, 0
    while at < len(nodes):
        end = at
        while end < len(nodes) and nodes[end].domain == DOMAIN:
            end += 1
        wanted = {output.name for output in graph.output}.union(*(node.input for node in nodes[end:]))
        count = _length(nodes[at:end], wanted) if made < CHAINS else 0
        sizes = _sizes(nodes[at : at + count], outputs)
        # A value that only a sign without readers reads has no size.
        if not count or any(node.op_type in SIGNS and node.input[0] not in sizes for node in nodes[at : at + count]):
            result.append(nodes[at])
            at += 1
            continue
        whole = nodes[at : at + count]
        node, function = _as_one(whole, set(constants), sizes, made)
        proto.functions.append(function)
        result.append(node)
        made, at = made + 1, at + count
    left = {name for node in result for name in node.output}
    infos = [value for value in graph.value_info if value.name in left]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(result)
    graph.value_info.extend(infos)
    onnx.checker.check_model(proto)
    return made
