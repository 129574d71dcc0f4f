"""Which layers `binarize` keeps in full precision, and the reason it gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.rewritten import binary_inputs, binary_layers, block, conv, images, reasons, small
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, binarize

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles


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
            r"padding='same' is not symmetric for kernel (2, 2), dilation (1, 1)",
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
