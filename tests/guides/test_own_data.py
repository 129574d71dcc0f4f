"""docs/guides/own-data.md, run as a user would; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from guide_blocks import Guide
from PIL import Image

from bnn_itrd.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The guide's files in a user's folder, and its first command run there."""
    folder = tmp_path_factory.mktemp("user")
    guide = Guide("own-data")
    guide.write(folder)
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:10, 4:10, 1] = 255
    Image.fromarray(pixels).save(folder / "photo.png")
    done = guide.run(folder, guide.commands[0])
    assert done.returncode == 0, done.stderr
    return guide, folder


def test_its_run_is_a_run_like_any_other(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    comparison = json.loads((folder / "runs/squares/comparison.json").read_text())
    assert comparison["dataset"] == {
        "name": "mydata:make",
        "classes": ["red", "green", "blue"],
        "train": 240,
        "val": 0,
        "test": 48,
        "input_shape": [3, 16, 16],
    }
    # It can be learned: a third would be chance.
    assert comparison["models"][0]["top1_last"] > 60
    for command in guide.commands[1:]:
        done = guide.run(folder, command)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photo.png: ") and "green" in done.stdout


def test_the_same_data_continues_a_run(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    before = (folder / "runs/squares/teacher/metrics.csv").read_bytes()
    done = guide.run(folder, "bnn-itrd train squares.yaml --member teacher --out runs/squares")
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/squares/teacher/metrics.csv").read_bytes() == before


def test_a_file_beside_a_name_of_code_is_refused_until_it_is_named_again(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, "bnn-itrd validate runs/squares/recu-itrd/student.onnx")
    assert done.returncode == 2
    assert "data.name names the code 'mydata:make', which would be run" in done.stderr
    assert "or give --data mydata:make" in done.stderr


def test_the_options_of_the_data(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    options = "--teacher_train.epochs 1 --data.image_size 24 --data.val_fraction 0.25 --data.flip true"
    done = guide.run(folder, f"bnn-itrd train squares.yaml --member teacher --out runs/options {options}")
    assert done.returncode == 0, done.stderr
    dataset = json.loads((folder / "runs/options/teacher/comparison.json").read_text())["dataset"]
    assert (dataset["train"], dataset["val"], dataset["input_shape"]) == (180, 60, [3, 24, 24])
    saved = yaml.safe_load((folder / "runs/options/teacher/config.yaml").read_text())["data"]
    assert (saved["name"], saved["flip"], saved["image_size"]) == ("mydata:make", True, 24)


def test_the_python_examples(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, "python train.py")
    assert done.returncode == 0, done.stderr
    done = guide.run(folder, "bnn-itrd predict student.onnx photo.png")
    assert done.returncode == 0 and done.stdout.startswith("photo.png: "), done.stderr
    identity = load_checkpoint(folder / "runs/student/last.pt")["identity"]
    assert identity["data"] == {"name": "own", "resize": "scale"} and identity["classes"] == ["red", "green", "blue"]
    done = guide.run(folder, "python normalised.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('red', 'green', 'blue') (3, 16, 16) (0.25, 0.25, 0.25)"


def test_wrong_data_is_refused_before_anything_is_written(trained: tuple[Any, Path], tmp_path: Path) -> None:
    guide, folder = trained
    (tmp_path / "mydata.py").write_text((folder / "mydata.py").read_text())
    (tmp_path / "wrong_data.py").write_text(
        "from mydata import Squares\ndef make(): return Squares(60, 0, 1), Squares(9, 9)\n"
    )
    done = guide.run(tmp_path, "bnn-itrd run digits --data.name wrong_data:make --out runs/x")
    assert done.returncode == 2 and "bnn-itrd: train[0] cannot be read: ValueError: empty range" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
