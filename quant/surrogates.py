"""The one sign function of the project and its surrogate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["SURROGATES", "sign"]


def _identity(grad: Tensor, x: Tensor) -> Tensor:
    return grad


def _clipped(grad: Tensor, x: Tensor) -> Tensor:
    return grad * (x.abs() <= 1).to(grad.dtype)


def _polynomial(grad: Tensor, x: Tensor) -> Tensor:
    return grad * (2 - 2 * x.abs()).clamp(min=0)


def _ede(grad: Tensor, x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    return grad * (k * t * (1 - torch.tanh(t * x) ** 2)).to(grad.dtype)


def _triangle(grad: Tensor, x: Tensor, k: Tensor, t: Tensor) -> Tensor:
    return grad * (k * (math.sqrt(2) * t - t * t * x.abs()).clamp(min=0)).to(grad.dtype)


def _reste(grad: Tensor, x: Tensor, o: Tensor) -> Tensor:
    size = x.abs()
    steep = size.clamp(min=RESTE_NEAR) ** (1 / o - 1)
    slope = torch.where(size <= RESTE_NEAR, RESTE_NEAR ** (1 / o - 1), steep / o)
    return grad * torch.where(size <= RESTE_BOUND, slope, 0).to(grad.dtype)


# ReSTE's published constants: below the first the slope is that of the chord, beyond the second it is 0.
RESTE_NEAR, RESTE_BOUND = 0.1, 1.5

SURROGATES: dict[str, Callable[..., Tensor]] = {
    "identity": _identity,
    "clipped": _clipped,
    "polynomial": _polynomial,
    "ede": _ede,
    "triangle": _triangle,
    "reste": _reste,
}
_PARAMETERS = {"ede": 2, "triangle": 2, "reste": 1}


class _Sign(torch.autograd.Function):
    # As many arguments as it is ever given, and no *parameters: torch.compile tells by their number whether forward
    # takes a context.
    @staticmethod
    def forward(x: Tensor, surrogate: str, first: Tensor | None, second: Tensor | None) -> Tensor:
        one = torch.ones((), dtype=x.dtype, device=x.device)
        return torch.where(x >= 0, one, -one)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.surrogate, *parameters = inputs
        # The identity needs nothing from the forward pass: keep no activation alive for it.
        kept = () if ctx.surrogate == "identity" else (x, *(p for p in parameters if p is not None))
        ctx.save_for_backward(*kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors or (grad,)
        return SURROGATES[ctx.surrogate](grad, x, *parameters), None, None, None


def sign(x: Tensor, *, surrogate: str = "identity", parameters: tuple[Tensor, ...] = ()) -> Tensor:
    """+1 where x >= 0 (so at 0 and -0 too), -1 elsewhere (NaN too); any shape and float dtype, kept.

    Backward, with g the incoming gradient, and `parameters` () tensors, none of which gets a gradient:

    - ``identity``: g (straight-through; Bengio et al. 2013)
    - ``clipped``: g * 1[|x| <= 1] (Courbariaux et al. 2016, eq. 4)
    - ``polynomial``: g * max(2 - 2|x|, 0) (Bi-Real Net, Liu et al. 2018, eq. 7)
    - ``ede``, (k, t): g * k t (1 - tanh^2(t x)) (IR-Net, Qin et al. 2020)
    - ``triangle``, (k, t): g * k max(sqrt(2) t - t^2 |x|, 0) (RBNN, Lin et al. 2020)
    - ``reste``, (o): g * |x|^(1/o - 1) / o up to |x| = 1.5, 0 beyond, 0.1^(1/o - 1) up to |x| = 0.1 (ReSTE,
      Wu et al. 2023)

    Raises ValueError on an unknown surrogate or another number of parameters than it has. ``torch.sign`` and
    ONNX ``Sign`` are 0 at 0: never used here.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {surrogate!r}")
    count = _PARAMETERS.get(surrogate, 0)
    if len(parameters) != count:
        raise ValueError(f"parameters of {surrogate!r} must be {count} tensors, got {len(parameters)}")
    first, second, *_ = (*parameters, None, None)
    result: Tensor = _Sign.apply(x, surrogate, first, second)
    return result
