"""Standardising a weight or a sample before its sign: what IR-Net, RBNN, SiMaN and AdaBin share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["standardise", "wide"]

_EPS = 1e-5


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is in float64: a variance of half-precision values has three digits."""
    return x if x.dtype == torch.float64 else x.float()


def standardise(x: Tensor, *, centre: bool = True) -> Tensor:
    """``(x - mean) / sqrt(var + 1e-5)`` over all axes but the first, (n, ...) -> (n, ...), at least float32.

    var: unbiased, about the mean, 0 of one element; (c,) is one sample. centre: False leaves the mean in x, and
    so the sign of x as it was. The gradient flows through mean and variance. The 1e-5 (ReCU's) keeps a dead
    filter finite; the published codes of IR-Net and RBNN have none and give NaN there.
    """
    if x.dim() == 1:
        return standardise(x[None], centre=centre)[0]
    x = wide(x)
    axes = tuple(range(1, x.dim()))
    correction = 1 if math.prod(x.shape[1:]) > 1 else 0
    centred = x - x.mean(axes, keepdim=True) if centre else x
    return centred * torch.rsqrt(x.var(axes, correction=correction, keepdim=True) + _EPS)
