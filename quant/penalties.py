"""Penalties: terms that binarisers add to the training loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Penalised", "penalty"]


class Penalised(nn.Module):
    """A module that computes a penalty () in its training forward and keeps it, with its graph, until the next one.

    averaged: whether the network's penalty has the mean over these modules instead of their sum.

    Any module with a method ``penalty() -> Tensor | None`` takes part in `penalty`; this class is for modules that can
    compute their penalty only during the forward. The penalty is not part of the state: copies and files lack it.
    """

    averaged = False
    _penalty: Tensor | None = None

    def penalty(self) -> Tensor | None:
        """Returns the penalty of the last forward; None after a forward in evaluation mode, or before any forward."""
        return self._penalty

    def __getstate__(self) -> dict[str, Any]:
        # A tensor inside a graph can neither be copied nor pickled.
        return {**self.__dict__, "_penalty": None}


def penalty(model: nn.Module) -> Tensor | None:
    """Returns the sum () of the penalties of the model's modules, in float32 or wider; None where there are none.

    Modules whose class sets ``averaged`` (RAD) count with their mean. Add the result to the loss after each training
    forward. A module that runs twice in one forward counts with its last run. The function does not synchronise with
    the GPU, and works inside and outside a compiled step.

    >>> from bnn_itrd.quant import BinaryLinear, Scheme
    >>> layer = BinaryLinear(2, 2, scheme=Scheme(rad=2.0))
    >>> outputs = layer(torch.zeros(3, 2))
    >>> round(float(penalty(layer).detach()), 3)
    8.0
    """
    parts: list[Tensor] = []
    averaged: list[Tensor] = []
    for module in model.modules():
        # The lookup is in the class, since a child module or a number may also be called penalty.
        if callable(getattr(type(module), "penalty", None)):
            part = module.penalty()  # type: ignore[operator]
            if part is not None:
                part = part if part.dtype == torch.float64 else part.float()
                (averaged if getattr(type(module), "averaged", False) else parts).append(part)
    if averaged:
        parts.append(torch.stack(averaged).mean())
    return torch.stack(parts).sum() if parts else None
