"""Every network's student as a file: the network's function, and the same bits with the native library and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bnn_itrd.export import agreement, predict_model, to_onnx, validate
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.models import MODELS, summary
from bnn_itrd.quant import BinaryConv2d

# One of each family, with one block of each stage: what its relatives repeat.
FAMILIES = [
    *("resnet8", "resnet50", "wrn_16_1", "vgg8", "vgg_small"),
    *("mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2"),
]
# How a network is made narrow, where that is not a quarter of its channels.
WIDTHS: dict[str, dict[str, float]] = {"shufflenet_v1": {}, "shufflenet_v2": {"width": 0.5}, "vgg_small": {}}
LEVELS = onnxruntime.GraphOptimizationLevel.__members__
IMAGE = (3, 16, 16)


def student(name: str) -> nn.Module:
    """A narrow student."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return MODELS[name](5, input_shape=IMAGE, binary="recu", **WIDTHS.get(name, {"width": 0.25}))


def shortened(model: nn.Module) -> nn.Module:
    """One block of each group: a file is checked layer by layer, which takes its time for fifty of them."""
    for name in model.stages:
        stage = getattr(model, name)
        if not isinstance(stage, nn.Sequential) or isinstance(stage[0], BinaryConv2d):
            continue
        grouped = isinstance(stage[0], nn.Sequential)
        setattr(model, name, nn.Sequential(*(group[:1] for group in stage)) if grouped else stage[:1])
    return model


def trained(model: nn.Module) -> nn.Module:
    """With statistics as training leaves them."""
    for _ in range(3):
        model(torch.randn(16, *IMAGE))
    return model.eval()


def logits(file: Path, images: np.ndarray, *, level: str, native: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    if native:
        options.register_custom_ops_library(str(library_path()))
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = opened.run(["logits"], {"images": images})[0]
    return result


def check_file(model: nn.Module, file: Path) -> None:
    """An optimiser may rewrite every body: at each of its levels the stock runtime gives the native library's bits."""
    to_onnx(trained(model), file)
    images = torch.randn(32, *IMAGE)
    result = validate(model, file, images)
    assert result.argmax_agreement >= 0.9 and result.median_difference < 1e-5
    # A bit per binary weight, the rest is the graph.
    assert file.stat().st_size < summary(model).bytes + 120_000
    if why_unavailable():
        pytest.skip(why_unavailable())
    for level in LEVELS:
        native, stock = (logits(file, images.numpy(), level=level, native=choice) for choice in (True, False))
        np.testing.assert_array_equal(stock, native, err_msg=level)


@pytest.mark.compiles
@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_s_file(name: str, tmp_path: Path) -> None:
    check_file(shortened(student(name)), tmp_path / "student.onnx")


@pytest.mark.interop
@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_s_plain_file_in_openvino(name: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = trained(shortened(student(name)))
    file = to_onnx(model, tmp_path / "student.plain.onnx", functions=False)
    images = torch.randn(32, *IMAGE)
    # On processors with bfloat16 it would take that by default.
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = agreement(predict_model(model, images), compiled([images.numpy()])[0])
    assert result.argmax_agreement >= 0.9 and result.median_difference < 1e-5


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in MODELS if name != "vgg9"])  # its images are larger: test_vgg9.py
def test_a_whole_student_s_file(name: str, tmp_path: Path) -> None:
    check_file(student(name), tmp_path / "student.onnx")
