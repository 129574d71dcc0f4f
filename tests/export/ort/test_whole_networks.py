"""Whole networks become ONNX files that compute what the networks compute: ours, a user's own, torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
import torchvision
from helpers.exported import SMALL, assert_same_function, images, randomised
from helpers.networks import Mixed
from torch import Tensor, nn

from bnn_itrd.export import session, to_onnx, validate
from bnn_itrd.export.graph import nodes_of
from bnn_itrd.models import resnet20, vgg_small
from bnn_itrd.quant import BinaryConv2d, Scheme, binarize

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: resnet20(binary="recu", input_shape=SMALL), SMALL),
    "resnet20_teacher": (lambda: resnet20(input_shape=SMALL), SMALL),
    "resnet20_minus_one_xnor": (
        lambda: resnet20(binary="xnor", padding_value=-1, input_shape=(3, 8, 8)),
        (3, 8, 8),
    ),
    "resnet20_plus_one_per_block": (
        lambda: resnet20(binary="recu", padding_value=1, per_conv=False, input_shape=(3, 8, 8)),
        (3, 8, 8),
    ),
    "resnet20_float_downsample": (
        lambda: resnet20(binary=Scheme("xnor", "recu"), float_downsample=True, input_shape=(3, 12, 20)),
        (3, 12, 20),
    ),
    "vgg_small": (lambda: vgg_small(binary="recu", input_shape=SMALL), SMALL),
    "vgg_small_minus_one": (
        lambda: vgg_small(7, binary="recu", padding_value=-1, in_channels=1, input_shape=(1, 8, 8)),
        (1, 8, 8),
    ),
}


@pytest.mark.compiles
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, folder: Path) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = randomised(build())
    assert_same_function(model, to_onnx(model, folder / f"{name}.onnx"), shape)


@pytest.mark.compiles
@pytest.mark.exhaustive
def test_torchvision_network_binarised(folder: Path) -> None:
    torch.manual_seed(3)
    model = randomised(binarize(torchvision.models.resnet18(num_classes=5)).model)
    file = to_onnx(model, folder / "torchvision.onnx", input_shape=(3, 32, 32))
    assert file.stat().st_size < 4_300_000
    assert_same_function(model, file, (3, 32, 32))


@pytest.mark.compiles
def test_all_float_network(folder: Path) -> None:
    torch.manual_seed(3)
    setting = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
    network = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.5, inverted_residual_setting=setting)
    model = randomised(network)
    file = to_onnx(model, folder / "mobilenet.onnx", input_shape=(3, 32, 32))
    assert_same_function(model, file, (3, 32, 32))
    assert not nodes_of(ir.load(file), "BatchNormalization")


def test_sums_on_a_threshold_keep_their_bit(folder: Path) -> None:
    """Fresh BatchNorm: many sums are 0, and their sign +1. An inexact sum would flip them either way."""
    torch.manual_seed(5)
    model = nn.Sequential(
        BinaryConv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), BinaryConv2d(16, 4, 3), nn.Flatten()
    ).eval()
    x = images(20, (8, 8, 8))
    with torch.no_grad():
        assert float((model[0](x) == 0).float().mean()) > 0.02
    file = to_onnx(model, folder / "threshold.onnx", input_shape=(8, 8, 8))
    assert validate(model, file, x).max_difference < 1e-5


class Answers(Mixed):
    """Its logits next to something else, as in transformers' models."""

    def forward(self, x: Tensor) -> dict[str, Any]:  # type: ignore[override]
        return {"loss": None, "logits": super().forward(x)}


@pytest.mark.compiles
def test_users_own_network(folder: Path) -> None:
    torch.manual_seed(6)
    model = randomised(Answers())
    file = to_onnx(model, folder / "mixed.onnx", input_shape=(3, 8, 8))
    assert len(session(file).get_outputs()) == 1
    assert_same_function(model, file, (3, 8, 8))
