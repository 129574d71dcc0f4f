"""The bottleneck block of deeper residual networks, in full precision or binary."""

from __future__ import annotations

from torch import Tensor, nn

from bnn_itrd.models.blocks import Style, make_shortcut
from bnn_itrd.quant import IntegerQuantizer

__all__ = ["Bottleneck"]


class Bottleneck(nn.Module):
    """A residual block of a 1x1, a 3x3 and a 1x1 convolution; (n, c, h, w) -> (n, 4 * width, h/s, w/s), stride s.

    It computes ``act(bn3(conv3(act(bn2(conv2(act(bn1(conv1(x)))))))) + shortcut(x))`` (He et al. 2016), with `width`
    channels inside and the stride on the 3x3 convolution, where torchvision and RepDistiller have it. In a binary
    network all three convolutions are binary, and hardtanh replaces ReLU.
    Raises ValueError if the style has per_conv, or if `stream` is not None, because the channels change inside the
    block: a shortcut for each convolution, and integer additions throughout, are only for `BasicBlock`.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, style: Style, stream: IntegerQuantizer | None = None
    ) -> None:
        super().__init__()
        if style.per_conv:
            raise ValueError("per_conv must be False for bottleneck blocks, whose convolutions change the channels")
        if stream is not None:
            raise ValueError("residual_bits must be None for bottleneck blocks: only basic blocks add integers")
        out_channels = width * self.expansion
        self.conv1 = style.conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = style.activation(width)
        self.conv2 = style.conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = style.activation(width)
        self.conv3 = style.conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.act3 = style.activation(out_channels)
        self.shortcut = make_shortcut(style, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.act3(y + self.shortcut(x))
        return out
