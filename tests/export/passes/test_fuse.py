"""Channels last, fusion and thresholds: before = after, pass by pass, on graphs that stress each rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical
from bnn_itrd.export.ort.file import native
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.passes.batchnorm import fold_batchnorm
from bnn_itrd.export.passes.channels_last.nhwc import channels_last
from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.export.passes.fuse import fuse
from bnn_itrd.export.passes.lower_binary import lower_binary
from bnn_itrd.export.passes.prelu import merge_prelu, split_prelu
from bnn_itrd.export.passes.thresholds import NEVER, fold_into_threshold, pack_weights
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, RPReLU, Scheme, WeightBinarizer, sign

SHAPE = (6, 8, 8)


def run(model: ir.Model, x: Tensor) -> np.ndarray:
    """What a graph computes in a stock session; nodes of the canonical form are lowered first."""
    clone = ir.from_proto(ir.to_proto(model))
    lower_binary(clone) if any(node.op_type.endswith(("2d", "Linear")) for node in clone.graph) else None
    proto = ir.to_proto(clone)
    proto.functions.extend(function_bodies(node.op_type for node in clone.graph if node.domain == DOMAIN))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(opened.run(None, {"images": x.numpy()})[0])


def randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model.eval()


def conv(inputs: int = 6, outputs: int = 6, kernel: int = 3, **more: Any) -> BinaryConv2d:
    return BinaryConv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


class Residual(nn.Module):
    """conv, conv, + x, hardtanh: what a block is; `twist` says how it differs."""

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        self.twist = twist
        self.first, self.second, self.third = conv(), conv(), conv()
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.stem = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.hardtanh(self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        if self.twist == "twice":
            y = y + y
        elif self.twist == "constant":
            y = y + torch.arange(6.0).reshape(6, 1, 1) / 3
        elif self.twist == "broadcast":
            y = y + x.mean((2, 3), keepdim=True)
        elif self.twist == "scalar":
            y = 2 * y - 0.5
        else:
            y = x + y
        z = F.hardtanh(y, -0.5, 1.5) if self.twist == "bounds" else F.hardtanh(y)
        if self.twist == "read_again":
            return self.norm3(self.third(z)) * z + y
        return self.norm3(self.third(z))


class Between(nn.Module):
    """An operation between two binary convolutions."""

    def __init__(self, operation: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.operation = operation
        self.first, self.second = conv(), conv(channels, 4)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.operation(self.norm(self.first(x))))


class Head(nn.Module):
    """What may follow the last binary convolution."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head = conv(), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(outputs=5)
        self.first, self.second = BinaryLinear(5 * 64, 7, bias=True), BinaryLinear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.hardtanh(self.first(torch.flatten(self.body(x), 1))))


class Tokens(nn.Module):
    """A linear layer on (n, tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BinaryLinear(8, 12), BinaryLinear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flatten(1, 2)))


class WithOffset(WeightBinarizer):
    """scale * sign(w) + offset."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = torch.linspace(-1, 2, len(weight))
        return BinaryWeight(sign(weight), scale, scale.flip(0))


def with_offset(layer: BinaryConv2d) -> BinaryConv2d:
    layer.weight_binarizer = WithOffset(layer.out_channels)
    return layer


