"""Signed integers with one scale: what an FPGA carries where a sign is too little (residuals, first and last layer)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IntegerQuantizer", "WeightQuantizer", "integer_quantize", "integer_range"]


def integer_range(bits: int, *, narrow: bool = False) -> tuple[int, int]:
    """(lowest, highest) signed integer of `bits` bits: (-8, 7) for 4; narrow: symmetric, (-7, 7).

    Raises ValueError unless bits is in [2, 16] (one bit is a sign, not an integer).
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
    """``scale * round(clamp(x / scale, low, high))``, ties to even; any shape; scale () > 0; x's dtype is kept.

    Backward, LSQ (Esser et al. 2020, eq. 2-3), with v = x / scale: the gradient of ``clamp(x, low scale, high scale)``
    by x (1 inside, 0 outside), and by scale ``round(v) - v`` inside, low or high outside, times `scale_damping`.
    Saturates in place of hardtanh. Computed in float32 (float64 for float64) under autocast too.
    Raises ValueError on bits outside [2, 16].
    """
    low, high = integer_range(bits, narrow=narrow)
    wide = x if x.dtype == torch.float64 else x.float()
    result: Tensor = _Quantize.apply(wide, scale.to(wide.dtype), low, high, scale_damping)
    return result.to(x.dtype)


class IntegerQuantizer(nn.Module):
    """`integer_quantize` of activations with one learned scale: ``initial * exp(log_gain)``, so always > 0.

    bound: the magnitude it saturates at before training, ``initial = bound / 2^(bits - 1)``; weight decay pulls back
    to it. The scale's gradient is divided by sqrt(values per sample * highest integer), as LSQ has it. The state is
    one parameter, `log_gain` (); `tied` quantisers share it. The same values in training and evaluation.
    Raises ValueError on bits outside [2, 16] or bound <= 0.
    """

    def __init__(self, bits: int, *, bound: float = 1.0, log_gain: nn.Parameter | None = None) -> None:
        super().__init__()
        self.low, self.high = integer_range(bits)
        if not bound > 0:
            raise ValueError(f"bound must be > 0, got {bound}")
        self.bits, self.bound, self.narrow = bits, bound, False
        self.log_gain = nn.Parameter(torch.zeros(())) if log_gain is None else log_gain

    def tied(self) -> IntegerQuantizer:
        """Another quantiser with the same scale, now and after any training: one for each operand of an addition."""
        return IntegerQuantizer(self.bits, bound=self.bound, log_gain=self.log_gain)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, bound={self.bound}"

    def scale(self) -> Tensor:
        """The size of one step, () > 0, float32."""
        return self.log_gain.exp() * (self.bound / 2 ** (self.bits - 1))

    def forward(self, x: Tensor) -> Tensor:
        damping = (max(1, x[0].numel()) * self.high) ** -0.5
        return integer_quantize(x, self.scale(), bits=self.bits, scale_damping=damping)


class WeightQuantizer(nn.Module):
    """`integer_quantize` of a weight to symmetric integers whose largest is the largest weight: no state.

    ``scale = max |w| / (2^(bits - 1) - 1)``, one for the whole tensor, taken as a constant in the backward pass: so
    the gradient is the identity. Raises ValueError on bits outside [2, 16].
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.low, self.high = integer_range(bits, narrow=True)
        self.bits, self.narrow = bits, True

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

    def scale(self, weight: Tensor) -> Tensor:
        """The size of one step for this weight, () > 0."""
        # Off zero, so that a weight of zeros stays one.
        return weight.detach().abs().amax().float().clamp(min=1e-30) / self.high

    def forward(self, weight: Tensor) -> Tensor:
        return integer_quantize(weight, self.scale(weight), bits=self.bits, narrow=True)
