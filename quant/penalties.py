"""Penalties: what a binariser asks the loss to add."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Penalised", "penalty"]


class Penalised(nn.Module):
    """A module that notes a penalty () in its training forward, attached to that forward's graph.

    averaged: whether the network's penalty has the mean of these modules' instead of their sum.

    Any module with a method ``penalty() -> Tensor | None`` takes part in `penalty`; this one keeps the tensor
    for those that know it only while they run. It is not part of the state: a copy or a file has none.
    """

    averaged = False
    _penalty: Tensor | None = None

    def penalty(self) -> Tensor | None:
        """Of the last forward, None where that was in evaluation mode or there was none."""
        return self._penalty

    def __getstate__(self) -> dict[str, Any]:
        # A tensor inside a graph can neither be copied nor pickled.
        return {**self.__dict__, "_penalty": None}


def penalty(model: nn.Module) -> Tensor | None:
    """The sum () of what ``penalty()`` of the model's modules returns, in float32 or wider; None without any.

    Of modules whose class says ``averaged`` (RAD) it has the mean. To be added to the loss after each training forward.
    A module that runs twice in one forward counts with its last run. No host sync; works inside and outside a compiled
    step.
    """
    parts: list[Tensor] = []
    averaged: list[Tensor] = []
    for module in model.modules():
        # Looked up in the class: a child or a number may be called penalty too.
        if callable(getattr(type(module), "penalty", None)):
            part = module.penalty()  # type: ignore[operator]
            if part is not None:
                part = part if part.dtype == torch.float64 else part.float()
                (averaged if getattr(type(module), "averaged", False) else parts).append(part)
    if averaged:
        parts.append(torch.stack(averaged).mean())
    return torch.stack(parts).sum() if parts else None
