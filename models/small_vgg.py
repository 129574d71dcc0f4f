"""Builds VGG-small, a network of six convolutions in many papers on binary networks, in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["VGGSmall", "vgg_small"]


class VGGSmall(nn.Module):
    """VGG-small: six 3x3 convolutions (128-128-256-256-512-512 channels) and a linear layer; -> (n, classes).

    A MaxPool follows the 2nd, 4th and 6th convolution, before its BatchNorm. norm_before_pool: puts the MaxPool after
    the BatchNorm, whose factors may then be negative in FPGA circuits made with FINN. Input: (n, c, h, w), where h and
    w must be multiples of 8. `head` and `stages` name the modules that `observe` uses.
    """

    def __init__(
        self, *, num_classes: int, input_shape: tuple[int, int, int], style: Style, norm_before_pool: bool = False
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if height % 8 or width % 8:
            raise ValueError(f"vgg_small needs a height and width that are multiples of 8, got {height} x {width}")
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = ("layer2", "layer4", "layer6")
        self.layer1 = nn.Sequential(style.stem(channels, 128), nn.BatchNorm2d(128), style.activation(128))
        previous = 128
        for i, out in enumerate((128, 256, 256, 512, 512), start=2):
            parts: list[nn.Module] = [style.conv3x3(previous, out)]
            # As published, the pool stands after the layer's scale, which may be negative, and before the BatchNorm.
            norm_and_pool: list[nn.Module] = [*([nn.MaxPool2d(2)] if i % 2 == 0 else []), nn.BatchNorm2d(out)]
            parts += reversed(norm_and_pool) if norm_before_pool else norm_and_pool
            # An integer classifier clamps its input itself, so no activation is needed in front of it.
            last = i == 6 and style.first_last_bits is not None
            activation = nn.Identity() if last else style.activation(out)
            setattr(self, f"layer{i}", nn.Sequential(*parts, activation))
            previous = out
        self.linear = style.classifier(512 * (height // 8) * (width // 8), num_classes, normalise=False)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 7):
            x = getattr(self, f"layer{i}")(x)
        logits: Tensor = self.linear(torch.flatten(x, 1))
        return logits


@remembered
def vgg_small(
    num_classes: int = 10,
    *,
    binary: AnyScheme | None = None,
    in_channels: int = 3,
    input_shape: Sequence[int] | None = None,
    padding_value: int = 0,
    first_last_bits: int | None = None,
    norm_before_pool: bool = False,
) -> VGGSmall:
    """Returns VGG-small, in full precision or, with `binary`, as a binary network (Zhang et al. 2018, LQ-Nets' form).

    (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default. In full precision it has
    ReLU, as a binary network hardtanh.
    Three options are for FPGAs (docs/guides/fpga.md). padding_value: +1 or -1 at the borders of binary layers instead
    of 0. first_last_bits: the bits of weights and activations in the first convolution and the classifier.
    norm_before_pool: puts the BatchNorm before the MaxPool, so that its factors may have any sign. Raises ValueError on
    an unknown scheme or a shape that does not fit.

    >>> vgg_small(10, input_shape=(3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    shape, style = prelude(
        num_classes,
        binary=binary,
        in_channels=in_channels,
        input_shape=input_shape,
        padding_value=padding_value,
        first_last_bits=first_last_bits,
    )
    if norm_before_pool and binary is None:
        raise ValueError("norm_before_pool=True needs a binary network: set it to False, or give binary a scheme")
    return VGGSmall(num_classes=num_classes, input_shape=shape, style=style, norm_before_pool=norm_before_pool)
