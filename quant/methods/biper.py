"""BiPer: Binary Neural Networks using a Periodic Function (Vargas et al., CVPR 2024), in two stages."""

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
    """``tau * mean(0.5 - 0.5 cos(2 omega w))``, (o, ...) -> ()."""
    return tau * (0.5 - 0.5 * torch.cos(2 * omega * weight)).mean()


class BiPerWeight(Penalised, WeightBinarizer):
    """Stage 2: signs = sign(sin(omega w)), scale_o learned, U(0, 1) at first.

    Backward: straight-through on the sign, so ``omega cos(omega w)``. In training `penalty` is `biper_penalty`, its
    tau annealed as ReCU's from tau_min to tau_max (`recu_tau`, as in the published code); 0 and 0 switch it off. Both
    are by default what the authors ran CIFAR-10 with (ResNet-18: 0.037 in stage 1, 0.0468 in stage 2; on ImageNet
    0). The signs are periodic in w, so scaling w changes them.
    Raises ValueError unless omega > 0 and 0 <= tau_min <= tau_max.

    Signs: sign(sin(omega w))
    Scale: learned
    Gradient: omega cos(omega w)
    """

    def __init__(
        self, out_channels: int, *, omega: float = 20.0, tau_min: float = 0.0468, tau_max: float = 0.0468
    ) -> None:
        super().__init__(out_channels)
        _check_biper(omega, tau_min, tau_max)
        self.omega, self.tau_min, self.tau_max = omega, tau_min, tau_max
        self.alpha = nn.Parameter(torch.rand(out_channels))

    def wave(self, weight: Tensor) -> Tensor:
        """sin(omega w); notes the penalty in training."""
        self._penalty = None
        if self.training:
            tau = recu_tau(self.progress, tau_min=self.tau_min, tau_max=self.tau_max)
            self._penalty = biper_penalty(weight, omega=self.omega, tau=tau)
        return torch.sin(self.omega * weight)

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(self.wave(weight)), self.alpha)


class BiPerSineWeight(BiPerWeight):
    """Stage 1: sin(omega w) in the place of its sign, the same parameters and penalty.

    Signs: sin(omega w), no signs
    Scale: learned
    Gradient: exact
    """

    not_deployable = (
        "BiPerSineWeight is the first stage of BiPer, whose weights sin(omega w) are not 1-bit; the nearest "
        "deployable form is weight='biper' with this network's state (load_stage)"
    )

    def __init__(
        self, out_channels: int, *, omega: float = 20.0, tau_min: float = 0.037, tau_max: float = 0.037
    ) -> None:
        super().__init__(out_channels, omega=omega, tau_min=tau_min, tau_max=tau_max)

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(self.wave(weight), self.alpha)
