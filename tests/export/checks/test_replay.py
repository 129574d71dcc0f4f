"""Every layer of an exported file is compared with the network's layer, which is computed here in NumPy and float64.

A layer's inputs, signs and residual, are read from the file's run. Latent weights, scales and BatchNorm's statistics
are taken from the PyTorch network, so that any wrong constant in the file shows. The file runs both ways, with
onnxruntime's own operations ("stock") and with the native library.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from helpers.loops import sums
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.export import to_onnx
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.models import ResNet, resnet18

# How near to 0 the oracle's value in front of a sign must be for the other sign to be no mistake.
_TIE = 1e-6


def _worse_than_training(model: ResNet) -> None:
    """Sets scales and BatchNorm factors in some channels of each layer to negative numbers and zero."""
    with torch.no_grad():
        for index, block in enumerate(_blocks(model)):
            for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                conv.weight_binarizer.alpha[index % 3 :: 5] *= -1
                conv.weight_binarizer.alpha[3] = 0
                norm.weight[index % 2 :: 4] *= -1
                norm.weight[5] = 0


def _blocks(model: ResNet) -> list[Any]:
    return [block for stage in model.stages for block in getattr(model, stage)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResNet, Path]:
    """Trains a narrow binary ResNet-18 on digits for an epoch; returns it and its ONNX file."""
    torch.manual_seed(0)
    student = resnet18(10, in_channels=1, input_shape=(1, 8, 8), width=0.25, binary="recu")
    batches = load_data(DataConfig(name="digits")).train.train_batches(64, epoch=0, seed=0, device=torch.device("cpu"))
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-3)
    for batch in batches:
        optimiser.zero_grad()
        F.cross_entropy(student(batch[0]), batch[1]).backward()
        optimiser.step()
    _worse_than_training(student)
    file = tmp_path_factory.mktemp("trained") / "student.onnx"
    return student.eval(), to_onnx(student, file, chains=False)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Returns 48 normalised test images of the digits, (48, 1, 8, 8)."""
    found = next(iter(load_data(DataConfig(name="digits")).test.eval_batches(48, device=torch.device("cpu"))))[0]
    assert found.shape == (48, 1, 8, 8)
    return found.numpy()


def _values(file: Path, images: np.ndarray) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Runs a file without the native library; returns (model, every value and constant in it by name).

    Signs are codes: 0 for -1 and 2 for +1.
    """
    model = onnx.load(file)
    known = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    names = [o for node in model.graph.node if node.domain == DOMAIN for o in node.output]
    names += [i for node in model.graph.node for i in node.input if node.domain == DOMAIN and i not in known]
    names = sorted({*names} - {o.name for o in model.graph.output})
    model.graph.output.extend(helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in names)
    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = opened.run(names, {"images": images})
    return onnx.load(file), known | dict(zip(names, values, strict=True))


def _normed(y: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    """Returns BatchNorm of y in evaluation, (n, h, w, c), in float64."""
    mean, variance, gamma, beta = (
        tensor.detach().double().numpy() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / np.sqrt(variance + norm.eps) * gamma + beta


def _convolved(codes: np.ndarray, conv: Any) -> np.ndarray:
    """Returns the scaled binary convolution of signs, given as codes 0 and 2, (n, h, w, c).

    The binary weights are computed from the latent ones as ReCU does: sign(w - mean).
    """
    latent = conv.weight.detach().double().numpy()
    signs = np.where(latent - latent.mean((1, 2, 3), keepdims=True) >= 0, 1, -1).astype(np.int64)
    how = {
        "pads": [*conv.padding, *conv.padding],
        "padding_value": conv.padding_value,
        "kernel_shape": conv.kernel_size,
        "strides": conv.stride,
        "dilations": conv.dilation,
        "group": conv.groups,
    }
    return sums(codes.astype(np.int64) - 1, signs, how) * conv.weight_binarizer.alpha.detach().double().numpy()


def _shortcut(block: Any, x: np.ndarray) -> np.ndarray:
    """Returns a block's shortcut, (n, h, w, c) -> (n, h', w', c'): x, or means of 2x2 between channels of zeros."""
    if isinstance(block.shortcut, nn.Identity):
        return x
    n, h, w, c = x.shape
    assert h % 2 == w % 2 == 0 and block.shortcut.stride == 2
    means = x.astype(np.float64).reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
    return np.pad(means, [(0, 0)] * 3 + [(block.shortcut.before, block.shortcut.after)])


def _stem(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Returns the node of the first convolution, which is one of floats and gives the first signs too."""
    return next(node for node in graph.node if node.domain == DOMAIN and node.op_type == "FloatConvSign")


def _layers(
    model: ResNet, graph: onnx.GraphProto, values: dict[str, np.ndarray]
) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    """(node of the file, what the network has in front of the next sign, float64), layer by layer.

    Each from the signs, and each sum from the residual, that the file itself has there; these are those the network
    has: of the stream's sign, and the stream through the block's shortcut.
    """
    nodes = iter([node for node in graph.node if "BinaryConv" in node.op_type])
    stream = values[_stem(graph).output[0]]
    for block in _blocks(model):
        first, second = next(nodes), next(nodes)
        np.testing.assert_array_equal(values[first.input[0]] == 2, stream >= 0)
        yield first, np.clip(_normed(_convolved(values[first.input[0]], block.conv1), block.bn1), -1, 1)
        assert second.input[0] == first.output[0]
        added = _shortcut(block, stream)
        np.testing.assert_allclose(values[second.input[4]], added, atol=1e-6)
        yield (
            second,
            np.clip(_normed(_convolved(values[second.input[0]], block.conv2), block.bn2) + added, -1, 1),
        )
        stream = values[second.output[0]]
    assert next(nodes, None) is None


