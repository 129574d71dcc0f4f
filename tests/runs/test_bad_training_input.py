"""What cannot be trained on is told before or as it happens, by its cause: labels, batches of one, weights of NaN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bnn_itrd
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import as_image_data, load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d


def student(last: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), BinaryConv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last,
        nn.Linear(8, 3),
    )  # fmt: skip


def data(labels: torch.Tensor) -> ImageData:
    """A data set of objects whose labels nothing has looked at yet."""
    half = torch.full((3,), 0.5)
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    split = TensorSplit(images, labels, half, half, crop_padding=0, flip=False)
    return ImageData("mine", ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3, (3, 8, 8), split, None, split)


def train(network: nn.Module, teacher: nn.Module | None, images: Any, out: Path, *, batch_size: int = 4) -> Any:
    return bnn_itrd.distill(
        network, teacher, images, train=TrainConfig(epochs=1, batch_size=batch_size), out=out,
        log=LogConfig(progress=False, tensorboard=False), fabric=FabricConfig(accelerator="cpu"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.arange(6) % 3 + 1,
            r"mine: image 2 of train has the label 3, but there are 3 classes \(0 to 2\); 2 labels",
        ),
        (torch.tensor([0, 1, 2, -7]), "mine: image 3 of train has the label -7"),
        (
            (torch.arange(6) % 3).float(),
            r"the labels of train must be a whole number .* got float32 \(6,\)",
        ),
        (torch.eye(3).long(), r"the labels of train must be a whole number for each image, got int64 \(3, 3\)"),
    ],
)
def test_labels_of_an_object(labels: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(student(nn.Identity()), None, data(labels), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_a_split_to_test_on_and_hidden_ones() -> None:
    good, bad = data(torch.arange(6) % 3), data(torch.arange(6) % 3 + 1)
    with pytest.raises(UserError, match="image 2 of test has the label 3"):
        as_image_data(replace(good, test=bad.test))
    assert as_image_data(data(torch.tensor([0, -1, 2])))[0].name == "mine", "-1 stands for no label"


def test_labels_from_one_in_an_npz(tmp_path: Path) -> None:
    images, labels = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 3 + 1
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    message = r"a\.npz: no image has the label 0, but some have 3: labels count from 0 .* array 'classes'"
    with pytest.raises(UserError, match=message):
        load_data(DataConfig(name="cifar10", root=str(tmp_path / "a.npz")))


def test_a_batch_of_one_image_in_front_of_a_batchnorm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a BatchNorm got a single value per channel.*train\.batch_size"):
        train(student(nn.BatchNorm1d(8)), None, data(torch.arange(6) % 3), tmp_path, batch_size=1)


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_weights_that_are_no_numbers_before_the_training(whose: str, tmp_path: Path) -> None:
    networks = {"student": student(nn.Identity()), "teacher": student(nn.Identity())}
    broken = networks[whose][0]
    with torch.no_grad():
        broken.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match=f"the {whose}'s 0.weight is not finite .* give another {whose}"):
        train(networks["student"], networks["teacher"], data(torch.arange(6) % 3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_that_macos_adds_to_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cats", "dogs", "__MACOSX"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    assert load_data(DataConfig(name="folder", root=str(tmp_path))).classes == ("cats", "dogs")
    told = f"note: {tmp_path}/__MACOSX is not read: it is what macOS's archiver adds, and no class\n"
    assert capsys.readouterr().err == told
