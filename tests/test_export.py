"""Exported files against the networks they came from, and every step of the way there."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from onnx import numpy_helper
from torch import Tensor, nn

import bnn_itrd.export.ort.file as onnx_file
from bnn_itrd.export import (
    FORMAT_VERSION,
    ExportError,
    agreement,
    canonical,
    compare_milliseconds,
    milliseconds_per_image,
    portable,
    predict_file,
    predict_model,
    read_metadata,
    session,
    to_onnx,
    traced_once,
    uses_native,
    validate,
)
from bnn_itrd.export.graph import attribute, constant, nodes_of
from bnn_itrd.export.passes.batchnorm import fold_batchnorm, fold_batchnorm_into_next
from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.export.passes.lower_binary import lower_binary
from bnn_itrd.export.passes.pack_bits import pack_signs, packed_bits
from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal
from bnn_itrd.export.runtime.native import why_unavailable
from bnn_itrd.models import observe, resnet18, resnet20, vgg_small
from bnn_itrd.quant import (
    ActivationBinarizer,
    BinaryConv2d,
    BinaryLinear,
    BinaryWeight,
    ReCUWeight,
    Scheme,
    WeightBinarizer,
    binarize,
    sign,
)

SMALL = (3, 16, 16)


def randomised(model: Any, seed: int = 0) -> Any:
    """BatchNorm and scales as training leaves them and worse: negative ones, and a zero in each."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.normal_(generator=generator)
                module.bias.normal_(generator=generator)
                module.weight[0] = 0
            if isinstance(module, ReCUWeight):
                module.alpha.normal_(generator=generator)
                module.alpha[-1] = 0
    return model.eval()


def images(n: int, shape: tuple[int, ...] = SMALL, seed: int = 0) -> Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def run_graph(model: ir.Model, x: Tensor) -> np.ndarray:
    """What a graph computes, binary nodes lowered, without onnxruntime's own optimisations."""
    clone = ir.from_proto(ir.to_proto(model))
    lower_binary(clone)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    data = ir.to_proto(clone).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(
        None, {"images": x.numpy()}
    )[0]


@torch.no_grad()
def assert_same_function(model: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
    """A sum within rounding of a threshold may fall on either side, and its bit can change every logit."""
    result = validate(model, file, images(40, shape))
    assert result.images == 40
    assert result.argmax_agreement >= 0.9
    assert result.median_difference < 1e-5
    assert len(result.disagreements) == round(40 * (1 - result.argmax_agreement))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


# Whole networks

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: resnet20(binary="recu", input_shape=SMALL), SMALL),
    "resnet20_teacher": (lambda: resnet20(input_shape=SMALL), SMALL),
    "resnet20_minus_one_xnor": (
        lambda: resnet20(binary="xnor", padding_value=-1, input_shape=(3, 8, 8)),
        (3, 8, 8),
    ),
    "resnet20_plus_one_per_block": (
        lambda: resnet20(binary="recu", padding_value=1, per_conv=False, input_shape=(3, 8, 8)),
        (3, 8, 8),
    ),
    "resnet20_float_downsample": (
        lambda: resnet20(binary=Scheme("xnor", "recu"), float_downsample=True, input_shape=(3, 12, 20)),
        (3, 12, 20),
    ),
    "vgg_small": (lambda: vgg_small(binary="recu", input_shape=SMALL), SMALL),
    "vgg_small_minus_one": (
        lambda: vgg_small(7, binary="recu", padding_value=-1, in_channels=1, input_shape=(1, 8, 8)),
        (1, 8, 8),
    ),
}


@pytest.mark.compiles
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, folder: Path) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = randomised(build())
    assert_same_function(model, to_onnx(model, folder / f"{name}.onnx"), shape)


@pytest.fixture(scope="module")
def student() -> nn.Module:
    torch.manual_seed(2)
    return randomised(resnet18(binary="recu", input_shape=SMALL))


