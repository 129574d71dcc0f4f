"""The distillation literature's networks: published sizes and places of features, formulas, binary forms, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import (
    MODELS,
    Bottleneck,
    InvertedResidual,
    PreActivationBlock,
    ShuffleUnit,
    SplitUnit,
    observe,
    resnet8x4,
    resnet50,
    shufflenet_v2,
    summary,
    vgg8,
    wrn_16_1,
    wrn_16_2,
)
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.networks import build

# RepDistiller's networks (github.com/HobbitLong/RepDistiller, commit b84f547) with 100 classes: parameters counted on
# its `model_dict`, and the shapes of its features for a 3 x 32 x 32 image, without the first (the stem's).
NARROW = ([(16, 32, 32), (32, 16, 16), (64, 8, 8)], 64)
WIDER = ([(32, 32, 32), (64, 16, 16), (128, 8, 8)], 128)
TIMES_FOUR = ([(64, 32, 32), (128, 16, 16), (256, 8, 8)], 256)
VGGS = ([(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)], 512)
PUBLISHED: dict[str, tuple[int, tuple[list[tuple[int, ...]], int]]] = {
    "resnet8": (83_892, NARROW),
    "resnet14": (181_108, NARROW),
    "resnet20": (278_324, NARROW),
    "resnet32": (472_756, NARROW),
    "resnet44": (667_188, NARROW),
    "resnet56": (861_620, NARROW),
    "resnet110": (1_736_564, NARROW),
    "resnet8x4": (1_233_540, TIMES_FOUR),
    "resnet32x4": (7_433_860, TIMES_FOUR),
    "resnet50": (23_705_252, ([(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)], 2048)),
    "wrn_16_1": (180_916, NARROW),
    "wrn_16_2": (703_284, WIDER),
    "wrn_40_1": (569_780, NARROW),
    "wrn_40_2": (2_255_156, WIDER),
    "vgg8": (3_965_028, VGGS),
    "vgg11": (9_277_284, VGGS),
    "vgg13": (9_462_180, VGGS),
    "vgg16": (14_774_436, VGGS),
    "vgg19": (20_086_692, VGGS),
    "mobilenet_v2_half": (812_836, ([(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)], 1280)),
    "shufflenet_v1": (949_258, ([(240, 16, 16), (480, 8, 8), (960, 4, 4)], 960)),
    "shufflenet_v2": (1_355_528, ([(116, 16, 16), (232, 8, 8), (464, 4, 4)], 1024)),
}
NEW = sorted(set(PUBLISHED) - {"resnet20", "resnet32", "resnet56", "resnet110"})
# One of each kind, small: what a deeper or wider relative would only repeat.
KINDS = ("resnet8x4", "resnet50", "wrn_16_1", "vgg8", "mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2")


def published_form(name: str, **options: object) -> nn.Module:
    """In RepDistiller's form: the family with 16-32-64 channels has option A for its shortcuts by default."""
    narrow = name.startswith("resnet") and PUBLISHED[name][1] is NARROW
    return MODELS[name](100, **({"shortcut": "projection"} if narrow else {}), **options)


def tiny(name: str, **options: object) -> nn.Module:
    """A small one of a kind, for 16 x 16 images."""
    width = {"width": 0.25} if name in ("resnet50", "resnet8x4", "vgg8") else {}
    return MODELS[name](5, input_shape=(3, 16, 16), **width, **options)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorms and scales that are not 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model.double().eval()


# ---- sizes and places


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_equal_the_published_forms(name: str) -> None:
    with torch.device("meta"):
        model = published_form(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][0]


@pytest.mark.parametrize("name", NEW)
def test_stages_and_representation_are_the_published_features(name: str) -> None:
    with torch.device("meta"):
        model = published_form(name).eval()
        out = observe(model)(torch.empty(2, 3, 32, 32))
    shapes, width = PUBLISHED[name][1]
    assert [tuple(stage.shape) for stage in out.stages] == [(2, *shape) for shape in shapes]
    assert out.representation.shape == (2, width) and out.logits.shape == (2, 100)


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


@pytest.mark.parametrize("name", NEW)
def test_teacher_and_student_have_the_same_maps(name: str) -> None:
    def maps(binary: str | None) -> list[tuple[int, ...]]:
        with torch.device("meta"):
            out = observe(MODELS[name](7, binary=binary).eval())(torch.empty(1, 3, 32, 32))
        return [*(tuple(s.shape) for s in out.stages), tuple(out.representation.shape)]

    assert maps("recu") == maps(None)