CASES: dict[str, Callable[[], nn.Module]] = {
    "block": Residual,
    "block_added_to_itself": lambda: Residual("twice"),
    "block_plus_constant": lambda: Residual("constant"),
    "block_plus_channel_means": lambda: Residual("broadcast"),
    "block_scalars": lambda: Residual("scalar"),
    "block_other_bounds": lambda: Residual("bounds"),
    "block_read_again": lambda: Residual("read_again"),
    "padding_value": lambda: nn.Sequential(conv(padding_value=-1), nn.Hardtanh(), conv(padding_value=1)),
    "groups": lambda: nn.Sequential(conv(groups=2), nn.BatchNorm2d(6), nn.Hardtanh(), conv(groups=3, padding_value=1)),
    "geometry": lambda: nn.Sequential(
        BinaryConv2d(6, 9, (5, 2), stride=(2, 1), padding=(1, 3), dilation=(1, 2)), BinaryConv2d(9, 3, 1, stride=2)
    ),
    "bias": lambda: nn.Sequential(conv(bias=True), conv(bias=True)),
    "avg_pool": lambda: Between(nn.AvgPool2d(2)),
    "avg_pool_overlapping": lambda: Between(nn.AvgPool2d(3, 2, 1)),
    "avg_pool_rectangular": lambda: Between(nn.AvgPool2d((4, 2))),
    "max_pool": lambda: Between(nn.MaxPool2d(2)),
    "max_pool_overlapping": lambda: Between(nn.MaxPool2d(3, 2, 1)),
    "max_pool_remainder": lambda: Between(nn.MaxPool2d(3)),
    "shortcut": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 1, 2)), 9),
    "shortcut_not_zero": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 1, 2), value=0.5), 9),
    "shortcut_rows": lambda: Between(lambda x: F.pad(F.avg_pool2d(x, 2), (0, 0, 1, 0, 1, 2)), 9),
    "pad_channels": lambda: Between(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=0.25), 9),
    "slices": lambda: Between(lambda x: x[:, 1:5, ::2, 1::3], 4),
    "concat": lambda: Between(lambda x: torch.cat([x, x.relu(), -x], 1), 18),
    "concat_rows": lambda: Between(lambda x: torch.cat([x, 2 * x], 2)),
    "stray_convolution": lambda: Between(nn.Conv2d(6, 6, 3, padding=1)),
    "softmax_over_channels": lambda: Between(lambda x: torch.softmax(x, 1) - 0.2),
    "activations": lambda: Between(lambda x: F.gelu(x) + F.silu(x) - torch.sigmoid(x) * F.leaky_relu(x, 0.1)),
    "prelu": lambda: Between(nn.PReLU(6)),
    "transposed": lambda: Between(lambda x: x.transpose(2, 3)),
    "shuffle": lambda: Between(nn.ChannelShuffle(3)),
    "mean": lambda: Head(lambda x: x.mean((2, 3))),
    "global_pool": lambda: Head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))),
    "global_max": lambda: Head(lambda x: torch.amax(x, (2, 3))),
    "flatten": lambda: Head(nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 3))),
    "channel_mean": lambda: Head(lambda x: x.mean(1)),
    "linear": Dense,
    "offset": lambda: nn.Sequential(
        with_offset(conv(bias=True)), nn.Hardtanh(), with_offset(conv(groups=2, padding_value=1))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_before_is_after(name: str) -> None:
    torch.manual_seed(4)
    model = randomise(CASES[name]())
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5))
    x[:, :, 0] = 0.0
    x[:, :, 1] = -0.0
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    channels_last(graph)
    moved = run(graph, x)
    np.testing.assert_allclose(moved, before, rtol=1e-5, atol=1e-5)
    fuse(graph)
    # Fusion changes no arithmetic.
    np.testing.assert_array_equal(run(graph, x), moved)
    # And with BatchNorm folded first: signs of values within rounding of 0 are no matter of these small networks.
    folded = canonical(model, input_shape=SHAPE)
    fold_batchnorm(folded)
    drop_clips(folded)
    middle = run(folded, x)
    channels_last(folded)
    fuse(folded)
    np.testing.assert_allclose(run(folded, x), middle, rtol=1e-5, atol=1e-5)


def test_tokens() -> None:
    torch.manual_seed(4)
    graph = canonical(Tokens(), input_shape=SHAPE)
    x = torch.randn(2, *SHAPE)
    before = run(graph, x)
    channels_last(graph)
    fuse(graph)
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-6)


def _kinds(model: nn.Module) -> Counter[str]:
    graph = canonical(randomise(model), input_shape=SHAPE)
    fold_batchnorm(graph)
    drop_clips(graph)
    channels_last(graph)
    fuse(graph)
    return Counter(node.op_type for node in graph.graph)


def test_a_block_becomes_two_operations() -> None:
    kinds = _kinds(Residual())
    # Nobody reads the block's hardtanh but a sign.
    assert kinds["BinaryConvThreshold"] == 1 and kinds["BinaryConvAddSign"] == 1 and kinds["BinaryConv"] == 1
    # Images go into the stem channels first, and only the end goes back.
    assert kinds["FloatConvSign"] == 1 and not kinds["Conv"] and kinds["Transpose"] == 1
    assert not kinds["Sign"] and not kinds["Add"] and not kinds["Clip"]