@pytest.fixture(scope="module")
def student_file(student: nn.Module, folder: Path) -> Path:
    return to_onnx(
        student,
        folder / "student.onnx",
        normalization=([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        classes=[f"class {i}" for i in range(10)],
        metadata={"source_sha256": "0123", "runs": [1, 2]},
    )


@pytest.fixture(scope="module")
def plain_file(student: nn.Module, folder: Path) -> Path:
    """Standard operations alone."""
    return to_onnx(student, folder / "student_plain.onnx", functions=False)


def test_resnet18_is_small_and_agrees(student: nn.Module, student_file: Path) -> None:
    # The float teacher takes 44.7 MB; 10,985,472 weights of one bit are 1.373 MB.
    assert student_file.stat().st_size <= 1_600_000
    assert_same_function(student, student_file, SMALL)
    model = onnx.load(student_file)
    bits = sum(
        8 * numpy_helper.to_array(e).size for e in model.graph.initializer if e.data_type == onnx.TensorProto.UINT8
    )
    assert bits == 10_985_472
    # All that a residual binary network does between its stem and its head is in the functions, and these in one.
    assert [node.op_type for node in model.graph.node if node.domain == "bnn_itrd"] == ["Chain0"]
    chain = next(function for function in model.functions if function.name == "Chain0")
    kinds = Counter(node.op_type for node in chain.node if node.domain == "bnn_itrd")
    blocks = {"BinaryConvThreshold": 8, "BinaryConvAddClipSign": 7, "BinaryConvAddClip": 1}
    assert kinds == {"FloatConvSign": 1, **blocks, "AveragePoolPad": 3, "AveragePool": 1}
    assert not any(node.op_type == "Transpose" for node in model.graph.node)


def test_standard_operations_alone(student: nn.Module, plain_file: Path) -> None:
    assert plain_file.stat().st_size <= 1_600_000
    assert_same_function(student, plain_file, SMALL)
    graph = ir.load(plain_file)
    assert packed_bits(graph) == 10_985_472
    assert {node.domain for node in graph.graph} == {""} and not graph.functions


def test_packed_and_float_weights_give_the_same_bits(student: nn.Module, plain_file: Path, folder: Path) -> None:
    float_file = to_onnx(student, folder / "student_float.onnx", functions=False, packed=False)
    assert float_file.stat().st_size > 40_000_000
    x = images(16)
    np.testing.assert_array_equal(predict_file(session(plain_file), x), predict_file(session(float_file), x))


def test_batch_sizes(student: nn.Module, student_file: Path) -> None:
    opened = session(student_file)
    assert opened.get_inputs()[0].name == "images"
    assert opened.get_inputs()[0].shape == ["batch", *SMALL]
    assert opened.get_outputs()[0].name == "logits"
    assert opened.get_outputs()[0].shape == ["batch", 10]
    x = images(17)
    whole = predict_file(opened, x)
    assert whole.shape == (17, 10)
    for batch in (1, 3):
        np.testing.assert_allclose(predict_file(opened, x, batch_size=batch), whole, atol=1e-5)


def test_file_format(student_file: Path) -> None:
    model = onnx.load(student_file)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18), ("bnn_itrd", 1)]
    assert model.producer_name == "bnn_itrd"
    # Nothing of the machine it was made on.
    assert str(Path(__file__).parents[1]).encode() not in student_file.read_bytes()
    assert b"site-packages" not in student_file.read_bytes()


def test_metadata(student_file: Path) -> None:
    metadata = read_metadata(student_file)
    assert metadata["classes"] == [f"class {i}" for i in range(10)]
    assert metadata["mean"] == [0.5, 0.4, 0.3] and metadata["std"] == [0.2, 0.25, 0.3]
    assert metadata["normalization_baked"] is False
    assert metadata["input_shape"] == list(SMALL)
    assert metadata["format_version"] == FORMAT_VERSION == 3
    assert metadata["source_sha256"] == "0123" and metadata["runs"] == [1, 2]
    assert metadata["torch_version"] == torch.__version__
    assert metadata["onnx_version"] == onnx.__version__
    assert metadata["bnn_itrd_version"]


def test_onnxruntime_keeps_the_sums_of_signs_exact(plain_file: Path, folder: Path) -> None:
    """It would merge a scale into the weights: then sums of +-alpha round, and bits at a threshold flip."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(plain_file), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(folder / "optimised.onnx")
    weights = {entry.name: numpy_helper.to_array(entry) for entry in optimised.graph.initializer}
    binary = [
        node for node in optimised.graph.node if node.op_type == "Conv" and (np.abs(weights[node.input[1]]) == 1).all()
    ]
    assert len(binary) == 16
    assert not [node for node in optimised.graph.node if node.op_type == "Gather"]


def test_onnxruntime_folds_what_the_functions_compute_from_constants(student_file: Path, folder: Path) -> None:
    """Indices and unpacked weights: computed in every run they would take longer than the network."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised_functions.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(student_file), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(folder / "optimised_functions.onnx").graph.node)
    assert kinds["MatMulInteger"] == 8 and kinds["QLinearConv"] == 8
    assert not {"BitwiseAnd", "Range", "Shape", "Concat", "Slice", "Unsqueeze", "ConvInteger"} & set(kinds)
    # One in front of the network, one of onnxruntime's own making.
    assert kinds["Transpose"] <= 2


@pytest.mark.skipif(not os.environ.get("BNN_ITRD_OLD_ORT"), reason="BNN_ITRD_OLD_ORT names no folder")
def test_oldest_onnxruntime(student_file: Path, folder: Path) -> None:
    x = images(16)
    np.save(folder / "x.npy", x.numpy())
    code = (
        "import numpy as np, onnxruntime as ort; print(ort.__version__);"
        f"s = ort.InferenceSession({str(student_file)!r}, providers=['CPUExecutionProvider']);"
        f"y = s.run(None, {{'images': np.load({str(folder / 'x.npy')!r})}})[0];"
        f"np.save({str(folder / 'y.npy')!r}, y)"
    )
    environment = os.environ | {"PYTHONPATH": os.environ["BNN_ITRD_OLD_ORT"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != onnxruntime.__version__
    ours, theirs = predict_file(session(student_file), x), np.load(folder / "y.npy")
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.9
    assert np.median(np.abs(ours - theirs)) < 1e-5


@pytest.mark.compiles
@pytest.mark.exhaustive
def test_torchvision_network_binarised(folder: Path) -> None:
    torch.manual_seed(3)
    model = randomised(binarize(torchvision.models.resnet18(num_classes=5)).model)
    file = to_onnx(model, folder / "torchvision.onnx", input_shape=(3, 32, 32))
    assert file.stat().st_size < 4_300_000
    assert_same_function(model, file, (3, 32, 32))


@pytest.mark.compiles
def test_all_float_network(folder: Path) -> None:
    torch.manual_seed(3)
    setting = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
    network = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.5, inverted_residual_setting=setting)
    model = randomised(network)
    file = to_onnx(model, folder / "mobilenet.onnx", input_shape=(3, 32, 32))
    assert_same_function(model, file, (3, 32, 32))
    assert not nodes_of(ir.load(file), "BatchNormalization")


# Layers


class WithOffset(WeightBinarizer):
    """Weights {offset - scale, offset + scale}, both per channel."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(out_channels)
        self.scale = nn.Parameter(torch.linspace(-1, 2, out_channels))
        self.shift = nn.Parameter(torch.linspace(1, -2, out_channels))

    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), self.scale, self.shift)


class Threshold(ActivationBinarizer):
    """sign(x + b_c), RSign's form."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.b = nn.Parameter(torch.linspace(-0.4, 0.6, channels))

    def presign(self, x: Tensor) -> Tensor:
        return x + self.b.reshape(-1, *([1] * (x.dim() - 2)))

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.presign(x))


