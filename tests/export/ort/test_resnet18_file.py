"""The ONNX file of a binary ResNet-18: its size, its format, its metadata, and what onnxruntime makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.exported import SMALL, assert_same_function, images, randomised
from onnx import numpy_helper
from torch import nn

from bnn_itrd.export import FORMAT_VERSION, predict_file, read_metadata, session, to_onnx, traced_once, uses_native
from bnn_itrd.export.passes.pack_bits import packed_bits
from bnn_itrd.export.runtime.native import why_unavailable
from bnn_itrd.models import resnet18


@pytest.fixture(scope="module")
def student() -> Iterator[nn.Module]:
    """No test changes it, so that one trace serves all its files."""
    torch.manual_seed(2)
    with traced_once():
        yield randomised(resnet18(binary="recu", input_shape=SMALL))


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
    assert str(Path(__file__).parents[3]).encode() not in student_file.read_bytes()
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
