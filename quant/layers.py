"""Binary convolution and linear layers, which turn their weights and inputs into +1 or -1 before they multiply."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from bnn_itrd.quant.binarizer import BinaryWeight
from bnn_itrd.quant.parts import part_name
from bnn_itrd.quant.scheme import AnyScheme, as_scheme

__all__ = ["BinaryConv2d", "BinaryLayer", "BinaryLinear", "is_depthwise"]


def is_depthwise(in_channels: int, groups: int) -> bool:
    """Returns whether a convolution is depthwise: each output channel reads one of several input channels.

    The networks of `models` and `binarize` keep such a layer in full precision. The reason: each output of a 3x3
    depthwise convolution is a sum of 9 products, and 9 products of +1 or -1 have only 10 possible sums.

    >>> is_depthwise(96, 96), is_depthwise(60, 3), is_depthwise(1, 1)
    (True, False, False)
    """
    return groups == in_channels > 1


def _per_channel(v: Tensor, dim: int) -> Tensor:
    """Returns v (c,), reshaped so that it broadcasts over axis 1 of a tensor with `dim` axes."""
    return v.reshape(-1, *([1] * (dim - 2)))


class BinaryLayer(nn.Module):
    """The base class of `BinaryConv2d` and `BinaryLinear`: it holds the latent weight and the two binarisers.

    weight: a tensor (o, ...) whose values are overwritten at once by `reset_parameters`; channels: the number of input
    channels; axis: their axis in the input.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, *, channels: int, axis: int, bias: bool, scheme: AnyScheme) -> None:
        super().__init__()
        self.scheme = as_scheme(scheme)
        self.weight = nn.Parameter(weight)
        self.weight_binarizer = self.scheme.make_weight(weight.shape[0], weight[0].numel())
        self.activation_binarizer = self.scheme.make_activation(channels, axis=axis)
        self.regularizer = self.scheme.make_regularizer(axis=axis)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0])) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new latent weights as the scheme's `latent_init` says, and the bias uniformly as torch's layers do."""
        if self.scheme.latent_init == "kaiming_normal":
            nn.init.kaiming_normal_(self.weight)
        else:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        self.weight_binarizer.initialise(self.weight)

    def start_epoch(self) -> None:
        """Updates buffers of the weight's binariser, if it has any; `quant.start_epoch` calls it before each epoch."""
        self.weight_binarizer.update(self.weight)

    def binary_weight(self) -> BinaryWeight:
        """Returns the latent weight in binary form: its signs, a scale per output channel, and an offset or None.

        The forward pass, the summary of costs and the exporters all use it, so they agree.

        Raises TypeError where a user's own binariser returns anything but a `BinaryWeight`.
        """
        binary = self.weight_binarizer(self.weight)
        if not isinstance(binary, BinaryWeight):
            raise TypeError(
                f"{type(self.weight_binarizer).__name__} must return a BinaryWeight(signs, scale), got a "
                f"{type(binary).__name__}"
            )
        return binary

    def folded(self) -> tuple[BinaryWeight, Tensor | None]:
        """Returns the binary weight and the bias (or None) that the forward pass and the exporters compute with.

        They differ from `binary_weight` and `bias` only where the activations' binariser gives ``a * sign + b``, with
        scalars a and b, instead of the sign (AdaBin). Then the scale and the offset are multiplied by a, and b times
        the sum of each filter's binary weights is added to the bias.
        """
        binary, levels = self.binary_weight(), self.activation_binarizer.levels()
        if levels is None:
            return binary, self.bias
        signs, scale, offset = binary
        half, centre = levels
        taps = scale * signs.flatten(1).sum(1)
        if offset is not None:
            taps = taps + offset * signs[0].numel()
        bias = centre * taps if self.bias is None else self.bias + centre * taps
        return BinaryWeight(signs, scale * half, None if offset is None else offset * half), bias

    def _scheme_repr(self) -> str:
        return f"scheme={part_name(self.scheme.weight)}/{part_name(self.scheme.activation)}"

    def _signs_of(self, x: Tensor) -> Tensor:
        """Returns the signs of the input; in training it also computes `rad_penalty`, if the scheme has it."""
        if self.regularizer is not None:
            # In evaluation the regularizer ignores its input. Then presign is not called, because the exporters replace
            # the binariser by one that does not have it.
            self.regularizer(self.activation_binarizer.presign(x) if self.training else x)
        signs: Tensor = self.activation_binarizer(x)
        return signs


