"""Traces a network into one graph that is valid in training and in evaluation."""

from __future__ import annotations

import inspect
from itertools import zip_longest
from typing import Any

from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree

from bnn_itrd.quant.layers import BinaryLayer

__all__ = ["SCALARS", "Inlined", "owner_path", "trace"]

SCALARS = (bool, int, float, str, type(None))


class Inlined(nn.Module):
    """Takes the place of a module whose forward has become part of the graph: it gets that output and returns it.

    The children stay in it under their names, and forward hooks on `layer1` and the like still see its output.
    """

    def __init__(self, inlined: nn.Module) -> None:
        super().__init__()
        self._modules, self._parameters = inlined._modules, inlined._parameters
        self._buffers = inlined._buffers
        self._non_persistent_buffers_set = inlined._non_persistent_buffers_set
        self.training = inlined.training

    def forward(self, x: Any) -> Any:
        return x


class _ByMode(nn.Module):
    """Returns one of two constants, in training and in evaluation, such as the argument `training` of F.dropout."""

    def __init__(self, in_training: Any, in_evaluation: Any) -> None:
        super().__init__()
        self.in_training, self.in_evaluation = in_training, in_evaluation

    def forward(self) -> Any:
        return self.in_training if self.training else self.in_evaluation


class _Tracer(fx.Tracer):
    """A torch.fx tracer that does not look into torch's layers and binary layers, and marks where other modules end.

    The mark is a call of the module itself with its own output, which `trace` then replaces by `Inlined`.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, (BinaryLayer, Inlined, _ByMode))
        return ours or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if isinstance(result, fx.Proxy) and not self.is_leaf_module(m, path):
            return self.create_proxy("call_module", path, (result,), {})
        return result


def owner_path(node: fx.Node) -> str:
    """Returns the path of the module whose forward created the node; empty for the network itself."""
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack.values()))[0] if stack else ""


def _trace_in(model: nn.Module, *, training: bool) -> fx.Graph:
    """Returns the graph of the network in training or evaluation mode; every module's mode is restored.

    Arguments of forward whose default is a number, a string or None are fixed at it and removed.
    """
    parameters = inspect.signature(model.forward).parameters
    fixed = {name: p.default for name, p in parameters.items() if isinstance(p.default, SCALARS)}
    modes = {m: m.training for m in model.modules()}
    for m in modes:
        m.training = training
    try:
        graph = _Tracer().trace(model, concrete_args=fixed or None)
    finally:
        for m, mode in modes.items():
            m.training = mode
    # torch.fx keeps renamed placeholders for fixed arguments, with assertions that break every later trace.
    useless = [n for n in graph.nodes if n.op == "placeholder" and n.target not in {*parameters}]
    useless = [n for n in useless if str(n.target).rpartition("_")[0] in fixed]
    for node in useless:
        useless += [user for user in node.users if user not in useless]
    for node in reversed(useless):
        graph.erase_node(node)
    return graph


def trace(model: nn.Module, copied: nn.Module) -> fx.Graph:
    """Returns the torch.fx graph of model, which is valid in training and in evaluation.

    Constants that differ between the modes become `_ByMode` modules in model. copied: a copy of model, which is traced
    in evaluation mode. Raises TraceError where the two graphs differ in more than constants.
    """
    graph, evaluation = _trace_in(model, training=True), _trace_in(copied, training=False)
    for a, b in zip_longest(list(graph.nodes), list(evaluation.nodes)):
        if a is None or b is None or (a.op, a.target, a.name) != (b.op, b.target, b.name):
            raise TraceError("its forward takes other steps in training than in evaluation")
        ours, spec = pytree.tree_flatten((a.args, a.kwargs))
        theirs, other = pytree.tree_flatten((b.args, b.kwargs))
        differing = [i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if str(x) != str(y)]
        values = [v[i] for i in differing for v in (ours, theirs)]
        if spec != other or any(isinstance(v, (fx.Node, slice)) for v in values):
            raise TraceError(f"its forward calls {a.name} with other arguments in training than in evaluation")
        for i in differing:
            owner, name = model.get_submodule(owner_path(a)), f"by_mode_{a.name}_{i}"
            owner.add_module(name, _ByMode(ours[i], theirs[i]).train(owner.training))
            with graph.inserting_before(a):
                ours[i] = graph.call_module(f"{owner_path(a)}.{name}".lstrip("."))
        a.args, a.kwargs = pytree.tree_unflatten(ours, spec)
    for node in graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            if not _Tracer().is_leaf_module(module, node.target):
                model.set_submodule(node.target, Inlined(module))
    return graph
