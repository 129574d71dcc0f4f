"""The binarisers of Bi-Real Net: `BiRealWeight` for weights, `PolynomialActivation` for activations (ECCV 2018)."""

from __future__ import annotations

from torch import Tensor

from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.surrogates import sign

__all__ = ["BiRealWeight", "PolynomialActivation"]


class BiRealWeight(WeightBinarizer):
    """Binarises weights as Bi-Real Net and ReActNet do: signs = sign(w), with the scale mean |w_o| per output channel.

    Backward: the sign's gradient is 1 where |w| <= 1 and 0 elsewhere, and the scale is a constant (in `XNORWeight` it
    is not). So the product of sign and scale has the gradient ``scale_o * 1[|w| <= 1]``. With ``scaled_gradient=False``
    the factor ``scale_o`` is left out, as in the published code of both papers. Under SGD, whose steps are proportional
    to the gradient, the papers' learning rates need that form; under Adam they do not. A filter of zeros has no
    gradient in either form.

    Signs: sign(w)
    Scale: mean of |w|, a constant
    Gradient: clipped; divided by the scale where `scaled_gradient` is false

    >>> import torch
    >>> BiRealWeight(1)(torch.tensor([[-0.5, 1.5]]))
    BinaryWeight(signs=tensor([[-1.,  1.]]), scale=tensor([1.]), offset=None)
    """

    def __init__(self, out_channels: int, *, scaled_gradient: bool = True) -> None:
        super().__init__(out_channels)
        self.scaled_gradient = scaled_gradient

    def extra_repr(self) -> str:
        return "" if self.scaled_gradient else "scaled_gradient=False"

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = weight.detach().abs().mean(tuple(range(1, weight.dim())))
        signs = sign(weight, surrogate="clipped")
        if not self.scaled_gradient:
            fixed = signs.detach()
            divisor = scale.masked_fill(scale == 0, 1).reshape(-1, *[1] * (weight.dim() - 1))
            # The difference is 0: the values stay the signs, and only the gradient is divided.
            signs = fixed + (signs - fixed) / divisor
        return BinaryWeight(signs, scale)


class PolynomialActivation(ActivationBinarizer):
    """Returns sign(x), (n, c, ...) -> (n, c, ...), with the gradient max(2 - 2|x|, 0); Liu et al. 2018, eq. 7.

    Sign of: x
    Gradient: max(2 - 2|x|, 0)

    >>> import torch
    >>> PolynomialActivation(2)(torch.tensor([[-0.5, 0.25]])).tolist()
    [[-1.0, 1.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, surrogate="polynomial")
