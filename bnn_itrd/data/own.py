"""Functions that make a data set from a user's torch Datasets, which they read once to check images and labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from bnn_itrd.data.batches import read_batches
from bnn_itrd.data.dataset_split import DatasetSplit, SampleReader, Samples
from bnn_itrd.data.images import channel_sums, statistics
from bnn_itrd.data.subset import hold_out_fifth, numbered_classes
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError, require
from bnn_itrd.words import counted

__all__ = ["OwnData", "OwnOptions", "is_own", "read_own"]

_CHUNK_PIXELS = 2**22  # the pixels that are read at a time, as of 256 images of 128x128


@dataclass(frozen=True)
class OwnOptions:
    """The options of `ImageData.from_datasets`, whose docstring says what each of them means."""

    classes: Sequence[str] | int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    normalised: bool = False
    image_size: int | None = None
    resize: str = "scale"
    crop_padding: int = 0
    flip: bool = False
    in_memory: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        require(self.image_size is None or self.image_size >= 1, "image_size", ">= 1", self.image_size)
        require(self.resize in ("scale", "centre"), "resize", "'scale' or 'centre'", self.resize)
        require(self.crop_padding >= 0, "crop_padding", ">= 0", self.crop_padding)
        require(self.workers is None or self.workers >= 0, "workers", ">= 0", self.workers)
        counted = isinstance(self.classes, (int, list, tuple)) and not isinstance(self.classes, bool)
        require(self.classes is None or counted, "classes", "a list of names, or how many there are", self.classes)
        for name, values in (("mean", self.mean), ("std", self.std)):
            require(values is None or np.ndim(values) == 1, name, "a list of numbers, one for each channel", values)
        if (self.mean is None) != (self.std is None):
            raise UserError("mean and std belong together: give both, or neither")
        if self.normalised and self.mean is None:
            raise UserError("normalised=True needs mean= and std=, those that the images were normalised with")

    @property
    def normalised_with(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The (mean, std) with which the user's images are normalised already; None if they are not normalised."""
        if not self.normalised or self.mean is None or self.std is None:
            return None
        return tuple(map(float, self.mean)), tuple(map(float, self.std))

    def check_channels(self, channels: int) -> None:
        """Raises UserError if mean or std has not one number for each channel, or a number not on the 0..1 scale."""
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, 1e-6)):
            if values is None:
                continue
            fits = len(values) == channels and all(low <= float(v) <= 1 for v in values)
            rule = f"{channels} numbers on the 0..1 scale, one for each channel of the images"
            require(fits, name, rule, list(values))


