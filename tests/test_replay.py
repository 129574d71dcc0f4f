"""Every layer of a trained network, replayed from its own inputs against a float64 oracle, stock and native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_functions import sums

import bnn_itrd
from bnn_itrd.config import FabricConfig, TrainConfig
from bnn_itrd.export import to_onnx
from bnn_itrd.export.functions import DOMAIN, function_bodies
from bnn_itrd.export.native import library_path, why_unavailable
from bnn_itrd.models import resnet18

# How near to 0 the oracle's value in front of a sign must be for the other sign to be no mistake.
_TIE = 1e-6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 in a narrow form, trained on digits for some steps: thresholds, float blocks and poolings."""
    torch.manual_seed(0)
    student = resnet18(10, in_channels=1, input_shape=(1, 8, 8), width=0.25, binary="recu")
    out = tmp_path_factory.mktemp("trained")
    train = TrainConfig(epochs=2, batch_size=128, warmup_epochs=0.0, lr=0.05)
    fabric = FabricConfig(accelerator="cpu", threads=1)
    bnn_itrd.distill(student, None, "digits", train=train, out=out / "run", fabric=fabric)
    return to_onnx(student, out / "student.onnx", chains=False)


def _values(file: Path, images: np.ndarray) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """(the file, every value and constant in it), by a stock session: signs as codes 0 and 2."""
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


def _weights(packed: np.ndarray, channels: int) -> np.ndarray:
    bits = np.unpackbits(packed, axis=2, bitorder="little")[:, :, :channels]
    return bits.transpose(3, 2, 0, 1).astype(np.int64) * 2 - 1


def _oracle(node: onnx.NodeProto, values: dict[str, np.ndarray], how: dict[str, Any]) -> np.ndarray:
    """What stands in front of the layer's sign, or is its result, in float64 from exact sums."""
    inputs = [values[name] for name in node.input]
    acc = sums(inputs[0].astype(np.int64) - 1, _weights(inputs[1], how["channels"] // how["group"]), how)
    if node.op_type.endswith("Threshold"):
        # An integer and never a tie: half of the step between two sums.
        return acc - inputs[2].astype(np.float64) + 0.5
    y = acc * inputs[2].astype(np.float64) + inputs[3].astype(np.float64)
    if "Add" in node.op_type:
        y = y + inputs[4]
    return np.clip(y, how["low"], how["high"]) if "Clip" in node.op_type else y


def _native(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The one layer by the native operator; signs in and out as float +-1 and as codes."""
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
    """Packed bits at the front of the buffer as codes 0 and 2 (docs/format.md)."""
    *pixels, channels = opaque.shape
    width = -(-channels // 8)
    packed = opaque.reshape(-1)[: int(np.prod(pixels)) * width].reshape(*pixels, width)
    return np.unpackbits(packed, axis=-1, bitorder="little")[..., :channels] * 2


@pytest.mark.parametrize("form", ["stock", "native"])
def test_not_one_wrong_bit(trained: Path, form: str) -> None:
    if form == "native" and why_unavailable():
        pytest.skip(why_unavailable())
    images = np.random.default_rng(0).standard_normal((16, 1, 8, 8)).astype(np.float32)
    model, values = _values(trained, images)
    layers = [node for node in model.graph.node if "BinaryConv" in node.op_type]
    assert len(layers) == 16
    bits = near = 0
    for node in layers:
        how = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        exact = _oracle(node, values, how)
        results = _native(node, values) if form == "native" else [values[name] for name in node.output]
        if results[0].dtype == np.float32:
            np.testing.assert_allclose(results[0], exact, rtol=1e-5, atol=1e-5, err_msg=node.name)
        for codes in (r for r in results if r.dtype == np.uint8):
            wrong = (codes == 2) != (exact >= 0)
            ties = np.abs(exact) < _TIE
            assert not (wrong & ~ties).any(), node.name
            bits, near = bits + codes.size, near + int(ties.sum())
        assert form == "native" or len(results) == len(node.output)
    assert bits > 30_000
    # A clipped sum of exactly 0 is rare: the count says that the exception above excuses next to nothing.
    assert near <= bits // 1000


def test_the_oracle_would_see_a_wrong_bit(trained: Path) -> None:
    images = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    model, values = _values(trained, images)
    node = next(node for node in model.graph.node if node.op_type == "BinaryConvThreshold")
    how = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    exact = _oracle(node, values, how)
    assert ((values[node.output[0]] == 2) == (exact >= 0)).all()
    threshold = node.input[2]
    shifted = _oracle(node, values | {threshold: values[threshold] + 2}, how)
    assert ((values[node.output[0]] == 2) != (shifted >= 0)).any()
