"""A user's own Datasets: which images are taken, what is refused and how, that an epoch repeats, options by address."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import bnn_itrd
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.arrays import Arrays, from_arrays
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.dataset_split import DatasetSplit
from bnn_itrd.data.datasets import as_image_data, load_data
from bnn_itrd.data.images import to_pixels
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError
from bnn_itrd.models import resnet8
from bnn_itrd.runs.recorded import validation_data

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
GREY = RGB[..., :1]


class Listed(Dataset):  # type: ignore[type-arg]
    """A Dataset of a list of samples, with a transform of its images."""

    def __init__(self, samples: list[Any], transform: Callable[[Any], Any] = lambda image: image) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        return (self.transform(sample[0]), *sample[1:]) if isinstance(sample, tuple) else sample


def colours(n: int, first: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 (n, 3, size, size) whose label is their brightest channel, and the labels."""
    generator = torch.Generator().manual_seed(first)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    images[torch.arange(n), labels] += 120
    return images, labels


def pair(n: int = 48, **options: Any) -> ImageData:
    return ImageData.from_datasets(TensorDataset(*colours(n)), TensorDataset(*colours(12, 1)), **options)


def epoch(split: Split, *, seed: int = 1, number: int = 2, size: int = 16, rank: int = 0, world: int = 1) -> Any:
    return list(split.train_batches(size, seed=seed, epoch=number, device=CPU, rank=rank, world=world))


