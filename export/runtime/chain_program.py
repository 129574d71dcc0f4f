"""The program of a chain: the numbers, computed from its body, that the native library runs (docs/reference/format.md).

The writer computes a chain's attributes here; a reader computes them again and compares, because a file in which they
differ would be one network for onnxruntime, which runs the body, and another for the native library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ExportError
from .format import DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS
from .onnx_file import Function, Operation, ReadModel, all_operations

__all__ = ["Size", "chain_attributes", "check_chains", "is_binary_convolution", "value_sizes"]

_SIGN, _POOLING, _CONVOLUTION, _FLOAT_CONVOLUTION, _RSIGN, _INNER = 0, 1, 2, 3, 4, 5
# Kinds of a chain's inputs: floats or signs (n, h, w, c), floats (n, c, h, w).
_FLOATS, _SIGNS, _PLANES = 0, 1, 2
_FORMS = {"Add": 2, "Clip": 4, "Sign": 8, "RPReLU": 16, "RSign": 32}
_RESIDUAL = 4  # index among the inputs of a convolution that adds one

Size = tuple[int, int, int]


def is_binary_convolution(node: Operation) -> bool:
    """Whether the operation is a convolution of signs."""
    return "BinaryConv" in node.op_type


def _is_float_convolution(node: Operation) -> bool:
    return node.op_type in FLOAT_CONVOLUTIONS


def _is_inner(node: Operation) -> bool:
    """Whether a convolution of floats reads (n, h, w, c)."""
    return node.op_type.startswith("Inner")


def _residual(node: Operation) -> list[str]:
    return [node.input[_RESIDUAL]] if is_binary_convolution(node) and "Add" in node.op_type else []


def _constants(node: Operation) -> list[str]:
    residual = _RESIDUAL if _residual(node) else 0
    return [name for i, name in enumerate(node.input) if i not in (0, residual)]


def _out_size(a: dict[str, Any]) -> tuple[int, int]:
    def along(axis: int) -> int:
        span = a["dilations"][axis] * (a["kernel_shape"][axis] - 1) + 1
        padded: int = a["input_size"][axis] + a["pads"][axis] + a["pads"][axis + 2]
        return (padded - span) // a["strides"][axis] + 1

    return along(0), along(1)


def value_sizes(nodes: Sequence[Operation], outputs: Mapping[str, int]) -> dict[str, Size]:
    """Returns (h, w, c) of every input and output of the operations.

    outputs: number of output channels by the name of the weights.
    """
    sizes: dict[str, Size] = {}
    for node in nodes:
        a = node.attributes
        if is_binary_convolution(node) or _is_float_convolution(node):
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


def _step(node: Operation, index: Mapping[str, int], weights: int) -> tuple[list[int], list[float]]:
    """Returns the operation as (numbers of the program, limits). weights: index of its first constant."""
    a, x = node.attributes, index[node.input[0]]
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


def chain_attributes(nodes: Sequence[Operation], inputs: Sequence[str], outputs: Mapping[str, int]) -> dict[str, Any]:
    """Returns the attributes of a chain: `program`, `output_size` and, if an operation clips, `limits`.

    nodes: the operations of its body; inputs: the names of the body's inputs, first the values, then the constants of
    each operation; outputs: number of output channels by the name of the weights.
    Raises ValueError on inputs in another order, KeyError on a missing attribute or value.
    """
    constants = {name for node in nodes for name in _constants(node)}
    count = sum(name not in constants for name in inputs)
    values = list(inputs[:count])
    if constants & {*values}:
        raise ValueError("a constant comes before a value among the inputs")
    sizes = value_sizes(nodes, outputs)
    forms = {node.input[0]: _SIGNS for node in nodes if is_binary_convolution(node)}
    forms |= {node.input[0]: _PLANES for node in nodes if _is_float_convolution(node) and not _is_inner(node)}
    program = [count]
    for name in values:
        program += [forms.get(name, _FLOATS), *sizes[name]]
    limits: list[float] = []
    index = {name: i for i, name in enumerate(values)}
    first = count
    for node in nodes:
        own = _constants(node)
        if list(inputs[first : first + len(own)]) != own:
            raise ValueError(f"the constants of {node.op_type} do not follow each other")
        numbers, bounds = _step(node, index, first)
        first += len(own)
        program += numbers
        limits += bounds
        for name in node.output:
            index[name] = len(index)
    attributes: dict[str, Any] = {"program": program, "output_size": list(sizes[nodes[-1].output[0]])}
    return attributes | ({"limits": limits} if limits else {})


def _rebuilt(call: Operation, body: Function, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Returns the attributes that follow from the body of a chain. shapes: shapes of the file's constants by name."""
    if any(node.domain != DOMAIN for node in body.operations) or body.output != body.operations[-1].output:
        raise ValueError("its body is not a sequence of operations of the format")
    given = dict(zip(body.input, call.input, strict=True))
    weights = {node.input[1] for node in body.operations if len(node.input) > 1}
    outputs = {name: shapes[given[name]][3] for name in weights if len(shapes.get(given[name], ())) == 4}
    return chain_attributes(body.operations, body.input, outputs)


def _is_chain(node: Operation) -> bool:
    return node.domain == DOMAIN and node.op_type.startswith("Chain")


def check_chains(model: ReadModel, *, where: str) -> None:
    """Raises ExportError where the attributes of a chain are not those that follow from its body.

    A chain that is called inside a branch, a loop or another function, and not by the graph itself, is refused too.
    """
    bodies = {function.name: function for function in model.functions if function.domain == DOMAIN}
    inside = [node for function in model.functions for node in function.operations]
    inside += [inner for node in model.operations for inner in node.inside]
    for call in filter(_is_chain, all_operations(inside)):
        raise ExportError(
            f"{where}: {call.op_type} is called inside another operation, where this package puts no chain: another "
            "tool has changed the file. Export it again"
        )
    for call in filter(_is_chain, model.operations):
        try:
            agree = call.attributes == _rebuilt(call, bodies[call.op_type], model.shapes)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError):
            agree = False
        if not agree:
            raise ExportError(
                f"{where}: the attributes of {call.op_type}, which the native library runs, are not those of its "
                "body, which onnxruntime runs: another tool has changed the file. Export it again"
            )
