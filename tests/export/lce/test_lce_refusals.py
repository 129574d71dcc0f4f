"""Files for Larq Compute Engine: what is written, bit by bit, and what LCE's own interpreter makes of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn

import bnn_itrd.export.lce.tflite_file as tflite_file
import bnn_itrd.export.lce.translate as translate_module
from bnn_itrd.deploy.targets import metadata_of, open_file, write_target
from bnn_itrd.export import ExportError, agreement, canonical, predict_model
from bnn_itrd.export.lce import read_lce_metadata, run_lce, time_lce, to_lce
from bnn_itrd.export.lce.binary import pack_filter
from bnn_itrd.export.lce.interpreter import call_interpreter
from bnn_itrd.export.lce.network import to_flatbuffer
from bnn_itrd.export.lce.reader import read_lce_model
from bnn_itrd.export.lce.schema import load_schema
from bnn_itrd.export.lce.windows import WindowAxis, named_padding
from bnn_itrd.export.runtimes import environments
from bnn_itrd.models import resnet18, resnet20, vgg_small
from bnn_itrd.models.resnet import ResNetBuilder
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, BinaryWeight, ReCUWeight, Scheme, WeightBinarizer, binarize, sign

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of LCE's environment: the user's, else one made for this run (a download of 75 MB)."""
    found = environments.find("lce")
    if found is not None:
        yield found
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield environments.setup("lce")


