"""Builds VGG-8/11/13/16/19 for small images, with one linear layer after a global pool, in full precision or binary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn_itrd.models.blocks import Style
from bnn_itrd.models.builder import prelude, remembered, scaled
from bnn_itrd.quant.scheme import AnyScheme

__all__ = ["VGG", "VGGBuilder", "initialise", "vgg8", "vgg11", "vgg13", "vgg16", "vgg19"]

_WIDTHS = (64, 128, 256, 512, 512)
# From this height on, a fourth pool keeps the last maps small, as RepDistiller does for 64 x 64.
_FOUR_POOLS = 64


def initialise(network: nn.Module, classifier: nn.Linear) -> None:
    """Draws initial weights for the classifier and the nn.Conv2d modules of a VGG, as torchvision and RepDistiller do.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    >>> initialise(network, network[2])
    >>> network[0].bias.sum().item()
    0.0
    """
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class VGG(nn.Module):
    """A VGG: five blocks of 3x3 convolutions with BatchNorm, a MaxPool after the first three, global average, linear.

    (n, c, h, w) -> (n, classes). From 64 pixels of height on, a MaxPool follows the fourth block too.
    For distillation, the maps are the outputs of the modules that `stages` names, block2 to block5, before the pool,
    and the representation is the pooled input of the module that `head` names. These are RepDistiller's features f1 to
    f5; its f0, the output of block1, is left out.
    widths, depths: the channels and the number of convolutions of each block.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        *,
        num_classes: int,
        input_shape: tuple[int, int, int],
        style: Style,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        pools = 4 if height >= _FOUR_POOLS else 3
        if min(height, width) < 2**pools:
            raise ValueError(f"input_shape must be at least {2**pools} pixels on each side, got {height} x {width}")
        self.input_shape = input_shape
        self.head = "linear"
        self.stages = tuple(f"block{i + 1}" for i in range(1, len(depths)))
        for i, (out, depth) in enumerate(zip(widths, depths, strict=True)):
            parts: list[nn.Module] = []
            for j in range(depth):
                conv: nn.Module
                if style.scheme is None:
                    conv = nn.Conv2d(channels, out, 3, padding=1)  # with a bias, as published
                else:
                    conv = style.stem(channels, out) if i == j == 0 else style.conv3x3(channels, out)
                parts += [conv, nn.BatchNorm2d(out), style.activation(out)]
                channels = out
            setattr(self, f"block{i + 1}", nn.Sequential(*parts))
            setattr(self, f"pool{i + 1}", self._pool(channels, style) if i < pools else nn.Identity())
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self, self.linear)

    @staticmethod
    def _pool(channels: int, style: Style) -> nn.Module:
        if style.scheme is None:
            return nn.MaxPool2d(2)
        # The sign of a maximum is nearly always +1 (Rastegari et al. 2016, sec. 3.2), so a BatchNorm centres it again.
        return nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(channels), style.activation(channels))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, len(self.stages) + 2):
            x = getattr(self, f"pool{i}")(getattr(self, f"block{i}")(x))
        logits: Tensor = self.linear(torch.flatten(self.average(x), 1))
        return logits


@dataclass(frozen=True)
class VGGBuilder:
    """Builds a VGG of one depth, in full precision or, with `binary`, as a binary network.

    The networks are those of Simonyan and Zisserman 2015, table 1 (A, B, D, E), without the hidden linear layers; VGG-8
    has one convolution in each block (Tian et al. 2020). depths: the number of convolutions in each block.

    >>> vgg8(num_classes=100, binary="recu", width=0.25)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """

    depths: tuple[int, ...]

    @remembered
    def __call__(
        self,
        num_classes: int = 10,
        *,
        binary: AnyScheme | None = None,
        in_channels: int = 3,
        input_shape: Sequence[int] | None = None,
        width: float = 1.0,
        padding_value: int = 0,
    ) -> VGG:
        """Returns the network, (n, *input_shape) -> (n, num_classes); input_shape is (in_channels, 32, 32) by default.

        In a binary network every convolution but the first is binary, none has a bias, hardtanh replaces ReLU, and
        BatchNorm and hardtanh follow each pool. `width`: a factor on every number of channels; `padding_value`: what
        the border of a binary layer's input holds after the sign: 0, +1 or -1. Raises ValueError on an unknown scheme
        or a shape that does not fit.
        """
        shape, style = prelude(
            num_classes,
            binary=binary,
            in_channels=in_channels,
            input_shape=input_shape,
            width=width,
            padding_value=padding_value,
        )
        widths = [scaled(channels, width) for channels in _WIDTHS]
        return VGG(widths, self.depths, num_classes=num_classes, input_shape=shape, style=style)


# In full precision, VGG-8 has 3,965,028 and VGG-13 has 9,462,180 parameters at 100 classes.
vgg8 = VGGBuilder((1, 1, 1, 1, 1))
vgg11 = VGGBuilder((1, 1, 2, 2, 2))
vgg13 = VGGBuilder((2, 2, 2, 2, 2))
vgg16 = VGGBuilder((2, 2, 3, 3, 3))
vgg19 = VGGBuilder((2, 2, 4, 4, 4))
