"""The loss term of RAD, which keeps the activations of each channel well spread around 0 before their sign is taken.

Ding et al., Regularizing Activation Distribution for Training Binarized Deep Networks, CVPR 2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnn_itrd.quant.binarizer import Annealed
from bnn_itrd.quant.methods._standardise import wide
from bnn_itrd.quant.penalties import Penalised

__all__ = ["RAD", "rad_penalty"]


def _check_rad(weight: float, until: float) -> None:
    """Raises ValueError unless weight >= 0 and until is in [0, 1]."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"rad must be >= 0, got {weight}")
    if not 0 <= until <= 1:
        raise ValueError(f"rad_until must be in [0, 1], got {until}")


def rad_penalty(x: Tensor, *, axis: int = 1) -> Tensor:
    """Returns the loss by which RAD spreads each channel of x around 0; x is the tensor whose sign is taken.

    The loss is a scalar, the sum of three terms, each averaged over the channels. With the mean mu and the standard
    deviation sigma of a channel they are ``max(min(2 - mu - sigma, 2 + mu - sigma), 0)^2`` (saturation),
    ``max(sigma - 4, 0)^2`` (gradient mismatch) and ``max(mu^2 - sigma^2, 0)`` (degeneration). As published, sigma =
    sqrt(biased variance + 1e-10). axis: the axis of the channels.

    >>> round(float(rad_penalty(torch.tensor([[-2.0], [2.0]]))), 6)
    0.0
    """
    x = wide(x)
    over = tuple(i for i in range(x.dim()) if i != axis % x.dim())
    mu, square = x.mean(over), x.var(over, correction=0) + 1e-10
    sigma = square.sqrt()
    saturation = torch.minimum(2 - mu - sigma, 2 + mu - sigma).clamp(min=0).square().mean()
    mismatch = (sigma - 4).clamp(min=0).square().mean()
    return saturation + mismatch + (mu.square() - square).clamp(min=0).mean()


class RAD(Penalised, Annealed):
    """Computes ``weight * rad_penalty(x)`` in the forward of training; `penalty` then returns the result.

    From progress = `until` on, the result is 0. x is the tensor whose sign is taken (`ActivationBinarizer.presign`).
    The published weight is 2, for the mean over the layers, and the term is off in the last 5 of 65 epochs.
    Raises ValueError unless weight >= 0 and until is in [0, 1].

    >>> regularizer = RAD()
    >>> regularizer(torch.zeros(3, 2))
    >>> round(float(regularizer.penalty()), 3)
    8.0
    """

    averaged = True

    def __init__(self, *, axis: int = 1, weight: float = 2.0, until: float = 0.9) -> None:
        super().__init__()
        _check_rad(weight, until)
        self.axis, self.weight, self.until = axis, weight, until

    def extra_repr(self) -> str:
        return f"weight={self.weight}, until={self.until}"

    def forward(self, x: Tensor) -> None:
        self._penalty = None
        if self.training:
            self._penalty = self.weight * (self.progress < self.until) * rad_penalty(x, axis=self.axis)
