"""`operation_in_front` finds the name of the operation that computes a layer's input, for error messages."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.export.tracing.network_copy import copy_for_export

__all__ = ["SATURATING", "operation_in_front"]

# Activations that are negative and nearly 0 for inputs far below 0, so that they are rounded to -0.0. The key is the
# name in autograd, the entry the name of torch's module.
SATURATING = {"Silu": "SiLU", "Gelu": "GELU", "Mish": "Mish", "Hardswish": "Hardswish"}
# Autograd's names of multiplications, and of operations that move or pool values without computing new ones.
_SCALING = ("Mul", "Div")
_PASSING = (
    *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Squeeze", "Unsqueeze", "Expand", "Alias"),
    *("Clone", "ToCopy", "Slice", "Select", "Cat", "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "Mean"),
    *("ConstantPadNd", "UpsampleNearest2D", "UpsampleBilinear2D"),
)


def _name(function: Any) -> str:
    """Returns the name of an autograd function without its ending, such as ``Relu`` for ``ReluBackward0``."""
    return re.sub(r"Backward\d*$", "", str(function.name()).rpartition("::")[2])


def _before(function: Any) -> list[Any]:
    """Returns the autograd functions that compute the inputs of this one."""
    return [found for found, _ in function.next_functions if found is not None]


def _found_behind(function: Any, through: tuple[str, ...], wanted: set[str] | None) -> str:
    """Returns the name of the operation that computes a result, looking through operations that only move values.

    function: the result's autograd function; through: names of the operations to look through; wanted: names that may
    be returned, None for any. Returns "" if none is found.
    """
    todo, seen = [function], set()
    while todo:
        step = todo.pop()
        name = _name(step)
        if name in through:
            todo += [found for found in _before(step) if found not in seen]
            seen.add(step)
        elif name != "AccumulateGrad" and (wanted is None or name in wanted):
            return name
    return ""


def operation_in_front(model: nn.Module, path: str, images: Tensor) -> str:
    """Returns the name of the operation that computes a layer's input; poolings and reshapes between are skipped.

    path: the layer's path in the network; images: a batch for the network. Multiplications are skipped too if one of
    the activations in `SATURATING` is in front of them. Returns "" if the network does not call the layer, or its
    input has no autograd history.

    >>> network = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Flatten(), nn.Linear(4, 2))
    >>> operation_in_front(network, "3", torch.zeros(1, 4))
    'SiLU'
    """
    network = copy_for_export(model)
    read: list[Tensor] = []
    network.get_submodule(path).register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.enable_grad():
        try:
            network(images.clone().requires_grad_().clone())
        except RuntimeError:  # an operation that has no gradient
            return ""
    function = read[0].grad_fn if read else None
    if function is None:
        return ""
    saturating = _found_behind(function, (*_PASSING, *_SCALING), {*SATURATING})
    name = saturating or _found_behind(function, _PASSING, None)
    return SATURATING.get(name, name)