def test_the_documented_sizes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "networks.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    sizes = {row[0]: int(row[1].replace(",", "")) for row in rows if row and row[0] in MODELS and row[1][0].isdigit()}
    assert len(sizes) >= 12
    for name, count in sizes.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in MODELS[name](100).parameters()) == count, name
    assert all(sizes[name] == PUBLISHED[name][0] for name in set(sizes) & set(NEW))


# ---- formulas, from the papers' descriptions, on float64


def norm(x: Tensor, bn: nn.Module) -> Tensor:
    assert isinstance(bn, nn.BatchNorm2d) and bn.running_mean is not None and bn.running_var is not None
    mean, var, gamma, beta = (v.reshape(1, -1, 1, 1) for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * gamma + beta


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def convolved(x: Tensor, conv: nn.Module) -> Tensor:
    """A convolution of the network, binary or not; ReCU's weights are the signs of weights that were centred."""
    if isinstance(conv, BinaryConv2d):
        w = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
        alpha = conv.weight_binarizer.alpha.reshape(1, -1, 1, 1)
        return F.conv2d(signs(x), signs(w), None, conv.stride, conv.padding, 1, conv.groups) * alpha
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, 1, conv.groups)


def activated(x: Tensor, binary: str | None) -> Tensor:
    return x.clamp(min=0) if binary is None else x.clamp(-1, 1)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel i of group g becomes channel i * groups + g."""
    each = x.shape[1] // groups
    result = torch.empty_like(x)
    for g in range(groups):
        for i in range(each):
            result[:, i * groups + g] = x[:, g * each + i]
    return result


def example(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("binary", [None, "recu"])
def test_bottleneck_equals_its_formula(binary: str | None) -> None:
    torch.manual_seed(0)
    block = lively(resnet50(binary=binary, width=0.125)).layer2[0]
    assert isinstance(block, Bottleneck)
    x = example(2, 32, 6, 6)
    y = activated(norm(convolved(x, block.conv1), block.bn1), binary)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    if binary is None:
        kept = norm(F.conv2d(x, block.shortcut[0].weight, stride=2), block.shortcut[1])
    else:
        kept = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 16, 16))
    assert block.conv2.stride == (2, 2) and y.shape == (2, 64, 3, 3)
    torch.testing.assert_close(block(x), activated(y + kept, binary))


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("per_conv", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_pre_activation_block_equals_its_formula(binary: str | None, per_conv: bool, first: bool) -> None:
    torch.manual_seed(0)
    block = lively(wrn_16_2(binary=binary, per_conv=per_conv)).layer2[0 if first else 1]
    assert isinstance(block, PreActivationBlock)
    x = example(2, 32 if first else 64, 6, 6)
    a = activated(norm(x, block.bn1), binary)
    if not first:
        kept = x
    elif binary is None:
        kept = F.conv2d(a, block.shortcut.weight, stride=2)
    else:
        kept = F.pad(F.avg_pool2d(a, 2), (0, 0, 0, 0, 16, 16))
    y = convolved(a, block.conv1)
    if per_conv:
        y = kept = y + kept
    expected = convolved(activated(norm(y, block.bn2), binary), block.conv2) + kept
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("index", [0, 1])
def test_inverted_residual_equals_its_formula(binary: str | None, index: int) -> None:
    torch.manual_seed(0)
    block = lively(MODELS["mobilenet_v2_half"](binary=binary)).layer2[0][index]
    assert isinstance(block, InvertedResidual)
    x = example(2, (12, 16)[index], 6, 6)
    y = activated(norm(convolved(x, block.conv1), block.bn1), binary)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    assert block.conv1.out_channels == block.conv2.groups == 6 * x.shape[1]
    torch.testing.assert_close(block(x), x + y if index else y)


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize(("stage", "index"), [("layer1", 0), ("layer2", 0), ("layer2", 1)])
def test_shuffle_unit_equals_its_formula(binary: str | None, stage: str, index: int) -> None:
    torch.manual_seed(0)
    block = lively(MODELS["shufflenet_v1"](binary=binary)).get_submodule(stage)[index]
    assert isinstance(block, ShuffleUnit)
    x = example(2, {("layer1", 0): 24, ("layer2", 0): 240, ("layer2", 1): 480}[stage, index], 4, 4)
    groups = 1 if stage == "layer1" else 3
    y = shuffled(activated(norm(convolved(x, block.conv1), block.bn1), binary), groups)
    y = activated(norm(convolved(y, block.conv2), block.bn2), binary)
    y = norm(convolved(y, block.conv3), block.bn3)
    y = y + x if index else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1)
    assert (block.conv1.groups, block.conv3.groups) == (groups, 3)
    torch.testing.assert_close(block(x), activated(y, binary))


@pytest.mark.parametrize("binary", [None, "recu"])
@pytest.mark.parametrize("index", [0, 1])
def test_split_unit_equals_its_formula(binary: str | None, index: int) -> None:
    torch.manual_seed(0)
    block = lively(shufflenet_v2(binary=binary, width=0.5)).layer2[index]
    assert isinstance(block, SplitUnit)
    x = example(2, (48, 96)[index], 4, 4)

    def pointwise(x: Tensor, parts: nn.Module, at: int) -> Tensor:
        return activated(norm(convolved(x, parts[at]), parts[at + 1]), binary)

    def depthwise(x: Tensor, parts: nn.Module, at: int) -> Tensor:
        return norm(convolved(x, parts[at]), parts[at + 1])  # no activation behind it

    if index:
        passing, x = x[:, :48], x[:, 48:]
    else:
        assert block.left is not None
        passing = pointwise(depthwise(x, block.left, 0), block.left, 2)
    y = pointwise(x, block.right, 0)
    y = pointwise(depthwise(y, block.right, 3), block.right, 5)
    expected = shuffled(torch.cat([passing, y], 1), 2)
    torch.testing.assert_close(block(example(2, (48, 96)[index], 4, 4)), expected)


@pytest.mark.parametrize("binary", [None, "recu"])
def test_vgg_equals_its_formula(binary: str | None) -> None:
    torch.manual_seed(0)
    model = lively(vgg8(5, binary=binary, width=0.125, input_shape=(3, 16, 16)))
    x = images = example(2, 3, 16, 16)
    for i in range(1, 6):
        conv, bn, _ = getattr(model, f"block{i}")
        assert (conv.bias is not None) == (binary is None)  # published with biases, which a BatchNorm makes idle
        x = activated(norm(convolved(x, conv), bn), binary)
        if i <= 3:
            x = F.max_pool2d(x, 2)
            if binary is not None:  # centred again, or nearly every sign would be +1
                x = activated(norm(x, getattr(model, f"pool{i}")[1]), binary)
    torch.testing.assert_close(model(images), model.linear(x.mean((2, 3))))


def test_vgg_pools_once_more_from_64_pixels_on() -> None:
    with torch.device("meta"):
        out = observe(vgg8(input_shape=(3, 64, 64)).eval())(torch.empty(1, 3, 64, 64))
    assert [s.shape[2] for s in out.stages] == [32, 16, 8, 4]


# ---- binary forms

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
            "either shortcut='projection' or float_downsample=True",
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


# ---- the command line's options


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


# ---- ImageNet's networks as teachers


@pytest.mark.parametrize(
    ("name", "head", "maps"),
    [
        ("resnet18", "fc", [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("resnet34", "fc", [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("vgg11_bn", "classifier.6", [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)]),
        ("mobilenet_v2", "classifier.1", [(16, 32), (24, 16), (32, 8), (96, 4), (1280, 2)]),
    ],
)
def test_torchvision_networks_are_observed(name: str, head: str, maps: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        model = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
        out = observe(model)(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(model.get_submodule(head)(out.representation), out.logits)
    assert [tuple(stage.shape) for stage in out.stages] == [(1, c, side, side) for c, side in maps]


def test_a_map_in_the_middle_is_what_the_network_computed() -> None:
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=3, width_mult=0.25).eval()
    x = torch.randn(1, 3, 64, 64)
    out = observe(model)(x)
    torch.testing.assert_close(out.stages[2], model.features[:7](x))
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.representation)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "resnext50_32x4d"])
def test_timm_residual_networks_are_observed(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=4).eval()
    with torch.no_grad():
        out = observe(model)(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)
    assert [s.shape[2] for s in out.stages] == [16, 8, 4, 2]
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.representation)


def test_resnet8x4_is_wider_behind_its_stem() -> None:
    model = resnet8x4(binary="recu", width=0.5)
    assert (model.conv1.out_channels, model.layer1[0].conv1.out_channels) == (16, 32)
