"""The binarisers of IR-Net, whose surrogate gradient is wide when training begins and narrow when it ends.

Qin et al., Forward and Backward Information Retention for Accurate Binary Neural Networks, CVPR 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.methods._standardise import WEIGHT_EPS, standardise
from bnn_itrd.quant.surrogates import sign

__all__ = ["EDEWeight", "IRNetActivation", "IRNetWeight", "check_t", "ede_parameters", "irnet_weight"]


def check_t(t_min: float, t_max: float) -> None:
    """Raises ValueError unless 0 < t_min <= t_max."""
    if not 0 < t_min < math.inf:
        raise ValueError(f"t_min must be > 0, got {t_min}")
    if not t_min <= t_max < math.inf:
        raise ValueError(f"t_max must be >= t_min = {t_min}, got {t_max}")


def ede_parameters(progress: Tensor, *, t_min: float = 1e-2, t_max: float = 10.0) -> tuple[Tensor, Tensor]:
    """Returns (k, t), each (), which shape IR-Net's surrogate gradient at progress p in [0, 1] of the training.

    ``t = t_min (t_max / t_min)^p``, ``k = max(1/t, 1)``. The gradient of sign(x) is replaced by
    ``k t (1 - tanh^2(t x))``, which is wide at first and narrow at the end ("error decay estimator", EDE).

    >>> [round(float(v), 3) for v in ede_parameters(torch.tensor(1.0))]
    [1.0, 10.0]
    """
    t = t_min * torch.exp(progress * math.log(t_max / t_min))
    return (1 / t).clamp(min=1), t


def irnet_weight(weight: Tensor, *, k: Tensor, t: Tensor) -> BinaryWeight:
    """Standardises each filter w_o to w^_o and binarises it, with a power of two as its scale; weight: (o, ...).

    The signs are sign(w^) and the scale is 2^round(log2 mean|w^_o|). Returns signs (o, ...) and scale (o,).
    ``w^ = (w - mean_o) / sqrt(var_o + 1e-10)``, with the unbiased variance (the published code has no 1e-10). A
    constant filter has the scale 0.
    Backward: ``k t (1 - tanh^2(t w^))`` through the sign, with k and t of `ede_parameters`; then through mean and
    variance. The scale is a constant.

    >>> irnet_weight(torch.tensor([[1.0, 3.0]]), k=torch.tensor(1.0), t=torch.tensor(1.0)).signs.tolist()
    [[-1.0, 1.0]]
    """
    w = standardise(weight, eps=WEIGHT_EPS)
    mean = w.detach().abs().mean(tuple(range(1, w.dim())))
    signs = sign(w, surrogate="ede", parameters=(k, t)).to(weight.dtype)
    return BinaryWeight(signs, torch.exp2(torch.round(torch.log2(mean))).to(weight.dtype))


class EDEWeight(WeightBinarizer):
    """The base class of weight binarisers with IR-Net's surrogate gradient; `ede` returns its k and t.

    k and t change over the training by `ede_parameters`.

    Raises ValueError unless 0 < t_min <= t_max.
    """

    def __init__(self, out_channels: int, *, t_min: float = 1e-2, t_max: float = 10.0) -> None:
        super().__init__(out_channels)
        check_t(t_min, t_max)
        self.t_min, self.t_max = t_min, t_max

    def ede(self) -> tuple[Tensor, Tensor]:
        return ede_parameters(self.progress, t_min=self.t_min, t_max=self.t_max)


class IRNetWeight(EDEWeight):
    """Binarises weights by `irnet_weight`; k and t, which shape its gradient, change over the training.

    Signs: sign(w^)
    Scale: 2^round(log2 mean |w^|), a constant
    Gradient: k t (1 - tanh²(t w^))

    >>> IRNetWeight(1)(torch.tensor([[1.0, 3.0]])).signs.tolist()
    [[-1.0, 1.0]]
    """

    def forward(self, weight: Tensor) -> BinaryWeight:
        k, t = self.ede()
        return irnet_weight(weight, k=k, t=t)


class IRNetActivation(ActivationBinarizer):
    """Returns sign(x), (n, c, ...) -> (n, c, ...), with the gradient ``k t (1 - tanh^2(t x))``.

    k and t change over the training by `ede_parameters`. Raises ValueError unless 0 < t_min <= t_max.

    Sign of: x
    Gradient: k t (1 - tanh²(t x))

    >>> IRNetActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, channels: int, *, axis: int = 1, t_min: float = 1e-2, t_max: float = 10.0) -> None:
        super().__init__(channels, axis=axis)
        check_t(t_min, t_max)
        self.t_min, self.t_max = t_min, t_max

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="ede", parameters=ede_parameters(self.progress, t_min=self.t_min, t_max=self.t_max))
