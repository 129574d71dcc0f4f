"""The binarisers of BiPer, whose weights are sin(omega w) in the first of two training stages, then the sign of it.

Vargas et al., BiPer: Binary Neural Networks using a Periodic Function, CVPR 2024.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer
from bnn_itrd.quant.methods.recu import recu_tau
from bnn_itrd.quant.penalties import Penalised
from bnn_itrd.quant.surrogates import sign

__all__ = ["BiPerSineWeight", "BiPerWeight", "biper_penalty"]


def _check_biper(omega: float, tau_min: float, tau_max: float) -> None:
    """Raises ValueError unless omega > 0 and 0 <= tau_min <= tau_max."""
    if not 0 < omega < math.inf:
        raise ValueError(f"omega must be > 0, got {omega}")
    if not 0 <= tau_min < math.inf:
        raise ValueError(f"tau_min must be >= 0, got {tau_min}")
    if not tau_min <= tau_max < math.inf:
        raise ValueError(f"tau_max must be >= tau_min = {tau_min}, got {tau_max}")


def biper_penalty(weight: Tensor, *, omega: float, tau: Tensor) -> Tensor:
    """Returns BiPer's loss term ``tau * mean(0.5 - 0.5 cos(2 omega w))``, (o, ...) -> (); it is 0 if sin(omega w) is 0.

    >>> float(biper_penalty(torch.zeros(2, 3), omega=20.0, tau=torch.tensor(1.0)))
    0.0
    """
    return tau * (0.5 - 0.5 * torch.cos(2 * omega * weight)).mean()


class BiPerWeight(Penalised, WeightBinarizer):
    """Binarises weights to sign(sin(omega w)), with a learned scale per output channel, initially drawn from U(0, 1).

    It is for the second of BiPer's two training stages; `BiPerSineWeight` is for the first.
    Backward: the sign passes the gradient unchanged, so w gets the factor ``omega cos(omega w)``. In training `penalty`
    returns `biper_penalty`, whose tau goes from tau_min to tau_max by `recu_tau`, as in the published code; with 0 and
    0 it is 0. The defaults are the authors' values for ResNet-18 on CIFAR-10 (0.037 in stage 1, 0.0468 in stage 2); for
    ImageNet they used 0. The signs are periodic in w, so scaling w changes them.
    Raises ValueError unless omega > 0 and 0 <= tau_min <= tau_max.

    Signs: sign(sin(omega w))
    Scale: learned
    Gradient: omega cos(omega w)

    >>> BiPerWeight(1, omega=1.0)(torch.tensor([[1.0, 4.0]])).signs.tolist()
    [[1.0, -1.0]]
    """

    def __init__(
        self, out_channels: int, *, omega: float = 20.0, tau_min: float = 0.0468, tau_max: float = 0.0468
    ) -> None:
        super().__init__(out_channels)
        _check_biper(omega, tau_min, tau_max)
        self.omega, self.tau_min, self.tau_max = omega, tau_min, tau_max
        self.alpha = nn.Parameter(torch.rand(out_channels))

    def wave(self, weight: Tensor) -> Tensor:
        """Returns sin(omega w), and in training computes the loss term that `penalty` returns."""
        self._penalty = None
        if self.training:
            tau = recu_tau(self.progress, tau_min=self.tau_min, tau_max=self.tau_max)
            self._penalty = biper_penalty(weight, omega=self.omega, tau=tau)
        return torch.sin(self.omega * weight)

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(self.wave(weight)), self.alpha)


class BiPerSineWeight(BiPerWeight):
    """Replaces weights by sin(omega w), without a sign, in the first of BiPer's two training stages.

    It has the parameters and the loss term of `BiPerWeight`, which is for the second stage and can load its state.

    Signs: sin(omega w), no signs
    Scale: learned
    Gradient: exact

    >>> BiPerSineWeight(1, omega=1.0)(torch.zeros(1, 2)).signs.tolist()
    [[0.0, 0.0]]
    """

    not_deployable = (
        "BiPerSineWeight is for the first stage of BiPer, where the weights sin(omega w) are not 1-bit; the nearest "
        "deployable form is weight='biper' with this network's state (load_stage)"
    )

    def __init__(
        self, out_channels: int, *, omega: float = 20.0, tau_min: float = 0.037, tau_max: float = 0.037
    ) -> None:
        super().__init__(out_channels, omega=omega, tau_min=tau_min, tau_max=tau_max)

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(self.wave(weight), self.alpha)
