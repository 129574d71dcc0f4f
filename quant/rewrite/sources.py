"""What a layer reads: the steps that its input's signs come from, and those of them that are all of one sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import fx

from bnn_itrd.quant.rewrite.bounds import Bounds
from bnn_itrd.quant.rewrite.graph import DIV, MUL, PASSING, RELU, Net, inputs

__all__ = ["Source", "find_sources"]


class Source(NamedTuple):
    """A step that a layer's input comes from; `behind`: an activation stands between them."""

    node: fx.Node
    behind: bool


def _reaches_relu(net: Net, bounds: Mapping[fx.Node, Bounds | None], node: fx.Node) -> bool:
    """Whether a value comes from a ReLU through steps that hand signs on."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        step = todo.pop()
        if net.is_a(step, RELU):
            return True
        if step not in seen:
            seen.add(step)
            todo += _handed_on(net, bounds, step)
    return False


def _handed_on(net: Net, bounds: Mapping[fx.Node, Bounds | None], node: fx.Node) -> list[fx.Node]:
    """The steps whose signs a step hands on: of a product, the factor beside one that is never negative."""
    if net.is_a(node, PASSING):
        return inputs(node)
    if not (net.is_a(node, MUL) or net.is_a(node, DIV)) or len(node.args) != 2 or node.args[0] is node.args[1]:
        return []
    factors = []
    for factor, other in [node.args, node.args[::-1]][: 1 if net.is_a(node, DIV) else 2]:
        low = other if isinstance(other, (int, float)) else None
        if isinstance(other, fx.Node) and (known := bounds[other]) is not None:
            low = known.low
        if isinstance(factor, fx.Node) and low is not None and low >= 0:
            factors.append(factor)
    if len(factors) == 2:
        factors = [factor for factor in factors if _reaches_relu(net, bounds, factor)]
    return factors if len(factors) == 1 else []


def find_sources(net: Net, bounds: Mapping[fx.Node, Bounds | None], layer: fx.Node) -> list[Source]:
    """The steps that a layer's signs come from, back through what hands them on, and through activations."""
    todo, seen = [Source(node, False) for node in inputs(layer)], dict[Source, bool]()
    while todo:
        source = node, behind = todo.pop()
        if source not in seen:
            before, activated = _handed_on(net, bounds, node), net.is_a(node, RELU)
            seen[source] = not before
            todo += [Source(n, behind or activated) for n in (inputs(node) if activated else before)]
    return [source for source, is_end in seen.items() if is_end]
