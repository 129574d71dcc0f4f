"""Residual networks for small images, teacher and binary student from one definition.

ResNet-18/34/50 (64-128-256-512 channels, He et al. 2016 with a 3x3 stem), ResNet-8/14/20/32/44/56/110 (16-32-64) and
the four times wider ResNet-8x4/32x4 (stem 32, 64-128-256) of the distillation literature (Tian et al. 2020).
The binary forms are those of ReCU (Xu et al. 2021), or follow them where ReCU has none.
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
    """The network: stem, stages of blocks, global average pool, (BatchNorm1d), linear; (n, c, h, w) -> (n, classes).

    widths: channels of each stage, before the block's expansion; stem_width: channels of the stem, by default the first
    of widths; block: `BasicBlock` or `Bottleneck`; input_shape: (c, h, w) of the images. `head` and `stages` name the
    submodules whose input and outputs are the representation and the stage maps (see `observe`). The maps are taken
    after the activation, like RepDistiller's features f1, f2, ... (its f0, the stem's output, is no stage here).
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
        # A classifier of integers contains the norm, folded into its weights.
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
    """Makes a ResNet of one depth: the full-precision teacher or, with `binary`, its 1-bit student in ReCU's form.

    The fields say how teacher and student of a family differ; `__call__` describes the arguments.

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

        binary: None, or a scheme: its name, a `Scheme` or a binariser's class. A student has hardtanh (the scheme's
        nonlinearity) for ReLU, 2x2 average pool + zero channels for down-sampling and BatchNorm1d before the
        classifier. ResNet-18/34/50: one shortcut per block, no activation after the stem. The others: one shortcut per
        convolution, hardtanh after the stem.
        Options that change the architecture: `per_conv` (one shortcut per convolution, Bi-Real; by default the
        published form), `float_downsample` (average pool + full-precision 1x1 convolution), `padding_value` (+1 or -1
        at the borders in place of 0), `shortcut` (``projection``, ``pad``, ``avgpool``), `width` (a factor on every
        number of channels), `stem_activation` (whether a student has one behind the stem's BatchNorm). Teachers:
        ResNet-18/34/50, 8x4 and 32x4 with projections, the others with option A (He et al. 2016), or with
        ``shortcut="projection"`` in the form of RepDistiller (Tian et al. 2020).
        For FPGAs (fpga.md): `residual_bits` (the residual stream as signed integers of one learned scale, 4 bits
        for FINN; shortcuts are then ``binary``, a binary 1x1 convolution, unless another is named) and
        `first_last_bits` (weights and activations of the first convolution and the classifier, 8 for FINN).
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
    """Returns the builder of RepDistiller's x4 form: four times as wide, twice in the stem, with projections."""
    blocks = ((depth - 2) // 6,) * 3
    widths = (64, 128, 256)
    return ResNetBuilder(widths, blocks, "projection", binary_per_conv=True, binary_stem_activation=True, stem_width=32)


# It has 11,173,962 parameters at 10 classes, and 11,005,002 with binary="recu".
resnet18 = _wide(2, 2, 2, 2)
resnet34 = _wide(3, 4, 6, 3)
# It has 23,705,252 parameters at 100 classes.
resnet50 = _wide(3, 4, 6, 3, block=Bottleneck)
# It has 269,722 parameters at 10 classes, 270,522 with binary="recu"; RepDistiller's has 278,324 at 100 classes.
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
