"""The plan of `binarize`: which layers become binary, which activations are replaced, and what is said of the rest."""

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
    """A binary layer that reads an activation, and the step that the activation is applied to."""

    layer: str
    applied_to: fx.Node


class Plan(NamedTuple):
    """What is to become of a network's layers and activations, decided before any of them is replaced.

    kept: path of a convolution or linear layer -> why it stays in full precision, empty where it does not; layers:
    those to binarise; binary: the paths of these and of the layers that are binary already; feeds: the activations to
    replace; notes: the report's warnings; unknown, verdict: the report's.
    """

    kept: dict[str, str]
    layers: dict[str, nn.Conv2d | nn.Linear]
    binary: set[str]
    feeds: dict[fx.Node, Fed]
    notes: list[str]
    unknown: list[str]
    verdict: str


def _bounds_of_nonlinearity(scheme: Scheme) -> Bounds:
    """Of what a scheme puts in the place of an activation; one that is made to be looked at draws no numbers."""
    if scheme.nonlinearity == "hardtanh":
        return Bounds(-1, 1)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return activation_bounds(scheme.make_nonlinearity(1))


def make_plan(net: Net, named: set[str], inside: set[str], roles: dict[str, str], scheme: Scheme) -> Plan:
    """Decides what becomes of each layer and of the activations in front of them; see `Plan`.

    named: paths in `keep`; inside: those and what is inside them; roles: path -> why a layer stays; see `find_roles`.
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
                notes.append(f"{path} reads {net.path(node)}, which gives -0.0 far left of 0: there its sign is +1")
    verdict = find_verdict(net, binary, starved=[*starved], unknown=[*dict.fromkeys([*at_input, *unknown])])
    return Plan(kept, layers, binary, feeds, notes, [*unknown.values()], verdict)
