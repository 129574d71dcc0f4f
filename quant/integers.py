"""Quantisers, which round a tensor to integers of a few bits times one scale.

Networks for FPGAs use them in their residual additions and in their first and last layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IntegerQuantizer", "WeightQuantizer", "integer_quantize", "integer_range"]


def integer_range(bits: int, *, narrow: bool = False) -> tuple[int, int]:
    """Returns the lowest and the highest signed integer of `bits` bits; with `narrow` the range is symmetric.

    Raises ValueError unless bits is in [2, 16] (one bit is a sign, not an integer).

    >>> integer_range(4), integer_range(4, narrow=True)
    ((-8, 7), (-7, 7))
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must be in [2, 16], got {bits}")
    high = 2 ** (bits - 1) - 1
    return (-high if narrow else -high - 1), high


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: Tensor, low: int, high: int, damping: float) -> Tensor:
        return (x / scale).clamp(low, high).round() * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int, float], output: Tensor) -> None:
        x, scale, ctx.low, ctx.high, ctx.damping = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, scale = ctx.saved_tensors
        level = x / scale
        inside = (level >= ctx.low) & (level <= ctx.high)
        by_scale = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, level.round() - level, level.clamp(ctx.low, ctx.high))
            by_scale = (grad * slope).sum() * ctx.damping
        return grad * inside.to(grad.dtype), by_scale, None, None, None


def integer_quantize(
    x: Tensor, scale: Tensor, *, bits: int, narrow: bool = False, scale_damping: float = 1.0
) -> Tensor:
    """Rounds x to multiples of a scale, ``scale * round(clamp(x / scale, low, high))``, with x's shape and dtype.

    scale: (), > 0; low and high: those of `integer_range`; ties are rounded to even. Values beyond the range saturate,
    so no hardtanh is needed.
    Backward, as in LSQ (Esser et al. 2020, eq. 2-3), with v = x / scale: the gradient with respect to x is 1 for v in
    [low, high] and 0 outside. With respect to scale it is ``round(v) - v`` inside, and low or high outside, times
    `scale_damping`. It computes in float32 (in float64 for float64), under autocast too. Raises ValueError where bits
    is outside [2, 16].

    >>> integer_quantize(torch.tensor([-2.0, 0.3, 0.8]), torch.tensor(0.5), bits=2).tolist()
    [-1.0, 0.5, 0.5]
    """
    low, high = integer_range(bits, narrow=narrow)
    wide = x if x.dtype == torch.float64 else x.float()
    result: Tensor = _Quantize.apply(wide, scale.to(wide.dtype), low, high, scale_damping)
    return result.to(x.dtype)


class IntegerQuantizer(nn.Module):
    """Quantises activations by `integer_quantize` with one learned scale, ``initial * exp(log_gain)`` > 0.

    bound: the magnitude at which it saturates before training, so ``initial = bound / 2^(bits - 1)``. The only
    parameter is `log_gain` (), initially 0, to which weight decay pulls it back. Pass another quantiser's `log_gain` to
    share its scale, or use `tied`. The scale's gradient is divided by sqrt(values per sample * highest integer), as in
    LSQ (Esser et al. 2020). Training and evaluation give the same values.
    Raises ValueError where bits is outside [2, 16] or bound <= 0.

    >>> IntegerQuantizer(2)(torch.tensor([[-2.0, 0.3, 0.8]])).tolist()
    [[-1.0, 0.5, 0.5]]
    """

    def __init__(self, bits: int, *, bound: float = 1.0, log_gain: nn.Parameter | None = None) -> None:
        super().__init__()
        self.low, self.high = integer_range(bits)
        if not bound > 0:
            raise ValueError(f"bound must be > 0, got {bound}")
        self.bits, self.bound, self.narrow = bits, bound, False
        self.log_gain = nn.Parameter(torch.zeros(())) if log_gain is None else log_gain

    def tied(self) -> IntegerQuantizer:
        """Returns another quantiser that shares this one's learned scale, for another operand of the same addition."""
        return IntegerQuantizer(self.bits, bound=self.bound, log_gain=self.log_gain)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, bound={self.bound}"

    def scale(self) -> Tensor:
        """Returns the distance between two neighbouring output values: () > 0, float32."""
        return self.log_gain.exp() * (self.bound / 2 ** (self.bits - 1))

    def forward(self, x: Tensor) -> Tensor:
        damping = (max(1, x[0].numel()) * self.high) ** -0.5
        return integer_quantize(x, self.scale(), bits=self.bits, scale_damping=damping)


class WeightQuantizer(nn.Module):
    """Quantises a weight by `integer_quantize` so that the largest |w| becomes the highest integer; it has no state.

    ``scale = max |w| / (2^(bits - 1) - 1)`` is one number for the whole tensor. The backward pass treats it as a
    constant and passes the gradient on unchanged. Raises ValueError where bits is outside [2, 16].

    >>> WeightQuantizer(2)(torch.tensor([-2.0, 0.5, 1.5])).tolist()
    [-2.0, 0.0, 2.0]
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.low, self.high = integer_range(bits, narrow=True)
        self.bits, self.narrow = bits, True

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

    def scale(self, weight: Tensor) -> Tensor:
        """Returns the distance between two neighbouring output values for this weight: () > 0, float32."""
        # The clamp avoids a division by 0, so that a weight of zeros stays zero.
        return weight.detach().abs().amax().float().clamp(min=1e-30) / self.high

    def forward(self, weight: Tensor) -> Tensor:
        return integer_quantize(weight, self.scale(weight), bits=self.bits, narrow=True)
