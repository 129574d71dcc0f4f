"""Scales rows to a largest value or norm of 1; the results stay finite for zero, very small and very large rows."""

import math

from torch import Tensor

__all__ = ["DEAD", "by_peak", "unit"]

# A row whose largest magnitude is at most this counts as zero, because its gradient, 1 / size, would be noise.
DEAD = 1e-8


def by_peak(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Returns x / max |x| along dim, with the shape of x; 0, with a zero gradient, where max |x| <= 1e-8.

    The divisor is a constant in the backward pass. So use it only where the final result does not depend on the scale
    of x along dim.
    """
    peak = x.detach().abs().amax(dim, keepdim=True)
    return x / peak.masked_fill(peak <= DEAD, math.inf)


def unit(x: Tensor) -> Tensor:
    """Divides rows by their L2 norm along the last axis, (..., d) -> (..., d); a row of values up to 1e-8 becomes 0.

    Such a row gets a zero gradient.

    >>> import torch
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    x = by_peak(x)
    # It is at least 1, since the largest entry is now 1, and 0 in a zero row.
    square = x.square().sum(dim=-1, keepdim=True)
    return x * square.masked_fill(square == 0, math.inf).rsqrt()
