"""Whole networks made binary: what is replaced, what is kept and why, and that the result still computes."""

import copy
import io
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, Report, Scheme, binarize, set_progress

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def binary_layers(model: nn.Module) -> dict[str, BinaryConv2d | BinaryLinear]:
    return {path: m for path, m in model.named_modules() if isinstance(m, (BinaryConv2d, BinaryLinear))}


def binary_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each binary layer reads in a forward pass in training mode."""
    seen: dict[str, Tensor] = {}
    for path, layer in binary_layers(model).items():
        layer.register_forward_pre_hook(lambda _, args, path=path: seen.update({path: args[0].detach()}))
    model.train()(x)
    return seen


def reasons(report: Report, action: str) -> dict[str, str]:
    return {change.path: change.reason for change in report.changes if change.action == action}


def calls(model: nn.Module, function: Callable) -> int:
    assert isinstance(model, fx.GraphModule)
    return sum(node.target is function for node in model.graph.nodes)


def conv(i: int, o: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    options.setdefault("padding", kernel // 2)
    return nn.Conv2d(i, o, kernel, **options)  # type: ignore[arg-type]


def block(i: int, o: int) -> list[nn.Module]:
    return [conv(i, o), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]


def small(*middle: nn.Module, width: int = 8) -> nn.Sequential:
    """stem (0-2), what is given, then head: pool, flatten, linear."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(*block(3, width), *middle, *head)


def quietly(model: nn.Module, **options: object) -> tuple[nn.Module, Report]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return binarize(model, **options)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield


# ---- torchvision's networks