@dataclass(frozen=True)
class OwnData:
    """The result of `read_own`: the fields of `ImageData`, as described there, without its name and `resize`."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    train: DatasetSplit | TensorSplit
    val: DatasetSplit | TensorSplit | None
    test: DatasetSplit | TensorSplit


@dataclass(frozen=True)
class _Scanned:
    """What is known of a user's Dataset after reading it once.

    samples, workers: the Dataset and the number of processes that read it. labels: (n,). sums: (n, 2, c), of the pixel
    values and their squares (see `channel_sums`). images: uint8 (n, c, h, w) if they are kept in memory, else None.
    """

    samples: Samples
    workers: int
    labels: Tensor
    sums: np.ndarray[Any, Any]
    images: Tensor | None


def is_own(given: object) -> bool:
    """Returns whether an object could be a Dataset or DataLoader of (image, label); `read_own` may still refuse it."""
    if isinstance(given, (str, bytes, dict, Tensor, np.ndarray)):
        return False
    return isinstance(given, (DataLoader, IterableDataset)) or hasattr(given, "__getitem__")


def read_own(train: Any, test: Any, val: Any, options: OwnOptions) -> OwnData:
    """Returns the splits of a user's Datasets or DataLoaders, with classes, mean and std; every image is read once.

    test, val: may be None. Without `test`, a fifth of each class's training images is taken for it. Raises UserError
    as `ImageData.from_datasets` does; the message names the Dataset and the index.
    """
    given = {"train": train} | {name: one for name, one in (("test", test), ("val", val)) if one is not None}
    sets = {name: _dataset(name, one, options) for name, one in given.items()}
    channels, height, width = SampleReader(sets["train"][0], [0])[0][0].shape
    options.check_channels(channels)
    scans = {
        name: _scan(replace(samples, shape=(channels, height, width)), workers, keep=options.in_memory)
        for name, (samples, workers) in sets.items()
    }
    classes = _classes(scans, options)
    places = {name: torch.arange(len(scan.labels)) for name, scan in scans.items()}
    if test is None:
        scans["test"] = scans["train"]
        places["train"], places["test"] = _fifth(scans["train"].labels)
    mean, std = _statistics(scans["train"], places["train"], options)
    splits = {name: _split(scan, places[name], mean, std, options) for name, scan in scans.items()}
    return OwnData(
        classes=classes,
        mean=mean,
        std=std,
        input_shape=(channels, height, width),
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
    )


def _dataset(name: str, given: Any, options: OwnOptions) -> tuple[Samples, int]:
    """Returns the Dataset of a Dataset or DataLoader, and the number of processes to read it; or raises UserError."""
    workers = options.workers
    dataset = given
    if isinstance(given, DataLoader):
        _check_loader(name, given)
        dataset = given.dataset
        workers = given.num_workers if workers is None else workers
    if isinstance(dataset, IterableDataset):
        raise UserError(
            f"{name} is an IterableDataset, which cannot be shuffled: give a Dataset with __len__ and __getitem__"
        )
    if not is_own(dataset) or not hasattr(dataset, "__len__"):
        raise UserError(
            f"{name} must be a torch Dataset or DataLoader of (image, label), with __len__ and __getitem__, got "
            f"{type(dataset).__name__}" + (": wrap it, TensorDataset(images, labels)" if _is_array(dataset) else "")
        )
    if len(dataset) == 0:
        raise UserError(f"{name} holds no image")
    samples = Samples(name, dataset, None, options.image_size, options.resize, options.normalised_with)
    return samples, workers or 0


def _is_array(given: object) -> bool:
    return isinstance(given, (Tensor, np.ndarray))


def _check_loader(name: str, loader: DataLoader[Any]) -> None:
    """Raises UserError if a DataLoader does more than batch and shuffle, because only its Dataset is used."""
    if isinstance(loader.dataset, IterableDataset):
        return  # `_dataset` refuses it
    loader_use = f"{name} is a DataLoader, of which only the Dataset is used"
    batches, sampler = loader.batch_sampler, loader.sampler
    if batches is None:
        raise UserError(
            f"{loader_use}, but with batch_size=None its samples are whole batches: give a Dataset of (image, label)"
        )
    if type(batches) is not BatchSampler:
        raise UserError(
            f"{loader_use}, but its batch_sampler {type(batches).__name__} chooses the images: give the Dataset"
        )
    whole = type(sampler) in (SequentialSampler, DistributedSampler)
    if type(sampler) is RandomSampler:
        whole = not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    if not whole:
        raise UserError(
            f"{loader_use}, but its sampler {type(sampler).__name__} chooses the images: give the Dataset, or a "
            "torch.utils.data.Subset of it"
        )
    if loader.collate_fn is not default_collate:
        raise UserError(
            f"{loader_use}, but its collate_fn may change the images: change them in the Dataset, and give that"
        )


def _scan(samples: Samples, workers: int, *, keep: bool) -> _Scanned:
    """Reads a Dataset once and returns its labels and sums; keep: the images too, which are then held in memory."""
    assert samples.shape is not None
    n, (channels, height, width) = len(samples), samples.shape
    labels = torch.zeros(n, dtype=torch.int64)
    sums = np.zeros((n, 2, channels))
    images = torch.zeros(n, channels, height, width, dtype=torch.uint8) if keep else None
    chunk = min(256, max(1, _CHUNK_PIXELS // (height * width)))
    reader = SampleReader(samples, range(n))
    for pixels, truth, index in read_batches(
        reader, range(n), batch_size=chunk, workers=workers, device=torch.device("cpu")
    ):
        labels[index] = truth
        sums[index.numpy()] = channel_sums(rearrange(pixels, "n c h w -> n h w c").numpy())
        if images is not None:
            images[index] = pixels
    return _Scanned(samples, workers, labels, sums, images)


def _classes(scans: dict[str, _Scanned], options: OwnOptions) -> tuple[str, ...]:
    """Returns the class names: the options', else the Datasets', else the labels as texts; or raises UserError."""
    given = options.classes
    if given is not None:
        names = tuple(map(str, range(given) if isinstance(given, int) else given))
    else:
        named = {name: found for name, scan in scans.items() if (found := _named(scan.samples.dataset)) is not None}
        for name, found in named.items():
            if found != (first := next(iter(named.values()))):
                raise UserError(
                    f"{name} has the classes {_few(found)}, but {next(iter(named))} has {_few(first)}: give classes="
                )
        names = next(iter(named.values()), ()) or _numbers(scans)
    for name, scan in scans.items():
        outside = ((scan.labels < 0) | (scan.labels >= len(names))).nonzero().flatten().tolist()
        if outside:
            value = int(scan.labels[outside[0]])
            odd = counted(len(outside), f"label of {name} is", f"labels of {name} are")
            raise UserError(
                f"{name}[{outside[0]}] has the label {value}, but there are {len(names)} classes (0 to "
                f"{len(names) - 1}); {odd} out of range"
            )
    if len(names) < 2:
        raise UserError(f"there must be at least two classes, got {list(names)}")
    return names


def _named(dataset: Any) -> tuple[str, ...] | None:
    """Returns the class names in the attribute `classes` of a Dataset, or of that inside a Subset; None without it."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    found = getattr(dataset, "classes", None)
    if not isinstance(found, (list, tuple)) or not found:
        return None
    # torchvision's ImageNet has a tuple of synonyms for each class.
    return tuple(", ".join(map(str, one)) if isinstance(one, (list, tuple)) else str(one) for one in found)


