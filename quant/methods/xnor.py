"""XNOR-Net's weights and the clipped straight-through activations: the simplest binarisers."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["ClippedActivation", "XNORWeight"]


class XNORWeight(WeightBinarizer):
    """signs = sign(w), scale_o = mean |w_o|. XNOR-Net (Rastegari et al. 2016), eq. 4.

    Backward: clipped straight-through on the signs, and the derivative of the mean on the scale (the paper's
    own scaled gradient, eq. 12, is not the derivative of anything and is not used). The paper's K, a scale for each
    place of the input from the mean size of its window, is left out: it depends on the input and is no sign's.

    Signs: sign(w)
    Scale: mean of |w|, with its derivative
    Gradient: clipped
    """

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = weight.abs().mean(tuple(range(1, weight.dim())))
        return BinaryWeight(sign(weight, surrogate="clipped"), scale)


class ClippedActivation(ActivationBinarizer):
    """sign(x), gradient on |x| <= 1 (Courbariaux et al. 2016, eq. 4).

    Sign of: x
    Gradient: 1 on |x| <= 1
    """

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="clipped")
