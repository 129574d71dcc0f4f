"""Files that another tool wrote or changed: what they say of themselves, and what they then do, is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bnn_itrd.cli import main
from bnn_itrd.config.data import MOST_PIXELS
from bnn_itrd.deploy.targets import TARGETS, OpenFile
from bnn_itrd.errors import UserError
from bnn_itrd.export import ExportError, interleaved_seconds, predict_file, session
from bnn_itrd.export.runtime import predict
from bnn_itrd.export.runtime.predict import check_metadata

METADATA: dict[str, Any] = {
    "classes": ["cat", "dog"],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "input_shape": [3, 2, 2],
}


def other_file(
    folder: Path, *, size: object = 2, reshaped: tuple[int, ...] = (-1, 12), outputs: int = 2, **metadata: Any
) -> Path:
    """images (n, 3, size, 2) -> Reshape -> MatMul, with metadata as ours, and no seal."""
    constants = {"shape": np.array(reshaped, np.int64), "w": np.ones((reshaped[-1], outputs), np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "other",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, size, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in (METADATA | metadata).items()})
    onnx.save(model, folder / "other.onnx")
    return folder / "other.onnx"


def predicted(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    Image.new("RGB", (2, 2)).save(file.with_suffix(".png"))
    status = main(["predict", str(file), str(file.with_suffix(".png"))])
    told = capsys.readouterr()
    return status, told.out + told.err


def test_a_file_of_another_tool_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = predicted(other_file(tmp_path), capsys)
    assert status == 0 and told.endswith("other.png: cat 50.0 %, dog 50.0 %\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reshaped": (-1, 7)}, r"the file cannot be run on images \(1, 3, 2, 2\): .*Reshape"),
        ({"size": 5}, r"other\.onnx: images must be \(n, 3, 5, 2\) for this file, got \(1, 3, 2, 2\)"),
        ({"outputs": 3}, r"other\.onnx returns logits of shape \(1, 3\), expected \(1, 2\)"),
        ({"mean": [0.5]}, r"its metadata's mean must be a number for each channel, got '\[0\.5\]'"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = predicted(other_file(tmp_path, **changes), capsys)
    assert status == 2 and told.startswith("bnn-itrd: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": [3, 8]}, r"input_shape must be three whole numbers from 1 to 4096, got '\[3, 8\]'"),
        ({"input_shape": [3, 10**9, 8]}, "input_shape must be three whole numbers"),
        ({"input_shape": [3, True, 8]}, "input_shape must be three whole numbers"),
        ({"input_shape": "3x8x8"}, "input_shape must be three whole numbers from 1 to 4096, got '3x8x8'"),
        ({"classes": "cat"}, "classes must be a list of names, got 'cat'"),
        ({"classes": []}, "classes must be a list of names"),
        ({"classes": ["cat", 1]}, "classes must be a list of names"),
        ({"mean": [0.5, 0.5]}, "mean must be a number for each channel"),
        ({"mean": [0.5, None, 0.5]}, "mean must be a number for each channel"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean must be a number for each channel"),
        ({"std": [0.2, 0.0, 0.2]}, "std must be a number above 0 for each channel"),
        ({"std": [0.2, "0.2", 0.2]}, "std must be a number above 0 for each channel"),
    ],
)
def test_metadata_of_another_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    check_metadata(Path("a.onnx"), METADATA)
    check_metadata(Path("a.onnx"), {})
    with pytest.raises(ExportError, match=f"^a.onnx: its metadata's {message}"):
        check_metadata(Path("a.onnx"), METADATA | changes)


def test_a_file_takes_images_as_large_as_a_network_is_given() -> None:
    assert predict.MOST_PIXELS == MOST_PIXELS


def test_logits_of_another_shape_are_refused() -> None:
    opened = OpenFile(TARGETS["onnx"], Path("a.onnx"), False, lambda images: np.zeros((2, 3)))
    assert opened.logits(np.zeros((2, 3, 4, 4)), classes=3).shape == (2, 3)
    for images, classes in ((2, 4), (1, 3)):
        with pytest.raises(UserError, match=r"a\.onnx gives \(2, 3\) numbers for"):
            opened.logits(np.zeros((images, 3, 4, 4)), classes=classes)


def test_a_file_that_fails_is_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = session(other_file(tmp_path, reshaped=(-1, 7)))
    with pytest.raises(ExportError, match=r"the file cannot be run on images \(1, 3, 2, 2\)"):
        interleaved_seconds({"a": failing}, repeats=1)
    with pytest.raises(ExportError, match=r"the file cannot be run on images \(2, 3, 2, 2\)"):
        predict_file(failing, np.zeros((2, 3, 2, 2), np.float32))
    assert main(["bench", str(other_file(tmp_path, size="height")), "--repeats=1"]) == 2
    assert "because the shape of its input images is not fixed: ['n', 3, 'height', 2]" in capsys.readouterr().err