def randomised(model: Any, seed: int = 0) -> Any:
    """BatchNorm and scales as training leaves them and worse: negative ones, and a zero in each."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.weight is not None:
                    module.weight.normal_(generator=generator)
                    module.bias.normal_(generator=generator)
                    module.weight[0] = 0
            if isinstance(module, ReCUWeight):
                module.alpha.normal_(generator=generator)
                module.alpha[-1] = 0
    return model.eval()


def images(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def operations(file: Path) -> list[tuple[str, Any]]:
    """(name, operator) of each operation in the file, in order."""
    model, _ = read_lce_model(file)
    schema = load_schema()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [
        code.customCode.decode() if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    return [(codes[operator.opcodeIndex], operator) for operator in model.subgraphs[0].operators]


def count(file: Path) -> Counter[str]:
    return Counter(name for name, _ in operations(file))


def stored(file: Path, operator: Any, index: int, dtype: Any = np.float32) -> np.ndarray:
    """A constant input of an operator."""
    model, _ = read_lce_model(file)
    tensor = model.subgraphs[0].tensors[operator.inputs[index]]
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(dtype).reshape(tensor.shape)


# Where a window stands


def _positions(size: int, reach: int, stride: int, padding: str) -> tuple[int, int]:
    """(first position, number) of TFLite's windows, as its documentation defines SAME and VALID."""
    if padding == "VALID":
        return 0, (size - reach) // stride + 1
    out = (size + stride - 1) // stride
    return -(max((out - 1) * stride + reach - size, 0) // 2), out


@pytest.mark.parametrize("turned", [False, True])
def test_named_paddings_mean_the_same_windows(turned: bool) -> None:
    found = Counter()
    for size in range(1, 12):
        for reach in range(1, 6):
            for stride in (1, 2, 3):
                for border in range(0, 3):
                    out = (size + 2 * border - reach) // stride + 1
                    if out < 1:
                        continue
                    axis = WindowAxis(size, reach, stride, border, out)
                    starts = [i * stride - border for i in range(out)]
                    if turned:
                        axis = axis.reversed()
                        starts = sorted(size - start - reach for start in starts)
                    name = named_padding([axis])
                    found[name] += 1
                    for padding in ("VALID", "SAME"):
                        first, number = _positions(size, reach, stride, padding)
                        same = starts == [first + i * stride for i in range(number)] and size >= 1
                        if name == padding:
                            assert same, (axis, name)
                        elif name is None:
                            assert not same, (axis, padding)
    # PyTorch's stride 2 fits where the image is reversed, and seldom where it is not.
    assert min(found["VALID"], found["SAME"], found[None]) > 20


def test_stride_two_with_padding_one_needs_the_reversed_image() -> None:
    axis = WindowAxis(32, 3, 2, 1, 16)
    assert named_padding([axis, axis]) is None
    assert named_padding([axis.reversed()] * 2) == "SAME"


# What is in the file


def test_filter_bits() -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 31, 32, 33, 70):
        signs = rng.choice(np.array([-1, 1], np.int8), (5, 2, 3, channels))
        words = pack_filter(signs)
        assert words.dtype == np.int32 and words.shape == (5, 2, 3, -(-channels // 32))
        unsigned = words.astype(np.int64) & 0xFFFFFFFF
        for c in range(words.shape[-1] * 32):
            bit = unsigned[..., c // 32] >> (c % 32) & 1
            np.testing.assert_array_equal(bit, signs[..., c] < 0 if c < channels else 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lce")


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(11)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 40, 3, padding=1),
            nn.BatchNorm2d(40),
            nn.Hardtanh(),
            BinaryConv2d(40, 8, 3, 2, 1, bias=True),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.Linear(128, 3),
        )
    )
    model.input_shape = (3, 8, 8)
    return model


@pytest.fixture(scope="module")
def tiny_file(tiny: nn.Module, lce: Path, folder: Path) -> Path:
    return to_lce(
        tiny,
        folder / "tiny.tflite",
        classes=["cat", "dog", "änderung"],
        normalization=([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        metadata={"source_sha256": "0123", "runs": [1, 2]},
    )


def test_operations_and_constants(tiny: Any, tiny_file: Path) -> None:
    """Turned by 180 degrees, hardtanh dropped, BatchNorm folded: every number against NumPy."""
    found = operations(tiny_file)
    assert [name for name, _ in found] == [
        "REVERSE_V2",
        "CONV_2D",
        "LceQuantize",
        "LceBconv2d",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]
    with torch.no_grad():
        factors = [(n.weight.double() / (n.running_var.double() + n.eps).sqrt()).numpy() for n in (tiny[1], tiny[4])]
        shifts = [
            n.bias.double().numpy() - n.running_mean.double().numpy() * f
            for n, f in zip((tiny[1], tiny[4]), factors, strict=True)
        ]
        weight = tiny[0].weight.double().numpy() * factors[0].reshape(-1, 1, 1, 1)
        binary = tiny[3].binary_weight()
        signs, scale = binary.signs.numpy(), binary.scale.double().numpy()
        bias = tiny[3].bias.double().numpy()
    conv, bconv, linear = found[1][1], found[3][1], found[5][1]
    turned = weight.transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    np.testing.assert_allclose(stored(tiny_file, conv, 1), turned, rtol=1e-6, atol=1e-7)
    bits = stored(tiny_file, bconv, 1, np.int32)
    np.testing.assert_array_equal(bits, pack_filter(signs.transpose(0, 2, 3, 1)[:, ::-1, ::-1]))
    np.testing.assert_allclose(stored(tiny_file, bconv, 2), scale * factors[1], rtol=1e-6)
    np.testing.assert_allclose(stored(tiny_file, bconv, 3), bias * factors[1] + shifts[1], rtol=1e-5, atol=1e-6)
    assert bconv.inputs[4] == -1
    # The features lie as (h, w, c), reversed: the columns of the linear layer follow them.
    columns = tiny[6].weight.detach().numpy().reshape(3, 8, 4, 4).transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    np.testing.assert_array_equal(stored(tiny_file, linear, 1), columns.reshape(3, -1))
    from flatbuffers import flexbuffers

    assert flexbuffers.Loads(bytes(bconv.customOptions)) == {
        "channels_in": 40,
        "dilation_height_factor": 1,
        "dilation_width_factor": 1,
        "fused_activation_function": 0,
        "pad_values": 0,
        "padding": 0,
        "stride_height": 2,
        "stride_width": 2,
    }


def test_shapes_and_alignment(tiny_file: Path) -> None:
    model, _ = read_lce_model(tiny_file)
    graph = model.subgraphs[0]
    source, result = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    assert (list(source.shape), list(source.shapeSignature)) == ([1, 8, 8, 3], [-1, 8, 8, 3])
    assert (list(result.shape), list(result.shapeSignature)) == ([1, 3], [-1, 3])
    assert (source.name, result.name) == (b"images", b"logits")
    data = tiny_file.read_bytes()
    schema = load_schema()
    raw = schema.Model.GetRootAs(data, 0)
    for i in range(raw.BuffersLength()):
        buffer = raw.Buffers(i)
        if not buffer.DataIsNone():
            start = np.asarray(buffer.DataAsNumpy()).__array_interface__["data"][0]
            base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            assert (start - base) % 16 == 0


def test_metadata(tiny_file: Path) -> None:
    metadata = read_lce_metadata(tiny_file)
    assert metadata["classes"] == ["cat", "dog", "änderung"]
    assert metadata["mean"] == [0.5, 0.4, 0.3] and metadata["std"] == [0.2, 0.25, 0.3]
    assert (metadata["input_shape"], metadata["format_version"]) == ([3, 8, 8], 1)
    assert (metadata["binary_layers"], metadata["source_sha256"], metadata["runs"]) == (1, "0123", [1, 2])
    assert metadata["torch_version"] == torch.__version__ and metadata["bnn_itrd_version"]
    # Nothing of the machine it was made on.
    assert str(Path(__file__).parents[3]).encode() not in tiny_file.read_bytes()
    assert b"site-packages" not in tiny_file.read_bytes()


# Numbers, in LCE's interpreter


def assert_same_function(model: nn.Module, file: Path, shape: tuple[int, ...], n: int = 20, tol: float = 2e-5) -> None:
    """A value within rounding of zero may fall on either side, and its bit can change every logit."""
    x = images(n, shape)
    result = agreement(predict_model(model, x), run_lce(file, x))
    # 99 %, one image allowed.
    assert len(result.disagreements) <= max(1, 0.01 * n)
    assert result.median_difference < tol


# The narrow family with one block per stage: every option of ResNet-20, a third of its layers.
_resnet8 = ResNetBuilder((16, 32, 64), (1, 1, 1), "pad", binary_per_conv=True, binary_stem_activation=True)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet18": (lambda: resnet18(binary="recu", width=0.25, input_shape=(3, 16, 16)), (3, 16, 16), 16),
    "resnet20": (lambda: resnet20(binary="recu", width=0.5, input_shape=(3, 16, 16)), (3, 16, 16), 18),
    "teacher": (lambda: _resnet8(input_shape=(3, 16, 16)), (3, 16, 16), 0),
    "per_block_plus_one": (
        lambda: _resnet8(binary="recu", per_conv=False, padding_value=1, input_shape=(3, 8, 8)),
        (3, 8, 8),
        6,
    ),
    "float_downsample": (
        lambda: _resnet8(binary=Scheme("xnor", "recu"), float_downsample=True, input_shape=(3, 12, 20)),
        (3, 12, 20),
        6,
    ),
    # 7 rows: average pooling that rounds up; 5 columns: every second one of an odd number.
    "odd": (lambda: _resnet8(binary="recu", padding_value=-1, input_shape=(3, 14, 10)), (3, 14, 10), 6),
    "pad": (lambda: _resnet8(binary="xnor", shortcut="pad", input_shape=(3, 28, 15)), (3, 28, 15), 6),
    "projection": (lambda: _resnet8(binary="recu", shortcut="projection", input_shape=(3, 8, 8)), (3, 8, 8), 6),
    "binary_shortcut": (lambda: _resnet8(binary="recu", shortcut="binary", input_shape=(3, 8, 8)), (3, 8, 8), 8),
    "integers": (
        lambda: _resnet8(binary="recu", shortcut="avgpool", residual_bits=4, first_last_bits=8, input_shape=(3, 8, 8)),
        (3, 8, 8),
        6,
    ),
    "vgg_small": (lambda: vgg_small(7, binary="recu", in_channels=1, input_shape=(1, 8, 16)), (1, 8, 16), 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, folder: Path, lce: Path) -> None:
    """`to_lce` itself compares every sign in front of every layer; the logits are compared here."""
    build, shape, binary = NETWORKS[name]
    torch.manual_seed(1)
    model = randomised(build())
    file = to_lce(model, folder / f"{name}.tflite")
    assert count(file)["LceBconv2d"] == count(file)["LceQuantize"] == binary
    assert_same_function(model, file, shape)


def test_resnet18_is_small(folder: Path, lce: Path) -> None:
    # 10,985,472 weights of one bit are 1.373 MB.
    torch.manual_seed(2)
    model = randomised(resnet18(binary="recu"))
    file = to_lce(
        model,
        folder / "resnet18.tflite",
        classes=[f"class {i}" for i in range(10)],
        normalization=([0.5] * 3, [0.2] * 3),
    )
    assert 10_985_472 / 8 < file.stat().st_size <= 1_450_000
    assert count(file)["LceBconv2d"] == 16 and count(file)["CONV_2D"] == 1
    assert count(file)["REVERSE_V2"] == 1 and not count(file)["PADV2"]
    assert_same_function(model, file, (3, 32, 32), n=10)


def test_trained_network(folder: Path, lce: Path) -> None:
    """A few steps on the digits: weights and statistics as training leaves them."""
    digits = load_digits()
    x = torch.from_numpy((digits.images[:, None] / 16 - 0.3).astype(np.float32))
    y = torch.from_numpy(digits.target)
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        BinaryConv2d(32, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.Hardtanh(),
        BinaryConv2d(64, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.Hardtanh(),
        BinaryConv2d(64, 64, 3, padding=1, padding_value=-1),
        nn.BatchNorm2d(64),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = slice(step * 20, step * 20 + 64)
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    model.eval()
    file = to_lce(model, folder / "digits.tflite", input_shape=(1, 8, 8))
    result = agreement(predict_model(model, x[1200:]), run_lce(file, x[1200:]), y[1200:])
    assert result.top1_model is not None and result.top1_model > 0.8
    assert result.argmax_agreement >= 0.99 and result.median_difference <= 1e-4


@pytest.mark.exhaustive
def test_torchvision_network_binarised(folder: Path, lce: Path) -> None:
    torch.manual_seed(3)
    # A ResNet-18 with half of its blocks: as large in h and w, and quicker.
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)
    model = randomised(binarize(network).model)
    file = to_lce(model, folder / "torchvision.tflite", input_shape=(3, 224, 224))
    binary = sum(isinstance(module, BinaryConv2d) for module in model.modules())
    assert count(file)["LceBconv2d"] == binary >= 8
    assert count(file)["MAX_POOL_2D"] == 1


class WithOffset(WeightBinarizer):
    """Weights {offset - scale, offset + scale}, both per channel."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels)
        self.scale = nn.Parameter(torch.linspace(-1, 2, out_channels))
        self.shift = nn.Parameter(torch.linspace(1, -2, out_channels))

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), self.scale, self.shift)


def with_offset(layer: Any) -> Any:
    layer.weight_binarizer = WithOffset(layer.weight.shape[0])
    return layer


# Convolutions of 4 channels to 6; how many LceBconv2d each needs.
BINARY: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "same": (lambda: BinaryConv2d(4, 6, 3, padding=1), 1),
    "stride_2": (lambda: BinaryConv2d(4, 6, 3, 2, 1), 1),
    "stride_3": (lambda: BinaryConv2d(4, 6, 3, 3, 1), 1),
    "stride_2_minus_one": (lambda: BinaryConv2d(4, 6, 3, 2, 1, padding_value=-1, bias=True), 1),
    "pointwise_stride_2": (lambda: BinaryConv2d(4, 6, 1, 2), 1),
    "five_of_two_sizes": (lambda: BinaryConv2d(4, 6, (5, 2), (2, 1), (2, 1)), 1),
    "wide_border": (lambda: BinaryConv2d(4, 6, 3, padding=2), 1),
    "dilated": (lambda: BinaryConv2d(4, 6, 3, dilation=2, padding=2), 1),
    "dilated_stride": (lambda: BinaryConv2d(4, 6, 3, 2, 2, dilation=2), 1),
    "grouped": (lambda: BinaryConv2d(4, 6, 3, 2, 1, groups=2), 2),
    "depthwise_plus_one": (lambda: BinaryConv2d(4, 8, 3, padding=1, groups=4, padding_value=1), 4),
    "offset": (lambda: with_offset(BinaryConv2d(4, 6, 3, padding=1, bias=True)), 2),
    "offset_grouped": (lambda: with_offset(BinaryConv2d(4, 6, 3, 2, 1, groups=2)), 4),
}


class Side(nn.Module):
    """Each layer on the same images, its result flattened: many cases in one file."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x).flatten(1) for layer in self.layers.values()], dim=1)


def assert_equal_logits(model: nn.Module, file: Path, x: Tensor, sizes: dict[str, int]) -> None:
    expected, got = predict_model(model, x), run_lce(file, x)
    start = 0
    for name, size in sizes.items():
        part = slice(start, start + size)
        np.testing.assert_allclose(got[:, part], expected[:, part], rtol=1e-5, atol=3e-5, err_msg=name)
        start += size
    assert start == expected.shape[1]


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 7, 9), (4, 2, 3)])
def test_binary_layers(shape: tuple[int, int, int], folder: Path, lce: Path) -> None:
    """Even, odd and tiny images (smaller than the kernel: LCE's own zero padding would be wrong), ties at 0 and -0."""
    torch.manual_seed(4)
    layers = {
        name: nn.Sequential(build(), nn.BatchNorm2d(8 if "depthwise" in name else 6))
        for name, (build, _) in BINARY.items()
        if shape[1] > 2 or name not in ("pointwise_stride_2",)
    }
    model = randomised(Side(layers))
    x = (images(3, shape) * 3).round() / 3
    x[0, :, ::2] = -0.0
    x[0, :, 1::2] = 0.0
    file = to_lce(model, folder / "layers.tflite", input_shape=shape)
    assert count(file)["LceBconv2d"] == sum(BINARY[name][1] for name in layers)
    with torch.no_grad():
        sizes = {name: layer(x)[0].numel() for name, layer in layers.items()}
    assert_equal_logits(model, file, x, sizes)


# Sums of exactly 0, which is +1


class Ties(nn.Module):
    """A binary layer without a bias, whose sums are often exactly 0, in front of a 1x1 layer's sign.

    between: what lies between the two; it keeps 0 at 0.
    """

    def __init__(self, first: nn.Module, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first
        self.between = nn.Identity() if between is None else between
        self.second = BinaryConv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.between(self.first(x)))
        return y.flatten(1)

    def by_hand(self, x: Tensor) -> tuple[Tensor, float]:
        """(logits in float64 from whole sums, the share of values in front of the second sign that are exactly 0)."""
        value = x.double()
        for layer in (self.first, self.second):
            signs = torch.where(value >= 0, 1.0, -1.0).double()
            if layer is self.second:
                zeros = float((value == 0).double().mean())
            assert isinstance(layer, BinaryConv2d)
            latent = layer.weight.double()
            alpha: Any = layer.weight_binarizer.alpha
            value = F.conv2d(
                F.pad(signs, [layer.padding[1]] * 2 + [layer.padding[0]] * 2, value=layer.padding_value),
                torch.where(latent - latent.mean((1, 2, 3), keepdim=True) >= 0, 1.0, -1.0).double(),
                stride=layer.stride,
                dilation=layer.dilation,
                groups=layer.groups,
            )
            value = value * alpha.detach().double().reshape(-1, 1, 1)
            if layer is self.first:
                value = self.between.double()(value)
                self.between.float()
        return value.flatten(1).detach(), zeros


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


# 4 channels to 8; each with what lies between it and the sign.
TIES: dict[str, tuple[Callable[[], BinaryConv2d], Callable[[], nn.Module] | None]] = {
    "pad_1": (lambda: BinaryConv2d(4, 8, 3, padding=1), None),
    "hardtanh": (lambda: BinaryConv2d(4, 8, 3, padding=1), nn.Hardtanh),
    "stride_2": (lambda: BinaryConv2d(4, 8, 3, 2, 1), None),
    "grouped": (lambda: BinaryConv2d(4, 8, 3, padding=1, groups=2), None),
    "wide_border": (lambda: BinaryConv2d(4, 8, 3, padding=2), None),
    "minus_one": (lambda: BinaryConv2d(4, 8, 3, padding=1, padding_value=-1), None),
    "pooled": (lambda: BinaryConv2d(4, 8, 3, padding=1), lambda: nn.MaxPool2d(2)),
    "pooled_wide_border": (lambda: BinaryConv2d(4, 8, 3, padding=2), lambda: nn.MaxPool2d(2)),
    "added": (lambda: BinaryConv2d(4, 8, 3, padding=1), Doubled),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_exact(name: str, folder: Path, lce: Path) -> None:
    first, between = TIES[name]
    torch.manual_seed(3)
    model = Ties(first(), None if between is None else between())
    with torch.no_grad():
        for layer in (model.first, model.second):
            assert isinstance(layer, BinaryConv2d)
            layer.weight_binarizer.alpha.uniform_(0.01, 1.0)  # type: ignore[operator, union-attr]
        model.first.weight_binarizer.alpha[::3] *= -1  # type: ignore[index, operator, union-attr]
    file = to_lce(model.eval(), folder / "ties.tflite", input_shape=(4, 8, 6))
    x = images(20, (4, 8, 6))
    expected, zeros = model.by_hand(x)
    assert zeros > 0.02
    np.testing.assert_allclose(run_lce(file, x), expected, rtol=1e-5, atol=1e-5)
    alone = between in (None, nn.Hardtanh)
    assert (count(file)["MUL"] > 0) != alone


def test_a_result_that_no_sign_reads_needs_no_exact_zero(folder: Path, lce: Path) -> None:
    torch.manual_seed(3)
    last = nn.Sequential(BinaryConv2d(4, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten()).eval()
    assert not count(to_lce(last, folder / "last.tflite", input_shape=(4, 8, 6)))["MUL"]
    # A BatchNorm moves 0 away from the sign's threshold.
    normed = Ties(BinaryConv2d(4, 8, 3, padding=1), nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8)))
    randomised(normed)
    assert count(to_lce(normed, folder / "normed.tflite", input_shape=(4, 8, 6)))["MUL"] == 1
    with torch.no_grad():
        for tensor in (normed.between[1].bias, normed.between[1].running_mean):  # type: ignore[index, union-attr]
            tensor[3] = 0  # type: ignore[index]
    assert count(to_lce(normed, folder / "normed.tflite", input_shape=(4, 8, 6)))["MUL"] == 2


def test_many_flips_without_a_margin_are_refused(folder: Path, lce: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wrong sign is one of a value of exactly 0: no margin shows it, their number does."""
    import bnn_itrd.export.lce.binary as binary

    torch.manual_seed(3)
    model = Ties(BinaryConv2d(4, 8, 3, padding=1)).eval()
    with torch.no_grad():
        model.first.weight_binarizer.alpha.uniform_(0.01, 1.0)  # type: ignore[operator, union-attr]
    monkeypatch.setattr(binary, "only_signs_read", lambda value: False)
    monkeypatch.setattr(binary, "zero_decides", lambda value: False)
    with pytest.raises(ExportError, match=r"^second: in LCE's interpreter \d+ of the 1152 signs .* than rounding"):
        to_lce(model, folder / "wrong.tflite", input_shape=(4, 8, 6))
    assert not (folder / "wrong.tflite").exists()


class LinearAfter(nn.Module):
    """A binary linear layer behind a flattened image, one on rows, and an ordinary one behind a pooled image."""

    def __init__(self) -> None:
        super().__init__()
        # With a bias: a sum of exactly 0 may come out on either side of it.
        self.conv = BinaryConv2d(4, 5, 3, 2, 1, bias=True)
        self.first = BinaryLinear(5 * 4 * 3, 6, bias=True)
        self.rows = with_offset(BinaryLinear(12, 3))
        self.norm = nn.BatchNorm1d(60)
        self.last = nn.Linear(60, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        flat = x.flatten(1)
        return torch.cat([self.first(flat), self.rows(x.flatten(2)).flatten(1), self.last(self.norm(flat))], dim=1)


def test_linear_layers(folder: Path, lce: Path) -> None:
    torch.manual_seed(5)
    model = randomised(LinearAfter())
    file = to_lce(model, folder / "linear.tflite", input_shape=(4, 8, 6))
    assert count(file)["LceBconv2d"] == 4
    assert_equal_logits(model, file, images(3, (4, 8, 6)), {"first": 6, "rows": 15, "last": 4})


class Shifted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, 1:, 1::2, :-1], F.pad(x, (1, 2, 0, 1), value=0.5)
        a, b = x.chunk(2, dim=1)
        rows = torch.cat([x[:, :, :2], x], dim=2)
        return torch.cat([part.flatten(1) for part in (first, second, a * b, rows)], dim=1)


class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.linspace(-1, 1, 48).reshape(8, 6))
        self.scale = nn.Parameter(torch.linspace(-1, 1, 4).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = (x * self.mask - self.scale) / (self.scale.abs() + 1)
        return torch.maximum(y, -x) + x.mean((2, 3), keepdim=True) + x.amax((2, 3))[:, :, None, None]


class Moved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens


FLOAT: dict[str, Callable[[], nn.Module]] = {
    "conv_stride": lambda: nn.Conv2d(4, 5, 3, 2, 1),
    "conv_pointwise_stride": lambda: nn.Conv2d(4, 5, 1, 2),
    "conv_wide": lambda: nn.Conv2d(4, 5, (5, 3), (1, 2), (3, 0), dilation=(1, 2), bias=False),
    "conv_grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=4),
    "depthwise_dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
    "max": lambda: nn.MaxPool2d(3, 2, 1),
    "max_ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2),
    "average_ceil": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "average_border": lambda: nn.AvgPool2d(3, 2, 1),
    "average_border_not_counted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
    "norm": lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)),
    "relu": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
    "relu6": lambda: nn.ReLU6(),
    "hardtanh": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardtanh()),
    "hardtanh_uneven": lambda: nn.Hardtanh(-0.5, 2),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "prelu": lambda: nn.PReLU(4),
    "sigmoid": lambda: nn.Sequential(nn.Sigmoid(), nn.Tanh()),
    "hardswish": lambda: nn.Sequential(nn.Hardswish(), nn.Hardsigmoid()),
    "elu": lambda: nn.ELU(),
    "softmax_channels": lambda: nn.Softmax(1),
    "reflect": lambda: nn.ReflectionPad2d((1, 0, 2, 1)),
    "global": lambda: nn.AdaptiveMaxPool2d(1),
    "shifted": lambda: Shifted(),
    "arithmetic": lambda: Arithmetic(),
    "moved": lambda: Moved(),
}


class Turned(nn.Module):
    """Float layers behind a binary one that has the image lie reversed."""

    def __init__(self, layers: dict[str, nn.Module], reverse: bool) -> None:
        super().__init__()
        self.first = BinaryConv2d(4, 4, 3, 2, 1) if reverse else nn.AvgPool2d(2)
        self.side = Side(layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.side(self.first(x) * 0.3)
        return y


@pytest.mark.parametrize("reverse", [False, True])
def test_ordinary_layers(reverse: bool, folder: Path, lce: Path) -> None:
    torch.manual_seed(6)
    layers = {name: randomised(build()) for name, build in FLOAT.items()}
    model = Turned(layers, reverse).eval()
    file = to_lce(model, folder / "float.tflite", input_shape=(4, 16, 12))
    assert (count(file)["REVERSE_V2"] > 0) == reverse
    x = images(3, (4, 16, 12))
    with torch.no_grad():
        sizes = {name: layer(model.first(x))[0].numel() for name, layer in layers.items()}
    assert_equal_logits(model, file, x, sizes)


class Mixed(nn.Module):
    """A user's own network: two branches, concatenation, pooling, float and binary layers, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.left = nn.Sequential(nn.Hardtanh(), BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
        self.again = BinaryConv2d(16, 16, 1, groups=2, scheme="xnor")
        self.hidden = BinaryLinear(16, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        x = self.again(F.max_pool2d(x, 2))
        x = self.again(x=F.hardtanh(x)) + x
        logits: Tensor = self.head(self.norm(self.hidden(x.mean((2, 3)))))
        return logits


@pytest.fixture(scope="module")
def mixed() -> Any:
    torch.manual_seed(6)
    return randomised(Mixed())


@pytest.fixture(scope="module")
def mixed_file(mixed: nn.Module, folder: Path, lce: Path) -> Path:
    return to_lce(mixed, folder / "mixed.tflite", input_shape=(3, 8, 8))


def test_users_own_network(mixed: nn.Module, mixed_file: Path) -> None:
    # left, twice again in two groups, hidden.
    assert count(mixed_file)["LceBconv2d"] == 6
    assert_same_function(mixed, mixed_file, (3, 8, 8))


def test_batch_can_be_resized(tiny: nn.Module, tiny_file: Path, folder: Path, lce: Path) -> None:
    """The interpreter works every size out again from the input's."""
    model, _ = read_lce_model(tiny_file)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [5, 8, 8, 3]
    larger = folder / "batch.tflite"
    larger.write_bytes(to_flatbuffer(load_schema(), model))
    x = images(10, (3, 8, 8))
    (logits,), _ = call_interpreter(lce, larger, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(logits, run_lce(tiny_file, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("indirect", "xnnpack"), [(False, False), (False, True), (True, True)])
def test_other_kernels_give_the_same(indirect: bool, xnnpack: bool, mixed_file: Path, lce: Path) -> None:
    """What an application gets that registers LCE's operations without options, and with TFLite's usual delegate."""
    x = images(4, (3, 8, 8))
    stored = np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))
    (logits,), _ = call_interpreter(lce, mixed_file, stored, indirect=indirect, xnnpack=xnnpack)
    np.testing.assert_allclose(logits, run_lce(mixed_file, x), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """A value read again behind a reshape to its own shape: the ReLU must not go into the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + F.relu(y.reshape(-1, 4, 8, 8))).flatten(1)


def test_an_activation_of_a_shared_value_stays_outside(folder: Path, lce: Path) -> None:
    model = Shared().eval()
    file = to_lce(model, folder / "shared.tflite", input_shape=(3, 8, 8))
    assert_equal_logits(model, file, images(2, (3, 8, 8)), {"all": 256})


def test_time_and_threads(tiny_file: Path, lce: Path) -> None:
    assert time_lce(tiny_file, repeats=3, warmup=1) > 0
    x = images(4, (3, 8, 8))
    np.testing.assert_array_equal(run_lce(tiny_file, x, threads=2), run_lce(tiny_file, x.numpy(), python=lce))


# What goes wrong, and what it says


def _net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.Sequential(*layers))


class Turns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


class Index(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, [2, 0, 1]].flatten(1)


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (lambda: _net(BinaryConv2d(64, 64, 3, groups=64)), (64, 4, 4), r"^1\.0: 64 groups.*use at most 32 groups"),
        (lambda: _net(nn.Conv1d(3, 4, 3)), (3, 8), r"^1\.0: Conv of 1 dimensions: .*use 2-d layers"),
        (lambda: _net(nn.ConvTranspose2d(3, 4, 3)), (3, 8, 8), r"^1\.0: ConvTranspose has no form in an LCE file"),
        (lambda: _net(nn.ELU(2.0)), (3, 8, 8), r"^1\.0: an ELU with another alpha than 1: use alpha=1"),
        (lambda: _net(nn.MaxPool2d(2, dilation=2)), (3, 8, 8), r"^1\.0: a pooling with dilation: pool without"),
        (lambda: _net(nn.Softmax(2)), (3, 8, 8), r"^1\.0: a softmax over axis 2 of 4: transpose"),
        (lambda: _net(Turns()), (3, 8, 8), r"^1\.0: a slice with computed bounds or a negative step"),
        (
            lambda: _net(Index()),
            (3, 8, 8),
            r"^1\.0: GatherND has no form in an LCE file: replace it by an operation docs",
        ),
        (lambda: nn.Identity(), (3, 8, 8), "the network computes nothing|do not depend on its images"),
    ],
)
def test_what_lce_cannot_carry(
    build: Callable[[], nn.Module], shape: tuple[int, ...], message: str, tmp_path: Path, lce: Path
) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_lce(build().eval(), file, input_shape=shape)
    assert file.read_bytes() == b"what was here before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"classes": "cat"}, ValueError, "classes must be a list of names, got one text"),
        ({"classes": ["cat"]}, ValueError, "classes has 1 names, and the network gives 3 logits"),
        ({"normalization": ([0.5], [0.5])}, ValueError, "normalization's mean must have 3 values"),
        ({"metadata": {"sha256": "x"}}, ValueError, "metadata must not hold sha256: written by the export"),
        ({"metadata": {"path": Path("x")}}, ValueError, "metadata must hold what JSON can: .*not JSON serializable"),
        ({"python": "nowhere/python"}, ExportError, "no such interpreter: .*nowhere/python"),
    ],
)
def test_arguments(tiny: nn.Module, tmp_path: Path, arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        to_lce(tiny, tmp_path / "model.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_shape_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Linear has no input_shape: pass input_shape=\(c, h, w\)"):
        to_lce(nn.Linear(3, 3), tmp_path / "model.tflite")
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        to_lce(nn.Linear(3, 3), tmp_path / "nowhere" / "model.tflite", input_shape=(3,))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"images must be \(n, 3, 8, 8\) for this file, got \(2, 8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.float32), r"images must be \(n, 3, 8, 8\) for this file, got \(3, 8, 8\)"),
        (np.zeros((2, 3, 8, 8)), r"images must be float32 \(normalised\) for this file, got float64"),
        (np.zeros((0, 3, 8, 8), np.float32), "images must hold at least one image, got none"),
    ],
)
def test_images_that_do_not_fit(array: np.ndarray, message: str, tiny_file: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_lce(tiny_file, array)


def test_numbers_that_do_not_fit(tiny_file: Path) -> None:
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        run_lce(tiny_file, images(1, (3, 8, 8)), threads=0)
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        time_lce(tiny_file, repeats=0)


def test_files_that_cannot_be_used(tiny_file: Path, tmp_path: Path) -> None:
    x = images(1, (3, 8, 8))
    with pytest.raises(FileNotFoundError, match="no such file: .*nothing"):
        run_lce(tmp_path / "nothing.tflite", x)
    file = tmp_path / "model.tflite"
    whole = tiny_file.read_bytes()
    for content in (b"", b"hello\n" * 100):
        file.write_bytes(content)
        with pytest.raises(ExportError, match=r"model\.tflite is not a TFLite file"):
            read_lce_metadata(file)
    for cut in (12, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(ExportError, match=r"model\.tflite (is damaged|was not written by bnn_itrd)"):
            run_lce(file, x)
    rng = np.random.default_rng(0)
    for position in rng.integers(8, len(whole), 40):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(flipped))
        with pytest.raises(ExportError, match=r"model\.tflite (is damaged|was not written|has format version)"):
            run_lce(file, x)


def test_a_newer_file_and_a_foreign_one(tiny_file: Path, tmp_path: Path) -> None:
    model, metadata = read_lce_model(tiny_file)
    file = tmp_path / "model.tflite"
    entry = model.metadata[0]
    text = json.dumps({**metadata, "format_version": 2}).encode()
    model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
    file.write_bytes(to_flatbuffer(load_schema(), model))
    with pytest.raises(ExportError, match="has format version 2, this bnn_itrd reads 1: update bnn_itrd"):
        read_lce_metadata(file)
    model.metadata = []
    file.write_bytes(to_flatbuffer(load_schema(), model))
    with pytest.raises(ExportError, match="was not written by bnn_itrd"):
        read_lce_metadata(file)


def test_an_existing_file_is_never_lost(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lce: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"what was here before")

    def full(source: object, target: object) -> None:
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tflite_file.os, "replace", full)
        with pytest.raises(OSError, match="disk is full"):
            to_lce(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


def _other_threshold(model: Any) -> None:
    model[1].bias += 0.2


def _other_head(model: Any) -> None:
    model[6].bias[1] += 0.2


def _other_bit(model: Any) -> None:
    model[3].weight[1, 2, 0, 1] *= -100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_threshold, r"^3: in LCE's interpreter the signs in front of it differ"),
        (_other_head, "^in LCE's interpreter the logits differ"),
        (_other_bit, "^in LCE's interpreter the logits differ"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    change: Callable[[Any], None],
    message: str,
    tiny: nn.Module,
    tmp_path: Path,
    lce: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        change(other)
    monkeypatch.setattr(tflite_file, "canonical", lambda model, input_shape: canonical(other))
    with pytest.raises(ExportError, match=message):
        to_lce(tiny, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_binary_layer_that_became_a_float_one_is_not_written(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lce: Path
) -> None:
    translate = translate_module.translate

    def forget(graph: Any) -> Any:
        return translate(graph)._replace(expected=2, layers=2)

    monkeypatch.setattr(translate_module, "translate", forget)
    with pytest.raises(ExportError, match="has 1 binary operations, and the network's 2 binary layers need 2"):
        to_lce(tiny, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_without_larq_compute_engine(tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bnn_itrd.export.lce.schema as schema

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(schema.importlib.util, "find_spec", lambda name: None)
    file = tmp_path / "model.tflite"
    with pytest.raises(ExportError, match=r"is not installed for this Python .*--setup lce.*--lce-python"):
        to_lce(tiny, file)
    assert not file.exists()


def test_schema_of_a_named_environment(lce: Path, monkeypatch: pytest.MonkeyPatch, tiny_file: Path) -> None:
    """Where this Python has no larq-compute-engine, that of the interpreter named serves."""
    import bnn_itrd.export.lce.schema as schema

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_in_this_python", lambda: None)
        assert lce.parents[1] in Path(str(load_schema(lce).__file__)).parents
        assert read_lce_metadata(tiny_file, python=lce)["binary_layers"] == 1


def test_a_named_environment_serves_the_commands(
    lce: Path, monkeypatch: pytest.MonkeyPatch, tiny: nn.Module, tmp_path: Path
) -> None:
    """No larq-compute-engine in this Python, none set up: writing, reading and running need the named one alone."""
    import bnn_itrd.export.lce.schema as schema

    data: Any = SimpleNamespace(
        name="mine", resize="scale", input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.2] * 3, classes=["a", "b", "c"]
    )
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_in_this_python", lambda: None)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        file = tmp_path / "student.tflite"
        with pytest.raises(ExportError, match="--lce-python"):
            write_target("lce", tiny, data, file, member="recu", checkpoint=None)
        write_target("lce", tiny, data, file, member="recu", checkpoint=None, python=str(lce))
        with pytest.raises(ExportError, match="--lce-python"):
            metadata_of(file)
        assert metadata_of(file, python=str(lce))["dataset"] == "mine"
        x = images(2, (3, 8, 8))
        logits = open_file(file, python=str(lce)).predict(x)
    np.testing.assert_allclose(logits, predict_model(tiny, x), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content"), [("results.npz", b"PK"), ("results.npz", b""), ("results.json", b"{"), ("results.npz", None)]
)
def test_damaged_results_of_a_runtime(name: str, content: bytes | None, tmp_path: Path) -> None:
    """What the other interpreter leaves is read with care: a full disk cuts it short."""
    script = tmp_path / "child.py"
    change = "file.unlink()" if content is None else f"file.write_bytes({content!r})"
    script.write_text(
        "import atexit, pathlib, sys\n"
        f"def end():\n    file = pathlib.Path(sys.argv[2], {name!r})\n    {change}\n"
        "atexit.register(end)\n"
        "def main(arrays, arguments):\n    return arrays, arguments\n"
    )
    with pytest.raises(ExportError, match=r"child\.py left no results that can be read"):
        environments.call(sys.executable, script, arrays={"x": np.zeros(3)})


def test_a_runtime_that_hangs_is_stopped(tiny_file: Path, lce: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def call(*arguments: Any, timeout: float | None = None, **more: Any) -> Any:
        asked.append(timeout)
        return {"output0": np.zeros((2, 3), np.float32)}, {"milliseconds": 1.0}

    monkeypatch.setattr(environments, "call", call)
    run_lce(tiny_file, images(2, (3, 8, 8)))
    time_lce(tiny_file, repeats=30, warmup=0)
    assert all(seconds is not None and 300 < seconds < 3600 for seconds in asked) and asked[0] < asked[1]  # type: ignore[operator]


def test_without_the_runtime(tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written and its structure checked; only running it needs the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = to_lce(tiny, tmp_path / "model.tflite")
    assert read_lce_metadata(file)["binary_layers"] == 1
    with pytest.raises(ExportError, match="`bnn-itrd validate --setup lce` makes its environment"):
        run_lce(file, images(1, (3, 8, 8)))


def test_neither_tensorflow_nor_the_package_is_imported(tiny_file: Path) -> None:
    code = (
        "import sys; from bnn_itrd.export.lce import read_lce_metadata as read;"
        "assert 'flatbuffers' not in sys.modules and 'onnx' not in sys.modules;"
        f"read({str(tiny_file)!r});"
        "print([m for m in ('tensorflow', 'larq_compute_engine') if m in sys.modules])"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
