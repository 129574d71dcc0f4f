"""Bi-Real Net's weights (Liu et al., ECCV 2018); its activations are `PolynomialActivation`."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["BiRealWeight", "PolynomialActivation"]


class BiRealWeight(WeightBinarizer):
    """signs = sign(w), scale_o = mean |w_o|, magnitude-aware gradient. ReActNet's weights too.

    Backward: clipped straight-through on the signs, so ``scale_o * 1[|w| <= 1]`` from the product; the scale is a
    constant (in `XNORWeight` it is not). Deviation of the published code: it leaves ``scale_o`` out of the
    gradient.

    Signs: sign(w)
    Scale: mean of |w|, a constant
    Gradient: clipped
    """

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = weight.detach().abs().mean(tuple(range(1, weight.dim())))
        return BinaryWeight(sign(weight, surrogate="clipped"), scale)


class PolynomialActivation(ActivationBinarizer):
    """sign(x), gradient max(2 - 2|x|, 0) (Bi-Real Net, Liu et al. 2018, eq. 7).

    Sign of: x
    Gradient: max(2 - 2|x|, 0)
    """

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="polynomial")
