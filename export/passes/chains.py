"""Chains: operations of the domain bnn_itrd in a row become one function, which the native library runs image by image.

The function's body holds the operations themselves; the native operator reads the same steps from the attribute
`program` (docs/reference/format.md). An image's values then stay in the cache, and each thread takes whole images.
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

# The native library registers so many names Chain0, Chain1, ... and ChainSign0, ...; a file uses a name once.
CHAINS = 16


def _read(nodes: Sequence[onnx.NodeProto]) -> list[Operation]:
    """Returns the nodes in the form that a reader of the file has, which computes the attributes again from it."""
    return [read_operation(node.SerializeToString()) for node in nodes]


def _length(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> int:
    """Returns how many of these nodes, from the first on, can be one chain at most; 0 where not even two can.

    Only the last operation of a chain may be read outside it, and it must return floats. wanted: names of the graph's
    outputs and of the values that operations behind these nodes read.
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
    """Returns these operations as (node, function). outputs: number of output channels by the name of the weights."""
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    values = list(dict.fromkeys(i for node in nodes for i in node.input if i not in made | constants))
    # A constant that two operations share becomes two inputs: the constants of one operation must follow each other.
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
    """Puts neighbouring operations of the domain bnn_itrd into functions `Chain0`, ..., in place; returns how many."""
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
        # The size of a sign's input follows from the sign's readers; without readers it is not known.
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
