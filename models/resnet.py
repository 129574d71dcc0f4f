"""Builds residual networks for small images, in full precision or binary.

There are ResNet-18/34/50 (64-128-256-512 channels, He et al. 2016, but with a 3x3 first convolution),
ResNet-8/14/20/32/44/56/110 (16-32-64 channels), and ResNet-8x4/32x4 of the distillation literature (64-128-256
channels, 32 in the first convolution; Tian et al. 2020). The binary networks are those of ReCU (Xu et al. 2021), or
similar where ReCU has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import BasicBlock, Style
from bnn_itrd.models.bottleneck import Bottleneck
from bnn_itrd.models.builder import prelude, remembered, scaled
from bnn_itrd.quant.scheme import AnyScheme

__all__ = [
    "ResNet",
    "ResNetBuilder",
    "resnet8",
    "resnet8x4",
    "resnet14",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
]


class ResNet(nn.Module):
    """A residual network: convolution, stages of blocks, global average pool, linear; (n, c, h, w) -> (n, classes).

    widths, depths: the channels (before the block's expansion) and the number of blocks of each stage; stem_width: the
    channels of the first convolution, by default the first of widths; block: `BasicBlock` or `Bottleneck`; input_shape:
    (c, h, w) of the images; stem_activation: whether an activation follows the first BatchNorm; norm_head: whether a
    BatchNorm1d stands in front of the classifier.
    For distillation (`observe`), the maps are the outputs of the modules that `stages` names, after their activation,
    and the representation is the input of the module that `head` names. These are RepDistiller's features f1, f2 and so
    on; its f0, the first convolution's output, is left out.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        *,
        num_classes: int,
        input_shape: tuple[int, int, int],
        style: Style,
        stem_activation: bool,
        norm_head: bool,
        stem_width: int | None = None,
        block: type[BasicBlock | Bottleneck] = BasicBlock,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"layer{i + 1}" for i in range(len(depths)))
        stream = style.stream()
        channels = widths[0] if stem_width is None else stem_width
        self.conv1 = style.stem(input_shape[0], channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = stream or (style.activation(channels) if stem_activation else nn.Identity())
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(block(channels, width, 2 if i > 0 and j == 0 else 1, style, stream))
                channels = width * block.expansion
            setattr(self, self.stages[i], nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        # An integer classifier has the norm inside, folded into its weights.
        apart = norm_head and style.first_last_bits is None
        self.norm: nn.Module = nn.BatchNorm1d(channels) if apart else nn.Identity()
        self.linear = style.classifier(channels, num_classes, normalise=norm_head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = self.norm(torch.flatten(self.pool(x), 1))
        logits: Tensor = self.linear(x)
        return logits


@dataclass(frozen=True)
class ResNetBuilder:
    """Builds a ResNet of one depth, in full precision or, with `binary`, as a binary network.

    widths, depths: the channels and the number of blocks of each stage; teacher_shortcut: the shortcut in full
    precision; binary_per_conv, binary_stem_activation: the defaults for binary networks. The call has the options.

    >>> resnet8(num_classes=10, binary="recu")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    teacher_shortcut: str
    binary_per_conv: bool
    binary_stem_activation: bool
    stem_width: int | None = None
    block: type[BasicBlock | Bottleneck] = BasicBlock

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
        residual_bits: int | None = None,
        first_last_bits: int | None = None,
        stem_activation: bool | None = None,
    ) -> ResNet:
        """Returns the network, (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default.

        binary: None for full precision, or a scheme's name, a `Scheme` or a binariser's class. A binary network has the
        scheme's nonlinearity (hardtanh) instead of ReLU, and a BatchNorm1d before the classifier. Where the shape
        changes, its shortcuts are a 2x2 average pool with zero channels added. ResNet-18/34/50 have one shortcut per
        block and no activation after the first convolution; the others have one per convolution, and hardtanh there.
        In full precision, the shortcuts of ResNet-18/34/50, 8x4 and 32x4 are 1x1 convolutions where the shape changes
        (``projection``); the others take every second pixel and add zero channels (``pad``). With
        ``shortcut="projection"`` these have RepDistiller's form (Tian et al. 2020).

        per_conv, shortcut, float_downsample, padding_value: see `Style`. width: a factor on all numbers of channels.
        stem_activation: whether a binary network has an activation after the first BatchNorm.
        Two options are for FPGAs (docs/guides/fpga.md). residual_bits: the residual additions use signed integers of so
        many bits with one learned scale (4 for FINN), and shortcuts are ``binary`` by default. first_last_bits: bits of
        weights and activations in the first convolution and the classifier (8 for FINN).
        Raises ValueError on an unknown scheme or shortcut, on a shortcut together with `float_downsample`, or on a
        shape that does not fit.
        """
        is_binary = binary is not None
        shape, style = prelude(
            num_classes,
            binary=binary,
            in_channels=in_channels,
            input_shape=input_shape,
            width=width,
            shortcut=shortcut,
            usual_shortcut=self._usual_shortcut(is_binary, residual_bits),
            per_conv=(is_binary and self.binary_per_conv) if per_conv is None else per_conv,
            float_downsample=float_downsample,
            padding_value=padding_value,
            residual_bits=residual_bits,
            first_last_bits=first_last_bits,
        )
        return ResNet(
            [scaled(channels, width) for channels in self.widths],
            self.depths,
            num_classes=num_classes,
            input_shape=shape,
            style=style,
            stem_activation=self._has_stem_activation(is_binary, stem_activation),
            norm_head=is_binary,
            stem_width=None if self.stem_width is None else scaled(self.stem_width, width),
            block=self.block,
        )

    def _has_stem_activation(self, is_binary: bool, given: bool | None) -> bool:
        if given is not None and not is_binary:
            raise ValueError(f"stem_activation={given} needs a binary network: full precision always has one")
        return not is_binary or (self.binary_stem_activation if given is None else given)

    def _usual_shortcut(self, is_binary: bool, residual_bits: int | None) -> str:
        if not is_binary:
            return self.teacher_shortcut
        return "avgpool" if residual_bits is None else "binary"


def _wide(*depths: int, block: type[BasicBlock | Bottleneck] = BasicBlock) -> ResNetBuilder:
    widths = (64, 128, 256, 512)
    return ResNetBuilder(widths, depths, "projection", binary_per_conv=False, binary_stem_activation=False, block=block)


def _narrow(depth: int) -> ResNetBuilder:
    blocks = ((depth - 2) // 6,) * 3
    return ResNetBuilder((16, 32, 64), blocks, "pad", binary_per_conv=True, binary_stem_activation=True)


def _times_four(depth: int) -> ResNetBuilder:
    """Returns the builder of RepDistiller's x4 networks: four times the channels, or twice in the first convolution."""
    blocks = ((depth - 2) // 6,) * 3
    widths = (64, 128, 256)
    return ResNetBuilder(widths, blocks, "projection", binary_per_conv=True, binary_stem_activation=True, stem_width=32)


# It has 11,173,962 parameters at 10 classes, and 11,005,002 with binary="recu".
resnet18 = _wide(2, 2, 2, 2)
resnet34 = _wide(3, 4, 6, 3)
# It has 23,705,252 parameters at 100 classes.
resnet50 = _wide(3, 4, 6, 3, block=Bottleneck)
# It has 269,722 parameters at 10 classes, and 270,522 with binary="recu". RepDistiller's has 278,324 at 100 classes.
resnet20 = _narrow(20)
resnet8 = _narrow(8)
resnet14 = _narrow(14)
resnet32 = _narrow(32)
resnet44 = _narrow(44)
resnet56 = _narrow(56)
resnet110 = _narrow(110)
# They have 1,233,540 and 7,433,860 parameters at 100 classes.
resnet8x4 = _times_four(8)
resnet32x4 = _times_four(32)
