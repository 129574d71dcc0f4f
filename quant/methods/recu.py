"""The binarisers of ReCU, which clamps large latent weights, whose signs would hardly change otherwise.

Xu et al., ReCU: Reviving the Dead Weights in Binary Neural Networks, ICCV 2021.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.constants import EPS, RECU_SPREAD
from bnn_itrd.quant.methods._standardise import wide
from bnn_itrd.quant.surrogates import SURROGATES, sign

__all__ = ["ReCUActivation", "ReCUWeight", "recu_activation", "recu_tau", "recu_weight"]


def _variance(x: Tensor) -> Tensor:
    """Returns the unbiased variance over all axes but the first, with these axes kept as 1; it is 0 for one element."""
    axes, size = _sample(x)
    return x.var(axes, correction=1 if size > 1 else 0, keepdim=True)


def _sample(x: Tensor) -> tuple[tuple[int, ...], int]:
    """Returns the axes of x but the first, and the number of elements of one sample, x[0]; (c,) is a single sample."""
    if x.dim() == 1:
        return (0,), len(x)
    return tuple(range(1, x.dim())), math.prod(x.shape[1:])


def recu_tau(progress: Tensor, *, tau_min: float = 0.85, tau_max: float = 0.99) -> Tensor:
    """Returns ReCU's tau at progress p in [0, 1] of the training: it rises from tau_min to tau_max; () -> ().

    ``tau(p) = A * exp(p) + B`` with A = (tau_max - tau_min) / (e - 1) and B = tau_min - A (eq. 16).

    >>> round(float(recu_tau(torch.tensor(0.0))), 4), round(float(recu_tau(torch.tensor(1.0))), 4)
    (0.85, 0.99)
    """
    a = (tau_max - tau_min) / (math.e - 1)
    return a * torch.exp(progress) + (tau_min - a)


def _check_tau(tau_min: float, tau_max: float) -> None:
    """Raises ValueError unless 0.5 < tau_min <= tau_max < 1; below 0.5 the bound of ReCU's clamp would be negative."""
    if not 0.5 < tau_min < 1:
        raise ValueError(f"tau_min must be in (0.5, 1), got {tau_min}")
    if not tau_min <= tau_max < 1:
        raise ValueError(f"tau_max must be in [tau_min, 1) = [{tau_min}, 1), got {tau_max}")


def recu_weight(weight: Tensor, *, tau: Tensor | float) -> Tensor:
    """Returns the signs ``sign(w - mean_o)`` of a latent weight with ReCU's gradient; (o, ...) -> (o, ...) in {-1, +1}.

    tau in (0.5, 1): the quantile at which large weights are clamped. Eq. 11-14.
    Forward, per output channel o: ``w^ = (w - mean_o) * 2 sqrt(2) / sqrt(var_o + 1e-5)`` (unbiased variance),
    ``Q = -b * ln(2 - 2 tau)`` with ``b = mean |w^|`` over the layer, ``sign(clamp(w^, -Q, Q))``.
    Backward: the sign passes the gradient unchanged, and the clamp sets it to 0 outside [-Q, Q]; then it flows through
    mean and variance, but not through Q. The factor 2 sqrt(2) is the published code's (the paper standardises to unit
    variance).

    >>> recu_weight(torch.tensor([[1.0, 3.0]]), tau=0.9).tolist()
    [[-1.0, 1.0]]
    """
    axes = tuple(range(1, weight.dim()))
    centred = weight - weight.mean(axes, keepdim=True)
    w = centred * (RECU_SPREAD * torch.rsqrt(_variance(centred) + EPS))
    spread = w.detach().abs().mean()
    bound = -spread * torch.log(2 - 2 * torch.as_tensor(tau, dtype=w.dtype, device=w.device))
    return sign(torch.clamp(w, -bound, bound), surrogate="identity")


class _SignOverSpread(torch.autograd.Function):
    """Returns (signs, variance per sample) of x; backward is that of `recu_activation`.

    For backward it keeps x in its own dtype, and the variances. The variance is an output because second derivatives
    flow through it.
    """

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return sign(x), _variance(wide(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_variance: Tensor | None) -> Tensor | None:
        narrow, variance = ctx.saved_tensors
        x = wide(narrow)
        root = torch.rsqrt(variance + EPS)
        through_division: Tensor | float = 0.0
        if grad is not None:
            slope = SURROGATES["polynomial"](grad.to(x.dtype), x * root)
            through_division = slope * root
            of_root = (slope * x).sum_to_size(root.shape)
            division = -0.5 * of_root * root.pow(3)
            of_variance = division if of_variance is None else of_variance + division
        if of_variance is None:  # neither output has a gradient
            return None
        axes, size = _sample(x)
        through_variance = (2.0 / max(size - 1, 1)) * of_variance * (x - x.mean(axes, keepdim=True))
        return (through_variance + through_division).to(narrow.dtype)


def recu_activation(x: Tensor) -> Tensor:
    """Returns sign(x) with ReCU's gradient, which depends on the variance of a sample; (n, ...) -> same, in {-1, +1}.

    It is ``sign(x / sqrt(var + 1e-5))``, as in ReCU's published code. var is unbiased, per sample over all other axes;
    (c,) is one sample. No mean is subtracted, so the signs are those of x, and are computed from x. The variance is
    computed in float32 under autocast too, because in bfloat16 it would have only three digits.
    Backward: ``max(2 - 2|a|, 0)`` at ``a = x / sqrt(var + 1e-5)``, then through division and variance. It keeps x and
    var in memory.

    >>> recu_activation(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """
    signs: Tensor = _SignOverSpread.apply(x)[0]
    return signs


class ReCUWeight(WeightBinarizer):
    """Binarises weights by `recu_weight`, with a learned scale per output channel, initially drawn from U(0, 1).

    fused: whether training uses the kernels of `quant.kernels.recu` (see `set_fused`); it is not part of the state.
    tau rises from tau_min to tau_max over the training (`recu_tau`). Raises ValueError unless 0.5 < tau_min <= tau_max
    < 1.

    Signs: sign(w - mean)
    Scale: learned
    Gradient: identity inside the ReCU bound, which tau widens

    >>> ReCUWeight(1)(torch.tensor([[1.0, 3.0]])).signs.tolist()
    [[-1.0, 1.0]]
    """

    fused = False

    def __init__(self, out_channels: int, *, tau_min: float = 0.85, tau_max: float = 0.99) -> None:
        super().__init__(out_channels)
        _check_tau(tau_min, tau_max)
        self.tau_min, self.tau_max = tau_min, tau_max
        self.alpha = torch.nn.Parameter(torch.rand(out_channels))

    def forward(self, weight: Tensor) -> BinaryWeight:
        tau = recu_tau(self.progress, tau_min=self.tau_min, tau_max=self.tau_max)
        if self.fused and self.training:
            from bnn_itrd.quant.kernels.recu import fused_recu_weight

            return BinaryWeight(fused_recu_weight(weight, tau=tau), self.alpha)
        return BinaryWeight(recu_weight(weight, tau=tau), self.alpha)


class ReCUActivation(ActivationBinarizer):
    """Binarises activations by `recu_activation` in training, and by sign(x), which gives the same, in evaluation.

    fused: whether training uses the kernels of `quant.kernels.recu` (see `set_fused`); it is not part of the state.

    Sign of: x
    Gradient: max(2 - 2|a|, 0) at a = x / std of the sample

    >>> ReCUActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    fused = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return sign(x)
        if self.fused:
            from bnn_itrd.quant.kernels.recu import fused_recu_activation

            return fused_recu_activation(x)
        return recu_activation(x)
