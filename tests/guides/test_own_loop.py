"""docs/guides/own-loop.md, run as a user would: the loss falls, exactly again, and the file answers as the network."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from guide_blocks import Guide
from PIL import Image
from sklearn.datasets import load_digits

from bnn_itrd.export import predict_file, session

GUIDE = Guide("own-loop")
LOOPS = {"student.onnx": "python loop.py", "lightning.onnx": "python lightning_loop.py"}


def pixels() -> np.ndarray:
    """The digits as the guide has them, (n, 8, 8) uint8."""
    return (load_digits().images / 16 * 255).round().astype(np.uint8)


def trained(folder: Path, first: Callable[[Path, str], subprocess.CompletedProcess[str]]) -> dict[str, str]:
    """The guide's files in a user's folder and both loops run there, the first by `first`; what each of them said."""
    GUIDE.write(folder)
    Image.fromarray(pixels()[1500]).save(folder / "digit.png")
    said = {}
    for file, command in LOOPS.items():
        done = (GUIDE.run if said else first)(folder, command)
        assert done.returncode == 0, done.stderr
        said[file] = done.stdout
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("user")
    return folder, trained(folder, GUIDE.start)


def losses(said: str) -> tuple[float, float]:
    found = re.search(r"^loss: (\S+) at the first step, (\S+) at the last$", said, re.MULTILINE)
    assert found is not None, said
    return float(found[1]), float(found[2])


def test_the_guide_shows_what_is_tested() -> None:
    assert GUIDE.commands == [
        line for file, command in LOOPS.items() for line in (command, f"bnn-itrd predict {file} digit.png")
    ]


@pytest.mark.parametrize("file", LOOPS)
def test_the_loss_falls(run: tuple[Path, dict[str, str]], file: str) -> None:
    first, last = losses(run[1][file])
    assert last < first - 10


def test_the_student_is_binary_and_its_training_is_over(run: tuple[Path, dict[str, str]]) -> None:
    folder, said = run
    assert "2 binarised, 2 replaced, 3 kept; binary weights: 55,296 of 56,224" in said["student.onnx"]
    state = torch.load(folder / "networks.pt", weights_only=True)["student"]
    progress = {name: float(value) for name, value in state.items() if name.endswith(".progress")}
    assert len(progress) >= 2 and set(progress.values()) == {1.0}


def test_the_same_seed_gives_the_same_files(run: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, said = run
    again = trained(tmp_path, GUIDE.run)
    for file in LOOPS:
        assert losses(again[file]) == losses(said[file])
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_a_session_answers_as_the_network(run: tuple[Path, dict[str, str]]) -> None:
    done = GUIDE.run(run[0], "python use.py")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"360 images: largest difference (\S+)\nsame class for 360\n", done.stdout)
    assert found is not None and float(found[1]) < 1e-4, done.stdout


@pytest.mark.parametrize("file", LOOPS)
def test_predict_takes_the_file(run: tuple[Path, dict[str, str]], file: str) -> None:
    done = GUIDE.run(run[0], f"bnn-itrd predict {file} digit.png")
    assert done.returncode == 0, done.stderr
    image = (pixels()[1500:1501, None].astype(np.float32) / 255 - np.float32(0.306)) / np.float32(0.377)
    shares = torch.from_numpy(predict_file(session(run[0] / file), image)).softmax(1)[0]
    best = shares.topk(3)
    wanted = [f"{int(k)} {100 * float(share):.1f} %" for share, k in zip(best.values, best.indices, strict=True)]
    assert done.stdout == f"digit.png: {', '.join(wanted)}\n"
    assert wanted[0].startswith("1 ")
