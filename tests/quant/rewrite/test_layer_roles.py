"""Which layers their place in the network keeps in full precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from bnn_itrd.models import MODELS
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


def conv(i: int, o: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, padding=kernel // 2, **options)


def actions(model: nn.Module, **options: Any) -> dict[str, str]:
    """What becomes of each layer, in the order of execution."""
    report = binarize(model, **options).report
    layers = ("Conv2d", "Linear", "linear", "conv2d", "einsum", "MultiheadAttention")
    return {c.path: f"{c.action}: {c.reason}" for c in report.changes if c.kind in layers}


def kept(model: nn.Module, **options: Any) -> dict[str, str]:
    found = actions(model, **options).items()
    return {path: why.removeprefix("kept: ") for path, why in found if why.startswith("kept")}


# ---- outputs


def test_every_output_of_deeplab_is_kept() -> None:
    """torchvision gives the auxiliary classifier's output beside the main one's, both enlarged."""
    with torch.device("meta"):
        model = torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, aux_loss=True, num_classes=5
        )
    found = kept(model)
    assert found["classifier.4"] == found["aux_classifier.4"] == "gives an output"
    assert [path for path, why in found.items() if why == "gives an output"] == ["classifier.4", "aux_classifier.4"]
    assert "classifier.4" not in kept(model, keep_last=False)


class Outputs(nn.Module):
    """A stem, two layers in a row, two heads; `form` says what is given back."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem, self.a, self.b = conv(3, 4), conv(4, 4), conv(4, 4)
        self.left, self.right = conv(4, 2), conv(4, 2)
        self.norm, self.fc, self.gate = nn.BatchNorm2d(2), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        a = self.a(stem)
        b = self.b(a)
        left, right = self.left(b), self.right(b)
        return {
            "pair": lambda: (left, right),
            "dictionary": lambda: {"out": F.interpolate(left, x.shape[-2:]), "aux": [torch.sigmoid(right)]},
            "pyramid": lambda: [a, b, left],
            "sum": lambda: self.norm(left) + right,
            "choice": lambda: torch.where(right > 0, left, right),
            "halves": lambda: left.chunk(2, 1)[0],
            "sized": lambda: F.interpolate(left, right.shape[-2:]),
            "residual": lambda: stem + a + b,
            "features": lambda: (self.fc(b.mean((2, 3))), b.mean((2, 3))),
            "linear in front": lambda: left * self.gate(b.mean((2, 3))).mean(),
            "function": lambda: F.linear(b.mean((2, 3)), self.fc.weight),
            "product": lambda: torch.einsum("nc,kc->nk", b.mean((2, 3)), self.fc.weight),
        }[self.form]()


@pytest.mark.parametrize(
    ("form", "outputs"),
    [
        ("pair", {"left", "right"}),
        ("dictionary", {"left", "right"}),
        ("pyramid", {"a", "b", "left"}),
        ("sum", {"left", "right"}),
        ("choice", {"left", "right"}),
        ("halves", {"left"}),
        ("sized", {"left"}),
        ("residual", {"b"}),
        ("features", {"fc", "b"}),
        ("linear in front", {"left", "gate"}),
        ("function", set()),
        ("product", set()),
    ],
)
def test_every_layer_whose_value_reaches_an_output_with_no_layer_behind_it_is_kept(
    form: str, outputs: set[str]
) -> None:
    found = actions(Outputs(form))
    said = "kept: the last layer" if len(outputs) == 1 else "kept: gives an output"
    assert {path for path, why in found.items() if why == said} == outputs
    assert found["stem"] == "kept: the first layer"
    if form in ("function", "product"):
        assert found["b"].startswith("binarised"), "the product with a weight is the output, and it is no module"