def same(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


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
        (Image.fromarray(np.zeros((4, 4), np.float32)), "Pillow's mode F, not of 8 or 16 bits"),
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


# ---- an epoch, and several processes


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_read_item_by_item_equals_what_is_in_memory(workers: int) -> None:
    read = pair(crop_padding=2, flip=True, workers=workers)
    held = pair(crop_padding=2, flip=True, in_memory=True)
    assert isinstance(read.train, DatasetSplit) and isinstance(held.train, TensorSplit)
    assert read.mean == held.mean and read.std == held.std
    for number in (0, 1):
        assert same(epoch(read.train, number=number), epoch(held.train, number=number))
    assert same(list(read.test.eval_batches(5, device=CPU)), list(held.test.eval_batches(5, device=CPU)))
    # and that is what a set by name does with the same images
    (x, y), (x_test, y_test) = ((i.permute(0, 2, 3, 1).numpy(), t.numpy()) for i, t in (colours(48), colours(12, 1)))
    named = from_arrays(DataConfig(crop_padding=2), Arrays(x, y, x_test, y_test, ("0", "1", "2")))
    assert same(epoch(read.train), epoch(named.train)) and named.mean == read.mean
    for i in range(12):
        assert np.array_equal(read.test.raw(i), x_test[i]) and np.array_equal(held.test.raw(i), x_test[i])


def test_two_processes_see_what_one_does() -> None:
    data = pair(crop_padding=1, flip=True)
    whole, halves = epoch(data.train), [epoch(data.train, rank=rank, world=2) for rank in (0, 1)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert len(first[2]) == 8
        for a, b, c in zip(one, first, second, strict=True):
            assert torch.equal(a, torch.stack([b, c], 1).flatten(0, 1))


def drawing(image: torch.Tensor) -> torch.Tensor:
    """A random transform that draws from all three generators, and from one of its own as the guide says."""
    own = np.random.default_rng(torch.initial_seed())
    shift = float(torch.rand(())) + np.random.rand() + random.random() + own.random()
    return (image.float() / 255 * shift / 4).clamp(0, 1)


def drawn(workers: int = 0, **options: Any) -> ImageData:
    images, labels = colours(48)
    samples = list(zip(images, labels.tolist(), strict=True))
    return ImageData.from_datasets(Listed(samples, drawing), Listed(samples[:12]), workers=workers, **options)


def test_random_transforms_are_a_function_of_seed_epoch_and_index() -> None:
    data, workers = drawn(), drawn(workers=2)
    assert data.mean == workers.mean
    first = epoch(data.train)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    sample = data.train.raw(5)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert same(first, epoch(data.train)) and same(first, epoch(workers.train))
    assert np.array_equal(sample, data.train.raw(5))

    def by_index(batches: Any) -> dict[int, torch.Tensor]:
        return {int(i): image for images, _, index in batches for image, i in zip(images, index, strict=True)}

    other, third = by_index(epoch(data.train, number=3)), by_index(epoch(data.train, seed=2))
    for i, image in by_index(first).items():
        assert not torch.equal(image, other[i]) and not torch.equal(image, third[i])
    # kept in memory they run once
    held = drawn(in_memory=True)
    for i, image in by_index(epoch(held.train, number=3)).items():
        assert torch.equal(image, by_index(epoch(held.train))[i])


def test_a_resumed_run_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnn_itrd.training.trainer import Trainer

    def train(out: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        student = resnet8(3, in_channels=3, input_shape=(3, 8, 8), binary="recu")
        bnn_itrd.distill(
            student,
            None,
            drawn(crop_padding=1),
            train=TrainConfig(epochs=3, batch_size=16, lr=0.05),
            out=tmp_path / out,
            fabric=FabricConfig(accelerator="cpu", threads=1),
            log=LogConfig(progress=False, tensorboard=False),
        )
        return student.state_dict()

    whole = train("whole")
    once = Trainer.train_epoch

    def killed(self: Trainer, *args: Any) -> Any:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return once(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train("part")
    resumed = train("part")
    assert resumed.keys() == whole.keys() and all(torch.equal(v, resumed[k]) for k, v in whole.items())


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
        (GOOD, Unnamed(), {}, "test is an IterableDataset, which has no order to shuffle"),
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


# ---- by its address


MODULE = """
import torch
from torch.utils.data import TensorDataset
from bnn_itrd.config.data import DataConfig
from bnn_itrd.data import ImageData

def sets(size=8):
    labels = torch.arange(60) % 3
    images = torch.randint(0, 120, (60, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[torch.arange(60), labels] += 120
    return TensorDataset(images, labels), TensorDataset(images[:12], labels[:12])

def pair(): return sets()
def sized(image_size): return sets(image_size)
def built():
    half = (0.5, 0.5, 0.5)
    return ImageData.from_datasets(*sets(), val=sets()[1], in_memory=True, name="mine", mean=half, std=half)
def few(per_class, crop_padding, flip):
    train, test = sets()
    return ImageData.from_datasets(torch.utils.data.Subset(train, range(3 * per_class)), test)
def rooted(config): return sets(int(config.root))
def elsewhere(root): return DataConfig(name="digits", crop_padding=0)
NUMBER = 3
def needs(folder): return sets()
def fails(): raise OSError("no disk")
READY = {"train": sets()[0], "test": sets()[1]}

class Odd:
    def __init__(self, split): self.labels, self.mean, self.std = split.labels, split.mean, split.std
    def __len__(self): return len(self.labels)
def odd():
    import dataclasses
    data = built()
    return dataclasses.replace(data, train=Odd(data.train))
def odd_taken(crop_padding, flip): return odd()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageData]:
    import sys

    (tmp_path / "my_own_sets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_own_sets", raising=False)
    return lambda name, **options: load_data(DataConfig(name=f"my_own_sets:{name}", **options))


def test_an_address_is_a_name_like_any_other(own: Callable[..., ImageData]) -> None:
    data = own("pair")
    assert data.name == "my_own_sets:pair" and (len(data.train), len(data.test)) == (60, 12)
    assert isinstance(data.train, DatasetSplit)
    assert (data.train.crop_padding, data.train.flip, data.train.workers) == (4, True, 2)
    plain = own("pair", crop_padding=0, flip=False, workers=0)
    images, _, index = epoch(plain.train)[0]
    seen = next(plain.train.eval_batches(60, device=CPU))[0]
    assert torch.equal(images, seen[index])
    assert len(own("READY").train) == 60 and own("sized", image_size=12).input_shape == (3, 12, 12)
    assert own("pair", image_size=12).input_shape == (3, 12, 12)
    assert own("rooted", root="6").input_shape == (3, 6, 6)
    digits = own("elsewhere", root="x", crop_padding=1)
    assert digits.name == "my_own_sets:elsewhere" and isinstance(digits.train, TensorSplit)
    assert digits.train.crop_padding == 1
    assert as_image_data("my_own_sets:pair")[1] == {**vars(DataConfig()), "name": "my_own_sets:pair"}


def test_fields_that_it_does_not_take_are_done_for_it(own: Callable[..., ImageData]) -> None:
    data = own("pair", val_fraction=0.25, per_class=4)
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (12, 15, 12)
    assert torch.bincount(data.train.labels).tolist() == [4, 4, 4]
    assert isinstance(data.train, DatasetSplit) and isinstance(data.val, DatasetSplit)
    assert not set(data.train.indices.tolist()) & set(data.val.indices.tolist())
    for images, labels, index in data.train.eval_batches(12, device=CPU):
        assert torch.equal(images.mean((2, 3)).argmax(1), labels) and index.tolist() == list(range(12))
    mixed = own("pair", per_class=4, unlabelled=True)
    assert len(mixed.train) == 60 and int((mixed.train.labels == UNLABELLED).sum()) == 48
    assert all(torch.equal(labels, mixed.train.labels[index]) for _, labels, index in epoch(mixed.train))
    built = own("built", per_class=5)
    assert isinstance(built.train, TensorSplit) and len(built.train) == 15
    assert built.val is not None and len(built.val) == 12 and built.mean == (0.5,) * 3
    # what it takes it does itself
    few = own("few", per_class=7, crop_padding=3)
    assert isinstance(few.train, DatasetSplit) and (len(few.train), few.train.crop_padding) == (21, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pair", {"root": "x"}, r"my_own_sets:pair takes no data\.root: name it in its signature"),
        ("pair", {"download": True}, r"takes no data\.download"),
        ("built", {"image_size": 12}, r"gives images of 8 x 8 pixels, whatever data\.image_size \(12\) is"),
        ("built", {"val_fraction": 0.5}, r"holds images out itself: leave out data\.val_fraction"),
        ("pair", {"per_class": 21}, r"data\.per_class must be at most 20"),
        (
            "odd",
            {"crop_padding": 2},
            r"gives a training split of its own, Odd: it must take data\.crop_padding and data\.flip",
        ),
        ("odd_taken", {"per_class": 2}, r"Odd, of which data\.val_fraction and data\.per_class cannot take a part"),
        ("nothing", {}, "has no 'nothing'"),
        ("NUMBER", {}, "data must be the name of a data set, a DataConfig, ImageData, a torch Dataset.*; got int"),
        ("needs", {}, "needs the argument 'folder'"),
        ("fails", {}, "failed to make a data set: OSError: no disk"),
    ],
)
def test_fields_that_cannot_be_done(
    own: Callable[..., ImageData], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        own(name, **options)


def test_a_run_that_names_code_is_refused(own: Callable[..., ImageData]) -> None:
    name = "my_own_sets:pair"
    saved = {"data": {"name": name, "workers": 0}}
    refused = re.escape(f"data.name names the code '{name}', which would be run")
    for known, config, trust in (({}, saved, False), ({"dataset": name}, {}, False), ({}, saved, {"other:make"})):
        with pytest.raises(UserError, match=refused):
            validation_data(known, config, {}, trust=trust)
    given: list[tuple[dict[str, Any], Any]] = [({}, True), ({}, {name}), ({"name": name}, False)]
    for fields, trust in given:
        assert validation_data({}, saved, fields, trust=trust).name == name
    seen = validation_data({"mean": [0.5] * 3, "std": [0.25] * 3}, saved, {"name": name})
    assert seen.mean == (0.5,) * 3 and seen.test.std.tolist() == [0.25] * 3
    with pytest.raises(UserError, match="trained on a data set of your own, 'own', which cannot be loaded by its na"):
        validation_data({}, {"data": {"name": "own"}}, {})