def test_resnet18() -> None:
    model = torchvision.models.resnet18(weights=None)
    before = copy.deepcopy(model.state_dict())
    binary, report = binarize(model)
    layers = binary_layers(binary)
    assert set(layers) == {f"layer{s}.{b}.conv{c}" for s in (1, 2, 3, 4) for b in (0, 1) for c in (1, 2)}
    assert reasons(report, "kept") == {
        "conv1": "the first layer",
        "fc": "the last layer",
        **{f"layer{s}.0.downsample.0": "1x1 down-sampling or projection" for s in (2, 3, 4)},
        "layer4.1.relu": "feeds no binary layer",
    }
    # One ReLU module per block, called twice; the very last call feeds the classifier and stays.
    assert calls(binary, F.hardtanh) == 16
    assert len([c for c in report.changes if c.action == "replaced"]) == 16
    assert not any(isinstance(m, nn.ReLU) for path, m in binary.named_modules() if path != "layer4.1.relu")
    assert binary(images()).shape == (2, 1000)

    assert type(model) is torchvision.models.ResNet and not binary_layers(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for path, layer in layers.items():
        original = model.get_submodule(path)
        assert isinstance(original, nn.Conv2d) and isinstance(layer, BinaryConv2d)
        assert torch.equal(layer.weight, original.weight) and layer.weight is not original.weight
        assert (layer.stride, layer.padding) == (original.stride, original.padding)
    assert report.weights == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert report.binary_weights == sum(layer.weight.numel() for layer in layers.values())


def test_resnet50_keeps_its_projections() -> None:
    """The first projection has no stride: it is known by the addition its output meets."""
    binary, report = binarize(torchvision.models.resnet50(weights=None))
    projections = {path for path in reasons(report, "kept") if "downsample" in path}
    assert projections == {f"layer{s}.0.downsample.0" for s in (1, 2, 3, 4)}
    assert len(binary_layers(binary)) == 48
    _, report = binarize(torchvision.models.resnet50(weights=None), keep_downsample=False)
    assert len(reasons(report, "binarised")) == 52


def test_vgg11() -> None:
    with torch.device("meta"):
        model = torchvision.models.vgg11(weights=None)
    binary, report = binarize(model)
    kept = reasons(report, "kept")
    assert set(kept) == {"features.0", "classifier.6", "classifier.4"}
    layers = binary_layers(binary)
    assert isinstance(layers["classifier.0"], BinaryLinear) and layers["classifier.0"].bias is not None
    assert reasons(report, "replaced")["features.19"] == "hardtanh: feeds classifier.0", "through two pools"
    assert binary(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_mobilenet_v2() -> None:
    model = torchvision.models.mobilenet_v2(weights=None)
    binary, report = binarize(model, "xnor", padding_value=1)
    kept = reasons(report, "kept")
    assert [path for path, why in kept.items() if why == "depthwise"] == [
        "features.1.conv.0.0",
        *(f"features.{i}.conv.1.0" for i in range(2, 18)),
    ]
    assert set(binary_layers(binary)) == {
        "features.1.conv.1",
        *(f"features.{i}.conv.{j}" for i in range(2, 18) for j in ("0.0", "2")),
        "features.18.0",
    }
    assert {path for path, why in kept.items() if why in ("the first layer", "the last layer")} == {
        "features.0.0",
        "classifier.1",
    }
    assert binary(images()).shape == (2, 1000)
    binary, report = binarize(model, "xnor", padding_value=1, keep_depthwise=False)
    assert set(reasons(report, "kept")) == {"features.0.0", "features.18.2", "classifier.1"}
    assert [m for m in binary.modules() if isinstance(m, nn.ReLU6)] == [binary.get_submodule("features.18.2")]
    depthwise = binary_layers(binary)["features.2.conv.1.0"]
    assert isinstance(depthwise, BinaryConv2d) and depthwise.groups == depthwise.in_channels == 96
    assert depthwise.padding_value == 1
    assert binary(images()).shape == (2, 1000)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_no_binary_layer_is_starved(name: str) -> None:
    """Property: after the rewriting, no binary layer reads a map that is nowhere negative."""
    model = torchvision.models.get_model(name, weights=None, num_classes=7)
    binary, report = binarize(model)
    seen = binary_inputs(binary, images(4))
    assert set(seen) == set(reasons(report, "binarised")) != set()
    assert [path for path, x in seen.items() if x.min() >= 0 or x.max() < 0] == []
    assert not report.warnings


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "efficientnet_b0", "swin_t"])
def test_a_network_of_which_everything_is_kept_computes_the_same(name: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=7, **options).eval()
    same, _ = quietly(model, keep=[path for path, _ in model.named_children()])
    assert torch.equal(same(images()), model(images()))
    assert set(same.state_dict()) == set(model.state_dict())


def test_attention_is_kept_whole() -> None:
    model = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3)
    binary, report = binarize(model)
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert reasons(report, "kept")[f"{attention}.out_proj"].startswith(f"inside {attention} (MultiheadAttention)")
    assert isinstance(binary.get_submodule(attention), nn.MultiheadAttention)
    assert "encoder.layers.encoder_layer_0.mlp.0" in binary_layers(binary)
    assert binary(images(2, 32)).shape == (2, 3)


def test_other_modes_that_differ_are_not_followed() -> None:
    """GoogLeNet returns its auxiliary heads in training only."""
    model = torchvision.models.googlenet(weights=None, init_weights=False)
    with pytest.warns(UserWarning, match="other steps in training than in evaluation"):
        _, report = binarize(model)
    assert not report.traced


# ---- a user's own network


class Functional(nn.Module):
    """Functional ReLUs of every spelling, functional dropout and pooling, one ReLU module at three places."""

    version = "a"

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (3, 12, 12)
        self.conv1, self.conv2, self.conv3 = conv(3, 4), conv(4, 8), conv(8, 8)
        self.conv4, self.conv5 = conv(16, 8, 1), conv(8, 8)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(4), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.bn4, self.bn5 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.hidden, self.fc = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = torch.relu(self.bn2(self.conv2(x)))
        y = self.bn3(self.conv3(x)).relu_()
        x = self.bn4(self.conv4(torch.cat([x, y], 1)))
        first, second = self.relu(x).chunk(2, 1)
        x = self.relu(self.bn5(self.conv5(torch.cat([second, first], 1)) + x))
        if mask is not None:
            x = x * mask
        x = F.dropout(F.adaptive_avg_pool2d(x, 1), 0.5, training=self.training).flatten(1)
        return self.fc(self.relu(self.hidden(x))) * scale


