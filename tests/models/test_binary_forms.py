"""The networks' binary forms: what a student keeps, that everything learns, what is counted, options and refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.formulas import tiny
from torch import nn

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import MODELS, observe, resnet8x4, resnet50, shufflenet_v2, summary, vgg8, wrn_16_1
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.networks import build

# One of each kind, small: what a deeper or wider relative would only repeat.
KINDS = ("resnet8x4", "resnet50", "wrn_16_1", "vgg8", "mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("binary", [None, "recu"])
def test_representation_and_maps_are_what_follows_reads(name: str, binary: str | None) -> None:
    torch.manual_seed(0)
    model = tiny(name, binary=binary).eval()
    out = observe(model)(torch.randn(2, 3, 16, 16))
    head = model.linear
    assert isinstance(head, nn.Linear)
    normalised = isinstance(getattr(model, "norm", None), nn.BatchNorm1d)
    torch.testing.assert_close(head(out.representation), out.logits)
    if not normalised and name in ("resnet8x4", "resnet50", "vgg8", "shufflenet_v1"):
        torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.representation)
    if name == "wrn_16_1":  # the map is the sum, before BatchNorm and activation
        read = model.act1(model.bn1(out.stages[-1])).mean((2, 3))
        torch.testing.assert_close(read, out.representation)
    if name in ("mobilenet_v2_half", "shufflenet_v2"):
        read = model.act2(model.bn2(model.conv2(out.stages[-1]))).mean((2, 3))
        torch.testing.assert_close(read, out.representation)


DEPTHWISE = {"mobilenet_v2_half": 17, "shufflenet_v1": 16, "shufflenet_v2": 19}


@pytest.mark.parametrize(
    ("name", "binary_layers"),
    [
        ("resnet8x4", 6),
        ("resnet50", 48),
        ("wrn_16_1", 12),
        ("vgg8", 4),
        ("mobilenet_v2_half", 2 * 17 + 1),
        ("shufflenet_v1", 2 * 16),
        ("shufflenet_v2", 2 * 13 + 3 * 3 + 1),
    ],
)
def test_what_a_student_keeps_in_full_precision(name: str, binary_layers: int) -> None:
    """The first convolution, the classifier, and depthwise convolutions: nothing else multiplies floats."""
    model = tiny(name, binary="recu")
    modules = dict(model.named_modules())
    assert sum(isinstance(m, BinaryConv2d) for m in modules.values()) == binary_layers
    first, *between, last = summary(model).kept_float
    assert first in ("conv1", "block1.0") and last == "linear"
    assert len(between) == DEPTHWISE.get(name, 0)
    for path in between:
        conv = modules[path]
        assert isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels == conv.out_channels
    assert not any(isinstance(m, nn.ReLU) for m in modules.values())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("binary", [None, "recu"])
def test_every_parameter_learns(name: str, binary: str | None) -> None:
    torch.manual_seed(0)
    model = tiny(name, binary=binary)
    model(torch.randn(8, 3, 16, 16)).square().mean().backward()
    # A bias in front of a BatchNorm is taken out again.
    idle = {f"block{i}.0.bias" for i in range(1, 6)} if binary is None else set()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), path
        assert path in idle or bool(parameter.grad.any()), path


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("binary", [None, "recu"])
def test_summary_adds_up(name: str, binary: str | None) -> None:
    model = tiny(name, binary=binary)
    result = summary(model)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.parameters == sum(layer.parameters for layer in result.layers)
    assert (result.binary_macs > 0) == (binary is not None)


def test_summary_counts_vgg8_and_a_wide_network_by_hand() -> None:
    convolutions = [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4), (512, 512, 4)]
    macs = [9 * i * o * side**2 for i, o, side in convolutions]
    assert summary(vgg8(100)).float_macs == sum(macs) + 512 * 100
    student = summary(vgg8(100, binary="recu"))
    assert (student.float_macs, student.binary_macs) == (macs[0] + 512 * 100, sum(macs[1:]))
    assert summary(wrn_16_1(10, binary="recu")).binary_macs == sum(
        9 * side**2 * (first * width + 3 * width * width)
        for first, width, side in ((16, 16, 32), (16, 32, 16), (32, 64, 8))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet50(binary="recu", per_conv=True), "per_conv must be False for bottleneck blocks"),
        (lambda: resnet50(binary="recu", residual_bits=4), "residual_bits must be None for bottleneck blocks"),
        (lambda: wrn_16_1(width=0), "width must be > 0, got 0"),
        (lambda: wrn_16_1(shortcut="none"), "shortcut must be one of projection, pad"),
        (
            lambda: wrn_16_1(binary="recu", float_downsample=True, shortcut="projection"),
            "shortcut='projection' and float_downsample=True exclude each other",
        ),
        (lambda: vgg8(input_shape=(3, 7, 32)), "at least 8 pixels on each side, got 7 x 32"),
        (lambda: vgg8(padding_value=1), "needs a binary network"),
        (lambda: shufflenet_v2(width=0.75), r"width must be one of 0\.5, 1\.0, 1\.5, 2\.0 .*got 0\.75"),
        (lambda: MODELS["mobilenet_v2"](width=-1), "width must be > 0, got -1"),
        (lambda: MODELS["shufflenet_v1"](binary="rec"), "did you mean 'recu'"),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_options_reach_the_builders() -> None:
    def made(scheme: SchemeConfig | None, **fields: object) -> nn.Module:
        network = NetworkConfig(**fields)  # type: ignore[arg-type]
        return build(network, scheme, num_classes=100, input_shape=(3, 32, 32))

    teacher = made(None, name="resnet20", teacher_shortcut="projection", shortcut="pad")
    assert sum(p.numel() for p in teacher.parameters()) == 278_324
    assert sum(p.numel() for p in made(None, name="mobilenet_v2", width=0.5).parameters()) == 812_836
    student = made(SchemeConfig(), name="resnet8x4", teacher_shortcut="pad", shortcut="avgpool", padding_value=-1)
    convs = [m for m in student.modules() if isinstance(m, BinaryConv2d)]
    assert len(convs) == 6 and all(c.padding_value == -1 for c in convs)
    for fields, message in [
        ({"name": "vgg8", "shortcut": "pad"}, "shortcut is not an option of vgg8, .*: width, padding_value"),
        ({"name": "vgg8", "teacher_shortcut": "pad"}, "teacher_shortcut is not an option of vgg8"),
        ({"name": "shufflenet_v1", "width": 2.0}, "width is not an option of shufflenet_v1, whose options are: none"),
        ({"name": "shufflenet_v2", "padding_value": 1}, "padding_value is not an option of shufflenet_v2"),
        ({"name": "wrn_16_2", "residual_bits": 4}, "residual_bits is not an option of wrn_16_2"),
        ({"name": "resnet50", "per_conv": True}, "network resnet50: per_conv must be False"),
    ]:
        with pytest.raises(UserError, match=message):
            made(SchemeConfig(), **fields)


def test_resnet8x4_is_wider_behind_its_stem() -> None:
    model = resnet8x4(binary="recu", width=0.5)
    assert (model.conv1.out_channels, model.layer1[0].conv1.out_channels) == (16, 32)
