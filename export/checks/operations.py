"""The name of the operation in front of a layer, for error messages."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.export.tracing.network_copy import copy_for_export

__all__ = ["SATURATING", "operation_in_front"]

# Activations whose values for inputs far below 0 are negative and so near to 0 that they are rounded to -0.0:
# autograd's name -> torch's.
SATURATING = {"Silu": "SiLU", "Gelu": "GELU", "Mish": "Mish", "Hardswish": "Hardswish"}
_SCALING = ("Mul", "Div")
_PASSING = (
    *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Squeeze", "Unsqueeze", "Expand", "Alias"),
    *("Clone", "ToCopy", "Slice", "Select", "Cat", "MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "Mean"),
    *("ConstantPadNd", "UpsampleNearest2D", "UpsampleBilinear2D"),
)


def _name(function: Any) -> str:
    return re.sub(r"Backward\d*$", "", str(function.name()).rpartition("::")[2])


def _before(function: Any) -> list[Any]:
    return [found for found, _ in function.next_functions if found is not None]


def _found_behind(function: Any, through: tuple[str, ...], wanted: set[str] | None) -> str:
    """Returns the name of the nearest operation before `function`, skipping those in `through`; empty if none is found.

    wanted: the names that count; None for any.
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
    """Returns the name of the operation that computes a layer's input; poolings and reshapes in between are skipped.

    A saturating activation (`SATURATING`) is found behind a product too. The name is empty where it cannot be found:
    the layer is not called, or its input is computed without autograd.

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
