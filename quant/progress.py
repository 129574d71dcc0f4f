"""Training progress: the one number everything that anneals reads."""

from __future__ import annotations

import torch
from torch import nn

from bnn_itrd.quant.binarizer import _Annealed

__all__ = ["set_progress"]


@torch.no_grad()
def set_progress(model: nn.Module, p: float) -> None:
    """Sets the progress of every binariser in the model to p in [0, 1], without a host sync.

    Raises ValueError outside.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"progress must be in [0, 1], got {p}")
    buffers = [m.progress for m in model.modules() if isinstance(m, _Annealed)]
    if buffers:
        torch._foreach_zero_(buffers)
        torch._foreach_add_(buffers, float(p))
