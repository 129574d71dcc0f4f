"""`fuse` makes one operation of several, except where another node reads the value between them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.channels_last import SHAPE, Between, conv, kinds_of, randomise, run
from torch import Tensor, nn

from bnn_itrd.export import canonical
from bnn_itrd.export.ort.file import native
from bnn_itrd.export.passes.channels_last.nhwc import channels_last
from bnn_itrd.export.passes.fuse import fuse
from bnn_itrd.quant import RPReLU, Scheme


def test_a_block_becomes_two_operations() -> None:
    kinds = kinds_of("block")
    # Nobody reads the block's hardtanh but a sign.
    assert kinds["BinaryConvThreshold"] == 1 and kinds["BinaryConvAddSign"] == 1 and kinds["BinaryConv"] == 1
    # Images go into the stem channels first, and only the end goes back.
    assert kinds["FloatConvSign"] == 1 and not kinds["Conv"] and kinds["Transpose"] == 1
    assert not kinds["Sign"] and not kinds["Add"] and not kinds["Clip"]


class Stem(nn.Module):
    """A float convolution in front of a binary one; `twist` says how it differs."""

    def __init__(self, stem: nn.Module, twist: str = "") -> None:
        super().__init__()
        self.stem, self.twist, self.body = stem, twist, conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(F.hardtanh(x, -0.5, 0.5) if self.twist == "clip" else x)
        return y * x if self.twist == "read_again" else y


@pytest.mark.parametrize(
    ("stem", "twist", "kind"),
    [
        (nn.Conv2d(6, 6, 3, padding=1, bias=False), "", "FloatConvSign"),
        (nn.Conv2d(6, 6, (3, 5), padding=2, dilation=(2, 1)), "clip", "FloatConvClipSign"),
        (nn.Conv2d(6, 6, 3, padding=1), "read_again", "FloatConvSign"),
        (nn.Conv2d(6, 6, 5, padding=2), "", "Conv"),  # 150 values a window
        (nn.Conv2d(6, 6, 3, padding=1, groups=2), "", "Conv"),
        (nn.Conv2d(6, 6, 3), "", "Conv"),  # 36 pixels
    ],
)
def test_a_stem_with_a_small_window_becomes_a_float_convolution(stem: nn.Module, twist: str, kind: str) -> None:
    torch.manual_seed(4)
    model, x = Stem(stem, twist).eval(), torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    channels_last(graph)
    fuse(graph)
    kinds = Counter(node.op_type for node in graph.graph)
    assert kinds[kind] == 1 and kinds["Transpose"] == (1 if kind != "Conv" else 2)
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("inner", "kind", "transposes"),
    [
        (nn.Conv2d(6, 6, 3, padding=1), "InnerFloatConv", 2),
        (nn.Conv2d(6, 6, (3, 2), dilation=(1, 2), padding=2, bias=False), "InnerFloatConv", 2),
        (nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), RPReLU(6)), "InnerFloatConvRPReLURSign", 2),
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 6, 1)), "MatMul", 2),  # 16 pixels
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 6, 1, bias=False)), "MatMul", 2),
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 6, 3, padding=1)), "Conv", 4),
        (nn.Conv2d(6, 6, 5, padding=2), "Conv", 4),  # 150 values a window
        (nn.Conv2d(6, 6, 3, padding=1, groups=2), "Conv", 4),
    ],
)
def test_a_convolution_of_floats_between_binary_ones(inner: nn.Module, kind: str, transposes: int) -> None:
    torch.manual_seed(4)
    model, x = randomise(Between(inner)), torch.randn(3, *SHAPE)
    graph = native(canonical(model, input_shape=SHAPE))
    kinds = Counter(node.op_type for node in graph.graph)
    assert sum(count for name, count in kinds.items() if name.startswith(kind)) == 1, kinds
    assert kinds["Transpose"] == transposes
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, x), model(x).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("block_added_to_itself", "Add"), ("block_plus_channel_means", "Add"), ("block_scalars", "Mul")],
)
def test_only_a_residual_of_the_same_shape_is_fused(name: str, kept: str) -> None:
    assert kinds_of(name)[kept] == 1


def test_a_constant_in_front_of_a_sign_is_its_level() -> None:
    assert kinds_of("block_plus_constant") == {"FloatConvSign": 1, "BinaryConvThreshold": 2, "BinaryConv": 1} | {
        "Transpose": 1
    }


class ReAct(nn.Module):
    """A network with RPReLU and RSign after a first layer and after a block; `twist` says how it differs."""

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        self.twist = twist
        scheme = Scheme("recu", "recu" if twist == "sign" else "rsign")
        self.stem = nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second, self.third = (conv(scheme=scheme) for _ in range(3))
        self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.bends = nn.ModuleList(nn.PReLU(6) if twist == "prelu" else RPReLU(6) for _ in range(3))
        generator = torch.Generator().manual_seed(6)
        for name, parameter in self.named_parameters():
            if name.startswith("bends") or name.endswith("binarizer.bias"):
                nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
        if twist != "falling":
            slope = next(p for name, p in self.bends[1].named_parameters() if name in ("slope", "weight"))
            nn.init.uniform_(slope, 0.0, 0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bends[0](self.stem(x))
        y = self.bends[1](self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        y = self.bends[2](y if self.twist == "plain" else x + y)
        z = self.third(y)
        return z * y if self.twist == "read_again" else z


@pytest.mark.parametrize(
    ("twist", "kinds"),
    [
        ("", {"FloatConvRPReLURSign": 1, "BinaryConvThreshold": 1, "BinaryConvAddRPReLURSign": 1, "BinaryConv": 1}),
        (
            "prelu",
            {"FloatConvRPReLURSign": 1, "BinaryConvThreshold": 1, "BinaryConvAddRPReLURSign": 1, "BinaryConv": 1},
        ),
        ("plain", {"FloatConvRPReLURSign": 1, "BinaryConvThreshold": 1, "BinaryConvRPReLURSign": 1, "BinaryConv": 1}),
        ("sign", {"FloatConvRPReLUSign": 1, "BinaryConvThreshold": 1, "BinaryConvAddRPReLURSign": 1, "BinaryConv": 1}),
        ("falling", {"FloatConvRPReLURSign": 1, "BinaryConvRPReLURSign": 1, "BinaryConvAddRPReLURSign": 1}),
        ("read_again", {"FloatConvRPReLURSign": 1, "BinaryConvThreshold": 1, "BinaryConvAddRPReLURSign": 1, "Mul": 1}),
    ],
)
def test_rprelu_and_rsign_go_into_the_convolution(twist: str, kinds: dict[str, int]) -> None:
    torch.manual_seed(4)
    model, x = randomise(ReAct(twist)), torch.randn(3, *SHAPE)
    graph = native(canonical(model, input_shape=SHAPE))
    found = Counter(node.op_type for node in graph.graph)
    assert kinds.items() <= found.items() and not {"Add", "PRelu", "RSign", "Relu", "Min"} & set(found)
    assert found["Transpose"] == 1  # back, at the end
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, x), model(x).numpy(), rtol=1e-5, atol=1e-5)


def test_a_value_with_signs_of_several_levels_keeps_one_of_them() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv()
            self.left, self.right, self.plain = conv(scheme="reactnet"), conv(scheme="reactnet"), conv()
            nn.init.constant_(self.left.activation_binarizer.bias, 0.25)  # type: ignore[arg-type]
            nn.init.constant_(self.right.activation_binarizer.bias, -3.5)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.left(x) + self.right(x) + self.plain(x)

    torch.manual_seed(4)
    model, x = Two().eval(), torch.randn(3, *SHAPE)
    graph = native(canonical(model, input_shape=SHAPE))
    kinds = Counter(node.op_type for node in graph.graph)
    assert kinds["BinaryConvSign"] + kinds["BinaryConvRSign"] == 1
    assert kinds["Sign"] + kinds["RSign"] == 3  # of the images, and two of the three
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, x), model(x).numpy(), rtol=1e-5, atol=1e-5)


def test_a_value_read_by_others_is_kept_beside_its_signs() -> None:
    """`y` is read twice, so the addition ends the operation; `z` is read as a number and as signs."""
    kinds = kinds_of("block_read_again")
    assert kinds["BinaryConvAdd"] == 1 and kinds["Clip"] == 1 and kinds["Mul"] == 1
    assert not kinds["BinaryConvAddClip"] and not kinds["BinaryConvAddClipSign"]


@pytest.mark.parametrize(
    ("name", "kept"), [("shortcut", "AveragePoolPad"), ("shortcut_not_zero", "Pad"), ("shortcut_rows", "Pad")]
)
def test_zero_channels_go_into_the_pooling(name: str, kept: str) -> None:
    kinds = kinds_of(name)
    assert kinds[kept] == 1 and kinds["AveragePool"] == (kept == "Pad")


def test_one_sign_serves_all_that_read_the_same_value() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = conv(), conv(kernel=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    assert kinds_of(Two())["Sign"] == 1