def test_functional_network() -> None:
    model = Functional()
    binary, report = binarize(model)
    assert set(reasons(report, "binarised")) == {"conv2", "conv3", "conv4", "conv5", "hidden"}
    rows = {(c.path, c.kind, c.action, c.reason) for c in report.changes if "elu" in c.kind.lower()}
    assert rows == {
        ("relu()", "relu", "replaced", "hardtanh: feeds conv2"),
        ("relu_1()", "relu", "replaced", "hardtanh: feeds conv3"),
        ("relu_()", "relu_", "replaced", "hardtanh: feeds conv4"),
        ("relu", "ReLU", "replaced", "hardtanh: feeds conv5"),
        ("relu", "ReLU", "replaced", "hardtanh: feeds hidden"),
        ("relu", "ReLU", "kept", "feeds no binary layer"),
    }
    seen = binary_inputs(binary, images(4, 12))
    assert all(x.min() < 0 < x.max() for x in seen.values()) and len(seen) == 5
    assert binary(images(2, 12)).shape == (2, 5)


def test_functional_dropout_follows_the_mode() -> None:
    binary, _ = quietly(Functional(), keep=["conv2", "conv3", "conv4", "conv5", "hidden"])
    binary.eval()
    assert torch.equal(binary(images(2, 12)), binary(images(2, 12)))
    # Only dropout is random: BatchNorm stays in evaluation.
    for m in binary.modules():
        m.training = not isinstance(m, nn.BatchNorm2d)
    assert not torch.equal(binary(images(2, 12)), binary(images(2, 12)))


def test_attributes_and_modes_are_carried_over_and_survive_copies() -> None:
    model = Functional().eval()
    model.bn1.train()
    binary, _ = binarize(model)
    buffer = io.BytesIO()
    torch.save(binary, buffer)
    buffer.seek(0)
    want = binary.eval()(images(2, 12))
    for other in (binary, copy.deepcopy(binary), torch.load(buffer, weights_only=False)):
        assert other.input_shape == (3, 12, 12) and other.version == "a"
        assert torch.equal(other.eval()(images(2, 12)), want)
    fresh, _ = binarize(model)
    assert type(fresh).__name__ == "Functional"
    assert [path for path, m in fresh.named_modules() if m.training] == ["bn1"]


