"""Networks: published parameter counts, the structure of the published forms, options, `observe`, `summary`."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bnn_itrd.models import (
    MODELS,
    BasicBlock,
    Observed,
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
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, Scheme, WeightBinarizer, sign

RELATIVES = {
    *("resnet14", "resnet32", "resnet32x4", "resnet34", "resnet44", "resnet56", "resnet110"),
    *("vgg11", "vgg13", "vgg16", "vgg19", "wrn_16_2", "wrn_40_1", "wrn_40_2", "mobilenet_v2"),
}


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


@pytest.mark.compiles
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
    if name in RELATIVES:
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
        ({"binary": "recu", "float_downsample": True, "shortcut": "pad"}, "either shortcut='pad' or float_downsample"),
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
    headless = torchvision.models.squeezenet1_1(weights=None).features
    with pytest.raises(ValueError, match="no linear layer"):
        observe(headless)
    with pytest.raises(ValueError, match="no submodule 'nothing'"):
        observe(model, stages=("nothing",))


class Detached(nn.Module):
    """A layer that nobody calls, and one that returns two things."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.fc = nn.Conv2d(3, 4, 3), nn.LSTM(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(x)[0][-1])


def test_observe_says_which_stage_gives_no_map() -> None:
    x = torch.randn(2, 3, 4)
    with pytest.raises(RuntimeError, match="stage 'layer1' was not called in the forward pass: name the stages"):
        observe(Detached())(x)
    with pytest.raises(RuntimeError, match="stage 'layer2' returned no tensor"):
        observe(Detached(), stages=("layer2",))(x)


def test_observe_takes_timm_networks() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=4).eval()
    out = observe(model)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)


@pytest.mark.compiles
@pytest.mark.exhaustive
def test_observe_compiles_whole_and_lets_go() -> None:
    model = resnet20(binary="recu").eval()
    observed = observe(model)
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(observed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).representation, observed(x).representation)
    observed.remove()
    assert not model.linear._forward_pre_hooks


def saved_and_loaded(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@pytest.mark.parametrize("duplicate", [copy.deepcopy, saved_and_loaded])
def test_a_copy_of_an_observed_network_observes_itself(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model = resnet20(binary="recu").eval()
    observed, x = observe(model), torch.randn(2, 3, 32, 32)
    model(x)  # leaves activations with a graph behind, which cannot be copied
    other = duplicate(observed)
    assert isinstance(other, Observed) and other.model is not model
    with torch.no_grad():
        other.model.conv1.weight.mul_(-1)
    want, got = observed(x), other(x)
    assert not torch.equal(got.stages[0], want.stages[0]) and len(got.stages) == 3
    torch.testing.assert_close(other.model.linear(got.representation), got.logits)
    other.remove()
    assert model.linear._forward_pre_hooks and not other.model.linear._forward_pre_hooks
    torch.testing.assert_close(duplicate(model)(x), want.logits)


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


def tiny_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(16, 8, 2, 2, 12, 24, num_classes=3)


def weight_normed() -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(256, 5))
    return nn.Sequential(conv, nn.Flatten(), linear)


class Scaled(nn.Module):
    """A parameter of its own, tied weights, a layer nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(192))
        self.up, self.down = nn.Linear(192, 192), nn.Linear(192, 192, bias=False)
        self.down.weight = self.up.weight
        self.unused = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x.flatten(1) * self.scale))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


# 4 patches of 8x8 and the class token; per block: 4 projections, 2 products over 5 keys, 2 layers of the MLP
VIT_MACS = 4 * 3 * 64 * 12 + 2 * (4 * 5 * 12 * 12 + 2 * 5 * 5 * 12 + 2 * 5 * 12 * 24) + 12 * 3


@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        (tiny_vit, (3, 16, 16), VIT_MACS),
        (weight_normed, (3, 8, 8), 4 * 3 * 9 * 64 + 256 * 5),
        (Scaled, (3, 8, 8), 2 * 192 * 192),
        (Recurrent, (1, 8, 8), 12),
    ],
)
def test_summary_misses_no_parameter(build: Callable[[], nn.Module], shape: tuple[int, ...], macs: int) -> None:
    model = build()
    result = summary(model, shape)
    assert result.parameters == parameters(model) == sum(layer.parameters for layer in result.layers)
    assert result.float_macs == macs and result.binary_macs == 0
    assert result.compression == pytest.approx(1, abs=0.01)
    paths = [layer.path for layer in result.layers]
    assert len(set(paths)) == len(paths) and not any("parametrizations" in p or "out_proj" in p for p in paths)


def test_summary_of_a_computed_weight_is_its_result() -> None:
    """weight_norm keeps a length per output beside the direction; the file holds their product."""
    conv, linear = summary(weight_normed(), (3, 8, 8)).layers
    assert (conv.parameters, conv.bytes) == (4 * 27 + 4 + 4, 4 * (4 * 27 + 4))
    assert (linear.parameters, linear.bytes) == (5 * 256 + 5 + 5, 4 * (5 * 256 + 5))


def test_summary_of_attention_with_other_keys() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_zero_attn=True)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = x.new_zeros(3, 2, 8), x.new_zeros(5, 2, 4), x.new_zeros(5, 2, 6)
            return self.attention(value=value, key=key, query=query, need_weights=False)[0]

    # 3 queries and 5 keys, two of each; a zero key is added.
    assert summary(Cross(), (1,)).float_macs == 2 * (3 * 8 * 8 * 2 + 5 * 4 * 8 + 5 * 6 * 8 + 2 * 3 * 6 * 8)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        # every input pixel meets the whole kernel; 6x6 -> 13x13 and 12x12
        (nn.ConvTranspose2d(4, 6, 3, stride=2), 36 * 4 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), 36 * 4 * 3 * 16),
        (nn.Conv2d(4, 6, 3, groups=2), 16 * 6 * 2 * 9),
    ],
)
def test_summary_of_convolutions(layer: nn.Module, macs: int) -> None:
    assert summary(layer, (4, 6, 6)).float_macs == macs


def test_summary_of_a_normalisation_without_parameters() -> None:
    (layer,) = summary(nn.BatchNorm2d(6, affine=False), (6, 4, 4)).layers
    assert (layer.parameters, layer.bytes, layer.output_shape) == (0, 48, (6, 4, 4))


def test_summary_of_a_network_without_parameters() -> None:
    result = summary(nn.ReLU(), (3, 4, 4))
    assert result.layers == () and result.compression == 1
    assert "nothing" in str(result)


class Shifted(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), torch.ones(len(weight)), torch.ones(len(weight)))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_summary_of_an_offset(groups: int) -> None:
    """A group's channels share the sum of their window; all groups' windows are 4 channels of 3x3."""
    conv = BinaryConv2d(4, 8, 3, groups=groups)
    conv.weight_binarizer = Shifted(8)
    (layer,) = summary(conv, (4, 6, 6)).layers
    assert layer.float_macs == 16 * 4 * 9 and layer.binary_macs == 16 * 8 * 4 * 9 // groups
    assert layer.bytes == 8 * 4 * 9 // groups // 8 + 4 * 16


def test_summary_of_a_binary_layer_alone() -> None:
    (layer,) = summary(BinaryLinear(16, 3, bias=True), (16,)).layers
    assert (layer.kind, layer.parameters, layer.bytes) == ("BinaryLinear", 16 * 3 + 3 + 3, 6 + 4 * 6)


def test_summary_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="give input_shape"):
        summary(nn.Linear(3, 2))
    assert summary(nn.Linear(3, 2), (3,)).float_macs == 6
