"""Penalties, which are terms that binarisers add to the training loss, and their sum over a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Penalised", "penalty"]


class Penalised(nn.Module):
    """A module that adds a term to the training loss: its forward computes a scalar, which `penalty` returns.

    The scalar is kept with its autograd graph until the next forward; it is not part of copies and saved files. Use
    this class where the term can be computed only during the forward. Any other module with a method
    ``penalty() -> Tensor | None`` is counted by the function `penalty` too.

    averaged: whether the function `penalty` takes the mean over the modules of such a class instead of their sum.
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
    """Returns the sum () of the loss terms that the model's modules computed, in float32 or wider; None without any.

    Of modules whose class sets ``averaged`` (RAD), the mean is added instead of each one. Add the result to the loss
    after each training forward. A module that runs twice in one forward counts with its last run. The function does not
    synchronise with the GPU, and works inside and outside a compiled step.

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
