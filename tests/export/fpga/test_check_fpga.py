"""`check_fpga` says which layers FINN can map to hardware and, for the others, what to train instead."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers.fpga import SHAPE, Mixed, small, small_vgg
from torch import Tensor, nn

from bnn_itrd.export.fpga import check_fpga
from bnn_itrd.models import vgg_small
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, IntegerQuantizer, sign


def test_a_ready_network_maps() -> None:
    for model in (small(), small(per_conv=True), small_vgg(first_last_bits=8)):
        report = check_fpga(model)
        assert report.ok and not report.failures and f"all {len(report.layers)} layers map" in str(report)
    layers = {layer.path: layer.operation for layer in check_fpga(small()).layers}
    assert layers["conv1"] == "INT8 conv" and layers["layer2.0.shortcut.0.0"] == "binary 1x1 conv"
    assert layers["layer1.0"] == "addition" and layers["linear"] == "INT8 linear"


ORDINARY = {"padding_value": 0, "residual_bits": None, "first_last_bits": None, "shortcut": "avgpool"}
OTHER = {"padding_value": 1, "shortcut": "projection"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ORDINARY,
            [
                ("layer1.0.conv1", "pads with 0", "padding_value=-1"),
                ("layer1.0", "adds values that are not integers", "residual_bits=4"),
                ("layer2.0.act2", "limits floats", "residual_bits=4"),
                ("pool", "averages floats", "residual_bits=4"),
                ("conv1", "multiplies floats", "first_last_bits=8"),
                ("linear", "multiplies floats", "first_last_bits=8"),
                ("layer2.0.shortcut.pool", "truncates", "shortcut='binary'"),
                ("layer2.0.shortcut", "pads or cuts channels", "shortcut='binary'"),
            ],
        ),
        (
            OTHER,
            [
                ("layer2.0.conv2", "pads with +1", "padding_value=-1"),
                ("layer2.0.shortcut.0.0", "multiplies floats", "shortcut='binary'"),
            ],
        ),
    ],
    ids=["ordinary", "other"],
)
def test_what_does_not_map_has_a_way_out(options: Any, expected: list[tuple[str, str, str]]) -> None:
    report = check_fpga(small(**options))
    assert not report.ok and f"of {len(report.layers)} layers do not map" in str(report)
    for path, note, way_out in expected:
        found = [layer for layer in report.failures if layer.path == path]
        assert any(note in layer.note and way_out in str(layer.ways_out) for layer in found), path
        assert way_out in str(report)
    assert any(layer.maps for layer in report.layers) == (options is OTHER)


def test_operands_of_two_scales_are_found() -> None:
    model = small()
    model.layer1[0].operand2 = IntegerQuantizer(4, bound=2.0)
    (layer,) = check_fpga(model).failures
    assert layer.path == "layer1.0" and "different scales" in layer.note and "tied" in layer.ways_out[0]


def test_a_teacher_is_sent_to_be_binarised() -> None:
    report = check_fpga(vgg_small(input_shape=SHAPE))
    assert any("binary='recu'" in way for way in report.ways_out)


def test_other_binary_layers_that_do_not_map() -> None:
    torch.manual_seed(0)
    report = check_fpga(Mixed(), input_shape=(3, 12, 12))
    notes = {layer.path: layer.note for layer in report.failures}
    assert "pads with +1" in notes["a"] and "groups" in notes["a"] and "offset" in notes["b"]
    assert "multiplies floats" in notes["stem"] and "Sub" not in notes
    assert report.ways_out["train with a padding of -1: padding_value=-1"] == 2


class Between(nn.Module):
    """A network with a given module between two binary layers; the module gets (n, 4, 8, 8) or, if `flat`, (n, 256)."""

    def __init__(self, step: Any, *, flat: bool = False, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = BinaryConv2d(3, 4, 3, padding=1, padding_value=-1)
        self.second = BinaryConv2d(channels, 4, 1)
        self.last = BinaryLinear(256, 4)
        self.step, self.flat = step, flat
        self.per_channel = nn.Parameter(torch.linspace(0.5, 2, 4).reshape(4, 1, 1))
        self.per_pixel = nn.Parameter(torch.linspace(0.5, 2, 256).reshape(4, 8, 8))
        self.columns = nn.Parameter(torch.linspace(0.5, 2, 8))
        self.per_feature = nn.Parameter(torch.linspace(0.5, 2, 256))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.flat:
            return self.last(self.step(self, y.flatten(1)))
        y = self.second(self.step(self, y))
        return self.last(y.flatten(1) if y.shape[1] == 4 and y.shape[2] == 8 else y.reshape(-1, 256))


MAPS: dict[str, Any] = {
    "number": lambda m, y: y * 0.5 + 0.25,
    "per_channel": lambda m, y: y * m.per_channel - m.per_channel,
    "subtracted_from": lambda m, y: m.per_channel - y,
    "divided": lambda m, y: y / m.per_channel,
}
DOES_NOT: dict[str, tuple[Any, str]] = {
    "per_pixel": (lambda m, y: y * m.per_pixel + m.per_pixel, "shape .*8, 8.*differ by channel only"),
    "per_column": (lambda m, y: y + m.columns, r"shape \(8,\).*differ by channel only"),
    "divides_by_it": (lambda m, y: m.per_channel / y, "divides by a value that follows from the image"),
    "other_reshape": (
        lambda m, y: y.reshape(-1, 8, 4, 8).reshape(-1, 4, 8, 8),
        r"something else than \(images, features\)",
    ),
    "product": (lambda m, y: sign(y) @ sign(y), "multiplies two values that follow from the image"),
}


@pytest.mark.parametrize("name", MAPS)
def test_constants_that_thresholds_absorb(name: str) -> None:
    report = check_fpga(Between(MAPS[name]).eval(), input_shape=SHAPE)
    assert report.ok, str(report)


def test_a_constant_per_feature_behind_the_flattening() -> None:
    model = Between(lambda m, y: y * m.per_feature, flat=True).eval()
    assert check_fpga(model, input_shape=SHAPE).ok


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_is_neither_per_channel_nor_a_flattening_does_not_map(name: str) -> None:
    step, why = DOES_NOT[name]
    report = check_fpga(Between(step).eval(), input_shape=SHAPE)
    assert not report.ok
    assert any(re.search(why, layer.note) for layer in report.failures), str(report)
    assert all(layer.ways_out for layer in report.failures)