def test_a_list_of_modules_keeps_its_mode() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([conv(3, 8), conv(8, 8), conv(8, 8)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.convs:
                x = layer(x)
            return x

    binary, _ = binarize(Listed().eval())
    assert set(binary_layers(binary)) == {"convs.1"}
    assert not any(m.training for m in binary.modules())


def test_arguments_with_a_default_are_fixed_at_it() -> None:
    binary, _ = binarize(Functional().eval())
    assert binary(images(2, 12)).shape == (2, 5)
    with pytest.raises(TypeError, match="scale"):
        binary(images(2, 12), scale=1.0)


def test_state_dict_round_trip() -> None:
    model = Functional()
    binary, _ = binarize(model)
    state = binary.state_dict()
    own = {key for key in state if "_binarizer" in key}
    assert set(state) - own == set(model.state_dict())
    assert own and all(".weight_binarizer." in key or ".activation_binarizer." in key for key in own)
    other, _ = binarize(Functional())
    other.load_state_dict(state)
    assert torch.equal(other.eval()(images(2, 12)), binary.eval()(images(2, 12)))


def test_hooks_on_blocks_see_their_outputs() -> None:
    """The graph has no blocks any more, but feature extractors look for them by name."""
    binary, _ = binarize(torchvision.models.resnet18(weights=None))
    shapes = {}
    for name in ("layer1", "layer4.1", "layer2.0.downsample"):
        binary.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    binary(images())
    assert shapes == {
        "layer1": (2, 64, 16, 16),
        "layer4.1": (2, 512, 2, 2),
        "layer2.0.downsample": (2, 128, 8, 8),
    }


@pytest.mark.parametrize("make", [lambda: small(*block(8, 8), nn.MaxPool2d(2), *block(8, 8)), Functional])
def test_compiles_to_one_graph_and_trains(make: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    binary, _ = binarize(make())
    set_progress(binary, 0.5)
    compiled = torch.compile(binary, fullgraph=True, backend="aot_eager")
    x = images(4, 8)
    compiled(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in binary.parameters())
    binary.eval()
    torch.testing.assert_close(compiled(x), binary(x))


# ---- what is kept


def test_keep() -> None:
    model = small(nn.Sequential(*block(8, 8)), *block(8, 8))
    _, report = binarize(model, keep=["3"])
    assert reasons(report, "kept")["3.0"] == "named in keep"
    # Its ReLU still becomes hardtanh, for the sake of the next layer.
    assert reasons(report, "replaced")["3.2"] == "hardtanh: feeds 4"
    _, report = binarize(model, keep="3.2")
    assert reasons(report, "kept")["3.2"] == "named in keep"
    assert report.warnings == ["4 reads 3.2, whose values all have the same sign"]


def test_keep_of_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="keep must name submodules of ResNet, got 'layer5'; did you mean 'layer"):
        binarize(torchvision.models.resnet18(weights=None), keep=["fc", "layer5"])


def test_keep_nothing() -> None:
    binary, report = binarize(small(*block(8, 8)), keep_first=False, keep_last=False)
    assert not reasons(report, "kept")
    assert set(binary_layers(binary)) == {"0", "3", "8"}
    assert report.warnings == ["0 reads the network's input: all signs are +1 if it is never negative"]
    assert report.binary_weights == report.weights
    seen = binary_inputs(binary, images(4, 8))
    assert all(x.min() < 0 < x.max() for x in seen.values())


def test_first_and_last_are_those_of_the_execution() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.middle = nn.Linear(8, 5), nn.Linear(8, 8)
            self.body, self.stem = conv(8, 8), conv(3, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.body(self.stem(x)).mean((2, 3))))

    _, report = binarize(Backwards())
    assert reasons(report, "kept") == {"stem": "the first layer", "last": "the last layer"}
    assert [c.path for c in report.changes] == ["stem", "body", "middle", "last"]


def test_all_branches_of_a_stem_are_first() -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.fc = conv(3, 4), conv(3, 4, 1), conv(8, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.c(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))

    _, report = binarize(Stem())
    assert set(reasons(report, "binarised")) == {"c"}
    assert reasons(report, "kept")["b"] == "reads the network's input"


def test_without_convolutions_or_without_linear_layers() -> None:
    mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    _, report = binarize(mlp)
    assert reasons(report, "kept") == {
        "0": "the first layer",
        "3": "feeds no binary layer",
        "4": "the last layer",
    }
    _, report = binarize(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), conv(4, 2)))
    assert {c.path: c.action for c in report.changes} == {
        **{"0": "kept", "1": "replaced", "2": "binarised", "3": "kept", "4": "kept"}
    }


