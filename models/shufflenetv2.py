"""Builds ShuffleNetV2 for small images (Ma et al. 2018), in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["ShuffleNetV2", "SplitUnit", "shufflenet_v2"]

_STEM, _DEPTHS = 24, (4, 8, 4)
# Channels of the three stages and of the last convolution, by width (Ma et al. 2018, table 5).
_WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def _pointwise(in_channels: int, out_channels: int, style: Style) -> list[nn.Module]:
    return [style.conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels), style.activation(out_channels)]


def _depthwise(channels: int, stride: int, style: Style) -> list[nn.Module]:
    return [style.conv3x3(channels, channels, stride, groups=channels), nn.BatchNorm2d(channels)]


class SplitUnit(nn.Module):
    """A block that convolves one half of the channels and shuffles both; (n, c, h, w) -> (n, o, h/s, w/s), stride s.

    With stride 1 it computes ``shuffle(cat(x[:, :c/2], right(x[:, c/2:])))``, where right is a 1x1, a depthwise 3x3 and
    a 1x1 convolution. With stride 2 it computes ``shuffle(cat(left(x), right(x)))``, where left is a depthwise 3x3 and
    a 1x1 convolution. In a binary network the 1x1 convolutions are binary; the depthwise ones stay in full precision
    (see `InvertedResidual`).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: Style) -> None:
        super().__init__()
        half = out_channels // 2
        self.left: nn.Module | None = None
        if stride > 1:
            self.left = nn.Sequential(*_depthwise(in_channels, stride, style), *_pointwise(in_channels, half, style))
        enters = in_channels if stride > 1 else half
        self.right = nn.Sequential(
            *_pointwise(enters, half, style), *_depthwise(half, stride, style), *_pointwise(half, half, style)
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.left is None:
            passing, x = x.chunk(2, 1)
        else:
            passing = self.left(x)
        out: Tensor = self.shuffle(torch.cat([passing, self.right(x)], 1))
        return out


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2: 1x1 convolution, three stages of units, 1x1 convolution, global average, linear; -> (n, classes).

    For distillation, the maps are the outputs of the modules that `stages` names, layer1 to layer3, and the
    representation is the pooled input of the module that `head` names. These are RepDistiller's features f1 to f4; its
    f0, the first convolution's output, is left out.
    """

    def __init__(
        self, widths: tuple[int, ...], *, num_classes: int, input_shape: tuple[int, int, int], style: Style
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"layer{i + 1}" for i in range(len(_DEPTHS)))
        self.conv1 = nn.Conv2d(input_shape[0], _STEM, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(_STEM), style.activation(_STEM)
        channels = _STEM
        for stage, out, units in zip(self.stages, widths[:-1], _DEPTHS, strict=True):
            parts = []
            for j in range(units):
                parts.append(SplitUnit(channels, out, 2 if j == 0 else 1, style))
                channels = out
            setattr(self, stage, nn.Sequential(*parts))
        self.conv2 = style.conv1x1(channels, widths[-1])
        self.bn2, self.act2 = nn.BatchNorm2d(widths[-1]), style.activation(widths[-1])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = self.act2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


@remembered
def shufflenet_v2(
    num_classes: int = 10,
    *,
    binary: AnyScheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
) -> ShuffleNetV2:
    """Returns ShuffleNetV2 of a published width (0.5, 1, 1.5 or 2), in full precision or, with `binary`, binary.

    (n, *input_shape) -> (n, num_classes). It has RepDistiller's form for 32 x 32 pixels: the first convolution is 1x1,
    without a pool after it. At 100 classes the full-precision network of width 1 has 1,355,528 parameters. In a binary
    network, hardtanh replaces ReLU and the 1x1 convolutions are binary; the first convolution, the depthwise
    convolutions and the classifier stay in full precision. Raises ValueError on an unknown scheme, another width or a
    shape that does not fit.

    >>> shufflenet_v2(10, width=0.5)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if width not in _WIDTHS:
        raise ValueError(f"width must be one of {', '.join(map(str, _WIDTHS))} (the published ones), got {width}")
    shape, style = prelude(num_classes, binary=binary, in_channels=in_channels, input_shape=input_shape)
    return ShuffleNetV2(_WIDTHS[width], num_classes=num_classes, input_shape=shape, style=style)
