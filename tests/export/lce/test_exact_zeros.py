"""The sign of exactly 0 is +1 in LCE too; a network for which this cannot be guaranteed is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.exported import images, randomised
from helpers.lce import count
from torch import Tensor, nn

from bnn_itrd.export import ExportError
from bnn_itrd.export.lce import run_lce, to_lce
from bnn_itrd.quant import BinaryConv2d

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


class Ties(nn.Module):
    """A binary layer without a bias, whose sums are often exactly 0, in front of a 1x1 layer's sign.

    between: what lies between the two; it keeps 0 at 0.
    """

    def __init__(self, first: nn.Module, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.between = nn.Identity() if between is None else between
        self.second = BinaryConv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.between(self.first(x)))
        return y.flatten(1)

    def by_hand(self, x: Tensor) -> tuple[Tensor, float]:
        """Returns (logits in float64 from exact sums, share of values before the second sign that are exactly 0)."""
        value = x.double()
        for layer in (self.first, self.second):
            signs = torch.where(value >= 0, 1.0, -1.0).double()
            if layer is self.second:
                zeros = float((value == 0).double().mean())
            assert isinstance(layer, BinaryConv2d)
            latent = layer.weight.double()
            alpha: Any = layer.weight_binarizer.alpha
            value = F.conv2d(
                F.pad(signs, [layer.padding[1]] * 2 + [layer.padding[0]] * 2, value=layer.padding_value),
                torch.where(latent - latent.mean((1, 2, 3), keepdim=True) >= 0, 1.0, -1.0).double(),
                stride=layer.stride,
                dilation=layer.dilation,
                groups=layer.groups,
            )
            value = value * alpha.detach().double().reshape(-1, 1, 1)
            if layer is self.first:
                value = self.between.double()(value)
                self.between.float()
        return value.flatten(1).detach(), zeros


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


# 4 channels to 8; each with what lies between it and the sign.
TIES: dict[str, tuple[Callable[[], BinaryConv2d], Callable[[], nn.Module] | None]] = {
    "pad_1": (lambda: BinaryConv2d(4, 8, 3, padding=1), None),
    "hardtanh": (lambda: BinaryConv2d(4, 8, 3, padding=1), nn.Hardtanh),
    "stride_2": (lambda: BinaryConv2d(4, 8, 3, 2, 1), None),
    "grouped": (lambda: BinaryConv2d(4, 8, 3, padding=1, groups=2), None),
    "wide_border": (lambda: BinaryConv2d(4, 8, 3, padding=2), None),
    "minus_one": (lambda: BinaryConv2d(4, 8, 3, padding=1, padding_value=-1), None),
    "pooled": (lambda: BinaryConv2d(4, 8, 3, padding=1), lambda: nn.MaxPool2d(2)),
    "pooled_wide_border": (lambda: BinaryConv2d(4, 8, 3, padding=2), lambda: nn.MaxPool2d(2)),
    "added": (lambda: BinaryConv2d(4, 8, 3, padding=1), Doubled),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_exact(name: str, folder: Path, lce: Path) -> None:
    first, between = TIES[name]
    torch.manual_seed(3)
    model = Ties(first(), None if between is None else between())
    with torch.no_grad():
        for layer in (model.first, model.second):
            assert isinstance(layer, BinaryConv2d)
            layer.weight_binarizer.alpha.uniform_(0.01, 1.0)  # type: ignore[operator, union-attr]
        model.first.weight_binarizer.alpha[::3] *= -1  # type: ignore[index, operator, union-attr]
    file = to_lce(model.eval(), folder / "ties.tflite", input_shape=(4, 8, 6))
    x = images(20, (4, 8, 6))
    expected, zeros = model.by_hand(x)
    assert zeros > 0.02
    np.testing.assert_allclose(run_lce(file, x), expected, rtol=1e-5, atol=1e-5)
    alone = between in (None, nn.Hardtanh)
    assert (count(file)["MUL"] > 0) != alone


def test_a_result_that_no_sign_reads_needs_no_exact_zero(folder: Path, lce: Path) -> None:
    torch.manual_seed(3)
    last = nn.Sequential(BinaryConv2d(4, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten()).eval()
    assert not count(to_lce(last, folder / "last.tflite", input_shape=(4, 8, 6)))["MUL"]
    # A BatchNorm moves 0 away from the sign's threshold.
    normed = Ties(BinaryConv2d(4, 8, 3, padding=1), nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8)))
    randomised(normed)
    assert count(to_lce(normed, folder / "normed.tflite", input_shape=(4, 8, 6)))["MUL"] == 1
    with torch.no_grad():
        for tensor in (normed.between[1].bias, normed.between[1].running_mean):  # type: ignore[index, union-attr]
            tensor[3] = 0  # type: ignore[index]
    assert count(to_lce(normed, folder / "normed.tflite", input_shape=(4, 8, 6)))["MUL"] == 2


def test_many_flips_without_a_margin_are_refused(folder: Path, lce: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wrong sign is one of a value of exactly 0, so only the number of wrong signs shows the fault."""
    import bnn_itrd.export.lce.binary as binary

    torch.manual_seed(3)
    model = Ties(BinaryConv2d(4, 8, 3, padding=1)).eval()
    with torch.no_grad():
        model.first.weight_binarizer.alpha.uniform_(0.01, 1.0)  # type: ignore[operator, union-attr]
    monkeypatch.setattr(binary, "only_signs_read", lambda value: False)
    monkeypatch.setattr(binary, "zero_decides", lambda value: False)
    with pytest.raises(ExportError, match=r"^second: in LCE's interpreter \d+ of the 1152 signs .* than rounding"):
        to_lce(model, folder / "wrong.tflite", input_shape=(4, 8, 6))
    assert not (folder / "wrong.tflite").exists()
