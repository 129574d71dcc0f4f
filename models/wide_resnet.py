"""Builds Wide ResNets for small images (Zagoruyko and Komodakis 2016), in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style, make_shortcut
from bnn_itrd.models.builder import prelude, remembered, scaled
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["PreActivationBlock", "WideResNet", "WideResNetBuilder", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2"]


def _shortcut(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if style.shortcut == "projection" and not style.float_downsample and (stride > 1 or in_channels != out_channels):
        # As published, there is no BatchNorm here, since the next block begins with one.
        return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return make_shortcut(style, in_channels, out_channels, stride)


class PreActivationBlock(nn.Module):
    """A residual block with BatchNorm and activation in front of each convolution; (n, c, h, w) -> (n, o, h/s, w/s).

    With a = act(bn1(x)), it computes ``conv2(act(bn2(conv1(a)))) + shortcut(s)``, where s is x if the shapes agree and
    a otherwise (as published). With the style's per_conv, each convolution has a shortcut (Bi-Real Net): ``y = conv1(a)
    + shortcut(s)``, then ``conv2(act(bn2(y))) + y``. Nothing follows the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: Style) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = style.activation(in_channels)
        self.conv1 = style.conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = style.activation(out_channels)
        self.conv2 = style.conv3x3(out_channels, out_channels)
        self.shortcut = _shortcut(style, in_channels, out_channels, stride)
        self.changes = not isinstance(self.shortcut, nn.Identity)
        self.per_conv = style.per_conv

    def forward(self, x: Tensor) -> Tensor:
        a = self.act1(self.bn1(x))
        kept = self.shortcut(a if self.changes else x)
        y = self.conv1(a)
        if self.per_conv:
            y = kept = y + kept
        out: Tensor = self.conv2(self.act2(self.bn2(y))) + kept
        return out


class WideResNet(nn.Module):
    """A Wide ResNet: convolution, three stages of blocks, BatchNorm, pool, linear; (n, c, h, w) -> (n, classes).

    For distillation, the maps are the outputs of the modules that `stages` names, layer1 to layer3, before the next
    BatchNorm, and the representation is the pooled input of the module that `head` names. These are RepDistiller's
    features f1 to f4; its f0, the first convolution's output, is left out.
    widths: the channels of each stage; blocks: the blocks in each stage; stem_width: the first convolution's channels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        *,
        stem_width: int,
        num_classes: int,
        input_shape: tuple[int, int, int],
        style: Style,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"layer{i + 1}" for i in range(len(widths)))
        self.conv1 = style.stem(input_shape[0], stem_width)
        channels = stem_width
        for i, width in enumerate(widths):
            made = []
            for j in range(blocks):
                made.append(PreActivationBlock(channels, width, 2 if i > 0 and j == 0 else 1, style))
                channels = width
            setattr(self, self.stages[i], nn.Sequential(*made))
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = style.activation(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        nn.init.zeros_(self.linear.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        logits: Tensor = self.linear(torch.flatten(self.pool(self.act1(self.bn1(x))), 1))
        return logits


@dataclass(frozen=True)
class WideResNetBuilder:
    """Builds the Wide ResNet called WRN-depth-factor, in full precision or, with `binary`, as a binary network.

    >>> wrn_16_1(num_classes=100, binary="recu")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """

    depth: int
    factor: int

    @remembered
    def __call__(
        self,
        num_classes: int = 10,
        *,
        binary: AnyScheme | None = None,
        in_channels: int = 3,
        input_shape: Sequence[int] | None = None,
        width: float = 1.0,
        shortcut: str | None = None,
        per_conv: bool | None = None,
        float_downsample: bool = False,
        padding_value: int = 0,
    ) -> WideResNet:
        """Returns the network, (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default.

        In a binary network, hardtanh replaces ReLU, every 3x3 convolution but the first is binary, and each convolution
        has a shortcut (`per_conv`). Where the shape changes, the shortcut is a 2x2 average pool with zero channels
        added (`shortcut`). In full precision there is one shortcut per block, and it is a 1x1 convolution where the
        shape changes (``projection``). The other options are those of `ResNetBuilder`. Raises ValueError on an unknown
        scheme or shortcut, on a shortcut together with `float_downsample`, or on a shape that does not fit.
        """
        is_binary = binary is not None
        shape, style = prelude(
            num_classes,
            binary=binary,
            in_channels=in_channels,
            input_shape=input_shape,
            width=width,
            shortcut=shortcut,
            usual_shortcut="avgpool" if is_binary else "projection",
            per_conv=is_binary if per_conv is None else per_conv,
            float_downsample=float_downsample,
            padding_value=padding_value,
        )
        return WideResNet(
            [scaled(channels * self.factor, width) for channels in (16, 32, 64)],
            (self.depth - 4) // 6,
            stem_width=scaled(16, width),
            num_classes=num_classes,
            input_shape=shape,
            style=style,
        )


# In full precision they have 180,916, 703,284, 569,780 and 2,255,156 parameters at 100 classes.
wrn_16_1 = WideResNetBuilder(16, 1)
wrn_16_2 = WideResNetBuilder(16, 2)
wrn_40_1 = WideResNetBuilder(40, 1)
wrn_40_2 = WideResNetBuilder(40, 2)
