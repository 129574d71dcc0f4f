"""Standardising a weight or a sample before its sign: what IR-Net, RBNN, SiMaN and AdaBin share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["WEIGHT_EPS", "standardise", "wide"]

_EPS = 1e-5
# Of weights, where 1e-5 is no small number: a filter of 512 channels begins with a variance of 7e-5 and decays.
WEIGHT_EPS = 1e-10


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is in float64: a variance of half-precision values has three digits."""
    return x if x.dtype == torch.float64 else x.float()


def standardise(x: Tensor, *, centre: bool = True, eps: float = _EPS) -> Tensor:
    """``(x - mean) / sqrt(var + eps)`` over all axes but the first, (n, ...) -> (n, ...), at least float32.

    var: unbiased, about the mean, 0 of one element; (c,) is one sample. centre: False leaves the mean in x, and
    so the sign of x as it was. The gradient flows through mean and variance. eps, of activations 1e-5 (ReCU's),
    of weights `WEIGHT_EPS`, keeps what is constant finite; the published codes of IR-Net and RBNN have none and
    give NaN there.
    """
    if x.dim() == 1:
        return standardise(x[None], centre=centre, eps=eps)[0]
    x = wide(x)
    axes = tuple(range(1, x.dim()))
    correction = 1 if math.prod(x.shape[1:]) > 1 else 0
    centred = x - x.mean(axes, keepdim=True) if centre else x
    return centred * torch.rsqrt(x.var(axes, correction=correction, keepdim=True) + eps)
