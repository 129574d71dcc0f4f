"""Judges, for the report of `binarize`, whether a network can be expected to learn with its binary layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import fx

from bnn_itrd.quant.rewrite.graph import NORMS, Net
from bnn_itrd.quant.rewrite.roles import depthwise_layers, squeeze_layers

__all__ = ["NOTHING", "find_verdict"]

NOTHING = "nothing is binary"


def _has_norm(net: Net, layer: fx.Node) -> bool:
    """Returns whether a normalisation such as BatchNorm follows a layer, with no other layer between them."""
    todo, seen = [*layer.users], set[fx.Node]()
    while todo:
        node = todo.pop()
        if net.is_a(node, NORMS):
            return True
        if node not in seen and not net.is_layer(node):
            todo += node.users
        seen.add(node)
    return False


def _counted(paths: Sequence[str]) -> str:
    """Returns ``1 layer (a)`` or ``3 layers (a, ...)``."""
    return f"{len(paths)} layers ({paths[0]}, ...)" if len(paths) > 1 else f"1 layer ({paths[0]})"


def find_verdict(net: Net, binary: Collection[str], *, starved: Sequence[str], unknown: Sequence[str]) -> str:
    """Returns the verdict of `binarize` on a network: "fit", "doubtful" or "does not work as it is", and why.

    Without any binary layer it is `NOTHING`. binary: paths of the binary layers; starved: those whose input always has
    the same sign; unknown: those of which this is not known.
    """
    if not binary:
        return NOTHING
    depthwise, squeeze = ([*{net.path(n): None for n in find(net)}] for find in (depthwise_layers, squeeze_layers))
    bare = {net.path(n): None for n in net.graph.nodes if net.path(n) in binary and not _has_norm(net, n)}
    problems = {
        "reads values of one sign": starved,
        "reads values whose signs are unknown": unknown,
        "depthwise and binary, so that an output has few values": [p for p in depthwise if p in binary],
        "squeeze-and-excite and binary, so that few values scale whole channels": [p for p in squeeze if p in binary],
        "depthwise in full precision, as in networks that lose much accuracy in 1 bit": [
            p for p in depthwise if p not in binary
        ],
        "binary without a norm behind it": [*bare],
    }
    said = [f"{what}: {_counted(paths)}" for what, paths in problems.items() if paths]
    if not said:
        return "fit: every binary layer reads values of both signs and has a norm behind it"
    return f"{'does not work as it is' if starved else 'doubtful'}: {'; '.join(said)}"
