"""The file of standard operations alone, in the runtimes and tools that are not onnxruntime."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from bnn_itrd.export import to_onnx
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

IMAGE = (3, 8, 8)


class Files(NamedTuple):
    """Returns a network's files, images for it, and PyTorch's logits of them."""

    plain: Path
    functions: Path
    images: np.ndarray
    logits: np.ndarray


def network() -> nn.Module:
    """Every way a weight is packed and a sum scaled; without BatchNorm behind a layer, sums lie on the threshold."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Hardtanh(),
        BinaryConv2d(16, 32, 3, padding=1, scheme="xnor"),
        BinaryConv2d(32, 64, 3, padding=1, groups=4, scheme="xnor"),
        nn.MaxPool2d(2),
        BinaryConv2d(64, 33, 3, stride=2, padding=1, padding_value=-1, scheme="recu"),
        nn.BatchNorm2d(33),
        nn.Hardtanh(),
        nn.Flatten(),
        BinaryLinear(132, 40, scheme="adabin"),
        nn.Linear(40, 5),
    )
    for _ in range(3):
        model(torch.randn(16, *IMAGE))
    stem = model[0]
    assert isinstance(stem, nn.Conv2d) and stem.bias is not None
    with torch.no_grad():
        # Sixteenths: the first layer's sums are exact in whatever order a runtime adds.
        for values in (stem.weight, stem.bias):
            values.copy_((16 * values).round() / 16)
    return model.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, model = tmp_path_factory.mktemp("tools"), network()
    images = torch.randint(-8, 9, (64, *IMAGE), generator=torch.Generator().manual_seed(0)) / 8
    plain = to_onnx(model, folder / "student.plain.onnx", input_shape=IMAGE, functions=False)
    functions = to_onnx(model, folder / "student.onnx", input_shape=IMAGE)
    with torch.no_grad():
        return Files(plain, functions, images.numpy(), model(images).numpy())


def in_onnxruntime(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = opened.run(["logits"], {"images": images})[0]
    return result


def same(ours: np.ndarray, files: Files) -> None:
    """The tolerance is small: a single sign that differs would move a logit by far more."""
    np.testing.assert_allclose(ours, files.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "functions"])
def test_onnx_s_reference_evaluator(form: str, files: Files) -> None:
    (logits,) = ReferenceEvaluator(onnx.load(getattr(files, form))).run(None, {"images": files.images})
    same(logits, files)


@pytest.mark.parametrize("opset", [19, 21])
def test_onnx_s_version_converter(opset: int, files: Files) -> None:
    same(in_onnxruntime(onnx.version_converter.convert_version(onnx.load(files.plain), opset), files.images), files)


@pytest.mark.interop
def test_openvino(files: Files) -> None:
    openvino = pytest.importorskip("openvino")
    # On processors with bfloat16 it would take that by default.
    compiled = openvino.Core().compile_model(str(files.plain), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    same(compiled([files.images])[0], files)


@pytest.mark.interop
def test_onnxsim(files: Files) -> None:
    simplified, checked = pytest.importorskip("onnxsim").simplify(onnx.load(files.plain))
    assert checked
    same(in_onnxruntime(simplified, files.images), files)


@pytest.mark.interop
def test_float16(files: Files) -> None:
    """float16 has 11 bits: whole sums are exact up to 2,048, but logits and values near a threshold are not."""
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    converted = float16.convert_float_to_float16(onnx.load(files.plain), keep_io_types=True)
    logits = in_onnxruntime(converted, files.images)
    assert np.mean(logits.argmax(1) == files.logits.argmax(1)) >= 0.9


SCRIPT = """
const { readFileSync, writeFileSync } = require("node:fs");
const [packages, file, images, shape, out] = process.argv.slice(2);
const ort = require(require("node:path").join(packages, "node_modules", "onnxruntime-web"));
(async () => {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] });
  const x = new Float32Array(new Uint8Array(readFileSync(images)).buffer);
  const { logits } = await session.run({ images: new ort.Tensor("float32", x, JSON.parse(shape)) });
  writeFileSync(out, Buffer.from(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength));
})();
"""


@pytest.mark.interop
@pytest.mark.skipif(
    "BNN_ITRD_NODE" not in os.environ,
    reason="BNN_ITRD_NODE names no folder: npm install --prefix FOLDER onnxruntime-web",
)
@pytest.mark.parametrize("form", ["plain", "functions"])
def test_onnxruntime_web_in_node(form: str, files: Files, tmp_path: Path) -> None:
    script, images, out = (tmp_path / name for name in ("run.cjs", "images", "logits"))
    script.write_text(SCRIPT)
    files.images.tofile(images)
    shape = str(list(files.images.shape))
    arguments = [os.path.abspath(os.environ["BNN_ITRD_NODE"]), getattr(files, form), images, shape, out]
    subprocess.run(["node", script, *arguments], check=True, timeout=120)
    same(np.fromfile(out, np.float32).reshape(files.logits.shape), files)
