"""The pieces a teacher and its binary student share: convolution, activation and shortcut by kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, Scheme

__all__ = ["BasicBlock", "PadShortcut", "Style", "make_shortcut"]

SHORTCUTS = ("projection", "pad", "avgpool")


@dataclass(frozen=True)
class Style:
    """What differs between a teacher and a student of the same definition.

    scheme: None for full precision; shortcut: ``projection`` (1x1 conv + BatchNorm), ``pad`` (every second pixel +
    zero channels: option A) or ``avgpool`` (2x2 average pool + zero channels, or followed by a full-precision 1x1
    convolution with `float_downsample`); per_conv: one shortcut per convolution (Bi-Real) instead of per block.
    """

    scheme: Scheme | None
    shortcut: str
    per_conv: bool
    float_downsample: bool
    padding_value: int

    def __post_init__(self) -> None:
        if self.shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, got {self.shortcut!r}")
        if self.padding_value and self.scheme is None:
            raise ValueError(f"padding_value={self.padding_value} needs a binary network: full precision pads with 0")

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
        """The block's 3x3 convolution, padding 1, no bias: binary or full precision."""
        if self.scheme is None:
            return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        return BinaryConv2d(
            in_channels,
            out_channels,
            3,
            stride,
            1,
            padding_value=self.padding_value,
            scheme=self.scheme,
        )

    def activation(self) -> nn.Module:
        """hardtanh in front of a sign (a ReLU would make every sign +1); ReLU in full precision."""
        return nn.ReLU() if self.scheme is None else nn.Hardtanh()


class PadShortcut(nn.Module):
    """Parameter-free down-sampling: (n, c, h, w) -> (n, c', ceil(h/s), ceil(w/s)), zero channels on both sides.

    `pool`: 2x2-style average pooling (IR-Net, ReCU); otherwise every s-th pixel (He et al. 2016, option A).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, pool: bool) -> None:
        super().__init__()
        extra = out_channels - in_channels
        if extra < 0:
            raise ValueError(f"a parameter-free shortcut cannot drop channels: {in_channels} -> {out_channels}")
        self.before, self.after, self.stride = extra // 2, extra - extra // 2, stride
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if pool and stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            x = x[:, :, :: self.stride, :: self.stride]
        elif torch.compiler.is_compiling() and self.training and self.stride == 2 and not (x.shape[2] | x.shape[3]) % 2:
            # The same mean of four as the pool, whose gradient is slow when compiled for a CPU (a step in all: 13 %).
            rows = x[:, :, ::2] + x[:, :, 1::2]
            x = (rows[:, :, :, ::2] + rows[:, :, :, 1::2]) * 0.25
        else:
            x = self.pool(x)
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def make_shortcut(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity where shapes agree, otherwise the style's down-sampling; full precision always."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if style.float_downsample:
        # Real-valued average pool, then 1x1: Bi-Real Net's and ReActNet's down-sampling.
        pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        return nn.Sequential(*pool, conv, nn.BatchNorm2d(out_channels))
    if style.shortcut == "projection":
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    return PadShortcut(in_channels, out_channels, stride, pool=style.shortcut == "avgpool")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm; one shortcut for both, or one each; (n,c,h,w) -> (n,o,h/s,w/s)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: Style) -> None:
        super().__init__()
        self.conv1 = style.conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = style.activation()
        self.conv2 = style.conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = style.activation()
        self.shortcut = make_shortcut(style, in_channels, out_channels, stride)
        self.per_conv = style.per_conv

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        if self.per_conv:
            y = self.act1(y + self.shortcut(x))
            return self.act2(self.bn2(self.conv2(y)) + y)
        y = self.bn2(self.conv2(self.act1(y)))
        return self.act2(y + self.shortcut(x))
