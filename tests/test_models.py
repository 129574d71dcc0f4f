"""Networks: published parameter counts, the structure of the published forms, options, `observe`, `summary`."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from bnn_itrd.models import (
    MODELS,
    BasicBlock,
    PadShortcut,
    observe,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet56,
    resnet110,
    summary,
    vgg_small,
)
from bnn_itrd.quant import BinaryConv2d, Scheme


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


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


def test_binary_resnet18_is_the_published_form() -> None:
    model = resnet18(binary="recu")
    assert isinstance(model.act1, nn.Identity)  # no activation after the stem
    assert isinstance(model.norm, nn.BatchNorm1d)
    assert sum(isinstance(m, BinaryConv2d) for m in model.modules()) == 16
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    assert all(not b.per_conv and isinstance(b.act1, nn.Hardtanh) for b in blocks)
    down = [b.shortcut for b in blocks if not isinstance(b.shortcut, nn.Identity)]
    assert len(down) == 3 and all(isinstance(s, PadShortcut) and s.pool is not None for s in down)
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_binary_resnet20_has_a_shortcut_per_convolution_and_a_stem_activation() -> None:
    model = resnet20(binary="recu")
    assert isinstance(model.act1, nn.Hardtanh)
    assert all(m.per_conv for m in model.modules() if isinstance(m, BasicBlock))
    assert not any(m.per_conv for m in resnet20(binary="recu", per_conv=False).modules() if isinstance(m, BasicBlock))


@pytest.mark.parametrize("per_conv", [False, True])
def test_block_equals_its_formula(per_conv: bool) -> None:
    torch.manual_seed(0)
    model = resnet18(binary="recu", per_conv=per_conv).eval()
    block = model.layer2[0]
    x = torch.randn(2, 64, 8, 8)
    shortcut = torch.cat([torch.zeros(2, 32, 4, 4), torch.nn.functional.avg_pool2d(x, 2), torch.zeros(2, 32, 4, 4)], 1)
    first = block.bn1(block.conv1(x))
    if per_conv:
        middle = (first + shortcut).clamp(-1, 1)
        expected = (block.bn2(block.conv2(middle)) + middle).clamp(-1, 1)
    else:
        expected = (block.bn2(block.conv2(first.clamp(-1, 1))) + shortcut).clamp(-1, 1)
    torch.testing.assert_close(block(x), expected)


def test_option_a_shortcut_takes_every_second_pixel() -> None:
    x = torch.randn(1, 4, 5, 5)
    y = PadShortcut(4, 8, 2, pool=False)(x)
    assert y.shape == (1, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2]) and not y[:, :2].any() and not y[:, 6:].any()


def test_pooling_shortcut_is_the_same_compiled() -> None:
    torch.manual_seed(0)
    module, x = PadShortcut(3, 8, 2, pool=True), torch.randn(2, 3, 6, 4, requires_grad=True)
    y = module(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    z = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    (again,) = torch.autograd.grad(z.square().sum(), x)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(again, grad)


def test_vgg_small_pools_before_the_batchnorm() -> None:
    kinds = [type(m).__name__ for m in vgg_small(binary="recu").layer2]
    assert kinds == ["BinaryConv2d", "MaxPool2d", "BatchNorm2d", "Hardtanh"]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("binary", [None, "recu"])
def test_every_model_runs_at_other_shapes(name: str, binary: str | None) -> None:
    if name in ("resnet110", "resnet56", "resnet34"):
        pytest.skip("the same code as its smaller relative")
    model = MODELS[name](7, binary=binary, in_channels=1, input_shape=(1, 16, 24)).eval()
    assert model.input_shape == (1, 16, 24)
    assert model(torch.randn(2, 1, 16, 24)).shape == (2, 7)


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
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet18(**options)


def test_vgg_small_refuses_odd_sizes() -> None:
    with pytest.raises(ValueError, match="multiples of 8, got 30 x 32"):
        vgg_small(input_shape=(3, 30, 32))


@pytest.mark.parametrize("binary", [None, "recu"])
def test_observe_gives_the_classifiers_input(binary: str | None) -> None:
    model = resnet20(binary=binary).eval()
    out = observe(model)(torch.randn(3, 3, 32, 32))
    assert out.representation.shape == (3, 64)
    torch.testing.assert_close(model.linear(out.representation), out.logits)
    assert [tuple(s.shape[1:]) for s in out.stages] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_observe_takes_foreign_networks() -> None:
    model = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    out = observe(model)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)
    assert len(out.stages) == 4
    vgg = torchvision.models.squeezenet1_1(weights=None)
    with pytest.raises(ValueError, match="no linear layer"):
        observe(vgg)
    with pytest.raises(ValueError, match="no submodule 'nothing'"):
        observe(model, stages=("nothing",))


def test_observe_takes_timm_networks() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=4).eval()
    out = observe(model)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)


def test_observe_compiles_whole_and_lets_go() -> None:
    model = resnet20(binary="recu").eval()
    observed = observe(model)
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(observed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).representation, observed(x).representation)
    observed.remove()
    assert not model.linear._forward_pre_hooks


def test_summary_counts_by_hand() -> None:
    result = summary(resnet20(binary="recu"))
    assert result.parameters == 270_522
    # 18 binary convolutions; a down-sampling one has half the inputs of its stage's others
    stage = 16 * 16 * 9 * 32 * 32
    assert result.binary_macs == 6 * stage + 2 * (stage // 2 + 5 * stage)
    assert result.float_macs == 3 * 16 * 9 * 32 * 32 + 640
    assert result.kept_float == ("conv1", "linear")
    by_path = {layer.path: layer for layer in result.layers}
    conv = by_path["layer1.0.conv1"]
    assert (conv.weight_bits, conv.activation_bits, conv.bytes) == (1, 1, 16 * 16 * 9 // 8 + 4 * 16)
    assert by_path["bn1"].bytes == 8 * 16
    assert sum(layer.parameters for layer in result.layers) == result.parameters
    text = str(result)
    assert "270,522" in text and f"{result.compression:.1f}x smaller" in text


def test_summary_of_the_headline_network() -> None:
    assert summary(resnet18(binary="recu")).compression > 30
    teacher = summary(resnet18())
    assert teacher.binary_macs == 0 and teacher.float_macs == 555_422_720


def test_summary_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="give input_shape"):
        summary(nn.Linear(3, 2))
    assert summary(nn.Linear(3, 2), (3,)).float_macs == 6
