"""Convolution and linear layers whose weights and inputs are integers; FPGA networks begin and end with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant.integers import IntegerQuantizer, WeightQuantizer

__all__ = ["IntegerConv2d", "IntegerLinear"]


class IntegerConv2d(nn.Conv2d):
    """A convolution that rounds its input and its weight to integers of `bits` bits; it pads with 0 and has no bias.

    (n, c, h, w) -> (n, o, h', w'). bound: the magnitude at which the input saturates before training; afterwards the
    learned scale of the input decides. Raises ValueError where bits is outside [2, 16].

    >>> IntegerConv2d(3, 8, 3, padding=1, bits=8)(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bits: int = 8,
        bound: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bits = bits
        self.input_quantizer = IntegerQuantizer(bits, bound=bound)
        self.weight_quantizer = WeightQuantizer(bits)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(self.input_quantizer(x), self.weight_quantizer(self.weight), None)


class IntegerLinear(nn.Linear):
    """A linear layer that rounds its input and its weight to integers of `bits` bits; (n, c) -> (n, o).

    The bias stays a float. bound: the magnitude at which the input saturates before training.
    normalise: puts a BatchNorm1d without learned parameters in front, and folds it into the weight. With
    ``r = 1 / sqrt(running_var + eps)``, the layer quantises ``W r``, the weight that is exported, and computes
    ``Q(W r) / r @ norm(Q(x)) + b``, where Q quantises. In evaluation this equals a linear layer with the weight and
    bias of `folded`; in training the norm uses batch statistics. The input is quantised before it is normalised,
    because an FPGA multiplies integers.
    Raises ValueError where bits is outside [2, 16].

    >>> IntegerLinear(4, 2, normalise=True)(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, in_features: int, out_features: int, *, bits: int = 8, bound: float = 1.0, normalise: bool = False
    ) -> None:
        super().__init__(in_features, out_features)
        self.bits = bits
        self.input_quantizer = IntegerQuantizer(bits, bound=bound)
        self.weight_quantizer = WeightQuantizer(bits)
        self.norm = nn.BatchNorm1d(in_features, affine=False) if normalise else None

    def _factor(self) -> Tensor | None:
        """Returns 1 / sqrt(running_var + eps), (c,), by which the norm multiplies each feature; None without a norm."""
        if self.norm is None:
            return None
        variance = self.norm.running_var
        assert variance is not None
        return torch.rsqrt(variance + self.norm.eps)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Returns the exported weight (o, c), not yet quantised, and bias (o,), with the norm folded into both."""
        factor = self._factor()
        if factor is None or self.norm is None:
            return self.weight, self.bias
        mean = self.norm.running_mean
        assert mean is not None
        weight = self.weight * factor
        return weight, self.bias - self.weight_quantizer(weight) @ mean

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quantizer(x)
        factor = self._factor()
        if factor is None or self.norm is None or not self.training:
            weight, bias = self.folded()
            return F.linear(x, self.weight_quantizer(weight), bias)
        return F.linear(self.norm(x), self.weight_quantizer(self.weight * factor) / factor, self.bias)