class BinaryConv2d(BinaryLayer):
    """A convolution of binary inputs with binary weights: ``scale_o * conv2d(sign(x), signs_o)``, plus bias_o if any.

    The shapes are those of nn.Conv2d: (n, c, h, w) -> (n, o, h', w'). With AdaBin's weights,
    ``offset_o * (sum of the signs in the window)`` is added.

    padding_value: what the border holds after the sign has been taken: 0, or +1 or -1 for FPGAs, whose circuits have no
    zero. Where the activations are binarised to ``a * sign + b`` (AdaBin), the border is a * padding_value + b, so that
    b adds the same constant at every position.
    scheme: a name, a `Scheme` or a binariser's class (see `as_scheme`); it also defines the gradients.

    Raises ValueError where a size is < 1, where groups does not divide the channels, and on an unknown padding value or
    scheme.

    >>> BinaryConv2d(3, 8, 3, padding=1)(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        padding_value: int = 0,
        scheme: AnyScheme = "recu",
    ) -> None:
        sizes: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
        }
        for name, value in sizes.items():
            if min(_pair(value)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if isinstance(padding, str) or min(_pair(padding)) < 0:
            raise ValueError(f"padding must be whole numbers >= 0, got {padding!r}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, got {groups} for {in_channels} and {out_channels}"
            )
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value must be -1, 0 or 1, got {padding_value}")
        kernel = _pair(kernel_size)
        weight = torch.empty(out_channels, in_channels // groups, *kernel)
        super().__init__(weight, channels=in_channels, axis=1, bias=bias, scheme=scheme)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = kernel, _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.padding_value = padding_value

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"padding_value={self.padding_value}, {self._scheme_repr()}"
        )

    def _convolve(self, signs_in: Tensor, weight: Tensor) -> Tensor:
        if self.padding_value == 0:
            return F.conv2d(signs_in, weight, None, self.stride, self.padding, self.dilation, self.groups)
        vertical, horizontal = self.padding
        padded = F.pad(signs_in, (horizontal, horizontal, vertical, vertical), value=float(self.padding_value))
        return F.conv2d(padded, weight, None, self.stride, 0, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        (signs, scale, offset), bias = self.folded()
        a = self._signs_of(x)
        sums = self._convolve(a, signs)
        y = sums * _per_channel(scale, 4)
        if offset is not None:
            y = y + self._convolve(a, torch.ones_like(signs)) * _per_channel(offset, 4)
        if bias is not None:
            y = y + _per_channel(bias, 4)
        # Under autocast the sums are in half precision, but scale, offset and bias are float32. Without this cast,
        # all tensors up to the next convolution would be float32 and take twice the memory traffic.
        return y.to(sums.dtype)


class BinaryLinear(BinaryLayer):
    """A linear layer of binary inputs and binary weights: ``scale_o * (sign(x) @ signs_o)``, plus bias_o if any.

    (..., c) -> (..., o). With AdaBin's weights, ``offset_o * (sum of the input's signs)`` is added. scheme: a name, a
    `Scheme` or a binariser's class (see `as_scheme`). Raises ValueError where a size is < 1, and on an unknown scheme.

    >>> BinaryLinear(4, 2, scheme="xnor")(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, scheme: AnyScheme = "recu") -> None:
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        weight = torch.empty(out_features, in_features)
        super().__init__(weight, channels=in_features, axis=-1, bias=bias, scheme=scheme)
        self.in_features, self.out_features = in_features, out_features

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self._scheme_repr()}"

    def forward(self, x: Tensor) -> Tensor:
        (signs, scale, offset), bias = self.folded()
        a = self._signs_of(x)
        sums = F.linear(a, signs)
        y = sums * scale
        if offset is not None:
            y = y + a.sum(-1, keepdim=True) * offset
        if bias is not None:
            y = y + bias
        return y.to(sums.dtype)  # as in BinaryConv2d
