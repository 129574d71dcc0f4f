"""The binarisers of RBNN, which rotates weights so that they are nearer to their signs.

Lin et al., Rotated Binary Neural Network, NeurIPS 2020.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import BinaryWeight, WeightBinarizer
from bnn_itrd.quant.methods._centred import StandardisedActivation
from bnn_itrd.quant.methods._standardise import WEIGHT_EPS, standardise, wide
from bnn_itrd.quant.methods.irnet import check_t, ede_parameters
from bnn_itrd.quant.surrogates import sign

__all__ = ["RBNNActivation", "RBNNWeight", "factors", "rbnn_rotations"]

_UPDATES = 3


def _full_precision(device: str) -> AbstractContextManager[Any]:
    """Returns a context without autocast, because a rotation in bfloat16 would have other signs than in evaluation."""
    # The meta device has no autocast; torch's own test for that could not be compiled in version 2.11.
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def factors(n: int) -> tuple[int, int]:
    """Returns (a, b) with a * b = n and a <= b, whose difference is the smallest possible.

    >>> factors(12)
    (3, 4)
    """
    a = next(a for a in range(math.isqrt(n), 0, -1) if n % a == 0)
    return a, n // a


def rbnn_rotations(w: Tensor, left: Tensor, right: Tensor, *, updates: int = _UPDATES) -> tuple[Tensor, Tensor]:
    """Returns rotations R1 (a, a) and R2 (b, b) that bring rotated weights nearer to their signs; w: (o, a, b).

    They increase ``sum_o tr(B_o^T R1^T W_o R2)``, where B are the signs, beginning with R1 = left and R2 = right. Each
    of the `updates` computes ``B = sign(R1^T W R2)``, then, with the SVD ``U S V^T``, R1 = V U^T of
    ``sum_o B_o R2^T W_o^T``, then R2 = U V^T of ``sum_o W_o^T R1 B_o``. No update decreases the sum.

    >>> [r.shape for r in rbnn_rotations(torch.ones(1, 2, 3), torch.eye(2), torch.eye(3))]
    [torch.Size([2, 2]), torch.Size([3, 3])]
    """
    for _ in range(updates):
        signs = sign(left.T @ w @ right)
        u, _, vh = torch.linalg.svd(einsum(signs, right, w, "o i k, l k, o j l -> i j"))
        left = (u @ vh).T
        u, _, vh = torch.linalg.svd(einsum(w, left, signs, "o i k, i j, o j l -> k l"))
        right = u @ vh
    return left, right


class RBNNWeight(WeightBinarizer):
    """Rotates each filter and takes its signs, sign(w'), with a learned scale per output channel, initially mean|w_o|.

    ``w' = w^ + |sin theta_o| (R1^T w^ R2 - w^)``, where w^ is the standardised weight, with each filter of n = a b
    entries as a matrix (a, b). theta_o is learned, initially pi/2, which makes w' the rotated weight. R1 and R2 are
    buffers, initially the identity; `update` computes them by `rbnn_rotations` once per epoch (`quant.start_epoch`).
    Backward: ``k max(sqrt(2) t - t^2 |w'|, 0)`` through the sign, with k and t of `ede_parameters`; then through theta,
    the rotation and the standardisation. R1 and R2 are constants.

    Deviations: the published code detaches the rotated weight. There the latent weight gets ``1 - |sin theta|`` of its
    gradient, which is 0 at the start, and theta's own gradient has the factor cos(pi/2) = 0, so only the rotations
    change. Here the gradient also flows through the rotation, as the paper's formula of w' says. The published code
    starts with random rotations, this one with the identity, which draws no random numbers.
    Raises ValueError unless 0 < t_min <= t_max, or where fan_in < 1.

    Signs: sign of w^ rotated by two matrices, renewed every epoch
    Scale: learned
    Gradient: k max(√2 t - t² |w'|, 0)

    >>> RBNNWeight(1, 2)(torch.tensor([[1.0, 3.0]])).signs.tolist()
    [[-1.0, 1.0]]
    """

    rotation1: Tensor
    rotation2: Tensor

    def __init__(self, out_channels: int, fan_in: int, *, t_min: float = 1e-2, t_max: float = 10.0) -> None:
        super().__init__(out_channels)
        check_t(t_min, t_max)
        if fan_in < 1:
            raise ValueError(f"fan_in must be >= 1, got {fan_in}")
        self.t_min, self.t_max = t_min, t_max
        self.sizes = factors(fan_in)
        self.alpha = nn.Parameter(torch.ones(out_channels))
        self.theta = nn.Parameter(torch.full((out_channels,), math.pi / 2))
        for name, size in zip(("rotation1", "rotation2"), self.sizes, strict=True):
            self.register_buffer(name, torch.eye(size))

    @torch.no_grad()
    def initialise(self, weight: Tensor) -> None:
        self.alpha.copy_(weight.abs().flatten(1).mean(1))

    def _matrices(self, weight: Tensor) -> Tensor:
        """Returns the standardised weight, each filter as a matrix; (o, ...) -> (o, a, b)."""
        a, b = self.sizes
        return rearrange(standardise(weight, eps=WEIGHT_EPS).flatten(1), "o (a b) -> o a b", a=a, b=b)

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """Computes the rotations for the current weight, in float32 or wider."""
        w = self._matrices(weight)
        found = rbnn_rotations(w, self.rotation1.to(w.dtype), self.rotation2.to(w.dtype))
        self.rotation1.copy_(found[0])
        self.rotation2.copy_(found[1])

    def forward(self, weight: Tensor) -> BinaryWeight:
        w = self._matrices(weight)
        with _full_precision(weight.device.type):
            rotated = self.rotation1.T.to(w.dtype) @ w @ self.rotation2.to(w.dtype)
        share = rearrange(wide(self.theta).sin().abs(), "o -> o 1 1")
        parameters = ede_parameters(self.progress, t_min=self.t_min, t_max=self.t_max)
        signs = sign(w + share * (rotated - w), surrogate="triangle", parameters=parameters)
        return BinaryWeight(signs.reshape(weight.shape).to(weight.dtype), self.alpha)


class RBNNActivation(StandardisedActivation):
    """Returns the signs of standardised activations a, with the gradient ``max(sqrt(2) t - t^2 |a|, 0)``.

    `StandardisedActivation` describes a and `centre`. t changes over the training: it is that of `ede_parameters`, but
    at least 1. The factor k is 1, as published. Raises ValueError unless 0 < t_min <= t_max.

    Sign of: x
    Gradient: max(√2 t - t² |a|, 0) at a = x / std of the sample, t at least 1

    >>> RBNNActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    surrogate = "triangle"

    def __init__(
        self, channels: int, *, axis: int = 1, centre: bool = False, t_min: float = 1e-2, t_max: float = 10.0
    ) -> None:
        super().__init__(channels, axis=axis, centre=centre)
        check_t(t_min, t_max)
        self.t_min, self.t_max = t_min, t_max

    def parameters_of_surrogate(self) -> tuple[Tensor, ...]:
        t = ede_parameters(self.progress, t_min=self.t_min, t_max=self.t_max)[1].clamp(min=1)
        return torch.ones_like(t), t
