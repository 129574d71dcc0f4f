"""A few images of each class, and the rest without labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.data_sets import CPU, files, folder, published, write_imagenet, write_images

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError


def few(root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(root), **more))  # type: ignore[arg-type]


def pictures(split: object) -> set[bytes]:
    assert isinstance(split, TensorSplit)
    return {image.numpy().tobytes() for image in split.images}


def test_per_class_takes_so_many_of_each(tiny_npz: Path) -> None:
    everything = few(tiny_npz)
    five, again, eight = few(tiny_npz, per_class=5), few(tiny_npz, per_class=5), few(tiny_npz, per_class=8)
    assert torch.bincount(five.train.labels).tolist() == [5, 5, 5] and len(five.test) == len(everything.test) == 48
    assert isinstance(five.train, TensorSplit) and isinstance(again.train, TensorSplit)
    assert torch.equal(five.train.images, again.train.images)
    assert pictures(five.train) < pictures(eight.train) < pictures(everything.train)
    assert pictures(few(tiny_npz, per_class=5, per_class_seed=1).train) != pictures(five.train)
    # every one has its own label, and the statistics are those of the images that are trained on
    labels = {
        i.numpy().tobytes(): int(y) for i, y in zip(everything.train.images, everything.train.labels, strict=True)
    }
    assert all(labels[i.numpy().tobytes()] == int(y) for i, y in zip(five.train.images, five.train.labels, strict=True))
    expected = five.train.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(torch.tensor(five.mean).double(), expected, atol=1e-6, rtol=0)
    assert pictures(few(tiny_npz, per_class=32).train) == pictures(everything.train)


def test_per_class_leaves_the_held_out_images_alone(tiny_npz: Path) -> None:
    whole, part = few(tiny_npz, val_fraction=0.25), few(tiny_npz, val_fraction=0.25, per_class=7)
    assert pictures(part.val) == pictures(whole.val) and len(part.train) == 21
    assert pictures(part.train) < pictures(whole.train) and not pictures(part.train) & pictures(part.val)


def test_per_class_of_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "small")
    data = folder(tmp_path / "small", per_class=2)
    assert torch.bincount(data.train.labels).tolist() == [2, 2] and len(data.test) == 2
    write_imagenet(tmp_path / "large")
    large = published("imagenet", tmp_path / "large", per_class=3)
    assert files(large.train) == sorted(files(large.train)) and torch.bincount(large.train.labels).tolist() == [3, 3]


def test_per_class_of_more_than_there_are(tmp_path: Path, tiny_npz: Path) -> None:
    write_images(tmp_path / "train", n=6)
    (tmp_path / "train" / "kind1" / "0.png").unlink()
    write_images(tmp_path / "test", n=1)
    with pytest.raises(
        UserError, match=r"data\.per_class must be at most 5, the training images of class 'kind1', got 6"
    ):
        folder(tmp_path, per_class=6)
    held = r"at most 24, the training images of class 'class0' \(data\.val_fraction 0\.25 is held out\), got 25"
    with pytest.raises(UserError, match=held):
        few(tiny_npz, per_class=25, val_fraction=0.25)
    with pytest.raises(UserError, match=r"data\.per_class must be >= 1, got 0"):
        DataConfig(per_class=0)
    with pytest.raises(UserError, match=r"data\.per_class_seed must be in \[0, 2\^31\), got -1"):
        DataConfig(per_class_seed=-1)


def test_unlabelled_images_are_the_rest(tiny_npz: Path) -> None:
    fraction = {"val_fraction": 0.25, "per_class": 7, "per_class_seed": 3}
    everything, part = few(tiny_npz, val_fraction=0.25), few(tiny_npz, **fraction)
    mixed = few(tiny_npz, **fraction, unlabelled=True)
    assert isinstance(mixed.train, TensorSplit) and isinstance(everything.train, TensorSplit)
    assert torch.equal(mixed.train.images, everything.train.images) and mixed.mean == everything.mean
    labelled = mixed.train.labels != UNLABELLED
    assert torch.bincount(mixed.train.labels[labelled]).tolist() == [7, 7, 7]
    assert torch.equal(mixed.train.labels[labelled], everything.train.labels[labelled])
    # the labelled ones are those that per_class takes by itself; nothing else is changed
    assert {i.numpy().tobytes() for i in mixed.train.images[labelled]} == pictures(part.train)
    assert mixed.val is not None and everything.val is not None
    for a, b in ((mixed.val, everything.val), (mixed.test, everything.test)):
        assert torch.equal(a.labels, b.labels)


def test_unlabelled_images_in_files(tmp_path: Path) -> None:
    write_imagenet(tmp_path / "large")
    data = published("imagenet", tmp_path / "large", per_class=3, unlabelled=True)
    everything, part = (published("imagenet", tmp_path / "large", **more) for more in ({}, {"per_class": 3}))
    assert files(data.train) == files(everything.train) and isinstance(data.train, FolderSplit)
    labelled = [file for file, y in zip(files(data.train), data.train.labels, strict=True) if y != UNLABELLED]
    assert labelled == files(part.train)
    batch = next(data.train.train_batches(len(data.train), seed=0, epoch=0, device=CPU))
    assert torch.equal(batch[1], data.train.labels[batch[2]])


def test_bad_choices_of_images(tiny_npz: Path) -> None:
    with pytest.raises(UserError, match=r"data\.unlabelled must be false without data\.per_class.*, got True"):
        DataConfig(unlabelled=True)
    with pytest.raises(UserError, match=r"data\.per_class must be at most 32"):
        few(tiny_npz, per_class=33, unlabelled=True)
    with pytest.raises(UserError, match=r"data\.val_fraction 0\.01 of the 96 training images holds out none"):
        few(tiny_npz, val_fraction=0.01)
