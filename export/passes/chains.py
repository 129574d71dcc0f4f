"""A pass that joins consecutive binary layers, and the operations between them, to one ONNX function, called a chain.

The native library runs a chain image by image, which is faster: an image's values stay in the processor's cache, and
each thread takes whole images. The native operator reads its steps from the attribute `program`
(docs/reference/format.md). Other runtimes run the function's body, which holds the original operations.
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

# The largest number of chains in a file: the native library knows the names Chain0 to Chain15 and ChainSign0 to
# ChainSign15, and each chain of a file needs a number of its own.
CHAINS = 16


def _read(nodes: Sequence[onnx.NodeProto]) -> list[Operation]:
    """Returns the nodes as objects of the class `Operation`, as if they had been read from a file."""
    return [read_operation(node.SerializeToString()) for node in nodes]


def _length(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> int:
    """Returns the largest number of nodes, counted from the first, that can form one chain; 0 if two cannot.

    A chain needs a binary convolution. Only the output of its last operation may be used outside the chain, and that
    output must be floats. wanted: names of all tensors that are used behind these nodes, by operations or as outputs.
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
    """Returns the chain of these operations, as the node that calls it and the function with its body.

    constants: names of the graph's constant tensors; outputs: name of a weight -> number of its output channels;
    number: the chain's number, which becomes part of its name.
    """
    from onnx import helper

    made = {name for node in nodes for name in node.output}
    values = list(dict.fromkeys(i for node in nodes for i in node.input if i not in made | constants))
    # A constant that two operations share becomes two inputs of the chain, because the native operator expects the
    # constants of each operation next to each other.
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
    """Joins consecutive operations of the ONNX domain bnn_itrd to functions, in place; returns how many functions.

    A function is called ``Chain0``, ``Chain1``, ..., or ``ChainSign0``, ... if it also returns signs. The native
    library runs it faster than the separate operations.
    """
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
        # The native operator needs the size of a sign's input, which is known only from the operations that read it.
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