def with_parts(layer: Any, *, offset: bool = False, threshold: bool = False) -> Any:
    channels = layer.activation_binarizer.channels
    if offset:
        layer.weight_binarizer = WithOffset(layer.weight.shape[0])
    if threshold:
        layer.activation_binarizer = Threshold(channels)
    return layer


LAYERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: BinaryConv2d(4, 6, 3, padding=1),
    "grouped": lambda: BinaryConv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": lambda: BinaryConv2d(4, 8, 3, groups=4, padding=1, padding_value=1),
    "dilated": lambda: BinaryConv2d(4, 6, 3, dilation=2, padding=2, padding_value=-1),
    "strided": lambda: BinaryConv2d(4, 6, 3, stride=2, padding=1, padding_value=-1),
    "uneven": lambda: BinaryConv2d(4, 6, (3, 1), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
    "uneven_plus_one": lambda: BinaryConv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 2), padding_value=1),
    "biased": lambda: BinaryConv2d(4, 6, 1, bias=True),
    "offset": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1, bias=True), offset=True),
    "offset_grouped": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1, groups=2, padding_value=-1), offset=True),
    "threshold": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1), threshold=True),
    "xnor": lambda: BinaryConv2d(4, 6, 3, scheme="xnor"),
    "linear": lambda: nn.Sequential(nn.Flatten(), BinaryLinear(4 * 7 * 9, 5, bias=True)),
    "linear_offset": lambda: nn.Sequential(
        nn.Flatten(2), with_parts(BinaryLinear(63, 5), offset=True, threshold=False)
    ),
}


@pytest.mark.compiles
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    """With BatchNorm folded, dropped clips and bits: the same numbers, ties at 0 and -0 included."""
    torch.manual_seed(4)
    layer: Any = LAYERS[name]()
    norm = nn.Identity() if "linear" in name else nn.BatchNorm2d(layer.weight.shape[0])
    model = randomised(nn.Sequential(nn.Hardtanh(), layer, norm))
    x = (images(3, (4, 7, 9)) * 3).round() / 3
    x[0, :, ::2] = -0.0
    graph = canonical(model, input_shape=(4, 7, 9))
    node = (nodes_of(graph, "BinaryConv2d", "bnn_itrd") + nodes_of(graph, "BinaryLinear", "bnn_itrd"))[0]
    assert attribute(node, "path", "").split(".")[0] == "1"
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(run_graph(graph, x), expected, rtol=1e-5, atol=1e-5)
    portable(graph)
    # The Hardtanh goes where the sign reads it, and stays in front of a threshold or a reshape.
    clips = 1 if name in ("threshold", "linear", "linear_offset") else 0
    assert not nodes_of(graph, "BatchNormalization") and len(nodes_of(graph, "Clip")) == clips
    np.testing.assert_allclose(run_graph(graph, x), expected, rtol=1e-5, atol=1e-5)


def test_sums_on_a_threshold_keep_their_bit(folder: Path) -> None:
    """Fresh BatchNorm: many sums are 0, and their sign +1. An inexact sum would flip them either way."""
    torch.manual_seed(5)
    model = nn.Sequential(
        BinaryConv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), BinaryConv2d(16, 4, 3), nn.Flatten()
    ).eval()
    x = images(20, (8, 8, 8))
    with torch.no_grad():
        assert float((model[0](x) == 0).float().mean()) > 0.02
    file = to_onnx(model, folder / "threshold.onnx", input_shape=(8, 8, 8))
    assert validate(model, file, x).max_difference < 1e-5


class Mixed(nn.Module):
    """A user's own network: two branches, concat, pooling, float and binary layers, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.left = nn.Sequential(nn.Hardtanh(), BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
        self.again = BinaryConv2d(16, 16, 1, groups=2, scheme="xnor")
        self.hidden = BinaryLinear(16, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.stem(x)
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        x = self.again(F.max_pool2d(x, 2))
        x = self.again(x=F.hardtanh(x)) + x
        return {"loss": None, "logits": self.head(self.norm(self.hidden(x.mean((2, 3)))))}


@pytest.mark.compiles
def test_users_own_network(folder: Path) -> None:
    torch.manual_seed(6)
    model = randomised(Mixed())
    file = to_onnx(model, folder / "mixed.onnx", input_shape=(3, 8, 8))
    assert len(session(file).get_outputs()) == 1
    assert_same_function(model, file, (3, 8, 8))


class Auxiliary(nn.Module):
    """A second head that only training reads, and a layer whose result is dropped."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardtanh(), nn.Flatten())
        self.hidden, self.unused = BinaryLinear(128, 16), BinaryLinear(128, 4, bias=True)
        self.head, self.auxiliary = BinaryLinear(16, 4, bias=True), BinaryLinear(128, 4, bias=True)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        self.unused(x)
        auxiliary = self.auxiliary(x)
        if self.shared:
            auxiliary = auxiliary + self.head(self.hidden(-x))
        logits: Tensor = self.head(self.hidden(x))
        return (logits, auxiliary) if self.training else logits


