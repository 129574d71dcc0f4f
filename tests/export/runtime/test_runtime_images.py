"""Image files become the input of an exported file, or are refused with a message."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from bnn_itrd.data.images import scale_whole
from bnn_itrd.export import ExportError, ImageError, Prediction, classify_images
from bnn_itrd.export.runtime.cli import main
from bnn_itrd.export.runtime.images import prepare_image, scale_to
from bnn_itrd.export.runtime.predict import predict_file
from bnn_itrd.export.runtime.sessions import read_metadata, session

FACTS = {"classes": '["red", "green", "blue"]', "mean": "[0.5, 0.5, 0.5]", "std": "[0.25, 0.25, 0.5]"}


def means_of_channels(path: Path, height: int, width: int, **facts: str) -> Path:
    """Writes an ONNX file whose logits are the means of the image's channels."""
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "means", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    helper.set_model_props(model, {"input_shape": f"[3, {height}, {width}]", **facts})
    onnx.save(model, path)
    return path


def picture(path: Path, height: int, width: int, colour: tuple[int, int, int]) -> Path:
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(path)
    return path


def changed(path: Path, field: str) -> None:
    """Removes the inputs or the outputs from an ONNX file, as `field` says."""
    model = onnx.load(path)
    del getattr(model.graph, field)[:]
    if field == "input":
        del model.graph.node[:]
        values = helper.make_tensor("values", TensorProto.FLOAT, [1, 3], [1.0, 2.0, 3.0])
        model.graph.node.append(helper.make_node("Constant", [], ["logits"], value=values))
    onnx.save(model, path)


def test_classes_and_probabilities(tmp_path: Path) -> None:
    file = means_of_channels(tmp_path / "a.onnx", 8, 8, **FACTS)
    images = [picture(tmp_path / "small.png", 8, 8, (255, 0, 0)), picture(tmp_path / "big.png", 20, 31, (0, 255, 255))]
    # (1 - 0.5) / 0.25 = 2, (0 - 0.5) / 0.25 = -2, and of blue half as much.
    expected: list[dict[str, float]] = [{"red": 2, "blue": -1, "green": -2}, {"green": 2, "blue": 1, "red": -2}]
    for found, path, logits in zip(classify_images(file, images), images, expected, strict=True):
        shares = np.exp(list(logits.values())) / np.exp(list(logits.values())).sum()
        assert found.path == path and found.classes == tuple(logits)
        assert found.probabilities == pytest.approx(shares, rel=1e-5)
    assert str(Prediction(Path("a.png"), ("cat",), (0.5,))) == "a.png: cat 50.0 %"
    assert len(classify_images(file, images, top=1)[0].classes) == 1


def test_an_image_of_another_size_than_a_file_that_is_not_square(tmp_path: Path) -> None:
    file = means_of_channels(tmp_path / "a.onnx", 8, 12, **FACTS)
    fits, wrong = picture(tmp_path / "a.png", 8, 12, (1, 2, 3)), picture(tmp_path / "b.png", 12, 8, (1, 2, 3))
    assert len(classify_images(file, [fits])) == 1
    message = f"{wrong}: images must be 8 x 12 pixels for this file, got 12 x 8"
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        classify_images(file, [fits, wrong])
    with pytest.raises(ValueError, match=r"images must be \(n, 3, 8, 12\) for this file, got \(1, 3, 12, 8\)"):
        predict_file(session(file), np.zeros((1, 3, 12, 8), np.float32))


def test_files_and_images_that_cannot_be_used(tmp_path: Path) -> None:
    file = means_of_channels(tmp_path / "a.onnx", 8, 8, mean=FACTS["mean"], std=FACTS["std"])
    with pytest.raises(ExportError, match=r"a\.onnx has no classes in its metadata: was it exported by bnn-itrd\?"):
        classify_images(file, [tmp_path / "a.png"])
    file = means_of_channels(tmp_path / "a.onnx", 8, 8, **FACTS)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "nothing.png"):
        with pytest.raises(ImageError, match=f"{name} cannot be read as an image: "):
            classify_images(file, [tmp_path / name])


def test_files_that_no_writer_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for field in ("input", "output"):
        file = means_of_channels(tmp_path / f"{field}.onnx", 8, 8, **FACTS)
        changed(file, field)
        with pytest.raises(ExportError, match=rf"{field}\.onnx has no {field}: it is not a network$"):
            session(file)
    deep = means_of_channels(tmp_path / "deep.onnx", 8, 8, **{**FACTS, "mean": "[" * 100_000})
    assert read_metadata(deep)["mean"] == "[" * 100_000
    assert main(["predict", str(deep), str(picture(tmp_path / "a.png", 8, 8, (1, 2, 3)))]) == 2
    assert "mean must be a number for each channel" in capsys.readouterr().err
    small = means_of_channels(tmp_path / "small.onnx", 8, 8, **{**FACTS, "std": "[1e-320, 1, 1]"})
    with pytest.raises(ExportError, match="std must be a number above 0 for each channel"):
        classify_images(small, [tmp_path / "a.png"])


@pytest.mark.parametrize(
    ("height", "width", "size", "channels"),
    [(8, 8, 16, 1), (32, 32, 64, 3), (28, 28, 32, 1), (96, 96, 32, 3), (100, 137, 64, 3)],
)
def test_an_image_is_scaled_as_for_the_training(height: int, width: int, size: int, channels: int) -> None:
    """`scale_whole` adds in another order, so a value halfway between two levels may be rounded to the other one."""
    images = np.random.default_rng(0).integers(0, 256, (4, height, width, channels), np.uint8)
    expected = scale_whole(images, size).astype(int)
    got = np.stack([scale_to(image, size) for image in images]).astype(int)
    assert got.shape == expected.shape and np.abs(got - expected).max() <= 1
    assert (got != expected).mean() <= (0.001 if height > size else 0)


def test_grey_files_and_files_of_uint8() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 10, 10]]], np.uint8)
    facts = {"input_shape": [1, 2, 2], "mean": [0.0], "std": [1.0]}
    assert prepare_image(image, facts, raw=True).tolist() == [[[76, 150], [29, 10]]]  # ITU-R 601
    assert prepare_image(image, facts, raw=False) == pytest.approx(np.array([[[76, 150], [29, 10]]]) / 255)
