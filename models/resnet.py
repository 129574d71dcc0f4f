"""Residual networks for small images, teacher and binary student from one definition.

ResNet-18/34 (64-128-256-512 channels, He et al. 2016 with a 3x3 stem) and ResNet-20/32/56/110 (16-32-64).
The binary forms are those ReCU published (Xu et al. 2021), whose numbers belong to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import BasicBlock, Style
from bnn_itrd.quant import Scheme, as_scheme

__all__ = ["ResNet", "resnet18", "resnet20", "resnet32", "resnet34", "resnet56", "resnet110"]


def check_input(in_channels: int, input_shape: Sequence[int] | None, num_classes: int) -> tuple[int, int, int]:
    """The full (c, h, w), or a ValueError that names what does not fit."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be >= 1, got {num_classes}")
    shape = (in_channels, 32, 32) if input_shape is None else tuple(input_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"input_shape must be (channels, height, width), got {shape}")
    if shape[0] != in_channels:
        raise ValueError(f"input_shape {shape} has {shape[0]} channels but in_channels is {in_channels}")
    return shape[0], shape[1], shape[2]


class ResNet(nn.Module):
    """stem -> stages of `BasicBlock` -> global average pool -> (BatchNorm1d) -> linear; (n, c, h, w) -> (n, classes).

    `input_shape` (c, h, w) is what it was made for; `head` and `stages` name the submodules whose input and outputs
    are the representation and the stage maps (see `observe`).
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
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"layer{i + 1}" for i in range(len(depths)))
        self.conv1 = nn.Conv2d(input_shape[0], widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.act1 = style.activation() if stem_activation else nn.Identity()
        channels = widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(BasicBlock(channels, width, 2 if i > 0 and j == 0 else 1, style))
                channels = width
            setattr(self, self.stages[i], nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm: nn.Module = nn.BatchNorm1d(channels) if norm_head else nn.Identity()
        self.linear = nn.Linear(channels, num_classes)
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
class _Family:
    """What ResNets of one width share: the teacher's shortcut, and how ReCU's binary form differs from it."""

    widths: tuple[int, ...]
    shortcut: str
    binary_per_conv: bool
    binary_stem_activation: bool


_WIDE = _Family((64, 128, 256, 512), "projection", binary_per_conv=False, binary_stem_activation=False)
_NARROW = _Family((16, 32, 64), "pad", binary_per_conv=True, binary_stem_activation=True)


def _build(
    family: _Family,
    depths: Sequence[int],
    num_classes: int,
    *,
    binary: str | Scheme | None,
    in_channels: int,
    input_shape: Sequence[int] | None,
    width: float,
    shortcut: str | None,
    per_conv: bool | None,
    float_downsample: bool,
    padding_value: int,
) -> ResNet:
    if not width > 0:
        raise ValueError(f"width must be > 0, got {width}")
    is_binary = binary is not None
    style = Style(
        scheme=None if binary is None else as_scheme(binary),
        shortcut=shortcut or ("avgpool" if is_binary else family.shortcut),
        per_conv=(is_binary and family.binary_per_conv) if per_conv is None else per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )
    return ResNet(
        tuple(max(1, round(w * width)) for w in family.widths),
        depths,
        num_classes=num_classes,
        input_shape=check_input(in_channels, input_shape, num_classes),
        style=style,
        stem_activation=family.binary_stem_activation or not is_binary,
        norm_head=is_binary,
    )


def resnet18(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-18 for small images: the teacher (11,173,962 parameters) or, with `binary`, ReCU's student (11,005,002).

    Binary: one shortcut per block, no activation after the stem, 2x2 average pool + zero channels for
    down-sampling, BatchNorm1d before the classifier. Options, each an architecture of its own: `per_conv` (one
    shortcut per convolution, Bi-Real), `float_downsample` (average pool + full-precision 1x1 convolution),
    `padding_value` (+1 or -1 at the borders in place of 0), `shortcut` (``projection``, ``pad``, ``avgpool``),
    `width` (a factor on every number of channels, the teacher's too).
    Input (n, *input_shape), by default (in_channels, 32, 32); output (n, num_classes).
    Raises ValueError on an unknown scheme or shortcut, or a shape that does not fit.
    """
    return _build(
        _WIDE,
        (2, 2, 2, 2),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )


def resnet34(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-34 for small images, teacher or student; arguments, shapes and errors as `resnet18`."""
    return _build(
        _WIDE,
        (3, 4, 6, 3),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )


def resnet20(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-20 for small images: the teacher (269,722 parameters) or, with `binary`, ReCU's student.

    Binary: one shortcut per convolution already (`per_conv=False` for one per block), hardtanh after the stem;
    the rest, arguments, shapes and errors as `resnet18`. The teacher has option-A shortcuts (He et al. 2016);
    ``shortcut="projection"`` gives RepDistiller's form (278,324 parameters at 100 classes).
    """
    return _build(
        _NARROW,
        (3, 3, 3),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )


def resnet32(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-32 for small images, teacher or student; as `resnet20`."""
    return _build(
        _NARROW,
        (5, 5, 5),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )


def resnet56(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-56 for small images, teacher or student; as `resnet20`."""
    return _build(
        _NARROW,
        (9, 9, 9),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )


def resnet110(
    num_classes: int = 10,
    *,
    binary: str | Scheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    shortcut: str | None = None,
    per_conv: bool | None = None,
    float_downsample: bool = False,
    padding_value: int = 0,
) -> ResNet:
    """ResNet-110 for small images, teacher or student; as `resnet20`."""
    return _build(
        _NARROW,
        (18, 18, 18),
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        width=width,
        shortcut=shortcut,
        per_conv=per_conv,
        float_downsample=float_downsample,
        padding_value=padding_value,
    )