@pytest.mark.parametrize("kernel", [(8, 8), (8, 1), (2, 8), (4, 4)])
def test_a_mean_of_eight_is_two_poolings(kernel: tuple[int, int]) -> None:
    torch.manual_seed(4)
    model, x = nn.Sequential(conv(), nn.AvgPool2d(kernel)), torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    channels_last(graph)
    sides = [list(node.attributes["kernel_shape"].as_ints()) for node in graph.graph if node.op_type == "AveragePool"]
    assert len(sides) == (2 if 8 in kernel else 1) and all(max(side) <= 4 for side in sides)
    assert tuple(np.prod(sides, axis=0)) == kernel
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-5, atol=1e-6)


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
    assert _kinds(CASES[name]())[kept] == 1


def test_a_constant_in_front_of_a_sign_is_its_level() -> None:
    assert _kinds(CASES["block_plus_constant"]()) == {"FloatConvSign": 1, "BinaryConvThreshold": 2, "BinaryConv": 1} | {
        "Transpose": 1
    }


class ReAct(nn.Module):
    """RPReLU and RSign after a stem, after a block, and where the sign alone reads it; `twist` says how it differs."""

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


class TwoWays(nn.Module):
    """What the stem gives goes two ways to binary layers, each through operations of its own; and perhaps a third."""

    def __init__(self, left: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor], third: bool) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.stem = nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = conv(), conv()
        self.row = nn.Parameter(torch.arange(8.0)) if third else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.first(self.left(x)) + self.second(self.right(x))
        # A constant along the width of (n, c, h, w) has no place of its own in NHWC.
        return y if self.row is None else y + (x + self.row)


@pytest.mark.parametrize("third", [False, True])
def test_a_value_goes_several_ways_to_channels_last(third: bool) -> None:
    """The graph stays in order, and the value's ways to NHWC become one."""
    torch.manual_seed(4)
    model = TwoWays(lambda x: 2 * x - 0.1, lambda x: torch.sigmoid(x) - 0.5, third).eval()
    x = torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    native(graph)
    # onnxruntime puts a graph in order itself; onnx's checker refuses one that is not.
    made: set[int] = set()
    for node in graph.graph:
        assert all(v is None or v.producer() is None or id(v.producer()) in made for v in node.inputs), node.op_type
        made.add(id(node))
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-5, atol=1e-5)
    kinds = Counter(node.op_type for node in graph.graph)
    # Back at the end; with the third way also of the stem's value, once, and of the sum with the row.
    assert kinds["FloatConv"] == (not third) and kinds["Transpose"] == (3 if third else 1)


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


@pytest.mark.parametrize(
    ("bent", "merged"),
    [
        (lambda x: F.relu(x) + 0.3 * x.clamp(max=0), 1),
        (lambda x: torch.minimum(x, torch.zeros(())) * -0.3 + x.clamp(min=0), 1),
        (lambda x: F.relu(x) + 0.3 * x.clamp(max=0.1), 0),
        (lambda x: F.relu(x) + 0.3 * x.clamp(-1, 0), 0),
        (lambda x: F.relu(x) + 0.3 * (x + 1).clamp(max=0), 0),
        (lambda x: F.relu(x) + x.clamp(max=0), 0),
        (lambda x: F.relu(x) + x.abs() * x.clamp(max=0), 0),
        # One channel, and a slope that makes six of it.
        (lambda x: (lambda y: F.relu(y) + torch.arange(6.0).reshape(6, 1, 1) * y.clamp(max=0))(x[:, :1]), 0),
        # A zero of more axes than x.
        (lambda x: (torch.maximum(x, torch.zeros((1,) * 5)) + 0.3 * torch.minimum(x, torch.zeros(())))[0], 0),
    ],
)
def test_a_prelu_in_parts_is_merged(bent: Callable[[Tensor], Tensor], merged: int) -> None:
    torch.manual_seed(4)
    model, x = Between(bent).eval(), torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    assert merge_prelu(graph) == merged
    np.testing.assert_array_equal(run(graph, x), before)
    assert Counter(node.op_type for node in graph.graph)["PRelu"] == merged
    assert split_prelu(graph) == merged
    np.testing.assert_array_equal(run(graph, x), before)
    assert not Counter(node.op_type for node in graph.graph)["PRelu"]


def test_a_value_read_by_others_is_kept_beside_its_signs() -> None:
    """`y` is read twice, so the addition ends the operation; `z` is read as a number and as signs."""
    kinds = _kinds(Residual("read_again"))
    assert kinds["BinaryConvAdd"] == 1 and kinds["Clip"] == 1 and kinds["Mul"] == 1
    assert not kinds["BinaryConvAddClip"] and not kinds["BinaryConvAddClipSign"]


