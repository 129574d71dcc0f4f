"""A network sees images under the statistics of its own training, wherever it came from."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnn_itrd
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data import ImageData, load_data
from bnn_itrd.data.normalisation import TrainedOn, remember_images, seen_as_trained, shown_as_trained
from bnn_itrd.errors import UserError
from bnn_itrd.export import session
from bnn_itrd.models import Outputs, resnet8
from bnn_itrd.runs.comparison import evaluate_member
from bnn_itrd.runs.identity import teacher_hash, weights_hash
from bnn_itrd.runs.teachers import load_teacher
from bnn_itrd.training.evaluation import evaluate

QUIET = {"fabric": FabricConfig(accelerator="cpu", threads=1), "log": LogConfig(tensorboard=False, progress=False)}


def write(path: Path, *, brightness: int) -> Path:
    """Two classes, of which the left or the right half is 40 levels brighter; 64 images to train on, 32 to test on."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 64), ("test", 32)):
        labels = np.arange(n) % 2
        images = rng.integers(0, 30, (n, 8, 8, 3)) + brightness
        for i, label in enumerate(labels):
            images[i, :, 4 * label : 4 * label + 4] += 40
        arrays |= {f"x_{split}": images.astype(np.uint8), f"y_{split}": labels}
    np.savez(path, **arrays, classes=np.array(["left", "right"]))
    return path


def data_of(path: Path) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(path), crop_padding=0, flip=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dark.npz, bright.npz, and in `teacher` a teacher trained on the dark ones."""
    root = tmp_path_factory.mktemp("normalisation")
    for name, brightness in (("dark", 0), ("bright", 150)):
        write(root / f"{name}.npz", brightness=brightness)
    teacher = resnet8(2, width=0.25, input_shape=(3, 8, 8))
    train = TrainConfig(epochs=4, batch_size=32, warmup_epochs=0)
    bnn_itrd.distill(teacher, None, data_of(root / "dark.npz"), train=train, out=root / "teacher", **QUIET)
    return root


def batch(data: ImageData) -> Tensor:
    images: Tensor = next(iter(data.test.eval_batches(8, device=torch.device("cpu"))))[0]
    return images


def test_a_block_shows_the_images_of_the_training_and_leaves_nothing_behind(folder: Path) -> None:
    dark, bright = data_of(folder / "dark.npz"), data_of(folder / "bright.npz")
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    remember_images(network, mean=dark.mean, std=dark.std, classes=dark.classes)
    raw = np.stack([bright.test.raw(i) for i in range(8)]).transpose(0, 3, 1, 2) / 255.0
    own = (torch.tensor(raw).float() - torch.tensor(dark.mean)[:, None, None]) / torch.tensor(dark.std)[:, None, None]
    before, keys = network(batch(bright)), list(network.state_dict())
    with seen_as_trained(network, bright):
        torch.testing.assert_close(network(batch(bright)), network[1](own.flatten(1)))
    assert torch.equal(network(batch(bright)), before) and list(network.state_dict()) == keys
    torch.testing.assert_close(batch(shown_as_trained(network, bright)), own)
    assert not torch.equal(batch(bright), own)  # the data given is as it was
    with seen_as_trained(network, dark):  # its own images: nothing to do
        assert list(network.state_dict()) == keys
    assert shown_as_trained(network, dark) is dark
    assert copy.deepcopy(network).trained_on == TrainedOn(dark.classes, dark.mean, dark.std)


def test_evaluate_distillation_and_comparison_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bright = data_of(folder / "bright.npz")
    given = [f"--data.root={folder / 'bright.npz'}", "--data.name=cifar10"]
    assert main(["evaluate", str(folder / "teacher"), *given, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    teacher = load_teacher(str(folder), None, bright).model
    as_the_student_sees = evaluate(teacher, bright.test, device=torch.device("cpu"))
    with seen_as_trained(teacher, bright):
        inside = evaluate(teacher, bright.test, device=torch.device("cpu"))
    assert inside.loss == pytest.approx(alone["loss"], rel=1e-4) and inside.top1 == alone["top1"]
    assert as_the_student_sees.loss != pytest.approx(alone["loss"], rel=1e-2)  # what it was once
    compared = evaluate_member(load_teacher(str(folder), None, bright), bright, folder / "teacher.onnx")
    assert compared.test.loss == pytest.approx(alone["loss"], rel=1e-6) and compared.agreement.argmax_agreement == 1
    said = session(folder / "teacher.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["mean"]) == list(data_of(folder / "dark.npz").mean)


def test_distill_shows_a_loaded_teacher_its_own_normalisation(folder: Path, tmp_path: Path) -> None:
    bright, seen = data_of(folder / "bright.npz"), []

    def spy(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        seen.append(teacher.logits)
        return (student.logits - teacher.logits).square().mean()

    teacher = bnn_itrd.load(folder / "teacher")
    student = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    train = TrainConfig(epochs=1, batch_size=64, warmup_epochs=0)
    made = bnn_itrd.distill(student, teacher, bright, train=train, distillers={"spy": spy}, out=tmp_path, **QUIET)
    own = evaluate(teacher, shown_as_trained(teacher, bright).train, device=torch.device("cpu")).logits
    torch.testing.assert_close(seen[-1].sort(0).values, own.sort(0).values, rtol=1e-4, atol=1e-4)
    assert teacher_hash(teacher, bright) != weights_hash(teacher) == teacher_hash(teacher, data_of(folder / "dark.npz"))
    # What was trained here knows its images too, so it can be the next teacher.
    assert made.model.trained_on == TrainedOn(bright.classes, bright.mean, bright.std)


def test_a_librarys_network_sees_the_statistics_of_its_library(folder: Path, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    bright, file = data_of(folder / "bright.npz"), tmp_path / "w.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=2).state_dict(), file)
    address = "torchvision:shufflenet_v2_x0_5"
    known = load_teacher(address, str(file), bright).model.trained_on
    assert known == TrainedOn(None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not hasattr(load_teacher(address, str(file), bright, normalization="data").model, "trained_on")
    with pytest.raises(UserError, match="with the mean and std of its own training"):
        load_teacher(str(folder), None, bright, normalization="data")
