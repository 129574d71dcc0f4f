"""cutout, mixup and CutMix: what a step sees, and that it is a function of (seed, epoch)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, write_npz
from torch import Tensor, nn

from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data import tensor_split
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.training.step import images as step_images
from bnn_itrd.training.step.images import MixedLabels, StepImages, check_augmentation
from bnn_itrd.training.step.objective import Objective

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    root = write_npz(tmp_path_factory.mktemp("images") / "x.npz", n=32, size=16)
    return load_data(DataConfig(name="cifar10", root=str(root)))


def augmented(
    data: ImageData, images: Tensor, *, epoch: int = 0, steps: int = 50, rank: int = 0, **train: Any
) -> list[Any]:
    """(images, labels, mixed) of each step, if all have the same images, with the labels 0, 1, ..."""
    batch = images, torch.arange(len(images)), torch.arange(len(images))
    made = StepImages(TrainConfig(**train), data, CPU, rank=rank)
    drawn = made.epoch([batch] * steps, epoch, steps=steps, batch=len(images))
    return [(images, labels, mixed) for images, labels, _, mixed in drawn]


def test_nothing_is_changed_by_default(data: ImageData) -> None:
    images = torch.randn(8, 3, 16, 16)
    (got, own, mixed), *more = augmented(data, images)
    assert torch.equal(got, images) and torch.equal(own, torch.arange(8)) and mixed is None and len(more) == 49


def test_cutout(data: ImageData) -> None:
    images = torch.ones(8, 3, 16, 16)
    areas = []
    for got, _, _ in augmented(data, images, cutout=6):
        holes = got == 0
        assert torch.equal(holes[:, 0], holes[:, 2])
        for hole in holes[:, 0]:
            rows, columns = hole.any(1), hole.any(0)
            assert torch.equal(hole, rows[:, None] & columns[None])  # a rectangle
            areas.append(int(hole.sum()))
    assert max(areas) == 36 and min(areas) == 9  # whole inside; in a corner, a quarter
    assert torch.equal(augmented(data, images, cutout=6)[49][0], got)
    for other in (augmented(data, images, cutout=6, epoch=1), augmented(data, images, cutout=6, rank=1)):
        assert not torch.equal(other[49][0], got)


def test_mixup(data: ImageData) -> None:
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    shares = []
    for got, own, mixed in augmented(data, images, steps=400, mixup=0.2):
        share = float(mixed.share)
        torch.testing.assert_close(got, share * images + (1 - share) * images.roll(1, 0))
        assert torch.equal(own, labels if share >= 0.5 else labels.roll(1, 0))
        assert torch.equal(mixed.second, labels.roll(1, 0))
        shares.append(share)
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * 1.4).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06) and np.var(shares) == pytest.approx(1 / 5.6, rel=0.1)


def test_cutmix(data: ImageData) -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16).contiguous()
    shares = []
    for got, _, mixed in augmented(data, images, cutmix=1.0):
        second = got[3] == 2.0
        assert torch.equal(second | (got[3] == 3.0), torch.ones(3, 16, 16, dtype=torch.bool))
        assert float(mixed.share) == pytest.approx(1 - float(second.float().mean()))
        shares.append(float(mixed.share))
    assert min(shares) < 0.4 and max(shares) > 0.8


def test_both_take_turns(data: ImageData) -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16).contiguous()
    # CutMix leaves whole values, mixup makes mixed ones.
    cut = [torch.equal(got, got.round()) for got, _, _ in augmented(data, images, steps=400, mixup=1.0, cutmix=1.0)]
    assert sum(cut) == pytest.approx(200, abs=40)


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"cutout": 6},
        {"trivial_augment": True},
        {"trivial_augment": True, "cutout": 6, "mixup": 0.2, "cutmix": 1.0, "channels_last": True},
    ],
)
def test_several_steps_at_once_give_the_same_images(
    data: ImageData, train: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: 8 steps of 2 images in each of two processes, three steps at a time, the last two alone."""

    def epoch() -> list[tuple[Tensor, ...]]:
        rows = []
        for rank in (0, 1):
            batches = data.train.train_batches(4, seed=3, epoch=2, device=CPU, rank=rank, world=2)
            made = StepImages(TrainConfig(**train), data, CPU, rank=rank).epoch(batches, 2, steps=8, batch=2)
            rows += [(*batch, *(() if mixed is None else mixed)) for *batch, mixed in made]
        return rows

    alone = epoch()
    for module in (tensor_split, step_images):
        monkeypatch.setattr(module, "steps_together", lambda device, values: 3)
    together = epoch()
    assert len(alone) == len(together) == 16 and alone[0][0].shape == (2, 3, 16, 16)
    for one, other in zip(alone, together, strict=True):
        assert [each.stride() for each in one] == [each.stride() for each in other]
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_loss_of_mixed_labels_is_that_of_soft_ones() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    objective = Objective(network, None, nn.ModuleDict(), ce_weight=1.0, label_smoothing=0.1)
    images, first, second = torch.randn(6, 3, 2, 2), torch.arange(6) % 4, torch.arange(6).flip(0) % 4
    mixed = MixedLabels(first, second, torch.tensor(0.3))
    loss = objective(images, mixed.own, torch.arange(6), mixed)[0]
    soft = 0.3 * nn.functional.one_hot(first, 4) + 0.7 * nn.functional.one_hot(second, 4)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(network(images), soft, label_smoothing=0.1))
    assert torch.equal(mixed.own, second)


