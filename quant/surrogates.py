"""The sign function that all binarisers use, and its surrogate gradients."""

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


# ReSTE's published constants: up to the first |x| the gradient is constant, and beyond the second it is 0.
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
    # The arguments are spelled out instead of *parameters, since torch.compile concludes from their number whether
    # forward takes a context.
    @staticmethod
    def forward(x: Tensor, surrogate: str, first: Tensor | None, second: Tensor | None) -> Tensor:
        one = torch.ones((), dtype=x.dtype, device=x.device)
        return torch.where(x >= 0, one, -one)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.surrogate, *parameters = inputs
        # The identity needs no tensor of the forward pass, so no activation is kept in memory for it.
        kept = () if ctx.surrogate == "identity" else (x, *(p for p in parameters if p is not None))
        ctx.save_for_backward(*kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors or (grad,)
        return SURROGATES[ctx.surrogate](grad, x, *parameters), None, None, None


def sign(x: Tensor, *, surrogate: str = "identity", parameters: tuple[Tensor, ...] = ()) -> Tensor:
    """Returns +1 where x >= 0 (also at -0) and -1 elsewhere (also for NaN), with x's shape and float dtype.

    Backward, where g is the incoming gradient and `parameters` are tensors () that get no gradient:

    - ``identity``: g (straight-through; Bengio et al. 2013)
    - ``clipped``: g * 1[|x| <= 1] (Courbariaux et al. 2016, eq. 4)
    - ``polynomial``: g * max(2 - 2|x|, 0) (Bi-Real Net, Liu et al. 2018, eq. 7)
    - ``ede``, (k, t): g * k t (1 - tanh^2(t x)) (IR-Net, Qin et al. 2020)
    - ``triangle``, (k, t): g * k max(sqrt(2) t - t^2 |x|, 0) (RBNN, Lin et al. 2020)
    - ``reste``, (o): g * |x|^(1/o - 1) / o up to |x| = 1.5, 0 beyond, 0.1^(1/o - 1) up to |x| = 0.1 (ReSTE,
      Wu et al. 2023)

    Raises ValueError on an unknown surrogate or a wrong number of parameters. ``torch.sign`` and ONNX ``Sign`` return 0
    at 0, so they are not used here.

    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> y = sign(x, surrogate="clipped")
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([-1.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {surrogate!r}")
    count = _PARAMETERS.get(surrogate, 0)
    if len(parameters) != count:
        raise ValueError(f"parameters of {surrogate!r} must be {count} tensors, got {len(parameters)}")
    first, second, *_ = (*parameters, None, None)
    result: Tensor = _Sign.apply(x, surrogate, first, second)
    return result
