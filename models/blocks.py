"""Builds the convolutions, activations and shortcuts of a network, in full precision or binary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, IntegerConv2d, IntegerLinear, IntegerQuantizer, Scheme
from bnn_itrd.quant.layers import is_depthwise

__all__ = ["BasicBlock", "PadShortcut", "Style", "make_shortcut"]

SHORTCUTS = ("projection", "pad", "avgpool", "binary")

# Before training, integer quantisers of images clamp at this magnitude; normalised images seldom exceed it.
_IMAGE_BOUND = 4.0


@dataclass(frozen=True)
class Style:
    """The settings by which a builder makes a network in full precision (a teacher) or a binary one (a student).

    scheme: the binarisers, or None for full precision.
    shortcut: what a shortcut does where the shape changes: ``projection`` is a 1x1 convolution with BatchNorm; ``pad``
    takes every second pixel and adds zero channels (option A of He et al. 2016); ``avgpool`` is a 2x2 average pool with
    added zero channels; ``binary`` is a binary 1x1 convolution with BatchNorm.
    float_downsample: replaces these by an average pool and a full-precision 1x1 convolution.
    per_conv: gives each convolution a shortcut (Bi-Real Net) instead of each block.
    padding_value: what the border of a binary layer's input holds after the sign: 0, +1 or -1.
    residual_bits: for FPGAs, the bits of signed integers with one learned scale, to which both operands of each
    residual addition and the sum are rounded, instead of hardtanh; None for floats.
    first_last_bits: for FPGAs, the bits of weights and activations in the first convolution and the classifier.
    """

    scheme: Scheme | None
    shortcut: str = "pad"
    per_conv: bool = False
    float_downsample: bool = False
    padding_value: int = 0
    residual_bits: int | None = None
    first_last_bits: int | None = None

    def __post_init__(self) -> None:
        if self.shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, got {self.shortcut!r}")
        if self.padding_value and self.scheme is None:
            raise ValueError(f"padding_value={self.padding_value} needs a binary network: full precision pads with 0")
        for name in ("residual_bits", "first_last_bits"):
            bits = getattr(self, name)
            if bits is not None and self.scheme is None:
                raise ValueError(f"{name}={bits} needs a binary network: full precision has no integers")
            if bits is not None and not 2 <= bits <= 8:
                raise ValueError(f"{name} must be in [2, 8], got {bits}")
        if self.shortcut == "binary" and self.scheme is None:
            raise ValueError("shortcut='binary' needs a binary network: full precision has projection, pad or avgpool")

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Module:
        """Returns a 3x3 convolution, padding 1, no bias: binary unless the style has no scheme or it is depthwise."""
        if self.scheme is None or is_depthwise(in_channels, groups):
            return nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups, bias=False)
        return BinaryConv2d(
            in_channels,
            out_channels,
            3,
            stride,
            1,
            groups=groups,
            padding_value=self.padding_value,
            scheme=self.scheme,
        )

    def conv1x1(self, in_channels: int, out_channels: int, groups: int = 1) -> nn.Module:
        """Returns a 1x1 convolution without bias: binary unless the style has no scheme or it is depthwise."""
        if self.scheme is None or is_depthwise(in_channels, groups):
            return nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)
        return BinaryConv2d(in_channels, out_channels, 1, groups=groups, scheme=self.scheme)

    def stem(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        """Returns a network's first convolution, 3x3, in full precision or, with `first_last_bits`, of integers."""
        if self.first_last_bits is None:
            return nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        return IntegerConv2d(in_channels, out_channels, 3, 1, 1, bits=self.first_last_bits, bound=_IMAGE_BOUND)

    def classifier(self, features: int, num_classes: int, *, normalise: bool) -> nn.Linear:
        """Returns a network's last layer, in full precision or, with `first_last_bits`, of integers.

        normalise: whether the integer layer has a BatchNorm in front, folded into its weights.
        """
        if self.first_last_bits is None:
            return nn.Linear(features, num_classes)
        return IntegerLinear(features, num_classes, bits=self.first_last_bits, normalise=normalise)

    def stream(self) -> IntegerQuantizer | None:
        """Returns the quantiser for the operands and sums of all residual additions; None without `residual_bits`.

        All share its learned scale. Before training it clamps to -1 and 1, as hardtanh does.
        """
        return None if self.residual_bits is None else IntegerQuantizer(self.residual_bits)

    def activation(self, channels: int) -> nn.Module:
        """Returns ReLU in full precision, else the scheme's nonlinearity, because a ReLU's output has only signs +1."""
        return nn.ReLU() if self.scheme is None else self.scheme.make_nonlinearity(channels)


