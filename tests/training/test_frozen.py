"""What a training leaves alone is said, and what the user fixed stays fixed."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import bnn_itrd
from bnn_itrd.config import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.models import evaluation_mode
from bnn_itrd.quant import binarize


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(8)]
    head = [nn.Flatten(), nn.Linear(128, 2)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 8, 3), norms[1], *head)


@pytest.fixture(scope="module")
def data() -> ImageData:
    images = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(images, torch.arange(32) % 2)
    return ImageData.from_datasets(split, split)


def trained(student: nn.Module, teacher: nn.Module | None, data: ImageData, out: Path) -> bnn_itrd.Distilled:
    train = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0, lr=0.1)
    options: dict[str, Any] = {"fabric": FabricConfig(accelerator="cpu", threads=1), "log": LogConfig(False, False)}
    return bnn_itrd.distill(student, teacher, data, train=train, out=out, **options)


def test_a_student_made_of_a_frozen_teacher_learns(data: ImageData, tmp_path: Path) -> None:
    teacher = network().eval().requires_grad_(False)
    student, _ = binarize(teacher)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = trained(student, teacher, data, tmp_path)
    assert done.history[0]["sign_flips"] > 0
    assert not torch.equal(student.get_submodule("0").weight, teacher[0].weight)


def test_a_student_that_is_mostly_frozen_is_warned_about(data: ImageData, tmp_path: Path) -> None:
    student = network().requires_grad_(False)
    student[6].bias.requires_grad_(True)
    said = r"most of Sequential is frozen: 1,096 of its 1,098 parameters have requires_grad False"
    with pytest.warns(UserWarning, match=said):
        trained(student, None, data, tmp_path)


def test_a_student_that_is_wholly_frozen_is_refused_before_anything_is_written(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Sequential has nothing to train: all its parameters \(1,098\)"):
        trained(network().requires_grad_(False), network(), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batchnorm_that_was_put_in_evaluation_mode_stays_there(data: ImageData, tmp_path: Path) -> None:
    student = network()
    student[1].eval()
    before = copy.deepcopy(student)
    with pytest.warns(UserWarning, match="in Sequential, 1 are in evaluation mode and stay there"):
        trained(student, network(), data, tmp_path)
    assert torch.equal(student[1].running_mean, before[1].running_mean) and student[1].num_batches_tracked == 0
    assert not torch.equal(student[4].running_mean, before[4].running_mean)
    assert not torch.equal(student[1].weight, before[1].weight), "its factors are trained like others"


def test_a_network_that_was_in_evaluation_mode_as_a_whole_is_trained_as_a_whole(
    data: ImageData, tmp_path: Path
) -> None:
    student = network().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(student, None, data, tmp_path)
    assert student[1].num_batches_tracked == student[4].num_batches_tracked == 4


def test_evaluation_mode_gives_each_module_its_own_back() -> None:
    model = network()
    model[4].eval()
    with pytest.raises(RuntimeError), evaluation_mode(model):
        assert not any(m.training for m in model.modules())
        raise RuntimeError
    assert [path for path, m in model.named_modules() if not m.training] == ["4"]