def _numbers(scans: dict[str, _Scanned]) -> tuple[str, ...]:

    present = set(torch.cat([scan.labels for scan in scans.values()]).tolist())
    return numbered_classes(present, instead="give classes= (names, or how many)")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{list(names[:8])}{more}"


def _fifth(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Keeps a fifth of each class for testing, and says so; returns (indices to train on, indices to test on)."""
    train, test = hold_out_fifth(labels.numpy(), "train")
    kept = f"{len(test)} of the {len(labels)} training images, a fifth of each class, are kept for testing"
    print(f"note: no test images are given: {kept}", file=sys.stderr)
    return torch.from_numpy(train), torch.from_numpy(test)


def _statistics(scan: _Scanned, places: Tensor, options: OwnOptions) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, std), per channel: those of the options, or else of the images with the indices `places`."""
    if options.mean is not None and options.std is not None:
        return tuple(map(float, options.mean)), tuple(map(float, options.std))
    assert scan.samples.shape is not None
    _, height, width = scan.samples.shape
    mean, std = statistics(scan.sums[places.numpy()].sum(0), len(places) * height * width)
    return tuple(mean.tolist()), tuple(std.tolist())


def _split(
    scan: _Scanned, places: Tensor, mean: Sequence[float], std: Sequence[float], options: OwnOptions
) -> DatasetSplit | TensorSplit:
    labels, normalisation = scan.labels[places], (torch.tensor(mean), torch.tensor(std))
    augment: dict[str, Any] = {"crop_padding": options.crop_padding, "flip": options.flip}
    if scan.images is not None:
        return TensorSplit(scan.images[places], labels, *normalisation, **augment)
    return DatasetSplit(scan.samples, places, labels, *normalisation, workers=scan.workers, **augment)
