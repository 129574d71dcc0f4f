"""A user's own Datasets: which images are taken, and what is refused and how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.own_data import CPU, Listed, colours, pair
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.dataset_split import DatasetSplit
from bnn_itrd.data.datasets import as_image_data
from bnn_itrd.data.images import to_pixels
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
GREY = RGB[..., :1]

# ---- which images are taken


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY[..., 0]), GREY),
        (Image.fromarray(GREY[..., 0] > 99), (GREY > 99) * np.uint8(255)),
        (Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])), RGB),
        (Image.fromarray(np.dstack([RGB, GREY])), np.rint(255 - GREY / 255 * (255.0 - RGB)).astype(np.uint8)),
        (Image.fromarray(GREY[..., 0].astype(np.uint16) * 257), GREY),
        (RGB, RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (GREY[..., 0], GREY),
        (torch.from_numpy(RGB.transpose(2, 0, 1).copy()), RGB),
        (torch.from_numpy(RGB.copy()), RGB),
        (torch.from_numpy(GREY[..., 0].copy()), GREY),
        (torch.from_numpy(RGB.transpose(2, 0, 1) / np.float32(255)), RGB),
        (torch.from_numpy(RGB.transpose(2, 0, 1) / 255).half(), RGB),
        (RGB / 255, RGB),
        # Where both ends could be channels: the last axis of an array, the first one of a tensor.
        (RGB[:3], RGB[:3]),
        (torch.from_numpy(RGB[:3].copy()), RGB[:3].transpose(1, 2, 0)),
        (torch.tensor([[0.5019, 0.0019]]), np.array([[[128], [0]]])),
    ],
)
def test_images_of_every_form(image: Any, expected: np.ndarray) -> None:
    pixels = to_pixels(image)
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.png", "it must be a Pillow picture, an array or a tensor, got str"),
        (torch.zeros(2, 3, 8, 8), r"its shape is \(2, 3, 8, 8\): an image is \(h, w\), \(h, w, c\) or \(c, h, w\)"),
        (np.zeros((8, 8, 4), np.uint8), r"its shape is \(8, 8, 4\)"),
        (torch.zeros(3, 0, 8), r"it has no pixels: its shape is \(3, 0, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "it is int64: give uint8 from 0 to 255 or floats from 0 to 1"),
        (torch.full((3, 8, 8), float("nan")), "its values go from nan to nan, outside 0 to 1"),
        (torch.tensor([[0.0, 255.0]]), "its values go from 0 to 255, outside 0 to 1"),
        (
            Image.fromarray(np.zeros((4, 4), np.float32)),
            r"its pixels have neither 8 nor 16 bits \(Pillow's mode F\): save it with 8 bits",
        ),
    ],
)
def test_what_is_no_image(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels(image)


def test_normalised_floats_come_back_exactly() -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    floats = (every / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert np.array_equal(to_pixels(floats, (mean, std)), every.numpy().transpose(1, 2, 0))
    with pytest.raises(ValueError, match="which are -0.7 to -0.7 before the normalisation"):
        to_pixels(torch.full((3, 4, 4), -1.2), ((0.5,) * 3, (1.0,) * 3))
    with pytest.raises(ValueError, match="it is uint8, but normalised=True says"):
        to_pixels(every, (mean, std))


def test_normalised_images_are_refused_unless_it_is_said() -> None:
    images, labels = colours(12)
    normalised = TensorDataset((images / 255 - 0.5) / 0.25, labels)
    with pytest.raises(UserError, match=r"^train\[0\] cannot be used as an image: .* normalised=True\)$"):
        as_image_data((normalised, normalised))
    stated = ImageData.from_datasets(normalised, normalised, mean=(0.5,) * 3, std=(0.25,) * 3, normalised=True)
    assert (stated.mean, stated.std) == ((0.5,) * 3, (0.25,) * 3)
    seen, _, _ = next(stated.test.eval_batches(12, device=CPU))
    torch.testing.assert_close(seen, (images / 255 - 0.5) / 0.25)
    assert np.array_equal(stated.test.raw(3), images[3].permute(1, 2, 0).numpy())


def test_torchvisions_sets_work(tmp_path: Path) -> None:
    from torchvision.datasets import FakeData, ImageFolder
    from torchvision.transforms import v2

    for i, name in enumerate(("cat", "cat", "cat", "dog", "dog", "dog")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    folder = ImageFolder(str(tmp_path), v2.Compose([v2.Resize((8, 8)), v2.ToImage()]))
    data = ImageData.from_datasets(folder, Subset(folder, [0, 5]))
    assert data.classes == ("cat", "dog") and data.input_shape == (3, 8, 8)
    assert data.test.labels.tolist() == [0, 1]
    fake = FakeData(30, (3, 8, 8), 3, transform=v2.PILToTensor())
    assert as_image_data((fake, fake))[0].classes == ("0", "1", "2")
    whole = ImageData.from_datasets(ImageFolder(str(tmp_path)), ImageFolder(str(tmp_path)), image_size=6)
    assert whole.input_shape == (3, 6, 6) and whole.resize == "scale"
    centre = ImageData.from_datasets(
        ImageFolder(str(tmp_path)), ImageFolder(str(tmp_path)), image_size=6, resize="centre"
    )
    assert centre.resize == "centre" and centre.test.raw(0).shape == (6, 6, 3)
    assert not np.array_equal(centre.test.raw(0), whole.test.raw(0))


def test_statistics_are_those_of_the_training_images() -> None:
    images, _ = colours(48)
    data = pair()
    np.testing.assert_allclose(data.mean, (images / 255).double().mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, (images / 255).double().std((0, 2, 3), unbiased=False), rtol=1e-6)
    stated = pair(mean=[0.4914, 0.5, 0.25], std=[0.2, 0.3, 0.4])
    assert (stated.mean, stated.std) == ((0.4914, 0.5, 0.25), (0.2, 0.3, 0.4))


def test_a_fifth_is_kept_where_there_are_no_test_images(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = colours(45)
    data, source = as_image_data(TensorDataset(images, labels))
    assert source is None and (len(data.train), len(data.test)) == (36, 9)
    assert torch.bincount(data.test.labels).tolist() == [3, 3, 3]
    told = "9 of the 45 training images, a fifth of each class, are kept for testing"
    assert capsys.readouterr().err == f"note: no test images are given: {told}\n"
    assert isinstance(data.train, DatasetSplit) and isinstance(data.test, DatasetSplit)
    assert sorted([*data.train.indices.tolist(), *data.test.indices.tolist()]) == list(range(45))
    np.testing.assert_allclose(data.mean, (images[data.train.indices] / 255).double().mean((0, 2, 3)), rtol=1e-6)
    again, _ = as_image_data([(image, int(label)) for image, label in zip(images, labels, strict=True)])
    assert isinstance(again.test, DatasetSplit) and torch.equal(again.test.indices, data.test.indices)
    with pytest.raises(UserError, match="train: a fifth of the images is kept for testing; give every class at least"):
        as_image_data(TensorDataset(*colours(6)))


# ---- what is refused


def listed(*samples: Any) -> Listed:
    return Listed(list(samples))


IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)
GOOD = listed((IMAGE, 0), (IMAGE, 1), (IMAGE, 1))


class Unnamed(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter([(IMAGE, 0)])


class NoLength:
    def __getitem__(self, index: int) -> Any:
        return IMAGE, 0


def named(classes: list[Any]) -> Listed:
    data = listed((IMAGE, 0), (IMAGE, 1))
    data.classes = classes  # type: ignore[attr-defined]
    return data


def broken(image: Any) -> Any:
    raise KeyError("no such\nfile")


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        (listed(), GOOD, {}, "train holds no image"),
        (GOOD, Unnamed(), {}, "test is an IterableDataset, which cannot be shuffled"),
        (NoLength(), GOOD, {}, "train must be a torch Dataset or DataLoader .* got NoLength"),
        (torch.zeros(9, 3, 8, 8), GOOD, {}, r"got Tensor: wrap it, TensorDataset\(images, labels\)"),
        (listed({"image": IMAGE, "label": 0}), GOOD, {}, r"train\[0\] must be \(image, label\), got a dict of 2"),
        (listed((IMAGE, 0, 0)), GOOD, {}, r"train\[0\] must be \(image, label\), got a tuple of 3"),
        (GOOD, listed((IMAGE, 0), (IMAGE, "cat")), {}, r"test\[1\] must have a whole number as its label, got 'cat'"),
        (GOOD, listed((IMAGE, 1.0)), {}, r"test\[0\] must have a whole number as its label, got 1\.0"),
        (GOOD, listed((IMAGE, torch.tensor([0, 1]))), {}, r"its label, got tensor\(\[0, 1\]\)"),
        (
            GOOD,
            listed((IMAGE, 2)),
            {"classes": 2},
            r"test\[0\] has the label 2, but there are 2 classes \(0 to 1\); 1 ",
        ),
        (listed((IMAGE, 0), (IMAGE, -1)), GOOD, {}, r"train\[1\] has the label -1"),
        (listed((IMAGE, 1), (IMAGE, 2)), listed((IMAGE, 1)), {}, "no image has the label 0, but some have 2"),
        (listed((IMAGE, 0)), listed((IMAGE, 0)), {}, r"at least two classes, got \['0'\]"),
        (named(["a", "b"]), named(["b", "a"]), {}, r"test has the classes \['b', 'a'\], but train has \['a', 'b'\]"),
        (
            listed((IMAGE, 0), (IMAGE[:, :7], 1)),
            GOOD,
            {},
            r"train\[1\] is an image of 7 x 8 pixels and 3 channels, but train\[0\] is one of 8 x 8 pixels and 3 chan",
        ),
        (GOOD, listed((IMAGE[:1], 1)), {}, r"test\[0\] is an image of 8 x 8 pixels and 1 channel, but"),
        (GOOD, Listed([(IMAGE, 0)], broken), {}, r"test\[0\] cannot be read: KeyError: 'no such\\nfile'"),
        (GOOD, listed((IMAGE / 1.0 + 2, 0)), {}, r"test\[0\] cannot be used as an image: its values go from 2 to 2"),
        (GOOD, GOOD, {"mean": (0.5,) * 3}, "mean and std belong together"),
        (GOOD, GOOD, {"normalised": True}, "normalised=True needs mean= and std="),
        (GOOD, GOOD, {"mean": [0.5], "std": [0.5]}, r"mean must be 3 numbers on the 0..1 scale, .* got \[0\.5\]"),
        (GOOD, GOOD, {"mean": (125.3,) * 3, "std": (0.5,) * 3}, "mean must be 3 numbers on the 0..1 scale"),
        (GOOD, GOOD, {"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std must be 3 numbers on the 0..1 scale"),
        (GOOD, GOOD, {"mean": (0.5,) * 3, "std": (0.5,) * 3, "normalised": True}, r"train\[0\] .* it is uint8, but"),
        (GOOD, GOOD, {"mean": 0.5, "std": 0.5}, "mean must be a list of numbers, one for each channel, got 0.5"),
        (GOOD, GOOD, {"classes": 2.5}, "classes must be a list of names, or how many there are, got 2.5"),
        (None, GOOD, {}, "train must be a torch Dataset or DataLoader .* got NoneType"),
        (GOOD, GOOD, {"image_size": 0}, "image_size must be >= 1, got 0"),
        (GOOD, GOOD, {"resize": "crop"}, "resize must be 'scale' or 'centre', got 'crop'"),
    ],
)
def test_what_is_refused(train: Any, test: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ImageData.from_datasets(train, test, workers=0, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [IMAGE[:, :7], IMAGE / 1.0 + 2, "cat"])
def test_a_reading_process_says_the_same(image: Any) -> None:
    said = []
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^test\[1\] ") as caught:
            ImageData.from_datasets(GOOD, listed((IMAGE, 0), (image, 1)), workers=workers)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_labels_and_names_of_other_forms() -> None:
    odd = listed((IMAGE, np.array([1])), (IMAGE, torch.tensor(0)), (IMAGE, np.uint8(2)), (IMAGE, True))
    assert ImageData.from_datasets(odd, odd).train.labels.tolist() == [1, 0, 2, 1]
    synonyms = named([("tench", "Tinca tinca"), "crane"])
    assert ImageData.from_datasets(synonyms, Subset(synonyms, [1])).classes == ("tench, Tinca tinca", "crane")
    assert ImageData.from_datasets(GOOD, GOOD, classes=["x", "y", "z"]).classes == ("x", "y", "z")


def test_of_a_loader_the_dataset_is_used() -> None:
    images, labels = colours(30)
    dataset = TensorDataset(images, labels)
    loader = DataLoader(dataset, batch_size=7, shuffle=True, drop_last=True, num_workers=1)
    data, source = as_image_data({"train": loader, "test": DataLoader(dataset), "val": dataset})
    assert source is None and isinstance(data.train, DatasetSplit) and data.val is not None
    assert data.train.samples.dataset is dataset and data.train.workers == 1
    assert (len(data.train), len(data.val), len(data.test)) == (30, 30, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sampler": SubsetRandomSampler([0, 1])},
            "its sampler SubsetRandomSampler chooses the images: give the Datas",
        ),
        ({"sampler": WeightedRandomSampler([1.0] * 3, 3)}, "its sampler WeightedRandomSampler chooses"),
        ({"batch_sampler": type("Mine", (BatchSampler,), {})(SequentialSampler(GOOD), 2, False)}, "batch_sampler Mine"),
        ({"collate_fn": list}, "its collate_fn may change the images"),
        ({"batch_size": None}, "with batch_size=None its samples are whole batches"),
    ],
)
def test_a_loader_that_does_more_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^train is a DataLoader, of which only the Dataset is used, but .*{message}"):
        as_image_data((DataLoader(GOOD, **options), GOOD))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data must be the name of a data set, a DataConfig, ImageData, .*; got int"),
        (colours(9), r"got a tuple of Tensor, Tensor: arrays become a Dataset with TensorDataset\(images, labels\)"),
        ((GOOD, GOOD, GOOD), "got a tuple of Listed, Listed, Listed"),
        ({"trian": GOOD}, "unknown key of the data 'trian', did you mean 'train'"),
        ({"test": GOOD}, "the data has no key 'train', only 'test'"),
        ("digitz", "unknown data set 'digitz', did you mean 'digits'. .* package.module:make"),
        (Unnamed(), "train is an IterableDataset"),
    ],
)
def test_what_is_no_data(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_image_data(data)


def test_names_and_configurations_keep_their_identity() -> None:
    data, source = as_image_data("digits")
    assert source is not None and (source["name"], source["crop_padding"], source["flip"]) == ("digits", 1, False)
    again, same_source = as_image_data(DataConfig(crop_padding=1, flip=False))
    assert same_source == source and again.mean == data.mean
    assert as_image_data(data) == (data, None)
