"""Builds ShuffleNetV1 for small images (Zhang et al. 2018), in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["ShuffleNetV1", "ShuffleUnit", "shufflenet_v1"]

_STEM, _GROUPS = 24, 3
# Channels and units of each stage (Zhang et al. 2018, table 1, g = 3).
_STAGES = ((240, 4), (480, 8), (960, 4))


class ShuffleUnit(nn.Module):
    """A residual block with grouped 1x1 convolutions and a channel shuffle; (n, c, h, w) -> (n, o, h/s, w/s), stride s.

    It computes ``act(bn3(conv3(act(bn2(depthwise(shuffle(act(bn1(conv1(x))))))))) + x)``. With stride 2, the sum is
    replaced by the concatenation with a 3x3 average pool of x, which gives c of the o channels. As in RepDistiller, an
    activation follows the depthwise convolution too. In a binary network the grouped 1x1 convolutions are binary; the
    depthwise one stays in full precision (see `InvertedResidual`).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, style: Style) -> None:
        super().__init__()
        made = out_channels - in_channels if stride > 1 else out_channels
        middle = made // 4
        first = 1 if in_channels == _STEM else groups  # the first convolution has too few channels for groups
        self.conv1, self.bn1 = style.conv1x1(in_channels, middle, groups=first), nn.BatchNorm2d(middle)
        self.act1, self.shuffle = style.activation(middle), nn.ChannelShuffle(first)
        self.conv2 = style.conv3x3(middle, middle, stride, groups=middle)
        self.bn2, self.act2 = nn.BatchNorm2d(middle), style.activation(middle)
        self.conv3, self.bn3 = style.conv1x1(middle, made, groups=groups), nn.BatchNorm2d(made)
        self.act3 = style.activation(out_channels)
        self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(self.act1(self.bn1(self.conv1(x))))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.act3(y + x if self.pool is None else torch.cat([y, self.pool(x)], 1))
        return out


class ShuffleNetV1(nn.Module):
    """ShuffleNetV1: 1x1 convolution, three stages of units, global average pool, linear; (n, c, h, w) -> (n, classes).

    For distillation, the maps are the outputs of the modules that `stages` names, layer1 to layer3, and the
    representation is the input of the module that `head` names. These are RepDistiller's features f1 to f4; its f0, the
    first convolution's output, is left out.
    """

    def __init__(self, *, num_classes: int, input_shape: tuple[int, int, int], style: Style) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"layer{i + 1}" for i in range(len(_STAGES)))
        self.conv1 = nn.Conv2d(input_shape[0], _STEM, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(_STEM), style.activation(_STEM)
        channels = _STEM
        for stage, (out, units) in zip(self.stages, _STAGES, strict=True):
            parts = []
            for j in range(units):
                parts.append(ShuffleUnit(channels, out, 2 if j == 0 else 1, _GROUPS, style))
                channels = out
            setattr(self, stage, nn.Sequential(*parts))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


@remembered
def shufflenet_v1(
    num_classes: int = 10,
    *,
    binary: AnyScheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
) -> ShuffleNetV1:
    """Returns ShuffleNetV1 with 3 groups and width 1, in full precision or, with `binary`, as a binary network.

    (n, *input_shape) -> (n, num_classes). It has RepDistiller's form for 32 x 32 pixels: the first convolution is 1x1,
    without a pool after it. At 100 classes the full-precision network has 949,258 parameters. In a binary network,
    hardtanh replaces ReLU and the 1x1 convolutions are binary; the first convolution, the depthwise convolutions and
    the classifier stay in full precision. Raises ValueError on an unknown scheme or a shape that does not fit.

    >>> shufflenet_v1(10, binary="recu")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    shape, style = prelude(num_classes, binary=binary, in_channels=in_channels, input_shape=input_shape)
    return ShuffleNetV1(num_classes=num_classes, input_shape=shape, style=style)
