"""A weight binariser for the tests of binary layers."""

from __future__ import annotations

import torch
from torch import Tensor

from bnn_itrd.quant import BinaryWeight, WeightBinarizer, sign


class SignsScaleOffset(WeightBinarizer):
    """A weight binariser with signs, an offset, and fixed scales, some of which are negative and one 0."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = torch.linspace(-1, 1, 2 * self.out_channels + 1, dtype=weight.dtype)[::2][: self.out_channels]
        return BinaryWeight(sign(weight), scale, torch.linspace(0.5, 2, self.out_channels, dtype=weight.dtype))
