"""Float layers around binary ones in LCE's own interpreter, also where the writer reverses the order of pixels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.exported import images, randomised
from helpers.lce import Side, assert_equal_logits, count
from torch import Tensor, nn

from bnn_itrd.export.lce import to_lce
from bnn_itrd.quant import BinaryConv2d

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


class Shifted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, 1:, 1::2, :-1], F.pad(x, (1, 2, 0, 1), value=0.5)
        a, b = x.chunk(2, dim=1)
        rows = torch.cat([x[:, :, :2], x], dim=2)
        return torch.cat([part.flatten(1) for part in (first, second, a * b, rows)], dim=1)


class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.linspace(-1, 1, 48).reshape(8, 6))
        self.scale = nn.Parameter(torch.linspace(-1, 1, 4).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = (x * self.mask - self.scale) / (self.scale.abs() + 1)
        return torch.maximum(y, -x) + x.mean((2, 3), keepdim=True) + x.amax((2, 3))[:, :, None, None]


class Moved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens


FLOAT: dict[str, Callable[[], nn.Module]] = {
    "conv_stride": lambda: nn.Conv2d(4, 5, 3, 2, 1),
    "conv_pointwise_stride": lambda: nn.Conv2d(4, 5, 1, 2),
    "conv_wide": lambda: nn.Conv2d(4, 5, (5, 3), (1, 2), (3, 0), dilation=(1, 2), bias=False),
    "conv_grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=4),
    "depthwise_dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
    "max": lambda: nn.MaxPool2d(3, 2, 1),
    "max_ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2),
    "average_ceil": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "average_border": lambda: nn.AvgPool2d(3, 2, 1),
    "average_border_not_counted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
    "norm": lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)),
    "relu": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
    "relu6": lambda: nn.ReLU6(),
    "hardtanh": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardtanh()),
    "hardtanh_uneven": lambda: nn.Hardtanh(-0.5, 2),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "prelu": lambda: nn.PReLU(4),
    "sigmoid": lambda: nn.Sequential(nn.Sigmoid(), nn.Tanh()),
    "hardswish": lambda: nn.Sequential(nn.Hardswish(), nn.Hardsigmoid()),
    "elu": lambda: nn.ELU(),
    "softmax_channels": lambda: nn.Softmax(1),
    "reflect": lambda: nn.ReflectionPad2d((1, 0, 2, 1)),
    "global": lambda: nn.AdaptiveMaxPool2d(1),
    "shifted": lambda: Shifted(),
    "arithmetic": lambda: Arithmetic(),
    "moved": lambda: Moved(),
}


class Turned(nn.Module):
    """Float layers after a binary one for which the writer reverses the order of the image's pixels."""

    def __init__(self, layers: dict[str, nn.Module], reverse: bool) -> None:
        super().__init__()
        self.first = BinaryConv2d(4, 4, 3, 2, 1) if reverse else nn.AvgPool2d(2)
        self.side = Side(layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.side(self.first(x) * 0.3)
        return y


@pytest.mark.parametrize("reverse", [False, True])
def test_ordinary_layers(reverse: bool, folder: Path, lce: Path) -> None:
    torch.manual_seed(6)
    layers = {name: randomised(build()) for name, build in FLOAT.items()}
    model = Turned(layers, reverse).eval()
    file = to_lce(model, folder / "float.tflite", input_shape=(4, 16, 12))
    assert (count(file)["REVERSE_V2"] > 0) == reverse
    x = images(3, (4, 16, 12))
    with torch.no_grad():
        sizes = {name: layer(model.first(x))[0].numel() for name, layer in layers.items()}
    assert_equal_logits(model, file, x, sizes)


class Shared(nn.Module):
    """A network in which a value is read twice, once after a reshape: the ReLU must not join the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + F.relu(y.reshape(-1, 4, 8, 8))).flatten(1)


def test_an_activation_of_a_shared_value_stays_outside(folder: Path, lce: Path) -> None:
    model = Shared().eval()
    file = to_lce(model, folder / "shared.tflite", input_shape=(3, 8, 8))
    assert_equal_logits(model, file, images(2, (3, 8, 8)), {"all": 256})
