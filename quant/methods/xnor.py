"""The binarisers of XNOR-Net's weights, and of activations with the clipped straight-through estimator."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["ClippedActivation", "XNORWeight"]


class XNORWeight(WeightBinarizer):
    """Binarises weights: signs = sign(w), with the scale mean |w_o| per output channel (Rastegari et al. 2016, eq. 4).

    Backward: the sign's gradient is 1 where |w| <= 1 and 0 elsewhere, and the scale has the derivative of the mean.
    (The paper's own scaled gradient, eq. 12, is not a derivative and is not used.) The paper's K, a scale for each
    output position from the mean |x| of its window, is left out, because it depends on more than the input's signs.

    Signs: sign(w)
    Scale: mean of |w|, with its derivative
    Gradient: clipped

    >>> import torch
    >>> XNORWeight(1)(torch.tensor([[-0.5, 1.5]]))
    BinaryWeight(signs=tensor([[-1.,  1.]]), scale=tensor([1.]), offset=None)
    """

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = weight.abs().mean(tuple(range(1, weight.dim())))
        return BinaryWeight(sign(weight, surrogate="clipped"), scale)


class ClippedActivation(ActivationBinarizer):
    """Binarises activations: sign(x), with the gradient 1 where |x| <= 1 and 0 elsewhere; (n, c, ...) -> (n, c, ...).

    Courbariaux et al. 2016, eq. 4. The next two lines are its row in a table of the documentation.

    Sign of: x
    Gradient: 1 on |x| <= 1

    >>> import torch
    >>> ClippedActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="clipped")