@pytest.mark.parametrize(
    "name", ["avg_pool", "max_pool", "pad_channels", "slices", "concat", "concat_rows", "activations"]
)
def test_nothing_goes_back_to_channels_first_inside(name: str) -> None:
    assert _kinds(CASES[name]())["Transpose"] == 2


@pytest.mark.parametrize(
    ("name", "kept"), [("shortcut", "AveragePoolPad"), ("shortcut_not_zero", "Pad"), ("shortcut_rows", "Pad")]
)
def test_zero_channels_go_into_the_pooling(name: str, kept: str) -> None:
    kinds = _kinds(CASES[name]())
    assert kinds[kept] == 1 and kinds["AveragePool"] == (kept == "Pad")


def test_one_sign_serves_all_that_read_the_same_value() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = conv(), conv(kernel=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    assert _kinds(Two())["Sign"] == 1


def test_the_layer_is_named_where_its_images_have_no_fixed_size() -> None:
    graph = canonical(nn.Sequential(conv()), input_shape=SHAPE)
    sign = next(node for node in graph.graph if node.op_type == "Sign")
    assert sign.inputs[0] is not None
    sign.inputs[0].shape = ir.Shape(["batch", 6, None, 8])
    with pytest.raises(ExportError, match="0: the size of its images is not fixed"):
        channels_last(graph)


# Thresholds


def _by_hand(scale: np.float32, bias: np.float32, largest: int) -> list[bool]:
    return [bool(np.float32(np.float32(acc) * scale) + bias >= 0) for acc in range(-largest, largest + 1)]


@settings(max_examples=300, deadline=None)
@given(
    scale=st.floats(-4, 4, width=32),
    bias=st.floats(-64, 64, width=32) | st.sampled_from([0.0, -0.0]),
    largest=st.integers(1, 60),
)
def test_thresholds_for_every_sum(scale: float, bias: float, largest: int) -> None:
    threshold, flip = fold_into_threshold(np.array([scale], np.float32), np.array([bias], np.float32), largest)
    sums = np.arange(-largest, largest + 1)
    ours = (-sums if flip[0] else sums) >= threshold[0]
    assert ours.tolist() == _by_hand(np.float32(scale), np.float32(bias), largest)


@settings(max_examples=200, deadline=None)
@given(
    scale=st.floats(-4, 4, width=32),
    bias=st.floats(-9, 9, width=32),
    numbers=st.tuples(*[st.floats(-4, 4, width=32)] * 3, st.floats(0, 4, width=32)),
)
def test_thresholds_through_an_rprelu(scale: float, bias: float, numbers: tuple[float, ...]) -> None:
    before, after, level, slope = (np.array([number], np.float32) for number in numbers)

    def positive(y: np.ndarray) -> np.ndarray:
        moved = y + before
        signs: np.ndarray = np.where(moved <= 0, moved * slope, moved) + after >= level
        return signs

    scales, biases = np.array([scale], np.float32), np.array([bias], np.float32)
    threshold, flip = fold_into_threshold(scales, biases, 30, positive)
    for total in range(-30, 31):
        expected = positive(np.array([total], np.float32) * scales + biases)
        assert ((-total if flip[0] else total) >= threshold[0]) == expected[0]


def test_thresholds_at_ties_and_without_a_scale() -> None:
    scale = np.array([0.1, -0.1, 0, 0, 0.1, 1e-30], np.float32)
    bias = np.array([-0.3, 0.3, 0, -1e-9, 1e9, -1], np.float32)
    threshold, flip = fold_into_threshold(scale, bias, 9)
    # 3 * 0.1 rounds to 0.3 in float32, so the sum 3 is a tie, and a tie is +1; -0.0 is no negative scale.
    assert threshold.tolist() == [3, -3, -NEVER, NEVER, -NEVER, NEVER]
    assert flip.tolist() == [False, True, False, False, False, False]
    assert threshold.dtype == np.int32


def test_packing_puts_channel_k_at_bit_k() -> None:
    signs = -np.ones((2, 11, 1, 2), np.int8)
    signs[0, 0, 0, 0] = signs[0, 9, 0, 1] = signs[1, 7, 0, 1] = 1
    packed = pack_weights(signs)
    assert packed.shape == (1, 2, 2, 2) and packed.dtype == np.uint8
    expected = np.zeros_like(packed)
    expected[0, 0, 0, 0], expected[0, 1, 1, 0], expected[0, 1, 0, 1] = 1, 2, 128
    np.testing.assert_array_equal(packed, expected)
