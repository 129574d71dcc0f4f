"""ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions (Liu et al., ECCV 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import ActivationBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["RPReLU", "RSignActivation"]


class RSignActivation(ActivationBinarizer):
    """RSign: ``sign(x + b_c)``, b_c learned per channel, 0 at first; gradient ``max(2 - 2|x + b_c|, 0)``.

    The paper writes x - alpha_c; the published code, as here, adds.

    Sign of: x + b, learned per channel
    Gradient: max(2 - 2|x + b|, 0)
    """

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__(channels, axis=axis)
        self.bias = nn.Parameter(torch.zeros(channels))

    def presign(self, x: Tensor) -> Tensor:
        return x + self.per_channel(self.bias, x)

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x), surrogate="polynomial").to(x.dtype)


class RPReLU(nn.Module):
    """``PReLU_c(x + g_c) + z_c``, (n, c, ...) -> (n, c, ...): a PReLU whose kink is moved per channel.

    Learned per channel: g and z, 0 at first, and the slope below the kink, 0.25 at first. (The paper's shift is
    -g.) Raises ValueError where channels < 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be >= 1, got {channels}")
        self.channels = channels
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.before = nn.Parameter(torch.zeros(channels))
        self.after = nn.Parameter(torch.zeros(channels))

    def extra_repr(self) -> str:
        return str(self.channels)

    def forward(self, x: Tensor) -> Tensor:
        slope, before, after = (v.reshape(-1, *([1] * (x.dim() - 2))) for v in (self.slope, self.before, self.after))
        moved = x + before
        # max(x, 0) + slope * min(x, 0): operations that every deployed form has.
        y = F.relu(moved) + slope * moved.clamp(max=0) + after
        return y.to(x.dtype)  # under autocast the parameters are wider than x
