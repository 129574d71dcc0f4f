"""Builds MobileNetV2 for small images (Sandler et al. 2018), in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["InvertedResidual", "MobileNetV2", "MobileNetV2Builder", "mobilenet_v2", "mobilenet_v2_half"]

_STEM, _LAST, _EXPANSION = 32, 1280, 6
# Channels, blocks and first stride of each group (Sandler et al. 2018, table 2, with the second group's stride 1).
_GROUPS = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


class InvertedResidual(nn.Module):
    """A block that widens the channels for a depthwise 3x3 convolution; (n, c, h, w) -> (n, o, h/s, w/s), stride s.

    It computes ``bn(conv1x1(act(bn(depthwise(act(bn(conv1x1(x))))))))``, with `expansion` times the channels inside,
    and adds x where the shapes agree. No activation follows. In a binary network both 1x1 convolutions are binary. The
    depthwise one stays in full precision, because each of its outputs is a sum of 9 products, which has only 10
    possible values if the products are +1 or -1. These layers have 3 % (ShuffleNets) to 11 % of a network's MACs.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, style: Style) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.conv1, self.bn1, self.act1 = style.conv1x1(in_channels, wide), nn.BatchNorm2d(wide), style.activation(wide)
        self.conv2 = style.conv3x3(wide, wide, stride, groups=wide)
        self.bn2, self.act2 = nn.BatchNorm2d(wide), style.activation(wide)
        self.conv3, self.bn3 = style.conv1x1(wide, out_channels), nn.BatchNorm2d(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2: convolution of stride 2, seven groups of blocks, 1x1 convolution, pool, linear; -> (n, classes).

    The groups form four stages: `layer1` (groups 1, 2), `layer2` (3), `layer3` (4, 5) and `layer4` (6, 7). For
    distillation, the maps are the outputs of these (`stages`), which have no activation, and the representation is the
    pooled input of the module that `head` names. These are RepDistiller's features f1 to f5; its f0, the first
    convolution's output, is left out.
    """

    def __init__(self, width: float, *, num_classes: int, input_shape: tuple[int, int, int], style: Style) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = ("layer1", "layer2", "layer3", "layer4")
        channels = max(1, int(_STEM * width))
        self.conv1 = nn.Conv2d(input_shape[0], channels, 3, 2, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(channels), style.activation(channels)
        groups: list[nn.Module] = []
        for i, (base, depth, stride) in enumerate(_GROUPS):
            blocks, out = [], max(1, int(base * width))
            for j in range(depth):
                # The first group does not widen, but keeps its 1x1 convolution, as RepDistiller's form does.
                expansion = 1 if i == 0 else _EXPANSION
                blocks.append(InvertedResidual(channels, out, stride if j == 0 else 1, expansion, style))
                channels = out
            groups.append(nn.Sequential(*blocks))
        for stage, (start, end) in zip(self.stages, pairwise((0, 2, 3, 5, 7)), strict=True):
            setattr(self, stage, nn.Sequential(*groups[start:end]))
        last = int(_LAST * max(1.0, width))
        self.conv2, self.bn2, self.act2 = style.conv1x1(channels, last), nn.BatchNorm2d(last), style.activation(last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(last, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = self.act2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


@dataclass(frozen=True)
class MobileNetV2Builder:
    """Builds MobileNetV2 of one width, in full precision or, with `binary`, as a binary network.

    factor: multiplies the published numbers of channels.

    >>> MobileNetV2Builder(0.5)(100)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """

    factor: float

    @remembered
    def __call__(
        self,
        num_classes: int = 10,
        *,
        binary: AnyScheme | None = None,
        in_channels: int = 3,
        input_shape: Sequence[int] | None = None,
        width: float = 1.0,
    ) -> MobileNetV2:
        """Returns the network, (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default.

        It has RepDistiller's form for 32 x 32 pixels: ReLU instead of ReLU6, no dropout, and channels rounded down to
        whole numbers instead of multiples of 8. In a binary network, hardtanh replaces ReLU and the 1x1 convolutions
        are binary; the first convolution, the depthwise convolutions and the classifier stay in full precision.
        `width` multiplies the channels in addition to `factor`. Raises ValueError on an unknown scheme or a shape that
        does not fit.
        """
        shape, style = prelude(
            num_classes, binary=binary, in_channels=in_channels, input_shape=input_shape, width=width
        )
        return MobileNetV2(self.factor * width, num_classes=num_classes, input_shape=shape, style=style)


mobilenet_v2 = MobileNetV2Builder(1.0)
# This is "MobileNetV2" in the tables of the distillation literature; it has 812,836 parameters at 100 classes.
mobilenet_v2_half = MobileNetV2Builder(0.5)