@pytest.mark.compiles
def test_layers_the_logits_do_not_need(folder: Path) -> None:
    torch.manual_seed(13)
    model = randomised(Auxiliary())
    file = to_onnx(model, folder / "auxiliary.onnx", input_shape=(3, 8, 8))
    assert len(session(file).get_outputs()) == 1
    assert_same_function(model, file, (3, 8, 8))


def test_a_layer_the_logits_need_of_one_call_only(tmp_path: Path) -> None:
    torch.manual_seed(13)
    with pytest.raises(ExportError, match=r"^hidden: called more often than the logits need it \(1 of"):
        to_onnx(randomised(Auxiliary(shared=True)), tmp_path / "model.onnx", input_shape=(3, 8, 8))
    assert not list(tmp_path.iterdir())


class Returning(nn.Module):
    """What it returns is made of two heads."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.one, self.two, self.make = nn.Linear(12, 3), nn.Linear(12, 5), make

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)
        return self.make(self.one(x), self.two(x))


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda a, b: (a, b),
            r"returns 2 tensors \(output\[0\] \(2, 3\), output\[1\] \(2, 5\)\).*self.network\(x\)\[0\]",
        ),
        (
            lambda a, b: {"out": a, "aux": [b, a]},
            r"returns 3 tensors .*output\['aux'\]\[1\].*self.network\(x\)\['out'\]",
        ),
        (lambda a, b: {"loss": None, "losses": ()}, "returns dict, with no tensor to take for logits"),
    ],
)
def test_outputs_a_file_would_drop_are_refused(
    make: Callable[[Tensor, Tensor], Any], message: str, tmp_path: Path
) -> None:
    model, shape = Returning(make).eval(), (3, 2, 2)
    with pytest.raises(ExportError, match=message):
        to_onnx(model, tmp_path / "model.onnx", input_shape=shape)
    with pytest.raises(ExportError, match=message):
        predict_model(model, images(2, shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.compiles
@pytest.mark.parametrize("make", [lambda a, b: (a,), lambda a, b: {"features": None, "heads": [b]}])
def test_one_tensor_is_found_wherever_it_is(make: Callable[[Tensor, Tensor], Any], tmp_path: Path) -> None:
    model, shape = Returning(make).eval(), (3, 2, 2)
    assert_same_function(model, to_onnx(model, tmp_path / "model.onnx", input_shape=shape), shape)


# The canonical graph


@pytest.mark.compiles
def test_canonical_graph() -> None:
    torch.manual_seed(7)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.Hardtanh(),
            BinaryConv2d(4, 6, 3, stride=2, padding=1, padding_value=-1, bias=True),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            BinaryLinear(54, 5),
        )
    )
    graph = canonical(model, input_shape=(3, 8, 8))
    assert [f"{node.domain}::{node.op_type}" for node in graph.graph] == [
        "::Conv",
        "::BatchNormalization",
        "::Clip",
        "bnn_itrd::Sign",
        "bnn_itrd::BinaryConv2d",
        "::BatchNormalization",
        "::Reshape",
        "bnn_itrd::Sign",
        "bnn_itrd::BinaryLinear",
    ]
    conv = nodes_of(graph, "BinaryConv2d", "bnn_itrd")[0]
    binary = model[3].binary_weight()
    signs, scale, bias = (constant(conv.inputs[i]) for i in (1, 2, 4))
    assert signs is not None and scale is not None and bias is not None and conv.inputs[3] is None
    assert signs.dtype == np.int8
    np.testing.assert_array_equal(signs, binary.signs.detach().numpy())
    np.testing.assert_array_equal(scale, binary.scale.detach().numpy())
    np.testing.assert_array_equal(bias, model[3].bias.detach().numpy())
    assert {name: attribute(conv, name, None) for name in ("padding_value", "group", "path")} == {
        "padding_value": -1,
        "group": 1,
        "path": "3",
    }
    assert list(attribute(conv, "pads", ())) == [1, 1, 1, 1]
    assert list(attribute(conv, "strides", ())) == [2, 2]
    assert [node.metadata_props.get("path") for node in graph.graph][:4] == ["0", "1", "2", "3"]
    assert list(conv.outputs[0].shape or ())[1:] == [6, 3, 3]
    assert (graph.ir_version, graph.opset_imports) == (8, {"": 18, "bnn_itrd": 1})


def test_the_network_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(8)
    layers = (BinaryConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model: Any = nn.Sequential(*layers).double()
    model.input_shape = (3, 8, 8)
    model.train()
    seen: list[Any] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    observed = observe(model)
    observed(images(4, (3, 8, 8)).double())  # leaves activations with a graph in the hooks
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    seen.clear()
    graph = canonical(observed)
    assert graph.graph.inputs[0].shape == ir.Shape(["batch", 3, 8, 8])
    assert not seen, "a foreign hook ran"
    assert model.training and model[0].weight.dtype == torch.float64 and model[0].weight.requires_grad
    assert isinstance(model[0], BinaryConv2d)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


# Passes, one by one

PASS_CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[ir.Model], int], int, str]] = {
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "linear": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.BatchNorm1d(5)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "binary": (
        lambda: nn.Sequential(with_parts(BinaryConv2d(3, 6, 3, bias=True, padding=1), offset=True), nn.BatchNorm2d(6)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "binary_linear": (
        lambda: nn.Sequential(nn.Flatten(), BinaryLinear(108, 5, bias=True), nn.BatchNorm1d(5)),
        fold_batchnorm,
        1,
        "BatchNormalization",
    ),
    "not_across_maxpool": (
        lambda: nn.Sequential(BinaryConv2d(3, 6, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(6)),
        fold_batchnorm,
        0,
        "",
    ),
    "not_where_others_read": (lambda: Fork(), fold_batchnorm, 0, ""),
    "into_next": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 5)),
        fold_batchnorm_into_next,
        1,
        "BatchNormalization",
    ),
    "into_next_only_adjacent": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.ReLU(), nn.Linear(108, 5)),
        fold_batchnorm_into_next,
        0,
        "",
    ),
    "clip": (lambda: nn.Sequential(nn.Hardtanh(), BinaryConv2d(3, 4, 3)), drop_clips, 1, "Clip"),
    "clip_others_read": (lambda: Fork(clip=True), drop_clips, 0, ""),
    "clip_of_one_sign": (lambda: nn.Sequential(nn.ReLU6(), BinaryConv2d(3, 4, 3)), drop_clips, 0, ""),
    "packing": (
        lambda: nn.Sequential(BinaryConv2d(3, 25, 3), nn.Flatten(), BinaryLinear(400, 9)),
        lambda model: (lower_binary(model), pack_signs(model))[1],
        2,
        "",
    ),
}


class Fork(nn.Module):
    """A value that a second reader needs as it is."""

    def __init__(self, clip: bool = False) -> None:
        super().__init__()
        self.first = nn.Hardtanh() if clip else nn.Conv2d(3, 3, 3, padding=1)
        self.second = BinaryConv2d(3, 3, 3, padding=1) if clip else nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


@pytest.mark.parametrize("name", PASS_CASES)
def test_pass(name: str) -> None:
    build, apply, count, gone = PASS_CASES[name]
    torch.manual_seed(9)
    model = randomised(build())
    x = images(4, (3, 6, 6)) * 2
    x[:, :, 0] = 0.0
    x[:, :, 1] = -0.0
    graph = canonical(model, input_shape=(3, 6, 6))
    before = run_graph(graph, x)
    with torch.no_grad():
        np.testing.assert_allclose(before, model(x).numpy(), rtol=1e-5, atol=1e-5)
    assert apply(graph) == count
    after = run_graph(graph, x)
    if gone:
        assert not nodes_of(graph, gone)
    if apply in (fold_batchnorm, fold_batchnorm_into_next) and count:
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("outputs", [57, 64])
def test_packed_bits_in_the_file(outputs: int) -> None:
    """27 weights per output: 57 of them do not fill whole bytes. Bits against numpy.packbits."""
    torch.manual_seed(10)
    model: Any = nn.Sequential(BinaryConv2d(3, outputs, 3)).eval()
    graph = canonical(model, input_shape=(3, 6, 6))
    portable(graph)
    assert packed_bits(graph) == -(-outputs * 27 // 8) * 8
    table, rows = (value for value in nodes_of(graph, "Gather")[0].inputs)
    assert rows is not None and rows.producer() is not None
    stored, row = constant(rows.producer().inputs[0]), constant(table)
    assert stored is not None and stored.dtype == np.uint8
    assert row is not None and row[0b10000011].tolist() == [1, -1, -1, -1, -1, -1, 1, 1]
    signs = model[0].binary_weight().signs.detach().numpy()
    np.testing.assert_array_equal(stored.reshape(-1), np.packbits(signs.reshape(-1) > 0))
    assert bool(nodes_of(graph, "Slice")) == (outputs * 27 % 8 != 0)
    # A sum of bytes no float initializer hides in.
    arrays = [constant(value) for value in graph.graph.initializers.values()]
    assert all(array is not None and array.nbytes < signs.nbytes for array in arrays)


# Normalisation


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(11)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            BinaryConv2d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(288, 3),
        )
    )
    model.input_shape = (3, 8, 8)
    return model


@pytest.fixture(scope="module")
def tiny_file(tiny: nn.Module, folder: Path) -> Path:
    return to_onnx(tiny, folder / "tiny.onnx")


def test_baked_normalization(tiny: nn.Module, folder: Path) -> None:
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
    file = to_onnx(tiny, folder / "baked.onnx", normalization=(mean, std), bake_normalization=True)
    assert read_metadata(file)["normalization_baked"] is True
    raw = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8)
    prepared = (torch.from_numpy(raw).float() / 255 - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(
        3, 1, 1
    )
    opened = session(file)
    assert opened.get_inputs()[0].type == "tensor(uint8)"
    result = validate(tiny, opened, prepared, raw_images=raw)
    assert result.argmax_agreement >= 0.96 and result.median_difference < 1e-5
    with pytest.raises(ValueError, match="pass them as raw_images"):
        validate(tiny, opened, prepared)
    with pytest.raises(ValueError, match="images must be uint8"):
        predict_file(opened, prepared)
    assert milliseconds_per_image(opened, repeats=2) > 0


# Validation and timing


def test_validate_counts_what_differs(tiny: nn.Module, tiny_file: Path) -> None:
    other: Any = copy.deepcopy(tiny)
    with torch.no_grad():
        other[-1].bias[2] += 3
    x = images(30, (3, 8, 8))
    theirs = predict_model(other, x)
    ours = predict_file(session(tiny_file), x)
    labels = ours.argmax(1)
    result = validate(other, tiny_file, x, labels=labels, batch_size=7)
    differ = np.flatnonzero(theirs.argmax(1) != labels)
    assert 0 < len(differ) < 30
    assert [entry.image for entry in result.disagreements] == differ.tolist()
    assert result.argmax_agreement == pytest.approx(1 - len(differ) / 30)
    assert result.top1_file == 1 and result.top1_model == pytest.approx(result.argmax_agreement)
    assert result.max_difference == pytest.approx(3, abs=1e-3)
    assert result.median_difference < 1e-3
    image, model_class, file_class, margin = result.disagreements[0]
    best = np.sort(theirs[image])[::-1]
    assert (model_class, file_class) == (2, labels[image])
    assert margin == pytest.approx(best[0] - best[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(0, 3, 8, 8)}, "at least one image"),
        ({"images": torch.zeros(2, 3, 8, 8), "labels": [1]}, "labels must be 2"),
        ({"images": torch.zeros(2, 3, 8, 8), "batch_size": 0}, "batch_size must be >= 1"),
        ({"images": torch.zeros(2, 3, 8, 8), "raw_images": torch.zeros(2)}, "leave out raw_images"),
        ({"images": torch.zeros(2, 3, 8, 8).double()}, "images must be float32"),
        ({"images": torch.zeros(2, 3, 8, 9)}, r"images must be \(n, 3, 8, 8\) for this file, got \(2, 3, 8, 9\)"),
        ({"images": torch.zeros(3, 8, 8)}, r"images must be \(n, 3, 8, 8\) for this file, got \(3, 8, 8\)"),
    ],
)
def test_validate_arguments(tiny: nn.Module, tiny_file: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(tiny, tiny_file, **arguments)


def test_validate_of_another_number_of_classes(tiny: Any, tiny_file: Path) -> None:
    other = copy.deepcopy(tiny)
    other[-1] = nn.Linear(288, 1)  # would broadcast
    with pytest.raises(ValueError, match=r"the network's logits have shape \(2, 1\), the file's \(2, 3\)"):
        validate(other, tiny_file, images(2, (3, 8, 8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(0, 3, 8, 8)}, "images must hold at least one image, got none"),
        ({"images": torch.zeros(2, 3, 8, 8), "batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_predict_model_arguments(tiny: nn.Module, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_model(tiny, **arguments)


def test_agreement_by_hand() -> None:
    theirs = np.array([[1, 2, 0], [3, 1, 1], [0, 0.5, 0.25], [5, 0, 0]], np.float32)
    ours = np.array([[1, 2, 0], [0, 1, 1], [0, 0.5, 0.25], [4, 0, 0]], np.float32)
    result = agreement(theirs, ours, [1, 1, 1, 1])
    assert (result.images, result.argmax_agreement, result.max_difference) == (4, 0.75, 3)
    assert result.median_difference == 0
    assert result.disagreements == ((1, 0, 1, 2.0),)
    assert (result.top1_model, result.top1_file) == (0.5, 0.75)
    assert agreement(theirs, ours).top1_model is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", ["theirs", "ours", "both"])
def test_agreement_on_logits_that_are_not_finite(sides: str, value: float) -> None:
    """The other logits would still have the same largest one, or both a NaN in the same place."""
    theirs = np.array([[1, 2, 0], [3, 1, 1]], np.float32)
    ours = theirs.copy()
    for name, logits in (("theirs", theirs), ("ours", ours)):
        if sides in (name, "both"):
            logits[1, 0 if value > 0 else 2] = value
    result = agreement(theirs, ours, [1, 0])
    assert result.argmax_agreement == 0.5 and not np.isfinite(result.max_difference)
    assert [entry.image for entry in result.disagreements] == [1]
    assert result.top1_model == (1 if sides == "ours" else 0.5)
    assert result.top1_file == (1 if sides == "theirs" else 0.5)


@pytest.mark.parametrize(
    ("theirs", "ours", "labels", "message"),
    [
        ((2, 3), (2, 4), None, r"the network's logits have shape \(2, 3\), the file's \(2, 4\)"),
        ((3, 3), (2, 3), None, r"the network's logits have shape \(3, 3\), the file's \(2, 3\)"),
        ((2, 3, 4), (2, 3, 4), None, r"must be \(n, k\) of at least one image and one class, got \(2, 3, 4\)"),
        ((0, 3), (0, 3), None, "at least one image"),
        ((2, 3), (2, 3), [1], r"labels must be 2 class numbers, got shape \(1,\)"),
    ],
)
def test_agreement_arguments(
    theirs: tuple[int, ...], ours: tuple[int, ...], labels: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(np.zeros(theirs), np.zeros(ours), labels)


def test_timing(tiny_file: Path) -> None:
    opened = session(tiny_file, threads=2)
    times = compare_milliseconds({"a": opened, "b": opened}, batch=2, repeats=3)
    assert set(times) == {"a", "b"} and min(times.values()) > 0
    with pytest.raises(ValueError, match="repeats must be >= 1"):
        compare_milliseconds({"a": opened}, repeats=0)


# What goes wrong, and what it says


class Svd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x, full_matrices=False)[1].flatten(1)


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing")


class AnyNumber(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0].flatten(1)


def test_a_forward_that_takes_any_number_of_tensors() -> None:
    with pytest.raises(ExportError, match=r"^AnyNumber has the signature forward\(\*xs.*forward\(self, x\)"):
        canonical(AnyNumber(), input_shape=(3, 8, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["2.weight", "2.weight_binarizer.alpha", "1.running_var", "4.bias"])
def test_weights_that_are_not_finite(name: str, value: float, tiny: nn.Module) -> None:
    """In a latent weight NaN would be the sign -1, and the file as good as any other."""
    model = copy.deepcopy(tiny)
    model.state_dict()[name].view(-1)[1] = value
    with pytest.raises(ExportError, match=rf"^{name} holds values that are not finite"):
        canonical(model)


def test_a_mask_of_minus_infinity_is_no_broken_weight() -> None:
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    assert canonical(model, input_shape=(3, 2, 2)).graph.outputs


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Svd, r"body\.0\.1 \(Svd\) uses aten\._linalg_svd, which ONNX does not have: replace it"),
        (Decides, r"body\.0\.1 \(Decides\) branches on the values.*torch\.where"),
        (FixedBatch, r"fixes the batch size: reshape with -1"),
        (Breaks, r"body\.0\.1 \(Breaks\) does not run on an input of shape \(2, 3, 8, 8\): no such thing"),
    ],
)
def test_networks_that_cannot_be_exported(part: type[nn.Module], message: str, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Sequential(BinaryConv2d(3, 4, 3), part())))
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_onnx(model, file, input_shape=(3, 8, 8))
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


class MeanSubtracted(ActivationBinarizer):
    """An input-dependent threshold, and no presign that says so."""

    def forward(self, x: Tensor) -> Tensor:
        return sign(x - x.mean())


class ZeroAtZero(ActivationBinarizer):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class Sized(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(0.5 * sign(weight), torch.ones(len(weight)))


class Scaled(BinaryConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _with_activation(binarizer: type[ActivationBinarizer]) -> nn.Module:
    layer = BinaryConv2d(3, 4, 3)
    layer.activation_binarizer = binarizer(3)
    return layer


def _with_weight(binarizer: type[WeightBinarizer]) -> nn.Module:
    layer = BinaryConv2d(3, 4, 3)
    layer.weight_binarizer = binarizer(4)
    return layer


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _with_activation(MeanSubtracted), r"^1: MeanSubtracted does not give sign\(presign\(x\)\)"),
        (lambda: _with_activation(ZeroAtZero), r"^1: ZeroAtZero does not give sign"),
        (lambda: _with_weight(Sized), r"^1: Sized gives weights other than -1 and \+1"),
        (lambda: Scaled(3, 4, 3), r"^1: Scaled computes something other"),
    ],
)
def test_layers_that_break_the_contract(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        canonical(nn.Sequential(nn.Identity(), build()), input_shape=(3, 8, 8))


def test_foreign_network_without_input_shape() -> None:
    with pytest.raises(ValueError, match=r"Linear has no input_shape: pass input_shape=\(c, h, w\)"):
        canonical(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="sizes >= 1"):
        canonical(nn.Linear(3, 3), input_shape=(0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bake_normalization": True}, r"needs normalization=\(mean, std\)"),
        ({"normalization": ([0.5], [0.5])}, "mean must have 3 values"),
        ({"normalization": ([0.5] * 3, [0.5, 0.5, 0.0])}, "std must be > 0"),
        ({"metadata": {"classes": "x"}}, "metadata must not hold classes"),
        ({"classes": "cat"}, "classes must be a list"),
        ({"classes": ["cat"]}, "classes has 1 names, and the network gives 3 logits"),
    ],
)
def test_arguments(tiny: nn.Module, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_onnx(tiny, tmp_path / "model.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_folder_that_does_not_exist(tiny: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        to_onnx(tiny, tmp_path / "nowhere" / "model.onnx")


def test_an_existing_file_is_never_lost(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")

    def full(source: object, target: object) -> None:
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(onnx_file.os, "replace", full)
        with pytest.raises(OSError, match="disk is full"):
            to_onnx(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


def _other_threshold(model: Any) -> None:
    model[1].bias += 0.2


def _other_head(model: Any) -> None:
    model[4].bias[1] += 0.2


def _other_bit(model: Any) -> None:
    model[2].weight[1, 2, 0, 1] *= -100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_threshold, r"^2: the signs in front of it differ from the network's"),
        (_other_head, r"^the logits differ from the network's by"),
        (_other_bit, r"^the logits differ from the network's by"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    change: Callable[[Any], None],
    message: str,
    tiny: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        change(other)
    monkeypatch.setattr(onnx_file, "canonical", lambda model, input_shape: canonical(other))
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_onnx(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("opener", [session, read_metadata])
def test_files_that_cannot_be_opened(opener: Callable[[Path], Any], tiny_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        opener(tmp_path / "nothing.onnx")
    file = tmp_path / "model.onnx"
    whole = tiny_file.read_bytes()
    for content in (b"", b"hello\n" * 100, whole[: len(whole) // 2], whole[:100]):
        file.write_bytes(content)
        with pytest.raises(ExportError, match=r"model\.onnx is not an ONNX file: "):
            opener(file)
    model = onnx.load(tiny_file)
    next(entry for entry in model.metadata_props if entry.key == "format_version").value = "4"
    onnx.save(model, file)
    with pytest.raises(ExportError, match="has format version 4, this bnn-itrd reads 3: update bnn-itrd"):
        opener(file)


def save_sealed(model: onnx.ModelProto, path: Path) -> None:
    """A changed model with a checksum that fits."""
    next(entry for entry in model.metadata_props if entry.key == "sha256").value = NO_DIGEST
    path.write_bytes(seal(model.SerializeToString()))


@pytest.mark.parametrize("opener", [session, read_metadata])
def test_a_flipped_bit_is_found(opener: Callable[[Path], Any], tiny_file: Path, tmp_path: Path) -> None:
    """In the weights, where nothing else would tell; and what another tool wrote is said to be changed."""
    data = bytearray(tiny_file.read_bytes())
    weights = max(onnx.load(tiny_file).graph.initializer, key=lambda entry: len(entry.raw_data)).raw_data
    data[data.index(weights) + len(weights) // 2] ^= 4
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    with pytest.raises(ExportError, match=r"model\.onnx is damaged, or another tool has changed it"):
        opener(file)
    model = onnx.load(tiny_file)
    model.doc_string = "simplified"
    onnx.save(model, file)
    with pytest.raises(ExportError, match=r"onnxruntime\.InferenceSession"):
        opener(file)
    save_sealed(model, file)
    opener(file)
    del model.metadata_props[[entry.key for entry in model.metadata_props].index("sha256")]
    onnx.save(model, file)
    with pytest.raises(ExportError, match="its checksum is missing"):
        opener(file)


def test_every_flipped_bit_and_every_cut_is_found(tiny_file: Path, tmp_path: Path) -> None:
    """The bytes behind the graph too: names of metadata, the functions, the checksum itself."""
    data = tiny_file.read_bytes()
    behind = data.index(b"format_version")
    file = tmp_path / "file.onnx"
    for place in [*range(behind, min(behind + 1500, len(data)), 7), data.index(b"sha256"), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(ExportError):
            read_metadata(file)
    for length in [*range(behind - 40, len(data) - 1, 97), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(ExportError):
            read_metadata(file)


def test_native_sessions(student_file: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_native(session(student_file, native=False))
    monkeypatch.setattr("bnn_itrd.export.runtime.native.library_path", lambda: None)
    monkeypatch.setattr("bnn_itrd.export.runtime.native.why_unavailable", lambda: "made for another processor")
    with pytest.raises(ExportError, match="the native library cannot be used: made for another processor"):
        session(student_file, native=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened = [session(student_file) for _ in range(3)]
    assert not any(uses_native(each) for each in opened)
    assert [str(each.message) for each in told].count(str(told[0].message)) == 1
    assert "made for another processor; the portable form is used" in str(told[0].message)
    monkeypatch.setenv("BNN_ITRD_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(student_file)


def test_native_has_nothing_to_do_in_a_float_network(folder: Path) -> None:
    file = to_onnx(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), folder / "float.onnx", input_shape=(3, 2, 2))
    assert not uses_native(session(file))
    with pytest.raises(ExportError, match="there is nothing for the native library"):
        session(file, native=True)


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "-")
def test_native_and_stock_give_the_same_bits(student: nn.Module, student_file: Path, folder: Path) -> None:
    # Nine images: more than a batch whose steps the threads share, see export/runtime/native/src/chain.cpp.
    x = images(9)
    stock = predict_file(session(student_file, native=False), x)
    apart = to_onnx(student, folder / "apart.onnx", chains=False)
    np.testing.assert_array_equal(predict_file(session(apart, native=False), x), stock)
    for file in (student_file, apart):
        for threads in (1, 2):
            opened = session(file, native=True, threads=threads)
            assert uses_native(opened)
            np.testing.assert_array_equal(predict_file(opened, x), stock)
            np.testing.assert_array_equal(predict_file(opened, x, batch_size=2), stock)


def test_sessions_onnxruntime_refuses(tiny_file: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_file)
    model.graph.node[-1].op_type = "NoSuchOperation"
    save_sealed(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"onnxruntime .* cannot run .*NoSuchOperation"):
        session(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="threads must be >= 1"):
        session(tiny_file, threads=0)


def test_import_is_light() -> None:
    code = (
        "import sys, bnn_itrd.export;"
        "print([m for m in ('onnx', 'onnx_ir', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_network_is_traced_once_for_all_targets(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["bnn_itrd.export.tracing.trace"]  # the package has the function under this name
    traces = []
    trace = module._trace

    def counted(*arguments: Any) -> Any:
        traces.append(arguments)
        return trace(*arguments)

    monkeypatch.setattr(module, "_trace", counted)
    with traced_once():
        first, second = canonical(tiny), canonical(tiny)
        assert len(traces) == 1
        # Each caller's graph is its own: passes change it in place.
        fold_batchnorm(first)
        assert [n.op_type for n in second.graph] == [n.op_type for n in canonical(tiny).graph]
        assert [n.op_type for n in first.graph] != [n.op_type for n in second.graph]
        assert len(traces) == 1
    canonical(tiny)
    assert len(traces) == 2
