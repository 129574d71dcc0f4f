"""Chains: operations of ours in a row become one, so that the native library takes each image through all of them.

The function's body is the operations themselves; the native operator reads the same steps from the attribute `program`
(docs/reference/format.md). An image's values then stay in the cache, and a batch is divided between threads by images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bnn_itrd.export.runtime.chain_program import chain_attributes, is_binary_convolution, value_sizes
from bnn_itrd.export.runtime.format import DOMAIN, SIGNS, VERSION
from bnn_itrd.export.runtime.onnx_file import Operation, read_operation

if TYPE_CHECKING:
    import onnx

__all__ = ["CHAINS", "chain"]

# Names the native library knows of each kind: a name is one function in a file.
CHAINS = 16


def _read(nodes: Sequence[onnx.NodeProto]) -> list[Operation]:
    """The nodes as whoever opens the file reads them: both then make the attributes of the same."""
    return [read_operation(node.SerializeToString()) for node in nodes]


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
    return best if any(map(is_binary_convolution, _read(nodes[:best]))) else 0


def _as_one(
    nodes: Sequence[onnx.NodeProto], constants: set[str], outputs: Mapping[str, int], number: int
) -> tuple[onnx.NodeProto, onnx.FunctionProto]:
    """(node, function) of these operations. `outputs`: channels by the name of the weights."""
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    values = list(dict.fromkeys(i for node in nodes for i in node.input if i not in made | constants))
    # A constant that two operations share is an input of its own for each: so an operation's stand side by side.
    inner: list[onnx.NodeProto] = []
    actual = dict(zip(values, values, strict=True))
    for step, node in enumerate(nodes):
        copy = type(node)()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in constants:
                copy.input[i] = f"constant_{step}_{i}"
                actual[copy.input[i]] = name
        inner.append(copy)
    last = nodes[-1]
    name = f"{'Chain' if len(last.output) == 1 else 'ChainSign'}{number}"
    inputs = list(actual)
    channels = {own: outputs[given] for own, given in actual.items() if given in outputs}
    attributes = chain_attributes(_read(inner), inputs, channels)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    function = helper.make_function(DOMAIN, name, inputs, list(last.output), inner, opsets, list(attributes))
    call = helper.make_node(name, list(actual.values()), list(last.output), last.name, domain=DOMAIN, **attributes)
    return call, function


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
        sizes = value_sizes(_read(nodes[at : at + count]), outputs)
        # A value that only a sign without readers reads has no size.
        if not count or any(node.op_type in SIGNS and node.input[0] not in sizes for node in nodes[at : at + count]):
            result.append(nodes[at])
            at += 1
            continue
        whole = nodes[at : at + count]
        node, function = _as_one(whole, set(constants), outputs, made)
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
