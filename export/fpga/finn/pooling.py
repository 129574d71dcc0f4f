"""A pass that moves a MaxPool behind the next quantiser, the node that makes signs or integers of its result.

FINN's own MaxPool takes only signs or integers.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from bnn_itrd.export.fpga.finn.affine import affine, is_quantiser
from bnn_itrd.export.fpga.qonnx_graph import move_watch
from bnn_itrd.export.graph import layer_path, nodes_of, only_consumer, remove_unused
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["POOLED", "PoolReaders", "pool_last", "readers_of"]

# Ending of the name of a MaxPool's output that was moved behind a quantiser; the name begins with the quantiser's.
POOLED = ".pooled"


class PoolReaders(NamedTuple):
    """The nodes between a MaxPool and the quantiser that finally reads its output.

    nodes: those that multiply or shift channels by constants, in order; quantiser: the node that makes signs or
    integers of their result, None if there is none; negative: number of channels that a node multiplies by a negative
    constant, for which the largest value becomes the smallest.
    """

    nodes: list[ir.Node]
    quantiser: ir.Node | None
    negative: int


def readers_of(pool: ir.Node) -> PoolReaders:
    """Returns the nodes from a MaxPool to the next one that makes signs or integers, its quantiser.

    The search stops at a tensor that several nodes read.
    """
    nodes: list[ir.Node] = []
    node = only_consumer(pool.outputs[0])
    negative = 0
    while node is not None and (found := affine(node, 4)) is not None:
        nodes.append(node)
        negative = max(negative, int((found.factor < 0).sum()))
        node = only_consumer(node.outputs[0])
    ends = is_quantiser(node) and node is not None and not node.outputs[0].is_graph_output()
    return PoolReaders(nodes, node if ends else None, negative)


def pool_last(model: ir.Model) -> int:
    """Moves each MaxPool behind the next node that makes signs or integers, its quantiser; returns how many.

    A BatchNorm, or factors and shifts, between the two keep their place in front of the quantiser.
    The result is the same bit for bit, because without negative factors BatchNorm and quantisers, with their rounding,
    keep the order of values. FINN itself cannot move a MaxPool past its correction of binary sums.
    Raises ExportError, with the layer's path, on a negative factor behind a MaxPool, which FINN cannot compute.
    """
    count = 0
    for pool in nodes_of(model, "MaxPool"):
        behind = readers_of(pool)
        if behind.negative:
            raise ExportError(
                f"{layer_path(pool)}: {behind.negative} channels of the MaxPool have a negative factor behind it, so "
                "that the largest value becomes the smallest, which FINN cannot compute: put the BatchNorm in front of "
                "the MaxPool (vgg_small: norm_before_pool), or keep its factors >= 0"
            )
        quantiser = behind.quantiser
        if quantiser is None:
            continue
        readers = list(quantiser.outputs[0].uses())
        first = (*behind.nodes, quantiser)[0]
        first.replace_input_with(list(first.inputs).index(pool.outputs[0]), pool.inputs[0])
        # The moved nodes now have the size of the MaxPool's input.
        for node in (*behind.nodes, quantiser):
            node.outputs[0].shape = None if pool.inputs[0] is None else pool.inputs[0].shape
        moved = ir.node("MaxPool", [quantiser.outputs[0]], {k: a.value for k, a in pool.attributes.items()})
        moved.metadata_props.update(pool.metadata_props)
        model.graph.insert_after(quantiser, moved)
        moved.outputs[0].shape, moved.outputs[0].type = pool.outputs[0].shape, quantiser.outputs[0].type
        moved.name, moved.outputs[0].name = f"{quantiser.name}{POOLED}", f"{quantiser.outputs[0].name}{POOLED}"
        move_watch(quantiser, moved)
        for user, index in readers:
            user.replace_input_with(index, moved.outputs[0])
        count += 1
    remove_unused(model)
    return count