class Shortcut(nn.Module):
    """Pre-activation block: BatchNorm and ReLU in front, both branches after it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.bn, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.conv1, self.conv2 = conv(8, 8, stride=stride), conv(8, 8)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 8, 1, stride), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(x))
        return torch.add(self.conv2(self.conv1(x)), self.shortcut(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_shortcut_projections(stride: int) -> None:
    _, report = binarize(small(Shortcut(stride)))
    assert reasons(report, "kept")["3.shortcut.0"] == "1x1 down-sampling or projection"
    assert set(reasons(report, "binarised")) == {"3.conv1", "3.conv2"}
    _, report = binarize(small(Shortcut(stride)), keep_downsample=False)
    assert "3.shortcut.0" in reasons(report, "binarised")


def test_a_1x1_convolution_in_a_row_is_no_projection() -> None:
    _, report = binarize(small(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), *block(8, 8)))
    assert set(reasons(report, "binarised")) == {"3", "6"}


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (conv(8, 8, padding_mode="reflect"), "padding_mode='reflect' has no binary form"),
        (OwnConv(8, 8, 3), "only nn.Conv2d and nn.Linear have a binary form, not OwnConv"),
        (nn.ConvTranspose2d(8, 8, 2), "only nn.Conv2d and nn.Linear have a binary form, not ConvTranspose2d"),
        (
            nn.Conv2d(8, 8, 2, padding="same"),
            r"padding='same' is lopsided for kernel (2, 2), dilation (1, 1)",
        ),
        (nn.utils.spectral_norm(conv(8, 8)), "it has hooks"),
        (
            nn.utils.parametrizations.weight_norm(conv(8, 8)),
            "only nn.Conv2d and nn.Linear have a binary form, not ParametrizedConv2d",
        ),
    ],
)
def test_layers_without_a_binary_form(layer: nn.Module, reason: str) -> None:
    model = small(layer, *block(8, 8)).eval()
    binary, report = binarize(model)
    assert reasons(report, "kept")["3"] == reason
    assert set(reasons(report, "binarised")) == {"4"}
    # Up to the binary layer the network computes what it did: the ReLU in front of a kept layer stays.
    seen: list[Tensor] = []
    binary.get_submodule("4").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    binary(images(2, 12))
    torch.testing.assert_close(seen[0], model[:4](images(2, 12)))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding: str) -> None:
    layer = nn.Conv2d(8, 8, (3, 5), padding=padding, dilation=(2, 1))
    binary, _ = binarize(small(layer))
    made = binary_layers(binary)["3"]
    assert isinstance(made, BinaryConv2d) and made.padding == ((2, 2) if padding == "same" else (0, 0))
    x = images(2, 12).repeat(1, 3, 1, 1)[:, :8]
    assert made(x).shape == layer(x).shape


def test_shared_and_borrowed_weights_are_kept() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.c, self.d = (conv(i, 8) for i in (3, 8, 8, 8, 8))
            self.b.weight = self.a.weight
            self.unused, self.fc = nn.Linear(3, 3), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.d(self.b(self.a(self.stem(x))))
            x = self.d(F.conv2d(x, self.c.weight, padding=1))
            return self.fc(x.mean((2, 3)))

    binary, report = binarize(Tied())
    kept = reasons(report, "kept")
    assert kept["a"] == kept["b"] == "its weight is shared: a, b"
    assert kept["c"] == "its parameters are used without calling it"
    assert kept["unused"] == "not called in the forward pass"
    assert [c.path for c in report.changes].count("d") == 1, "called twice, one row"
    assert set(binary_layers(binary)) == {"d"}


def test_function_calls_are_named() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3))
            self.conv, self.fc = conv(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(F.relu(F.conv2d(x, self.kernel))).mean((2, 3)))

    binary, report = binarize(Bare())
    assert reasons(report, "kept")["conv2d()"] == "called as a function, not as a module"
    assert set(reasons(report, "binarised")) == {"conv"}, "the first convolution is the function"
    assert "kernel" in binary.state_dict()


# ---- activations


@pytest.mark.parametrize(
    "activation",
    [
        nn.Sigmoid(),
        nn.Softplus(),
        nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(2), nn.Dropout(0.1)),
        nn.Softmax2d(),
        nn.Threshold(0, 0),
        nn.Hardtanh(0, 1),
        nn.Hardtanh(0.5, 1),
    ],
    ids=lambda m: type(m).__name__,
)
def test_other_activations_of_one_sign_are_warned_about(activation: nn.Module) -> None:
    binary, report = binarize(small(conv(8, 8), nn.BatchNorm2d(8), activation, conv(8, 8)))
    where = "5.0" if isinstance(activation, nn.Sequential) else "5"
    assert report.warnings == [f"6 reads {where}, whose values all have the same sign"]
    assert f"warning: {report.warnings[0]}" in str(report)
    assert type(binary.get_submodule(where)) is type(activation[0] if where == "5.0" else activation)  # type: ignore[index]


class Applied(nn.Module):
    """stem, BatchNorm, a function, a binary layer, head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.bn, self.body, self.fc = conv(3, 8), nn.BatchNorm2d(8), conv(8, 8), nn.Linear(8, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.function(self.bn(self.stem(x)))).mean((2, 3)))


FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda x: x.clamp(min=0), "clamp"),
    (lambda x: x.clamp(0, 1), "clamp"),
    (lambda x: torch.clamp(x, 0.5), "clamp"),
    (lambda x: x.clamp_(min=0), "clamp_"),
    (lambda x: x.clip(0), "clip"),
    (lambda x: x.clamp_min(0), "clamp_min"),
    (lambda x: torch.clamp_min(x, min=1), "clamp_min"),
    (lambda x: F.hardtanh(x, 0, 6), "hardtanh"),
    (lambda x: F.hardtanh(x, min_val=0.0), "hardtanh"),
    (lambda x: F.threshold(x, 0, 0), "_threshold"),
    (lambda x: x**2, "pow_1"),
    (lambda x: x.pow(4), "pow_1"),
    (lambda x: torch.pow(x, exponent=2), "pow_1"),
    (lambda x: x.clamp(-1, 1), ""),
    (lambda x: x.clamp(max=0.5), ""),
    (lambda x: x.clamp(None, 0.5), ""),
    (lambda x: F.hardtanh(x), ""),
    (lambda x: F.threshold(x, 0, -1), ""),
    (lambda x: F.threshold(x, -1, 0), ""),
    (lambda x: x**3, ""),
    (lambda x: x.pow(1), ""),
]


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_functions_of_one_sign_are_warned_about(function: Callable[[Tensor], Tensor], name: str) -> None:
    binary, report = binarize(Applied(function))
    seen = binary_inputs(binary, images(4, 12))["body"]
    assert (seen.min() >= 0) == bool(name)
    assert report.warnings == ([f"body reads {name}(), whose values all have the same sign"] if name else [])


def test_activations_of_both_signs_and_those_behind_a_norm_are_fine() -> None:
    binary, report = binarize(
        small(conv(8, 8), nn.ELU(), conv(8, 8), nn.Hardtanh(), conv(8, 8), nn.Sigmoid(), nn.BatchNorm2d(8), conv(8, 8))
    )
    assert not report.warnings
    assert isinstance(binary.get_submodule("4"), nn.ELU)


def test_relu_in_front_of_a_relu() -> None:
    _, report = binarize(small(nn.ReLU(), nn.MaxPool2d(2), nn.ReLU6(), conv(8, 8)))
    assert set(reasons(report, "replaced")) == {"2", "3", "5"}