def test_trivial_augment_sees_the_pixels_of_the_file(data: ImageData) -> None:
    images, _, _ = next(data.train.train_batches(8, seed=0, epoch=0, device=CPU))
    got = augmented(data, images, steps=1, trivial_augment=True)[0][0]
    pixels = (got * torch.tensor(data.std).reshape(1, 3, 1, 1) + torch.tensor(data.mean).reshape(1, 3, 1, 1)) * 255
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    assert pixels.min() > -1e-3 and pixels.max() < 255.001 and not torch.equal(got, images)


def test_what_does_not_fit() -> None:
    mixing, reading = TrainConfig(mixup=0.2), {"kd": nn.Module(), "crd": SimpleNamespace(reads_labels=True)}
    with pytest.raises(UserError, match="trivial_augment needs images of 1 or 3 channels, but they have 2"):
        check_augmentation(TrainConfig(trivial_augment=True), shape=(2, 8, 8))
    with pytest.raises(UserError, match="with data.unlabelled some images have none"):
        check_augmentation(mixing, shape=(3, 8, 8), labels=torch.tensor([0, UNLABELLED]))
    with pytest.raises(UserError, match="crd needs one label for each image"):
        check_augmentation(mixing, shape=(3, 8, 8), labels=torch.tensor([0, 1]), distillers=reading)
    check_augmentation(TrainConfig(cutout=8), shape=(3, 8, 9), labels=torch.tensor([UNLABELLED]), distillers=reading)
    with pytest.raises(UserError, match=r"teacher_train.cutout 9 may cover a whole image of 8x9: give less t"):
        check_augmentation(TrainConfig(cutout=9), shape=(3, 8, 9), field="teacher_train")
    with pytest.raises(UserError, match=r"train.mixup must be in \[0, 10000\), got -1"):
        TrainConfig(mixup=-1)


@pytest.mark.parametrize("command", [["run"], ["sweep", "--grid", "train.seed=0,1"]])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--train.mixup=0.2", "--students={late: {dkd: {}}}"], "dkd needs one label for each image, but train.mi"),
        (["--train.cutout=8"], "train.cutout 8 may cover a whole image of 8x8: give less than 8"),
        (["--teacher_train.cutout=8"], "teacher_train.cutout 8 may cover a whole image of 8x8"),
    ],
)
def test_what_does_not_fit_is_told_before_a_teacher_is_trained(
    command: list[str], given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npz, out = write_npz(tmp_path / "x.npz"), tmp_path / "out"
    tiny = [*TINY, f"--data.root={npz}", "--data.image_size=8", "--network.name=resnet8", f"--out={out}"]
    assert main([command[0], "digits", *command[1:], *tiny, *given]) == 2
    assert said in capsys.readouterr().err
    assert not list(out.rglob("*.pt"))
