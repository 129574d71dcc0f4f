"""All networks of MODELS: parameter counts, other image shapes, options, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import parameters
from torch import nn

from bnn_itrd.models import MODELS, resnet18, resnet20, resnet32, resnet34, resnet56, resnet110, vgg_small
from bnn_itrd.quant import BinaryConv2d, Scheme

RELATIVES = {
    *("resnet14", "resnet32", "resnet32x4", "resnet34", "resnet44", "resnet56", "resnet110"),
    *("vgg11", "vgg13", "vgg16", "vgg19", "wrn_16_2", "wrn_40_1", "wrn_40_2", "mobilenet_v2"),
}


def narrow_count(depth: int, *, binary: bool, classes: int = 10) -> int:
    """ResNet-20's family counted from its definition: convolutions, BatchNorms, alpha, the classifier."""
    n = (depth - 2) // 6
    total = 3 * 16 * 9 + 2 * 16
    previous = 16
    for width in (16, 32, 64):
        for i in range(2 * n):
            total += (previous if i == 0 else width) * width * 9 + 2 * width + (width if binary else 0)
        previous = width
    return total + 64 * classes + classes + (2 * 64 if binary else 0)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (resnet18(), 11_173_962),  # the usual CIFAR ResNet-18
        (resnet18(binary="recu"), 11_005_002),  # ReCU's, with alpha
        (resnet20(), 269_722),  # option A
        (resnet20(100, shortcut="projection"), 278_324),  # RepDistiller's
        (resnet20(binary="recu"), narrow_count(20, binary=True)),
        (resnet32(), narrow_count(32, binary=False)),
        (resnet56(binary="recu"), narrow_count(56, binary=True)),
        (resnet110(100), narrow_count(110, binary=False, classes=100)),
        (resnet34(), 21_282_122),  # the usual CIFAR ResNet-34
        # VGG-small: 128-128-256-256-512-512 convolutions, BatchNorms, 8192 x 10 + 10
        (
            vgg_small(),
            9 * (3 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512) + 2 * 1792 + 81_930,
        ),
        (vgg_small(binary="recu"), 4_660_106 + 128 + 256 + 256 + 512 + 512),
    ],
)
def test_parameter_counts(model: nn.Module, count: int) -> None:
    assert parameters(model) == count


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("binary", [None, "recu"])
def test_every_model_runs_at_other_shapes(name: str, binary: str | None) -> None:
    if name in RELATIVES:
        pytest.skip("the same code as its smaller relative")
    shape = (1, 32, 40) if name == "vgg9" else (1, 16, 24)  # five pools
    model = MODELS[name](7, binary=binary, in_channels=1, input_shape=shape).eval()
    assert model.input_shape == shape
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_options_reach_the_layers() -> None:
    model = resnet18(binary=Scheme("xnor", "clipped"), padding_value=-1, float_downsample=True)
    convs = [m for m in model.modules() if isinstance(m, BinaryConv2d)]
    assert all(c.padding_value == -1 and c.scheme.weight == "xnor" for c in convs)
    assert any(isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) for m in model.layer2[0].shortcut)
    wide = resnet20(binary="recu", width=2)
    assert wide.layer3[0].conv1.out_channels == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binary": "rec"}, "unknown scheme 'rec'.*did you mean 'recu'"),
        ({"padding_value": 1}, "needs a binary network"),
        ({"binary": "recu", "padding_value": 2}, "padding_value must be -1, 0 or 1, got 2"),
        ({"input_shape": (1, 32, 32)}, "has 1 channels but in_channels is 3"),
        ({"input_shape": (3, 32)}, "must be .channels, height, width."),
        ({"num_classes": 0}, "num_classes must be >= 1, got 0"),
        ({"shortcut": "pool"}, "shortcut must be one of projection, pad, avgpool"),
        ({"width": 0}, "width must be > 0"),
        (
            {"binary": "recu", "float_downsample": True, "shortcut": "pad"},
            "float_downsample=True exclude each other",
        ),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet18(**options)
