"""Standardises tensors to mean 0 and variance 1, for the binarisers of IR-Net, RBNN, SiMaN and AdaBin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnn_itrd.quant.constants import EPS

__all__ = ["WEIGHT_EPS", "standardise", "wide"]

# For weights 1e-5 would be too large: the initial variance of a filter of 512 channels is 7e-5, and it decays.
WEIGHT_EPS = 1e-10


def wide(x: Tensor) -> Tensor:
    """Returns x in float32, or unchanged if it is float64, because a half-precision variance has only three digits."""
    return x if x.dtype == torch.float64 else x.float()


def standardise(x: Tensor, *, centre: bool = True, eps: float = EPS) -> Tensor:
    """Returns ``(x - mean) / sqrt(var + eps)`` over all axes but the first, (n, ...) -> (n, ...), in float32 or wider.

    The variance is unbiased, and 0 for one element. A tensor (c,) counts as one sample. centre: if it is False, the
    mean is not subtracted, so the signs of x do not change. The gradient flows through mean and variance. eps keeps the
    result finite for constant input: `EPS` for activations (as in ReCU), `WEIGHT_EPS` for weights. The published codes
    of IR-Net and RBNN have no eps and give NaN there.
    """
    if x.dim() == 1:
        return standardise(x[None], centre=centre, eps=eps)[0]
    x = wide(x)
    axes = tuple(range(1, x.dim()))
    correction = 1 if math.prod(x.shape[1:]) > 1 else 0
    centred = x - x.mean(axes, keepdim=True) if centre else x
    return centred * torch.rsqrt(x.var(axes, correction=correction, keepdim=True) + eps)
