"""The students of the repository predict, and have the accuracy that their folder states."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.results import RESULTS
from PIL import Image

import bnn_itrd.export
from bnn_itrd.cli import main


def test_predict_with_a_student_of_the_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    students = sorted(RESULTS.glob("*/student.onnx"))
    assert students
    assert main(["predict", str(students[0]), str(tmp_path / "image.png")]) == 0
    shown = capsys.readouterr().out
    classes = json.loads((students[0].parent / "comparison.json").read_text())["dataset"]["classes"]
    assert sum(name in shown for name in classes) == 3


CIFAR10 = os.environ.get("BNN_ITRD_CIFAR10")


@pytest.mark.skipif(not CIFAR10, reason="BNN_ITRD_CIFAR10 names no cifar10.npz")
def test_a_student_of_the_repository_has_its_accuracy(tmp_path: Path) -> None:
    """500 test images, prepared here: within three standard errors of the folder's figure, which is that of 10,000."""
    folder = next(path.parent for path in sorted(RESULTS.glob("cifar10-*/student.onnx")))
    shutil.copyfile(folder / "student.onnx", tmp_path / "student.onnx")
    with np.load(str(CIFAR10)) as arrays:
        images, labels = arrays["x_test"][:500], arrays["y_test"][:500]
    session = bnn_itrd.export.session(tmp_path / "student.onnx", threads=1)
    known = bnn_itrd.export.read_metadata(tmp_path / "student.onnx")
    mean, std = (np.asarray(known[key], np.float32) for key in ("mean", "std"))
    batch = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    logits = np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])
    share = float((logits.argmax(1) == labels).mean())
    stated = json.loads((folder / "comparison.json").read_text())["models"][-1]["top1_last"] / 100
    assert abs(share - stated) < 3 * math.sqrt(stated * (1 - stated) / 500)
    # And by the command that the table's readers have, in the folder as it is.
    assert (
        main(["validate", str(folder / "student.onnx"), "--data=cifar10", f"--data.root={CIFAR10}", "--images=500"])
        == 0
    )
