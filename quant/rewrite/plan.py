"""Decides what `binarize` will do: which layers it binarises, which activations it replaces, and what it warns of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules import conv

from bnn_itrd.quant.layers import BinaryLayer
from bnn_itrd.quant.rewrite.bounds import Bounds, activation_bounds, find_bounds
from bnn_itrd.quant.rewrite.graph import Net
from bnn_itrd.quant.rewrite.sources import Sources
from bnn_itrd.quant.rewrite.verdict import find_verdict
from bnn_itrd.quant.scheme import Scheme

__all__ = ["Fed", "Plan", "make_plan"]


class Fed(NamedTuple):
    """An activation to replace: the path of the first binary layer that reads it, and the node it is applied to."""

    layer: str
    applied_to: fx.Node


class Plan(NamedTuple):
    """The changes that `binarize` will make, decided before any layer or activation is replaced.

    kept: path of a convolution or linear layer -> why it stays in full precision, empty where it does not; layers: the
    layers to binarise; binary: the paths of these and of layers that are already binary; feeds: the activations to
    replace; notes, unknown, verdict: the fields `warnings`, `unknown` and `verdict` of the report.
    """

    kept: dict[str, str]
    layers: dict[str, nn.Conv2d | nn.Linear]
    binary: set[str]
    feeds: dict[fx.Node, Fed]
    notes: list[str]
    unknown: list[str]
    verdict: str


def _bounds_of_nonlinearity(scheme: Scheme) -> Bounds:
    """Returns the lowest and highest output of a scheme's nonlinearity; the state of the random numbers is kept."""
    if scheme.nonlinearity == "hardtanh":
        return Bounds(-1, 1)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return activation_bounds(scheme.make_nonlinearity(1))


def make_plan(net: Net, named: set[str], inside: set[str], roles: dict[str, str], scheme: Scheme) -> Plan:
    """Returns the plan: which layers become binary, and which activations in front of them are replaced.

    named: the paths in the argument `keep` of `binarize`; inside: these and the paths of all modules inside them;
    roles: path -> why a layer stays in full precision, from `find_roles`.
    """
    kept = {
        path: "named in keep" if path in inside else roles.get(path) or net.obstacle(path)
        for path, m in net.original.items()
        if isinstance(m, (conv._ConvNd, nn.Linear))
    }
    layers = {path: m for path, m in net.modules.items() if isinstance(m, (nn.Conv2d, nn.Linear)) and not kept[path]}
    binary = {path for path, m in net.modules.items() if path in layers or isinstance(m, BinaryLayer)}
    search = Sources(net, find_bounds(net))
    sources = {n: search.of(n) for n in net.graph.nodes if net.path(n) in binary}
    feeds: dict[fx.Node, Fed] = {}
    for layer, found in sources.items():
        for node in [s.node for s in found if s.node in search.activations and net.path(s.node) not in named]:
            feeds.setdefault(node, Fed(str(layer.target), search.activations[node]))
    bounds = find_bounds(net, dict.fromkeys(feeds, _bounds_of_nonlinearity(scheme)))
    notes, starved, unknown, at_input = list[str](), dict[str, str](), dict[str, str](), list[str]()
    for layer, found in sources.items():
        path = str(layer.target)
        for node, behind in found:
            known = bounds[node]
            if node.op == "placeholder":
                at_input.append(path)
                notes.append(f"{path} reads the network's input: all signs are +1 if it is never negative")
            elif known is None and not behind:
                unknown[path] = f"{path} reads {net.path(node)}: whether its values have both signs is unknown"
            elif known is not None and known.one_sign and not behind:
                starved[path] = f"{path} reads {net.path(node)}, whose values all have the same sign"
                notes.append(starved[path])
            elif node in search.activations and node not in feeds and not behind:
                notes.append(
                    f"{path} reads {net.path(node)}, which is -0.0 for large negative inputs: there its sign is +1"
                )
    verdict = find_verdict(net, binary, starved=[*starved], unknown=[*dict.fromkeys([*at_input, *unknown])])
    return Plan(kept, layers, binary, feeds, notes, [*unknown.values()], verdict)
