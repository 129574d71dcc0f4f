"""Finds layers that stay in full precision because of their kind or position: the first, the last and others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules import conv, pooling

from bnn_itrd.quant.layers import BinaryConv2d, is_depthwise
from bnn_itrd.quant.rewrite.bounds import find_bounds
from bnn_itrd.quant.rewrite.graph import ACTIVATION, ADD, CONV, LINEAR, MUL, NORM, PASSING, POOLS, Net, inputs
from bnn_itrd.quant.rewrite.sources import Sources

__all__ = ["DEPTHWISE", "SQUEEZE", "depthwise_layers", "find_roles", "squeeze_layers"]

DEPTHWISE, SQUEEZE = "depthwise", "squeeze-and-excite"


def _is_downsample(net: Net, node: fx.Node) -> bool:
    """Returns whether a node is a 1x1 convolution with a stride, or on a shortcut parallel to another convolution."""
    m = net.module(node)
    if not isinstance(m, nn.Conv2d) or m.kernel_size != (1, 1):
        return False
    if max(m.stride) > 1:
        return True
    shortcut = [node]
    for step in shortcut:  # goes back to where the other branch begins; the list grows during the loop
        if step is node or net.is_a(step, POOLS):
            shortcut += [source for source in inputs(step) if source not in shortcut]
    parallel = [user for source in shortcut for user in source.users if user not in shortcut and source is not node]
    return net.reaches(node, ADD, NORM, PASSING) and any(
        net.is_a(u, CONV) or net.reaches(u, CONV, NORM, ACTIVATION, PASSING) for u in parallel
    )


def _pools_whole_maps(net: Net, node: fx.Node) -> bool:
    """Returns whether a node reduces a map (n, c, h, w) to one value for each channel."""
    m, name = net.module(node), net.name(node)
    size: Any
    if isinstance(m, (pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)):
        size = m.output_size
    elif name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
    elif name in ("avg_pool2d", "max_pool2d"):
        return len(node.all_input_nodes) > 1  # the pool's size is then an input, so it is computed from the map
    elif name in ("mean", "amax"):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return {*(dims if isinstance(dims, (list, tuple)) else [dims])} <= {2, 3, -1, -2}
    else:
        return False
    return all(s == 1 for s in (size if isinstance(size, (list, tuple)) else [size]))


def _squeezed(net: Net, node: fx.Node) -> list[fx.Node] | None:
    """Returns the layers between global pools and a node; None where its value does not come from such pools alone."""
    todo, seen, layers = [node], set[fx.Node](), list[fx.Node]()
    while todo:
        step = todo.pop()
        if step in seen or _pools_whole_maps(net, step):
            continue
        if step.op == "placeholder":
            return None
        seen.add(step)
        if net.is_layer(step):
            layers.append(step)
        todo += net.values(step)
    return layers


def squeeze_layers(net: Net) -> Iterator[fx.Node]:
    """Yields the layers of squeeze-and-excite gates, which compute a factor for each channel from the channels' means.

    They stay in full precision, because a gate has few values per image and each scales a whole channel: in 1 bit it
    would be noise.
    """
    for node in net.graph.nodes:
        if net.is_a(node, MUL) and len(node.all_input_nodes) == 2:
            gates = [found for side in node.all_input_nodes if (found := _squeezed(net, side)) is not None]
            if len(gates) == 1:
                yield from gates[0]


def depthwise_layers(net: Net) -> Iterator[fx.Node]:
    """Yields the depthwise convolutions, whose output channels read one input channel each."""
    for node in net.graph.nodes:
        m = net.module(node)
        if isinstance(m, (conv._ConvNd, BinaryConv2d)) and is_depthwise(m.in_channels, m.groups):
            yield node


def _before(net: Net, node: fx.Node) -> set[fx.Node]:
    """Returns a node and all nodes that its value depends on."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        if (found := todo.pop()) not in seen:
            seen.add(found)
            todo += net.values(found)
    return seen


def _output_layers(net: Net) -> list[fx.Node]:
    """Returns the layers whose value reaches an output of the network through no other layer.

    A network that ends in residual blocks adds the values of several layers at its output. Then a layer on which
    another of them depends does not count, because its values get there only through the shortcut.
    """
    found: dict[fx.Node, None] = {}
    for output in [v for node in net.graph.nodes if node.op == "output" for v in node.all_input_nodes]:
        todo, seen, ends = [output], set[fx.Node](), list[fx.Node]()
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if net.is_layer(node):
                ends.append(node)
            else:
                todo += net.values(node)
        earlier = {n for end in ends for value in net.values(end) for n in _before(net, value)}
        found |= dict.fromkeys(end for end in ends if end not in earlier)
    return [*found]


def find_roles(
    net: Net, *, keep_first: bool, keep_last: bool, keep_downsample: bool, keep_depthwise: bool, keep_squeeze: bool
) -> dict[str, str]:
    """Returns path -> reason for each layer that stays in full precision because of its kind or position.

    The flags are those of `binarize`.
    """
    convs = [n for n in net.graph.nodes if net.is_a(n, CONV)]
    linears = [n for n in net.graph.nodes if net.is_a(n, LINEAR)]
    found: dict[str, str] = {}
    if keep_squeeze:
        found |= {net.path(n): SQUEEZE for n in squeeze_layers(net)}
    if keep_depthwise:
        found |= {net.path(n): DEPTHWISE for n in depthwise_layers(net)}
    if keep_downsample:
        found |= {net.path(n): "1x1 down-sampling or projection" for n in convs if _is_downsample(net, n)}
    if keep_first:
        sources = Sources(net, find_bounds(net))
        at_input = [n for n in [*convs, *linears] if any(s.node.op == "placeholder" for s in sources.of(n))]
        found |= {net.path(n): "reads the network's input" for n in at_input}
        found |= {net.path(n): "the first layer" for n in (convs or linears)[:1]}
    if keep_last:
        last = {net.path(n) for n in _output_layers(net)}
        found |= dict.fromkeys(last, "the last layer" if len(last) == 1 else "gives an output")
    return found