def _native(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Runs one node with the native library on its inputs in `values`; returns its outputs, signs as codes 0 and 2."""
    constants = [name for name in node.input[1:] if name in values and values[name].dtype != np.float32]
    constants += [name for name in node.input[2:4] if name not in constants and values[name].ndim == 1]
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = "packed"
    feeds = {"signs": values[node.input[0]].astype(np.float32) - 1}
    feeds |= {name: values[name] for name in node.input[1:] if name not in constants}
    kinds = [TensorProto.UINT8] if node.op_type.endswith("Threshold") else [TensorProto.FLOAT, TensorProto.UINT8]
    graph = helper.make_graph(
        [helper.make_node("Sign", ["signs"], ["packed"], domain=DOMAIN), copy],
        "one",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(a.shape)) for k, a in feeds.items()],
        [helper.make_tensor_value_info(o, k, None) for o, k in zip(node.output, kinds, strict=False)],
        [numpy_helper.from_array(values[name], name) for name in constants],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        functions=function_bodies(["Sign", node.op_type]),
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(library_path()))
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = opened.run(None, feeds)
    return [r if r.dtype == np.float32 else _codes(r) for r in results]


def _codes(opaque: np.ndarray) -> np.ndarray:
    """Returns signs that the native library packed into bits as codes 0 and 2 (docs/reference/format.md)."""
    *pixels, channels = opaque.shape
    width = -(-channels // 8)
    packed = opaque.reshape(-1)[: int(np.prod(pixels)) * width].reshape(*pixels, width)
    return np.unpackbits(packed, axis=-1, bitorder="little")[..., :channels] * 2


def _compare(model: ResNet, file: Path, images: np.ndarray, form: str) -> tuple[int, int, list[int], dict[str, int]]:
    """Compares the signs of all layers with those of the network.

    Returns (number of signs compared, of those so near 0 that both signs are right, wrong signs by layer, number of
    layers by operation). form: "stock" or "native".
    """
    proto, values = _values(file, images)
    bits = near = 0
    wrong: list[int] = []
    kinds: dict[str, int] = {}
    for node, exact in _layers(model, proto.graph, values):
        results = _native(node, values) if form == "native" else [values[name] for name in node.output]
        kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
        wrong.append(0)
        for result in results:
            if result.dtype == np.float32:
                wrong[-1] += int((~np.isclose(result, exact, rtol=1e-5, atol=1e-5)).sum())
                continue
            ties = np.abs(exact) < _TIE
            wrong[-1] += int((((result == 2) != (exact >= 0)) & ~ties).sum())
            bits, near = bits + result.size, near + int(ties.sum())
    return bits, near, wrong, kinds


@pytest.mark.parametrize("form", ["stock", "native"])
def test_not_one_wrong_bit(trained: tuple[ResNet, Path], images: np.ndarray, form: str) -> None:
    if form == "native" and why_unavailable():
        pytest.skip(why_unavailable())
    bits, near, wrong, kinds = _compare(*trained, images, form)
    assert wrong == [0] * 16
    assert kinds == {"BinaryConvThreshold": 8, "BinaryConvAddClipSign": 7, "BinaryConvAddClip": 1}
    assert bits > 300_000
    # A value of nearly 0 is rare: the count says that the exception above excuses next to nothing.
    assert near <= bits // 10_000


def test_the_stem_and_the_head(trained: tuple[ResNet, Path], images: np.ndarray) -> None:
    """The first convolution and everything after the last block, which are not binary, agree with float64."""
    model, file = trained
    proto, values = _values(file, images)
    twin = copy.deepcopy(model).double()
    with torch.no_grad():
        stem = twin.act1(twin.bn1(twin.conv1(torch.from_numpy(images).double())))
        np.testing.assert_allclose(values[_stem(proto.graph).output[0]], stem.permute(0, 2, 3, 1), atol=1e-5)
        last = [node for node in proto.graph.node if "BinaryConv" in node.op_type][-1]
        pooled = torch.from_numpy(values[last.output[0]]).double().mean((1, 2))
        logits = twin.linear(twin.norm(pooled))
    opened = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(opened.run(["logits"], {"images": images})[0], logits, rtol=1e-4, atol=1e-4)


def _other_sign(block: Any) -> None:
    """Moves one latent weight to the other side of its channel's mean, so that its sign changes."""
    weight: Tensor = block.conv1.weight
    weight[6, 2, 1, 1] = 2 * weight[6].mean() - weight[6, 2, 1, 1]


def _other_flip(block: Any) -> None:
    block.conv1.weight_binarizer.alpha[6] *= -1


def _other_fold(block: Any) -> None:
    """Moves a BatchNorm's mean by as much as one other weight changes a sum."""
    block.bn1.running_mean[6] += 2 * block.conv1.weight_binarizer.alpha[6].abs()


def _other_factor(block: Any) -> None:
    block.bn2.weight[6] *= 1.001


def _other_shift(block: Any) -> None:
    block.bn2.bias[6] += 1e-4


@pytest.mark.parametrize(
    ("change", "layer"),
    [(_other_sign, 4), (_other_flip, 4), (_other_fold, 4), (_other_factor, 5), (_other_shift, 5)],
)
def test_the_oracle_sees_what_is_wrong(
    trained: tuple[ResNet, Path], images: np.ndarray, change: Callable[[Any], None], layer: int
) -> None:
    """After one constant of the network's third block is changed, that layer alone differs from the file."""
    model, file = trained
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(_blocks(other)[2])
    _, _, wrong, _ = _compare(other, file, images, "stock")
    assert wrong[layer] > 0 and sum(wrong) == wrong[layer]
