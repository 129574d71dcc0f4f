"""Training progress: the one number everything that anneals reads, and what happens between epochs."""

from __future__ import annotations

import torch
from torch import nn

from bnn_itrd.quant.binarizer import Annealed

__all__ = ["set_progress", "start_epoch"]


@torch.no_grad()
def set_progress(model: nn.Module, p: float) -> None:
    """Sets the progress of every binariser in the model to p in [0, 1], without a host sync.

    Raises ValueError outside.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"progress must be in [0, 1], got {p}")
    buffers = [m.progress for m in model.modules() if isinstance(m, Annealed)]
    if buffers:
        torch._foreach_zero_(buffers)
        torch._foreach_add_(buffers, float(p))


@torch.no_grad()
def start_epoch(model: nn.Module) -> None:
    """Calls ``start_epoch()`` of every module of the model that has it, before an epoch's first step.

    Buffers made from the weights (RBNN's rotations) are renewed there; they are part of the state dict, so a run
    that resumes inside an epoch does not call it again. Not compiled.
    """
    for module in model.modules():
        if callable(getattr(type(module), "start_epoch", None)):
            module.start_epoch()  # type: ignore[operator]