def test_a_layer_behind_which_attention_comes_is_no_output() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.body = nn.Linear(8, 8), nn.Linear(8, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(self.first(x))
            return self.attention(x, x, x)[0]

    assert actions(Attending())["body"].startswith("binarised")


# ---- inputs


def test_every_layer_that_reads_the_input_is_kept() -> None:
    class Both(nn.Module):
        """An image and a row of numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.row, self.fc = conv(3, 4), conv(4, 4), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, image: Tensor, row: Tensor) -> Tensor:
            return self.fc(self.body(self.stem(image)).mean((2, 3)) + self.row(row))

    assert kept(Both()) == {"stem": "the first layer", "row": "reads the network's input", "fc": "the last layer"}


# ---- shortcuts, depthwise convolutions, gates


def binary_paths(model: nn.Module) -> set[str]:
    return {path for path, m in model.named_modules() if isinstance(m, (BinaryConv2d, BinaryLinear))}


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2_half",
        "shufflenet_v1",
        "shufflenet_v2",
        "resnet8",
        "resnet50",
        "resnet18",
        "vgg8",
        "vgg_small",
        "wrn_16_1",
    ],
)
def test_a_teacher_made_binary_has_the_layers_of_its_student(name: str) -> None:
    """One rule says which layers stay in full precision: in the networks of `models` and in `binarize`."""
    with torch.device("meta"):
        teacher, student = MODELS[name](10), MODELS[name](10, binary="recu")
    assert binary_paths(binarize(teacher).model) == binary_paths(student) != set()


def pooled_shortcuts(stages: range, *, prefix: str = "downsample.1") -> dict[str, str]:
    return {f"layer{s}.0.{prefix}": "1x1 down-sampling or projection" for s in stages}


def test_a_shortcut_with_a_pool_in_front_stays() -> None:
    """timm's ResNet-10-T has average pools in front of 1x1 convolutions of stride 1 (ResNet-D)."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("resnet10t", num_classes=3)
    found = kept(model)
    assert {p: why for p, why in found.items() if "downsample" in p} == pooled_shortcuts(range(2, 5))
    assert set(found) == {"conv1.0", "fc", *pooled_shortcuts(range(2, 5))}
    assert set(kept(model, keep_downsample=False)) == {"conv1.0", "fc"}


class Pooled(nn.Module):
    """A block with a pool and a 1x1 convolution beside its 3x3 ones; in a row, the pool belongs to no shortcut."""

    def __init__(self, *, row: bool) -> None:
        super().__init__()
        self.row = row
        self.stem, self.body, self.one, self.fc = conv(3, 4), conv(4, 4, stride=2), conv(4, 4, 1), nn.Linear(4, 2)
        self.pool, self.norm = nn.AvgPool2d(2, ceil_mode=True), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.norm(self.one(self.pool(x)))
        return self.fc((pooled + (1 if self.row else self.body(x))).mean((2, 3)))


def test_a_1x1_convolution_behind_a_pool_is_a_projection_beside_a_convolution_alone() -> None:
    assert actions(Pooled(row=False))["one"] == "kept: 1x1 down-sampling or projection"
    assert actions(Pooled(row=True))["one"].startswith("binarised")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_depthwise_and_squeeze_layers_of_torchvision_stay(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, num_classes=3)
    modules = dict(model.named_modules())
    depthwise = {p for p, m in modules.items() if isinstance(m, nn.Conv2d) and m.groups > 1}
    squeeze = {f"{p}.{fc}" for p, m in modules.items() for fc in ("fc1", "fc2") if hasattr(m, "fc1")}
    found = kept(model)
    assert {p for p, why in found.items() if why == "depthwise"} == depthwise != set()
    assert {p for p, why in found.items() if why == "squeeze-and-excite"} == squeeze != set()
    rest = [p for p, m in modules.items() if isinstance(m, (nn.Conv2d, nn.Linear)) and p not in depthwise | squeeze]
    assert set(found) == {*depthwise, *squeeze, rest[0], rest[-1]}
    asked = kept(model, keep_depthwise=False, keep_squeeze=False)
    assert set(asked) == {rest[0], rest[-1]}


class Gated(nn.Module):
    """A stem, two layers that make a gate of the stem's map, and a layer behind it."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate = gate
        self.stem, self.body, self.head = conv(3, 4), conv(4, 4), nn.Linear(4, 2)
        self.down, self.up, self.fc1, self.fc2 = conv(4, 2, 1), conv(2, 4, 1), nn.Linear(4, 2), nn.Linear(2, 4)
        self.pool, self.temperature = nn.AdaptiveAvgPool2d(1), nn.Parameter(torch.ones(1))

    def maps(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.down(x)))

    def rows(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, _, _ = x.shape
        x = {
            "module": lambda: x * torch.sigmoid(self.maps(self.pool(x))),
            "function": lambda: F.hardsigmoid(self.maps(F.adaptive_avg_pool2d(x, (1, 1)))) * x,
            "read size": lambda: x * self.maps(F.avg_pool2d(x, x.shape[2:])).sigmoid(),
            "mean": lambda: x * torch.sigmoid(self.rows(x.mean((2, 3)))).view(n, c, 1, 1),
            "flat mean": lambda: x * torch.sigmoid(self.rows(x.flatten(2).mean(-1)))[:, :, None, None],
            "two pools": lambda: x.mul(
                torch.sigmoid(self.maps(self.pool(x)) + self.maps(x.amax((2, 3), keepdim=True)))
            ),
            "scaled": lambda: x * (torch.sigmoid(self.maps(self.pool(x))) * self.temperature + 1),
            "of the whole map": lambda: x * torch.sigmoid(self.maps(x)),
            "of each pixel": lambda: x * torch.sigmoid(self.maps(x.mean(1, keepdim=True).expand(n, 4, -1, -1))),
            "of a row": lambda: self.pool(x) * torch.sigmoid(self.maps(self.pool(x))),
        }[self.gate]()
        return self.head(self.body(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("gate", "layers"),
    [
        ("module", {"down", "up"}),
        ("function", {"down", "up"}),
        ("read size", {"down", "up"}),
        ("mean", {"fc1", "fc2"}),
        ("flat mean", {"fc1", "fc2"}),
        ("two pools", {"down", "up"}),
        ("scaled", {"down", "up"}),
        ("of the whole map", set()),
        ("of each pixel", set()),
        ("of a row", set()),
    ],
)
def test_squeeze_and_excite_is_found_however_it_is_written(gate: str, layers: set[str]) -> None:
    found = kept(Gated(gate))
    assert {path for path, why in found.items() if why == "squeeze-and-excite"} == layers
    assert "body" not in found


# ---- the verdict


def block(i: int, o: int, **options: Any) -> list[nn.Module]:
    return [conv(i, o, **options), nn.BatchNorm2d(o), nn.ReLU()]


def network(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(*block(3, 4), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


ONE = "reads values of one sign"
FEW = "depthwise and binary, so that an output has few values"
KNOWN = "depthwise in full precision, as in networks that lose much accuracy in 1 bit"


@pytest.mark.parametrize(
    ("middle", "options", "verdict"),
    [
        (block(4, 4), {}, "fit: every binary layer reads values of both signs and has a norm behind it"),
        ([conv(4, 4), nn.Dropout(), nn.GroupNorm(2, 4)], {}, "fit: every binary layer reads values of both signs and "
         "has a norm behind it"),
        ([conv(4, 4), *block(4, 4)], {}, "doubtful: binary without a norm behind it: 1 layer (3)"),
        ([*block(4, 4), nn.Sigmoid(), *block(4, 4)], {}, f"does not work as it is: {ONE}: 1 layer (7)"),
        ([*block(4, 4), *block(4, 4, groups=4)], {}, f"doubtful: {KNOWN}: 1 layer (6)"),
        ([*block(4, 4, groups=4), *block(4, 4, groups=4)], {"keep_depthwise": False},
         f"doubtful: {FEW}: 2 layers (3, ...)"),
        ([], {}, "nothing is binary"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:nothing in Sequential was binarised")
def test_the_report_ends_in_a_verdict(middle: list[nn.Module], options: dict[str, Any], verdict: str) -> None:
    report = binarize(network(*middle), **options).report
    assert report.verdict == verdict and str(report).splitlines()[-1] == f"verdict: {verdict}"
