"""Builds VGG-9 for large images, which is torchvision's VGG-11 with BatchNorm, without its two hidden linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered, scaled
from bnn_itrd.models.vgg import initialise
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["VGG9", "vgg9"]

# Channels of the convolutions, and 0 for each MaxPool (Simonyan and Zisserman 2015, table 1, A).
_PLAN = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
_LEAST = 32


class VGG9(nn.Module):
    """VGG-9: eight 3x3 convolutions with BatchNorm, five MaxPools, global average, linear; -> (n, classes).

    Input: (n, c, h, w), where h and w must be at least 32. For distillation, the maps are the outputs of the last four
    MaxPools (`stages`), with 1/4, 1/8, 1/16 and 1/32 of the image's side, as in a ResNet for large images. The
    representation is the pooled input of the module that `head` names. In full precision, `features` has the names and
    shapes of torchvision's vgg11_bn. widths: the channels of the convolutions, and 0 for each MaxPool.
    """

    def __init__(self, widths: Sequence[int], *, num_classes: int, input_shape: tuple[int, int, int], style: Style):
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < _LEAST:
            raise ValueError(f"input_shape must be at least {_LEAST} pixels on each side, got {height} x {width}")
        self.input_shape = input_shape
        self.head = "linear"
        parts: list[nn.Module] = []
        ends = []
        for out in widths:
            if out == 0:
                parts.append(nn.MaxPool2d(2))
                if style.scheme is not None:
                    # The sign of a maximum is nearly always +1, so a BatchNorm centres it again, as in `VGG`.
                    parts += [nn.BatchNorm2d(channels), style.activation(channels)]
                ends.append(f"features.{len(parts) - 1}")
                continue
            conv: nn.Module
            if style.scheme is None:
                conv = nn.Conv2d(channels, out, 3, padding=1)  # with a bias, as torchvision's
            else:
                conv = style.conv3x3(channels, out) if parts else style.stem(channels, out)
            parts += [conv, nn.BatchNorm2d(out), style.activation(out)]
            channels = out
        self.features = nn.Sequential(*parts)
        self.stages = tuple(ends[1:])
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self, self.linear)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.flatten(self.average(self.features(x)), 1))
        return logits


@remembered
def vgg9(
    num_classes: int = 10,
    *,
    binary: AnyScheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    padding_value: int = 0,
) -> VGG9:
    """Returns VGG-9, in full precision or, with `binary`, as a binary network.

    (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default. Ahn et al. 2019 use a
    "VGG-9" that they do not describe. This one is the VGG-11 of Simonyan and Zisserman 2015 with one linear layer
    instead of three, so it has nine layers. It can start from torchvision's ImageNet weights of vgg11_bn (a recipe's
    ``network.weights``). In a binary network every convolution but the first is binary, none has a bias, hardtanh
    replaces ReLU, and BatchNorm and hardtanh follow each pool. Raises ValueError on an unknown scheme or a shape that
    does not fit.

    >>> vgg9(10, width=0.25)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    shape, style = prelude(
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        padding_value=padding_value,
    )
    widths = [scaled(channels, width) if channels else 0 for channels in _PLAN]
    return VGG9(widths, num_classes=num_classes, input_shape=shape, style=style)
