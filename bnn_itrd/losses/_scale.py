"""Scaling of rows that stays finite where they are zero, tiny or huge."""

import math

from torch import Tensor

__all__ = ["DEAD", "by_peak", "unit"]

# A slice whose largest magnitude is up to this has no direction: its gradient, 1 / size, would be noise.
DEAD = 1e-8


def by_peak(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """x / max |x| along dim, of the shape of x; 0, with a zero gradient, where max |x| <= 1e-8.

    Only for what is invariant to the scale of the slice: the divisor counts as a constant in the backward pass.
    """
    peak = x.detach().abs().amax(dim, keepdim=True)
    return x / peak.masked_fill(peak <= DEAD, math.inf)


def unit(x: Tensor) -> Tensor:
    """Rows of norm 1 along the last axis, (..., d) -> (..., d); 0, with a zero gradient, where max |x| <= 1e-8."""
    x = by_peak(x)
    # At least 1 in a live row, whose largest entry is 1 by now; 0 in a dead one.
    square = x.square().sum(dim=-1, keepdim=True)
    return x * square.masked_fill(square == 0, math.inf).rsqrt()
