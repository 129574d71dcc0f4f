"""The one sign function of the project and its surrogate gradients."""

from __future__ import annotations

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


SURROGATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _identity,
    "clipped": _clipped,
    "polynomial": _polynomial,
}


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, surrogate: str) -> Tensor:
        one = torch.ones((), dtype=x.dtype, device=x.device)
        return torch.where(x >= 0, one, -one)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
        x, ctx.surrogate = inputs
        # The identity needs nothing from the forward pass: keep no activation alive for it.
        ctx.save_for_backward(*(() if ctx.surrogate == "identity" else (x,)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x = ctx.saved_tensors[0] if ctx.saved_tensors else grad
        return SURROGATES[ctx.surrogate](grad, x), None


def sign(x: Tensor, *, surrogate: str = "identity") -> Tensor:
    """+1 where x >= 0 (so at 0 and -0 too), -1 elsewhere (NaN too); any shape and float dtype, kept.

    Backward, with g the incoming gradient:

    - ``identity``: g (straight-through; Bengio et al. 2013)
    - ``clipped``: g * 1[|x| <= 1] (Courbariaux et al. 2016, eq. 4)
    - ``polynomial``: g * max(2 - 2|x|, 0) (Bi-Real Net, Liu et al. 2018, eq. 7)

    Raises ValueError on an unknown surrogate. ``torch.sign`` and ONNX ``Sign`` are 0 at 0: never used here.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {surrogate!r}")
    result: Tensor = _Sign.apply(x, surrogate)
    return result
