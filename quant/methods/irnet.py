"""IR-Net: Forward and Backward Information Retention for Accurate Binary Neural Networks (Qin et al., CVPR 2020)."""

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
    """Returns (k, t), each (), of IR-Net's error decay estimator (EDE) at progress p.

    ``t = t_min (t_max / t_min)^p``, ``k = max(1/t, 1)``.

    >>> [round(float(v), 3) for v in ede_parameters(torch.tensor(1.0))]
    [1.0, 10.0]
    """
    t = t_min * torch.exp(progress * math.log(t_max / t_min))
    return (1 / t).clamp(min=1), t


def irnet_weight(weight: Tensor, *, k: Tensor, t: Tensor) -> BinaryWeight:
    """Returns signs = sign(w^) and scale_o = 2^round(log2 mean|w^_o|); (o, ...) -> (o, ...), (o,).

    ``w^ = (w - mean_o) / sqrt(var_o + 1e-10)`` (unbiased variance; the published code has no 1e-10). A constant filter
    has the scale 0.
    Backward: ``k t (1 - tanh^2(t w^))`` through the sign, then through mean and variance; the scale is a constant.

    >>> irnet_weight(torch.tensor([[1.0, 3.0]]), k=torch.tensor(1.0), t=torch.tensor(1.0)).signs.tolist()
    [[-1.0, 1.0]]
    """
    w = standardise(weight, eps=WEIGHT_EPS)
    mean = w.detach().abs().mean(tuple(range(1, w.dim())))
    signs = sign(w, surrogate="ede", parameters=(k, t)).to(weight.dtype)
    return BinaryWeight(signs, torch.exp2(torch.round(torch.log2(mean))).to(weight.dtype))


class EDEWeight(WeightBinarizer):
    """Base class of weights whose surrogate is EDE; `ede` returns its k and t, annealed by `ede_parameters`.

    Raises ValueError unless 0 < t_min <= t_max.
    """

    def __init__(self, out_channels: int, *, t_min: float = 1e-2, t_max: float = 10.0) -> None:
        super().__init__(out_channels)
        check_t(t_min, t_max)
        self.t_min, self.t_max = t_min, t_max

    def ede(self) -> tuple[Tensor, Tensor]:
        return ede_parameters(self.progress, t_min=self.t_min, t_max=self.t_max)


class IRNetWeight(EDEWeight):
    """Binarises weights by `irnet_weight` with annealed k and t.

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
    """Returns sign(x), (n, c, ...) -> (n, c, ...), with the gradient ``k t (1 - tanh^2(t x))`` of `ede_parameters`.

    Raises ValueError unless 0 < t_min <= t_max.

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
