"""Sets the training progress, on which gradients of binarisers depend, and updates binarisers between epochs."""

from __future__ import annotations

import torch
from torch import nn

from bnn_itrd.quant.binarizer import Annealed

__all__ = ["set_progress", "start_epoch"]


@torch.no_grad()
def set_progress(model: nn.Module, p: float) -> None:
    """Tells every binariser in the model which share p of the training is done, without synchronising with the GPU.

    Training calls it before each step. Some binarisers change their gradient with p, others ignore it. Raises
    ValueError where p is outside [0, 1].

    >>> from bnn_itrd.quant import BinaryConv2d
    >>> layer = BinaryConv2d(1, 1, 1)
    >>> set_progress(layer, 0.5)
    >>> float(layer.weight_binarizer.progress)
    0.5
    """
    if not 0 <= p <= 1:
        raise ValueError(f"progress must be in [0, 1], got {p}")
    buffers = [m.progress for m in model.modules() if isinstance(m, Annealed)]
    if buffers:
        torch._foreach_zero_(buffers)
        torch._foreach_add_(buffers, float(p))


@torch.no_grad()
def start_epoch(model: nn.Module) -> None:
    """Calls ``start_epoch()`` on every module of the model that has this method. Call it before an epoch's first step.

    Such methods update buffers that are computed from the weights (RBNN's rotations). The buffers are part of the state
    dict, so a run that resumes inside an epoch does not call it again. Call it outside a compiled training step.

    >>> from bnn_itrd.quant import BinaryLinear
    >>> layer = BinaryLinear(4, 2, scheme="rbnn")
    >>> start_epoch(layer)
    >>> torch.equal(layer.weight_binarizer.rotation1, torch.eye(2))
    False
    """
    for module in model.modules():
        if callable(getattr(type(module), "start_epoch", None)):
            module.start_epoch()  # type: ignore[operator]
