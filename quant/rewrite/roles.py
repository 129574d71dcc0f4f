"""Which layers the place in the network keeps in full precision: the first, the last, the projections of shortcuts."""

from __future__ import annotations

from torch import fx, nn

from bnn_itrd.quant.rewrite.graph import ADD, CONV, LINEAR, NORM, PASSING, RELU, Net, inputs

__all__ = ["find_roles"]


def _is_downsample(net: Net, node: fx.Node) -> bool:
    """1x1 with a stride, or a 1x1 shortcut beside a convolution."""
    m = net.module(node)
    if not isinstance(m, nn.Conv2d) or m.kernel_size != (1, 1):
        return False
    beside = [user for source in inputs(node) for user in source.users if user is not node]
    return max(m.stride) > 1 or (
        net.reaches(node, ADD, NORM, PASSING)
        and any(net.is_a(u, CONV) or net.reaches(u, CONV, NORM, RELU, PASSING) for u in beside)
    )


def _before(net: Net, node: fx.Node) -> set[fx.Node]:
    """All steps that the value of a step is made of, and itself."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        if (found := todo.pop()) not in seen:
            seen.add(found)
            todo += net.values(found)
    return seen


def _output_layers(net: Net) -> list[fx.Node]:
    """The layers whose value reaches an output of the network with no other layer behind them.

    Of the layers that a sum hands to one output, as the residual blocks of a network without a classifier do, those
    that another of them comes after are none: their values reach the output beside it.
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


def find_roles(net: Net, *, keep_first: bool, keep_last: bool, keep_downsample: bool) -> dict[str, str]:
    """Path -> why the place of a layer in the network keeps it in full precision."""
    convs = [n for n in net.graph.nodes if net.is_a(n, CONV)]
    linears = [n for n in net.graph.nodes if net.is_a(n, LINEAR)]
    found: dict[str, str] = {}
    if keep_downsample:
        found |= {net.path(n): "1x1 down-sampling or projection" for n in convs if _is_downsample(net, n)}
    if keep_first:
        at_input = [n for n in [*convs, *linears] if any(s.op == "placeholder" for s in net.sources(n))]
        found |= {net.path(n): "reads the network's input" for n in at_input}
        found |= {net.path(n): "the first layer" for n in (convs or linears)[:1]}
    if keep_last:
        last = {net.path(n) for n in _output_layers(net)}
        found |= dict.fromkeys(last, "the last layer" if len(last) == 1 else "gives an output")
    return found