class PadShortcut(nn.Module):
    """A shortcut without parameters: it down-samples by the stride s and adds channels of zeros on both sides.

    (n, c, h, w) -> (n, c', ceil(h/s), ceil(w/s)). pool: whether it averages s x s pixels (IR-Net, ReCU); otherwise it
    takes every s-th pixel (He et al. 2016, option A). Raises ValueError where c' < c.

    >>> PadShortcut(4, 8, 2, pool=True)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, pool: bool) -> None:
        super().__init__()
        extra = out_channels - in_channels
        if extra < 0:
            raise ValueError(f"a shortcut without parameters cannot drop channels: {in_channels} -> {out_channels}")
        self.before, self.after, self.stride = extra // 2, extra - extra // 2, stride
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if pool and stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            x = x[:, :, :: self.stride, :: self.stride]
        elif torch.compiler.is_compiling() and self.training and self.stride == 2 and not (x.shape[2] | x.shape[3]) % 2:
            # This is the pool's mean. AvgPool2d's compiled gradient is slow on a CPU: a training step takes 13 % more.
            rows = x[:, :, ::2] + x[:, :, 1::2]
            x = (rows[:, :, :, ::2] + rows[:, :, :, 1::2]) * 0.25
        else:
            x = self.pool(x)
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def make_shortcut(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Returns the module on a block's shortcut: the identity where the shapes agree, else what the style says."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if style.float_downsample:
        # An average pool and a full-precision 1x1 convolution, as in Bi-Real Net and ReActNet.
        pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        return nn.Sequential(*pool, conv, nn.BatchNorm2d(out_channels))
    if style.shortcut == "projection":
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    if style.shortcut == "binary" and style.scheme is not None:
        binary = BinaryConv2d(in_channels, out_channels, 1, stride, scheme=style.scheme)
        return nn.Sequential(binary, nn.BatchNorm2d(out_channels))
    return PadShortcut(in_channels, out_channels, stride, pool=style.shortcut == "avgpool")


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions with BatchNorm; (n, c, h, w) -> (n, o, h/s, w/s), stride s.

    It has one shortcut or, with the style's per_conv, one for each convolution. stream: the quantiser that rounds both
    operands of each addition and its sum to integers, or None; x must already be rounded by it.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, style: Style, stream: IntegerQuantizer | None = None
    ) -> None:
        super().__init__()
        self.conv1 = style.conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.operand1: nn.Module
        self.operand2: nn.Module
        self.act1: nn.Module
        self.act2: nn.Module
        if stream is not None and style.per_conv:
            self.operand1, self.act1 = stream.tied(), stream.tied()
        else:
            self.operand1, self.act1 = nn.Identity(), style.activation(out_channels)
        self.conv2 = style.conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        if stream is not None:
            self.operand2, self.act2 = stream.tied(), stream.tied()
        else:
            self.operand2, self.act2 = nn.Identity(), style.activation(out_channels)
        self.shortcut = make_shortcut(style, in_channels, out_channels, stride)
        if stream is not None and not isinstance(self.shortcut, nn.Identity):
            self.shortcut = nn.Sequential(self.shortcut, stream.tied())
        self.per_conv = style.per_conv

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        if self.per_conv:
            y = self.act1(self.operand1(y) + self.shortcut(x))
            return self.act2(self.operand2(self.bn2(self.conv2(y))) + y)
        y = self.operand2(self.bn2(self.conv2(self.act1(y))))
        return self.act2(y + self.shortcut(x))
