"""Computes the attributes of chains, with which the native library runs them, and checks them in a file.

A chain is an ONNX function for several binary layers in a row. onnxruntime runs its body, which has an operation for
each layer. The native library does not read the body but the chain's attributes: `program` is a list of integers that
describes the same operations (docs/reference/format.md). The exporter computes the attributes from the body. Whoever
opens a file computes them again and compares, because otherwise a changed file could give two different results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ExportError
from .format import DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS
from .onnx_file import Function, Operation, ReadModel, all_operations

__all__ = ["Size", "chain_attributes", "check_chains", "is_binary_convolution", "value_sizes"]

# Numbers of the kinds of operations in a program.
_SIGN, _POOLING, _CONVOLUTION, _FLOAT_CONVOLUTION, _RSIGN, _INNER = 0, 1, 2, 3, 4, 5
# Numbers of the kinds of a chain's inputs: floats (n, h, w, c), signs (n, h, w, c), or floats (n, c, h, w).
_FLOATS, _SIGNS, _PLANES = 0, 1, 2
# Bits of the number that says what a convolution does after its sum: parts of the operation's name -> bit.
_FORMS = {"Add": 2, "Clip": 4, "Sign": 8, "RPReLU": 16, "RSign": 32}
# Index of the residual among the inputs of a convolution that adds one to its result.
_RESIDUAL = 4

# (height, width, channels) of an image.
Size = tuple[int, int, int]


def is_binary_convolution(node: Operation) -> bool:
    """Returns whether the operation is a binary convolution, whose weights and inputs are +1 or -1.

    >>> is_binary_convolution(Operation("BinaryConvAdd", DOMAIN, ("x", "weights"), ("y",), {}))
    True
    """
    return "BinaryConv" in node.op_type


def _is_float_convolution(node: Operation) -> bool:
    """Returns whether the operation is a convolution of floats that the native library has."""
    return node.op_type in FLOAT_CONVOLUTIONS


def _is_inner(node: Operation) -> bool:
    """Returns whether a convolution of floats stands between other layers, so that it reads (n, h, w, c)."""
    return node.op_type.startswith("Inner")


def _residual(node: Operation) -> list[str]:
    """Returns a list with the name of the input that a convolution adds to its result; it is empty if there is none."""
    return [node.input[_RESIDUAL]] if is_binary_convolution(node) and "Add" in node.op_type else []


def _constants(node: Operation) -> list[str]:
    """Returns the names of an operation's inputs that are constants, such as weights."""
    residual = _RESIDUAL if _residual(node) else 0
    return [name for i, name in enumerate(node.input) if i not in (0, residual)]


def _out_size(a: dict[str, Any]) -> tuple[int, int]:
    """Returns (height, width) of the result of a convolution. a: its attributes."""

    def along(axis: int) -> int:
        span = a["dilations"][axis] * (a["kernel_shape"][axis] - 1) + 1
        padded: int = a["input_size"][axis] + a["pads"][axis] + a["pads"][axis + 2]
        return (padded - span) // a["strides"][axis] + 1

    return along(0), along(1)


def value_sizes(nodes: Sequence[Operation], outputs: Mapping[str, int]) -> dict[str, Size]:
    """Returns the size (h, w, c) of every image or map that operations of an exported file read or write, by name.

    outputs: number of output channels of each convolution, by the name of its weights. Raises KeyError if an attribute
    is missing.
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
    """Returns the integers and floats that describe an operation in the attributes `program` and `limits` of a chain.

    index: number of each image of the chain, by name, as the program refers to it; weights: index of the operation's
    first constant among the chain's inputs.
    """
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
    """Returns the attributes by which the native library runs a chain, several layers that are one operation in a file.

    They are `program`, a list of integers, `output_size` (h, w, c) and, if an operation clips, `limits`.

    nodes: the operations of the chain's body; inputs: the names of the body's inputs, first the images, then the
    constants of each operation; outputs: number of output channels of each convolution, by the name of its weights.
    Raises ValueError if the inputs have another order, and KeyError if an attribute or an input is missing.

    >>> pool = {"input_size": [4, 6], "kernel_shape": [2, 2], "channels": 8}
    >>> nodes = [Operation("MaxPool", DOMAIN, ("x",), ("y",), pool)]
    >>> chain_attributes(nodes, ["x"], {})["output_size"]
    [2, 3, 8]
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
    """Computes a chain's attributes from its body, as the exporter does.

    call: the node of the graph that runs the chain; shapes: shapes of the file's constants by name. Raises ValueError
    if the body is not one that the exporter writes.
    """
    if any(node.domain != DOMAIN for node in body.operations) or body.output != body.operations[-1].output:
        raise ValueError("its body is not a sequence of operations of the format")
    given = dict(zip(body.input, call.input, strict=True))
    weights = {node.input[1] for node in body.operations if len(node.input) > 1}
    outputs = {name: shapes[given[name]][3] for name in weights if len(shapes.get(given[name], ())) == 4}
    return chain_attributes(body.operations, body.input, outputs)


def _is_chain(node: Operation) -> bool:
    """Returns whether a node runs a chain, a function for several layers in a row."""
    return node.domain == DOMAIN and node.op_type.startswith("Chain")


def check_chains(model: ReadModel, *, where: str) -> None:
    """Raises ExportError if a chain's attributes differ from those that `chain_attributes` computes from its body.

    A chain, several layers that are one operation in a file, could then give two results: the native library reads the
    attributes, onnxruntime the body. It is also raised on a chain inside a branch, a loop or another function, where
    the exporter puts none. where: the file's name, for the message.

    >>> check_chains(ReadModel(), where="student.onnx")  # a file without chains
    """
    bodies = {function.name: function for function in model.functions if function.domain == DOMAIN}
    inside = [node for function in model.functions for node in function.operations]
    inside += [inner for node in model.operations for inner in node.inside]
    for call in filter(_is_chain, all_operations(inside)):
        raise ExportError(
            f"{where}: {call.op_type} is called inside another operation, where this package puts no chain. Another "
            "tool has changed the file: export it again"
        )
    for call in filter(_is_chain, model.operations):
        try:
            agree = call.attributes == _rebuilt(call, bodies[call.op_type], model.shapes)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError):
            agree = False
        if not agree:
            raise ExportError(
                f"{where}: the attributes of {call.op_type}, by which the native library computes it, do not fit its "
                "body, by which onnxruntime computes it. Another tool has changed the file: export it again"
            )
