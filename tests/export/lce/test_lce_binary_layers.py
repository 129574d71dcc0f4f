"""Binary convolutions and linear layers of every form, in LCE's own interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.exported import images, randomised
from helpers.lce import Side, assert_equal_logits, count, with_offset
from torch import Tensor, nn

from bnn_itrd.export.lce import to_lce
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)
# Convolutions of 4 channels to 6; how many LceBconv2d each needs.
BINARY: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "same": (lambda: BinaryConv2d(4, 6, 3, padding=1), 1),
    "stride_2": (lambda: BinaryConv2d(4, 6, 3, 2, 1), 1),
    "stride_3": (lambda: BinaryConv2d(4, 6, 3, 3, 1), 1),
    "stride_2_minus_one": (lambda: BinaryConv2d(4, 6, 3, 2, 1, padding_value=-1, bias=True), 1),
    "pointwise_stride_2": (lambda: BinaryConv2d(4, 6, 1, 2), 1),
    "five_of_two_sizes": (lambda: BinaryConv2d(4, 6, (5, 2), (2, 1), (2, 1)), 1),
    "wide_border": (lambda: BinaryConv2d(4, 6, 3, padding=2), 1),
    "dilated": (lambda: BinaryConv2d(4, 6, 3, dilation=2, padding=2), 1),
    "dilated_stride": (lambda: BinaryConv2d(4, 6, 3, 2, 2, dilation=2), 1),
    "grouped": (lambda: BinaryConv2d(4, 6, 3, 2, 1, groups=2), 2),
    "depthwise_plus_one": (lambda: BinaryConv2d(4, 8, 3, padding=1, groups=4, padding_value=1), 4),
    "offset": (lambda: with_offset(BinaryConv2d(4, 6, 3, padding=1, bias=True)), 2),
    "offset_grouped": (lambda: with_offset(BinaryConv2d(4, 6, 3, 2, 1, groups=2)), 4),
}


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 7, 9), (4, 2, 3)])
def test_binary_layers(shape: tuple[int, int, int], folder: Path, lce: Path) -> None:
    """Even, odd and tiny images (smaller than the kernel: LCE's own zero padding would be wrong), ties at 0 and -0."""
    torch.manual_seed(4)
    layers = {
        name: nn.Sequential(build(), nn.BatchNorm2d(8 if "depthwise" in name else 6))
        for name, (build, _) in BINARY.items()
        if shape[1] > 2 or name not in ("pointwise_stride_2",)
    }
    model = randomised(Side(layers))
    x = (images(3, shape) * 3).round() / 3
    x[0, :, ::2] = -0.0
    x[0, :, 1::2] = 0.0
    file = to_lce(model, folder / "layers.tflite", input_shape=shape)
    assert count(file)["LceBconv2d"] == sum(BINARY[name][1] for name in layers)
    with torch.no_grad():
        sizes = {name: layer(x)[0].numel() for name, layer in layers.items()}
    assert_equal_logits(model, file, x, sizes)


class LinearAfter(nn.Module):
    """A binary linear layer behind a flattened image, one on rows, and an ordinary one behind a pooled image."""

    def __init__(self) -> None:
        super().__init__()
        # With a bias: a sum of exactly 0 may come out on either side of it.
        self.conv = BinaryConv2d(4, 5, 3, 2, 1, bias=True)
        self.first = BinaryLinear(5 * 4 * 3, 6, bias=True)
        self.rows = with_offset(BinaryLinear(12, 3))
        self.norm = nn.BatchNorm1d(60)
        self.last = nn.Linear(60, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        flat = x.flatten(1)
        return torch.cat([self.first(flat), self.rows(x.flatten(2)).flatten(1), self.last(self.norm(flat))], dim=1)


def test_linear_layers(folder: Path, lce: Path) -> None:
    torch.manual_seed(5)
    model = randomised(LinearAfter())
    file = to_lce(model, folder / "linear.tflite", input_shape=(4, 8, 6))
    assert count(file)["LceBconv2d"] == 4
    assert_equal_logits(model, file, images(3, (4, 8, 6)), {"first": 6, "rows": 15, "last": 4})
