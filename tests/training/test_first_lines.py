"""What a run says as it begins: its data, its network, how long it will take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import TINY

from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.data import TensorSplit, load_data
from bnn_itrd.models import resnet8, summary
from bnn_itrd.runs.sizes import first_look
from bnn_itrd.training import progress
from bnn_itrd.training.progress import Progress, first_line, imbalance


def test_the_line_of_a_run(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--data.image_size=8", "--network.name=resnet8",
             "--network.width=0.25", "--student=s", "--log.tensorboard=false", "--log.progress=true"]  # fmt: skip
    words[words.index("--student=s")] = "--students={s: {}}"
    assert main([*words, "--member=s", "--train.epochs=1", f"--out={tmp_path}"]) == 0
    made = summary(resnet8(3, width=0.25, binary="recu", input_shape=(3, 8, 8)))
    products = made.binary_macs + made.float_macs
    assert capsys.readouterr().out.splitlines()[0] == (
        f"cifar10: 3 classes, 96 training, 48 test images of 8x8; resnet8, {products:,} products per image "
        f"({100 * made.binary_macs / products:.0f} % binary)"
    )
    # Met again, it says so, and what can be done with it.
    assert main([*words, "--member=s", "--train.epochs=1", f"--out={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "s: its training was already finished, at epoch 1 of 1" in lines
    assert lines[-5:] == [
        "Next:",
        f"  bnn-itrd evaluate {tmp_path}/s",
        f"  bnn-itrd export {tmp_path}/s",
        f"  bnn-itrd run {tmp_path}/config.yaml",
        "      trains the other networks of the run, then exports and compares all",
    ]


def test_the_line_of_held_out_images_and_without_products() -> None:
    data = load_data(DataConfig(name="digits", val_fraction=0.1))
    told = first_line(data, "mine", None)
    assert told == "digits: 10 classes, 1,292 training, 141 held-out, 364 test images of 8x8; mine"


def test_products_are_counted_without_memory(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    counted, remarks = first_look(NetworkConfig("resnet8"), SchemeConfig(), data)
    made = summary(resnet8(3, binary="recu", input_shape=(3, 8, 8)))
    assert counted is not None and counted.layers == made.layers and remarks == []


SQUARES = """
from torch import nn

class Squares(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)
    def forward(self, x):
        x = self.a(x)
        return self.head(self.norm(self.b(x * x)).mean((2, 3)))
"""


def test_what_binarize_says_of_a_network_is_told_once(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "squares_case.py").write_text(SQUARES)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--data.image_size=8", "--log.tensorboard=false",
             "--students={s: {}}", "--member=s", "--network.name=squares_case:Squares", "--report=false"]  # fmt: skip
    assert main([*words, "--train.epochs=1", f"--out={tmp_path / 'out'}"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert said == [
        "note: squares_case:Squares: b reads mul(), whose values all have the same sign",
        "note: squares_case:Squares: in 1 bit: does not work as it is: reads values of one sign: 1 layer (b)",
    ]


def test_classes_far_from_even_are_said(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    assert imbalance(data) is None
    half = torch.full((3,), 0.5)

    def with_counts(*counts: int) -> str | None:
        labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
        images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
        split = TensorSplit(images, labels, half, half, crop_padding=0, flip=False)
        return imbalance(replace(data, train=split))

    assert with_counts(3, 203, 50) == (
        "the classes have very different sizes ('class1' has 203 training images, 'class0' has 3): look at the "
        "accuracy of each class"
    )
    assert with_counts(10, 99, 50) is None and with_counts(10, 100, 50) is not None
    assert "'class2' has 0" in str(with_counts(3, 3))


def test_an_estimate_after_the_first_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with Progress("s", epochs=10, steps=50, names=["ce"], batch_size=8, enabled=True, live=True) as shown:
        shown.begin(0)
        for done in range(1, 9):
            now += 30.0 if done == 1 else 0.5  # the first one compiles
            shown.step(done, torch.zeros(1))
    # After the fifth: 4 steps in 2 s, and 495 are left.
    assert capsys.readouterr().out == "s: about 4 min to go, at 10 epochs of 50 batches\n"