def test_in_place_relu_whose_result_is_dropped() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn, self.body, self.fc = (
                conv(3, 8),
                nn.BatchNorm2d(8),
                conv(8, 8),
                nn.Linear(8, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.stem(x))
            F.relu(x, inplace=True)
            return self.fc((self.body(x) + x).mean((2, 3)))

    model = Dropped().eval()
    binary, report = binarize(model)
    assert reasons(report, "replaced") == {"relu()": "hardtanh: feeds body"}
    x = binary_inputs(binary, images(2, 8))["body"]
    assert x.min() < 0 and x.min() >= -1 and x.max() <= 1
    same, _ = quietly(model, keep=["body"])
    assert torch.equal(same(images(2, 8)), model(images(2, 8)))


def test_a_relu_that_feeds_only_kept_layers_stays() -> None:
    binary, report = binarize(small(*block(8, 8), *block(8, 8)), keep=["6"])
    assert set(reasons(report, "replaced")) == {"2"}
    assert {"5", "8"} < set(reasons(report, "kept"))
    assert isinstance(binary.get_submodule("5"), nn.ReLU)


# ---- nothing to do, nothing possible


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if x.mean() > 0 else x


def test_untraceable_network() -> None:
    model = Branching().eval()
    with pytest.warns(UserWarning, match="nothing binarised, Branching is not traceable: .*BinaryConv2d"):
        same, report = binarize(model)
    assert not report.traced and report.reason and not report.changes
    assert "nothing changed, the network is not traceable" in str(report) and "torch.fx" in str(report)
    assert type(same) is Branching and same is not model and not same.training
    assert torch.equal(same(images(1, 8)), model(images(1, 8)))


@pytest.mark.parametrize("model", [nn.Sequential(conv(3, 4), nn.ReLU()), nn.Linear(3, 2), nn.Identity()], ids=str)
def test_nothing_to_do(model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="nothing in .* was binarised"):
        same, report = binarize(model)
    assert report.traced and not reasons(report, "binarised") and report.binary_weights == 0
    x = torch.randn(2, 3) if isinstance(model, nn.Linear) else images(2, 8)
    assert torch.equal(same(x), model(x))


def test_twice_is_as_good_as_once() -> None:
    once, _ = binarize(small(*block(8, 8), *block(8, 8)).eval())
    twice, report = quietly(once)
    assert {p: c for p, c in reasons(report, "kept").items() if p in ("3", "6")} == {
        "3": "already binary",
        "6": "already binary",
    }
    assert torch.equal(twice(images(2, 8)), once(images(2, 8)))


def test_a_frozen_network_becomes_a_trainable_copy() -> None:
    """A teacher is frozen, often: a student made of it must learn all the same, and the teacher stays as it is."""
    model = small(*block(8, 8)).requires_grad_(False)
    binary, report = binarize(model)
    assert all(p.requires_grad for p in binary.parameters()) and not any(p.requires_grad for p in model.parameters())
    said = "frozen in the network (requires_grad False), trainable in this copy: "
    assert report.warnings == [f"{said}10 parameters, 0.weight, 0.bias, 1.weight, ..."]
    model.requires_grad_(True)[3].weight.requires_grad_(False)
    binary, report = binarize(model)
    assert binary_layers(binary)["3"].weight.requires_grad
    assert report.warnings == [f"{said}1 parameters, 3.weight"]


def test_dtype_and_device_are_those_of_the_network() -> None:
    model = small(*block(8, 8)).double()
    layer = binary_layers(binarize(model).model)["3"]
    assert layer.weight.dtype == torch.float64
    assert {t.dtype for t in layer.state_dict().values()} == {torch.float64}


def test_the_scheme_reaches_the_layers() -> None:
    scheme = Scheme("xnor", "polynomial")
    binary, report = binarize(small(*block(8, 8)), scheme, padding_value=-1)
    layer = binary_layers(binary)["3"]
    assert layer.scheme is scheme and layer.padding_value == -1
    assert reasons(report, "binarised")["3"] == "xnor weights, polynomial activations"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "reku"}, "unknown scheme 'reku'.*did you mean 'recu'"),
        ({"padding_value": 2}, "padding_value must be -1, 0 or 1, got 2"),
        ({"keep": "9x"}, "keep must name submodules of Sequential, got '9x'"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binarize(small(), **options)


def test_report_is_an_aligned_table() -> None:
    _, report = binarize(small(*block(8, 8)))
    lines = str(report).splitlines()
    assert lines == [
        "path  kind    action     reason",
        "0     Conv2d  kept       the first layer",
        "2     ReLU    replaced   hardtanh: feeds 3",
        "3     Conv2d  binarised  recu weights, recu activations",
        "5     ReLU    kept       feeds no binary layer",
        "8     Linear  kept       the last layer",
        "1 binarised, 1 replaced, 3 kept; binary weights: 576 of 832 (69.2%)",
        "verdict: fit: every binary layer reads values of both signs and has a norm behind it",
    ]
