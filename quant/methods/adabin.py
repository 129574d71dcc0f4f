"""The binarisers of AdaBin, whose two values are not -1 and +1 but fitted to weights and learned for activations.

Tu et al., AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets, ECCV 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight
from bnn_itrd.quant.methods._per_channel import PerChannel
from bnn_itrd.quant.methods._standardise import WEIGHT_EPS, wide
from bnn_itrd.quant.methods.irnet import EDEWeight
from bnn_itrd.quant.surrogates import sign

__all__ = ["AdaBinActivation", "AdaBinWeight", "Maxout", "adabin_weight"]

_LEAST = 1e-3


def adabin_weight(weight: Tensor, *, k: Tensor, t: Tensor) -> BinaryWeight:
    """Binarises each filter w_o to its two values beta_o + alpha_o and beta_o - alpha_o; weight: (o, ...).

    Returns the signs of w - beta_o (o, ...), the scale alpha_o (o,) and the offset beta_o (o,). beta_o is the mean of
    w_o, and alpha_o = ||w_o - beta_o|| / sqrt(n), its standard deviation, for n entries in a filter.
    Backward: ``k t (1 - tanh^2(t u))`` at ``u = (w - beta) / sqrt(alpha^2 + 1e-10)`` through the sign, with the k and t
    of `ede_parameters`; then through beta and alpha, which also get the gradients of scale and offset. (The published
    code has no 1e-10.)

    >>> binary = adabin_weight(torch.tensor([[1.0, 3.0]]), k=torch.tensor(1.0), t=torch.tensor(1.0))
    >>> binary.signs.tolist(), binary.scale.tolist(), binary.offset.tolist()
    ([[-1.0, 1.0]], [1.0], [2.0])
    """
    w = wide(weight)
    axes = tuple(range(1, w.dim()))
    offset = w.mean(axes, keepdim=True)
    centred = w - offset
    square = (centred * centred).mean(axes)
    u = centred * torch.rsqrt(square + WEIGHT_EPS).reshape(offset.shape)
    # The square root has no derivative at 0: the scale of a constant filter is 0 and gets no gradient.
    dead = square == 0
    scale = torch.where(dead, 0, torch.where(dead, 1, square).sqrt())
    signs = sign(u, surrogate="ede", parameters=(k, t))
    return BinaryWeight(signs.to(weight.dtype), scale.to(weight.dtype), offset.flatten().to(weight.dtype))


class AdaBinWeight(EDEWeight):
    """Binarises weights by `adabin_weight`; k and t, which shape its gradient, change over the training.

    An exported file computes the offset by a second, small convolution that sums the window.

    Signs: sign(w - mean), and the mean as an offset
    Scale: standard deviation
    Gradient: k t (1 - tanh²(t u)) at u = (w - mean) / std

    >>> AdaBinWeight(1)(torch.tensor([[1.0, 3.0]])).signs.tolist()
    [[-1.0, 1.0]]
    """

    def forward(self, weight: Tensor) -> BinaryWeight:
        k, t = self.ede()
        return adabin_weight(weight, k=k, t=t)


class AdaBinActivation(ActivationBinarizer):
    """Binarises activations to the two values b + a and b - a, ``a sign((x - b) / a) + b``; a and b are learned.

    Each layer has one a, initially 1, and one b, initially 0. forward returns the sign, and `levels` returns (a, b),
    which the layer folds into its scale, offset and bias. a is max(|d|, 1e-3) of the parameter `distance`, d, because
    -a and a give the same two values, and a = 0 only one.
    Backward: ``max(2 - 2|u|, 0)`` at ``u = (x - b) / a``, then to x, a and b, which also get the gradients of `levels`.

    Deviations: with padding_value 0 the border holds b, the mean of the two values (the published code pads with the
    number 0). Then b adds the same constant to a channel at every position, which an exported file computes exactly.
    The published code has ``a (sign + b)``; this is the paper's formula. The paper's nonlinearity is `Maxout`.

    Sign of: (x - b) / a, learned; the layer reads a sign + b
    Gradient: max(2 - 2|u|, 0) at u = (x - b) / a

    >>> AdaBinActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__(channels, axis=axis)
        self.distance = nn.Parameter(torch.ones(()))
        self.centre = nn.Parameter(torch.zeros(()))

    def levels(self) -> tuple[Tensor, Tensor]:
        return self.distance.abs().clamp(min=_LEAST), self.centre

    def presign(self, x: Tensor) -> Tensor:
        a, b = self.levels()
        return (x - b) / a

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x), surrogate="polynomial").to(x.dtype)


class Maxout(PerChannel):
    """A nonlinearity with two learned slopes per channel: ``p_c max(x, 0) + q_c min(x, 0)``, (n, c, ...) -> same shape.

    p is initially 1 and q 0.25, as in the published code. AdaBin, sec. 3.3. Raises ValueError where channels < 1.

    >>> Maxout(1)(torch.tensor([[-2.0], [3.0]])).flatten().tolist()
    [-0.5, 3.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.above = nn.Parameter(torch.ones(channels))
        self.below = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        above, below = (self.per_channel(v, x) for v in (self.above, self.below))
        # It is written with operations that every exported format has.
        y = above * F.relu(x) + below * x.clamp(max=0)
        return y.to(x.dtype)  # under autocast the parameters are wider than x
