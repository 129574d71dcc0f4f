"""ReActNet's RSign and RPReLU: a sign with a learned threshold, and a PReLU with two learned shifts, for each channel.

Liu et al., ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions, ECCV 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import ActivationBinarizer
from bnn_itrd.quant.methods._per_channel import PerChannel
from bnn_itrd.quant.surrogates import sign

__all__ = ["RPReLU", "RSignActivation"]


class RSignActivation(ActivationBinarizer):
    """Returns RSign, ``sign(x + b_c)``, with b_c learned per channel, initially 0; (n, c, ...) -> (n, c, ...).

    Backward: ``max(2 - 2|x + b_c|, 0)``. The paper writes x - alpha_c; the published code adds, as is done here.

    Sign of: x + b, learned per channel
    Gradient: max(2 - 2|x + b|, 0)

    >>> RSignActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__(channels, axis=axis)
        self.bias = nn.Parameter(torch.zeros(channels))

    def presign(self, x: Tensor) -> Tensor:
        return x + self.per_channel(self.bias, x)

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x), surrogate="polynomial").to(x.dtype)


class RPReLU(PerChannel):
    """A PReLU with two learned shifts per channel: ``PReLU_c(x + g_c) + z_c``, (n, c, ...) -> (n, c, ...).

    g and z, initially 0, and the slope for negative values, initially 0.25, are learned per channel. (The paper's shift
    is -g.) Raises ValueError where channels < 1.

    >>> RPReLU(1)(torch.tensor([[-2.0], [3.0]])).flatten().tolist()
    [-0.5, 3.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.before = nn.Parameter(torch.zeros(channels))
        self.after = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        slope, before, after = (self.per_channel(v, x) for v in (self.slope, self.before, self.after))
        moved = x + before
        # max(x, 0) + slope * min(x, 0) consists of operations that every exported format has.
        y = F.relu(moved) + slope * moved.clamp(max=0) + after
        return y.to(x.dtype)  # under autocast the parameters are wider than x
