"""Finds the nodes of a graph that determine the signs of a layer's input, and the activations among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import fx, nn

from bnn_itrd.quant.rewrite.bounds import Bounds
from bnn_itrd.quant.rewrite.graph import ACTIVATION, ADD, DIV, MUL, PASSING, Kind, Net, inputs

__all__ = ["Source", "Sources"]

# Functions by which x is multiplied: x * sigmoid(x), x * relu6(x + 3) / 6, x * tanh(softplus(x)).
_GATES = Kind(
    (nn.Sigmoid, nn.Hardsigmoid, nn.ReLU6, nn.Tanh, nn.Softplus, nn.Hardtanh),
    {"sigmoid", "sigmoid_", "hardsigmoid", "relu6", "tanh", "softplus", "clamp", "hardtanh"},
)


class Source(NamedTuple):
    """A node that determines the signs of a layer's input; `behind`: whether an activation is applied in between."""

    node: fx.Node
    behind: bool


class Sources:
    """Finds the nodes that determine the signs of a layer's input.

    bounds: node -> interval of its values; activations: each activation that `binarize` may replace -> the node that it
    is applied to. A product such as x * sigmoid(x), which is SiLU, counts as an activation too.
    """

    def __init__(self, net: Net, bounds: Mapping[fx.Node, Bounds | None]) -> None:
        self.net, self.bounds = net, bounds
        self.activations: dict[fx.Node, fx.Node] = {}
        for node in net.graph.nodes:
            applied_to = inputs(node)[0] if net.is_a(node, ACTIVATION) else self._gated(node)
            if applied_to is not None:
                self.activations[node] = applied_to

    def _gated(self, node: fx.Node) -> fx.Node | None:
        """Returns the node x of a product such as x * sigmoid(x), which is an activation of x; None for others."""
        if not self.net.is_a(node, MUL) or len(node.all_input_nodes) != 2 or len(node.args) != 2:
            return None
        in_place = self.net.name(node) in ("mul_", "imul")
        for value, gate in (node.all_input_nodes, node.all_input_nodes[::-1]):
            known = self.bounds[gate]
            if known is None or not 0 <= known.low <= known.high < math.inf:
                continue
            chain = [gate]
            while self._is_gate(chain[-1]) and chain[-1].all_input_nodes[0] is not value:
                chain.append(chain[-1].all_input_nodes[0])
            # If the product overwrites x in place, other nodes that read x would read the product.
            alone = not in_place or {*value.users} <= {node, chain[-1]}
            if self._is_gate(chain[-1]) and any(self._curves(step) for step in chain) and alone:
                return value
        return None

    def _curves(self, node: fx.Node) -> bool:
        return self.net.is_a(node, _GATES)

    def _is_gate(self, node: fx.Node) -> bool:
        """Returns whether a node can be a step from x to the other factor of x * sigmoid(x) and similar products.

        Such a step has one node as input, and besides it only numbers.
        """
        arithmetic = any(self.net.is_a(node, kind) for kind in (ADD, MUL, DIV))
        return len(node.all_input_nodes) == 1 and (arithmetic or self._curves(node))

    def _sign_preserving(self, node: fx.Node) -> list[fx.Node]:
        """Returns the inputs whose signs a node preserves; none where its output may have other signs.

        For a product, that is the factor whose partner is never negative.
        """
        net, bounds = self.net, self.bounds
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
            factors = [factor for factor in factors if self._reaches_activation(factor)]
        return factors if len(factors) == 1 else []

    def _reaches_activation(self, node: fx.Node) -> bool:
        """Returns whether a node's value comes from an activation through nodes that preserve signs."""
        todo, seen = [node], set[fx.Node]()
        while todo:
            step = todo.pop()
            if step in self.activations:
                return True
            if step not in seen:
                seen.add(step)
                todo += self._sign_preserving(step)
        return False

    def of(self, layer: fx.Node) -> list[Source]:
        """Returns the nodes that determine the signs of a layer's input: it goes back through all that preserve signs.

        It goes back through activations too, and lists both the activation and the node that it is applied to.
        """
        todo, seen = [Source(node, False) for node in inputs(layer)], dict[Source, bool]()
        while todo:
            source = node, behind = todo.pop()
            if source in seen:
                continue
            applied_to = self.activations.get(node)
            before = self._sign_preserving(node) if applied_to is None else []
            seen[source] = not before
            todo += [Source(n, behind) for n in before]
            if applied_to is not None:
                todo.append(Source(applied_to, True))
        return [source for source, is_end in seen.items() if is_end]
