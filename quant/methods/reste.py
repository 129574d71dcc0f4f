"""The binarisers of ReSTE, whose surrogate gradient comes from a power of |x| that nears the sign during training.

Wu et al., Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator, ICCV 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["ReSTEActivation", "ReSTEWeight", "reste_o"]


def _check_o(o_max: float) -> None:
    """Raises ValueError unless o_max >= 1."""
    if not 1 <= o_max < math.inf:
        raise ValueError(f"o_max must be >= 1, got {o_max}")


def reste_o(progress: Tensor, *, o_max: float = 3.0) -> Tensor:
    """Returns the exponent o of ReSTE's surrogate gradient at progress p in [0, 1] of the training; () -> ().

    ``o = 1 + (o_max - 1) (1 - cos(pi p / 2))``. With o = 1 the surrogate is the straight-through estimator; with larger
    o it is closer to the sign. This is the published code's schedule, which rises slowly at first.

    >>> float(reste_o(torch.tensor(0.0))), round(float(reste_o(torch.tensor(1.0))), 4)
    (1.0, 3.0)
    """
    return 1 + (o_max - 1) * (1 - torch.cos(progress * (math.pi / 2)))


class ReSTEWeight(WeightBinarizer):
    """Binarises weights: signs = sign(w), with the scale mean |w_o| per output channel.

    Backward: the sign's gradient is replaced by that of ``sign(w) |w|^(1/o)``, which is ``|w|^(1/o - 1) / o``; it is
    constant up to |w| = 0.1, and 0 beyond 1.5 (see `sign`). o rises over the training by `reste_o`. The scale has the
    derivative of the mean. Deviation: the published code has one scale for the whole layer; here, as in the paper, each
    output channel has its own.
    Raises ValueError unless o_max >= 1.

    Signs: sign(w)
    Scale: mean of |w|, with its derivative
    Gradient: |w|^(1/o - 1) / o, o from 1 to `o_max`

    >>> ReSTEWeight(1)(torch.tensor([[-0.5, 1.5]]))
    BinaryWeight(signs=tensor([[-1.,  1.]]), scale=tensor([1.]), offset=None)
    """

    def __init__(self, out_channels: int, *, o_max: float = 3.0) -> None:
        super().__init__(out_channels)
        _check_o(o_max)
        self.o_max = o_max

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = weight.abs().mean(tuple(range(1, weight.dim())))
        o = reste_o(self.progress, o_max=self.o_max)
        return BinaryWeight(sign(weight, surrogate="reste", parameters=(o,)), scale)


class ReSTEActivation(ActivationBinarizer):
    """Returns sign(x), (n, c, ...) -> (n, c, ...), with the gradient ``|x|^(1/o - 1) / o``, as for `ReSTEWeight`.

    Raises ValueError unless o_max >= 1.

    Sign of: x
    Gradient: |x|^(1/o - 1) / o, o from 1 to `o_max`

    >>> ReSTEActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, channels: int, *, axis: int = 1, o_max: float = 3.0) -> None:
        super().__init__(channels, axis=axis)
        _check_o(o_max)
        self.o_max = o_max

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="reste", parameters=(reste_o(self.progress, o_max=self.o_max),))
