"""Images by name: the embedded digits, CIFAR-10/100 and STL-10 from a local copy, folders, a user's own or published.

Small images live as one uint8 tensor on the training device (`TensorSplit`); large ones are read as they are needed
(`bnn_itrd.folder.FolderSplit`). Both yield batches of (images float32 normalised, labels, sample indices).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from bnn_itrd.augment import crop_and_flip, draw, normalise
from bnn_itrd.config import DataConfig
from bnn_itrd.errors import UserError, unknown

__all__ = [
    "DATASETS",
    "UNLABELLED",
    "Batch",
    "ImageData",
    "Split",
    "TensorSplit",
    "channel_statistics",
    "choose",
    "load_data",
    "mix_seed",
    "resized",
    "shuffled",
]

Batch = tuple[Tensor, Tensor, Tensor]

# The label of a training image that has none.
UNLABELLED = -1


def mix_seed(*parts: int) -> int:
    """One seed of several numbers (seed, epoch, ...), so that every epoch can be made again by itself."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def shuffled(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of n, (n,) int64, a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 0))
    return torch.randperm(n, generator=generator)


class Split(Protocol):
    """A set of images that can be walked through; labels: int64 (n,), `UNLABELLED` for those that have none."""

    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int: ...

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Shuffled, augmented, full batches only; `batch_size` over all processes, of which this is one."""
        ...

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        """In order, as they are, the last one short."""
        ...

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        """The image as uint8 (h, w, c), as evaluation sees it before normalisation."""
        ...


class TensorSplit:
    """Small images as one uint8 tensor (n, c, h, w), moved to the device once and augmented there in batches.

    The global batch is drawn alike in every process, each of which takes its share: so N processes see what one does.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, *, crop_padding: int, flip: bool
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = mean, std
        self.crop_padding, self.flip = crop_padding, flip

    def __len__(self) -> int:
        return len(self.labels)

    def _to(self, device: torch.device) -> None:
        if self.images.device != device:
            self.images, self.labels = self.images.to(device), self.labels.to(device)
            self.mean, self.std = self.mean.to(device), self.std.to(device)

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        self._to(device)
        n = len(self)
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 1))
        # All of an epoch's random numbers cross to the device at once: no copy, and no wait, inside the epoch.
        order = shuffled(n, seed=seed, epoch=epoch).to(device)
        choices = draw(n, padding=self.crop_padding, flip=self.flip, generator=generator).to(device)
        for start in range(rank, n // batch_size * batch_size, batch_size):
            take = slice(start, start - rank + batch_size, world)
            index = order[take]
            images = self.images[index]
            if self.crop_padding or self.flip:
                images = crop_and_flip(images, choices[take], padding=self.crop_padding)
            yield normalise(images, self.mean, self.std), self.labels[index], index

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        self._to(device)
        for start in range(0, len(self), batch_size):
            index = torch.arange(start, min(start + batch_size, len(self)), device=device)
            yield normalise(self.images[index], self.mean, self.std), self.labels[index], index

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        return rearrange(self.images[index], "c h w -> h w c").cpu().numpy()


@dataclass(frozen=True)
class ImageData:
    """A data set: splits, class names, and the normalisation (mean, std per channel on the 0..1 scale)."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    train: Split
    val: Split | None
    test: Split
    resize: str = "scale"  # how an image of another size is brought to input_shape: scale it whole, or crop its centre

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """The same images under a network's own statistics instead of theirs. Splits are changed in place."""
        for split in (self.train, self.val, self.test):
            if split is not None:
                split.mean, split.std = torch.tensor(mean), torch.tensor(std)
        return replace(self, mean=tuple(mean), std=tuple(std))


@dataclass(frozen=True)
class Arrays:
    x_train: np.ndarray[Any, Any]
    y_train: np.ndarray[Any, Any]
    x_test: np.ndarray[Any, Any]
    y_test: np.ndarray[Any, Any]
    classes: tuple[str, ...]


def digits(config: DataConfig) -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8x8, 16 grey levels; every fifth of each class is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for c in range(10):
        test[np.flatnonzero(labels == c)[::5]] = True
    return Arrays(images[~test], labels[~test], images[test], labels[test], tuple("0123456789"))


def check_images(where: str, key: str, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise UserError(
            f"{where}: x_{key} must be uint8 images (n, height, width, 1 or 3), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if labels.ndim != 1 or len(labels) != len(images) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: y_{key} must be {len(images)} whole numbers, one for each image of x_{key}, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    if len(images) == 0:
        raise UserError(f"{where}: x_{key} holds no image")


def load_npz(path: Path) -> Arrays:
    """x_train, x_test uint8 (n, h, w, c); y_train, y_test (n,); classes (k,), optional."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                if key not in file:
                    raise UserError(f"{path}: no array {key!r} in it, found {', '.join(file.files) or 'none'}")
                arrays[key] = file[key]
            classes = [str(c) for c in file["classes"]] if "classes" in file else None
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, numpy and the system each have their own
        raise UserError(f"{path} cannot be read as .npz (is it cut short?): {error}") from error
    for split in ("train", "test"):
        check_images(str(path), split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise UserError(
            f"{path}: x_train has images of {arrays['x_train'].shape[1:]}, x_test of {arrays['x_test'].shape[1:]}"
        )
    if classes is None:
        classes = [str(c) for c in range(int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1)]
    for split in ("train", "test"):
        labels = arrays[f"y_{split}"]
        outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(outside):
            raise UserError(
                f"{path}: y_{split}[{outside[0]}] is {labels[outside[0]]}, but there are {len(classes)} classes "
                f"(0 to {len(classes) - 1}); {len(outside)} labels are out of range"
            )
    return Arrays(
        arrays["x_train"],
        arrays["y_train"].astype(np.int64),
        arrays["x_test"],
        arrays["y_test"].astype(np.int64),
        tuple(classes),
    )


def cifar(config: DataConfig) -> Arrays:
    """CIFAR-10 or CIFAR-100 from an .npz or from torchvision's layout."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[config.name]
    ways = (
        f"give --data.root a file {config.name}.npz (x_train uint8 NHWC, y_train, x_test, y_test, classes) or the "
        f"folder that holds {kind.base_folder}, or let torchvision fetch it with --data.download true"
    )
    if config.root is None and not config.download:
        raise UserError(f"data set {config.name!r} needs its images: {ways}")
    root = Path(config.root or "data")
    if root.suffix == ".npz":
        if not root.is_file():
            raise UserError(f"no file {root}: {ways}")
        return load_npz(root)
    if not root.is_dir() and not config.download:
        raise UserError(f"no folder {root}: {ways}")
    try:
        train = kind(root, train=True, download=config.download)
        test = kind(root, train=False, download=config.download)
    except (RuntimeError, OSError, EOFError) as error:
        raise UserError(
            f"{root} does not hold a whole {config.name} in torchvision's layout ({error}): {ways}"
        ) from error
    return Arrays(
        train.data,
        np.asarray(train.targets, dtype=np.int64),
        test.data,
        np.asarray(test.targets, dtype=np.int64),
        tuple(train.classes),
    )


def channel_statistics(images: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, (c,) float32 on the 0..1 scale, of uint8 images (n, h, w, c)."""
    channels = images.shape[3]
    total, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(images), 2048):  # in chunks: float64 copies of all would be eight times the images
        chunk = images[start : start + 2048].reshape(-1, channels).astype(np.float64)
        total += chunk.sum(0)
        squares += np.square(chunk).sum(0)
    count = images.size // channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    as_tensor = [torch.tensor(v / 255, dtype=torch.float32) for v in (mean, np.maximum(std, 0.255))]
    return as_tensor[0], as_tensor[1]


def resized(images: np.ndarray[Any, Any], size: int | None) -> np.ndarray[Any, Any]:
    """uint8 (n, h, w, c) -> (n, size, size, c), bilinear; as they are where size is None."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    pixels = rearrange(torch.from_numpy(images), "n h w c -> n c h w").float()
    scaled = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return rearrange(scaled.round().clamp(0, 255).byte(), "n c h w -> n h w c").numpy()


def from_arrays(config: DataConfig, arrays: Arrays) -> ImageData:
    x, y = resized(arrays.x_train, config.image_size), arrays.y_train
    x_test = resized(arrays.x_test, config.image_size)
    keep, held = choose(config, y, arrays.classes)
    mean_t, std_t = channel_statistics(x[keep])

    def split(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> TensorSplit:
        tensor = rearrange(torch.from_numpy(images), "n h w c -> n c h w").contiguous()
        return TensorSplit(
            tensor,
            torch.from_numpy(labels),
            mean_t,
            std_t,
            crop_padding=config.crop_padding,
            flip=config.flip,
        )

    height, width, channels = x.shape[1:]
    return ImageData(
        name=config.name,
        classes=arrays.classes,
        mean=tuple(float(v) for v in mean_t),
        std=tuple(float(v) for v in std_t),
        input_shape=(channels, height, width),
        train=split(x[keep], y[keep]),
        val=split(x[held], y[held]) if len(held) else None,
        test=split(x_test, arrays.y_test),
    )


def hold_out(labels: np.ndarray[Any, Any], fraction: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Indices to train on and indices held out, the same share of each class, the same for every training seed."""
    held = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng(0)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        held[rng.permutation(members)[: round(fraction * len(members))]] = True
    if held.all():
        raise UserError(f"data.val_fraction {fraction} leaves no image to train on")
    return np.flatnonzero(~held), np.flatnonzero(held)


def choose(
    config: DataConfig, labels: np.ndarray[Any, Any], classes: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Indices to train on, of labels (n,), and indices held out: these first, then `per_class` of each class's rest,
    or all of the rest where the others are to be seen without labels (`load_data` then hides those).

    A function of the configuration alone, so every member of a run sees the same images; those held out do not depend
    on `per_class`, and the images of a smaller `per_class` are among those of a larger one (Ahn et al. 2019 train on
    so few). Raises UserError where a class has fewer, or a share to hold out is not a single image.
    """
    keep, held = hold_out(labels, config.val_fraction)
    if config.val_fraction and not len(held):
        raise UserError(f"data.val_fraction {config.val_fraction} of the {len(labels)} training images holds out none")
    if config.per_class is None:
        return keep, held
    counts = np.bincount(labels[keep], minlength=len(classes))
    fewest = int(counts.argmin())
    if counts[fewest] < config.per_class:
        rest = f" (data.val_fraction {config.val_fraction} is held out)" if len(held) else ""
        raise UserError(
            f"data.per_class must be at most {counts[fewest]}, the training images of class {classes[fewest]!r}{rest}, "
            f"got {config.per_class}"
        )
    return keep if config.unlabelled else keep[few_of_each(config, labels[keep])], held


def few_of_each(config: DataConfig, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The places of `per_class` images of each class, in order, of the labels (n,) of those not held out."""
    few = []
    for c in np.unique(labels):
        rng = np.random.default_rng([config.per_class_seed, int(c)])
        few.append(rng.permutation(np.flatnonzero(labels == c))[: config.per_class])
    return np.sort(np.concatenate(few))


def hide_labels(config: DataConfig, data: ImageData) -> ImageData:
    """The data with labels on `per_class` training images of each class alone. Its split is changed in place."""
    labels = data.train.labels
    hidden = torch.ones(len(labels), dtype=torch.bool)
    hidden[torch.from_numpy(few_of_each(config, labels.numpy()))] = False
    labels[hidden] = UNLABELLED
    return data


def _folder(config: DataConfig) -> ImageData:
    from bnn_itrd.folder import load_folder

    return load_folder(config)


def _stl10(config: DataConfig) -> Arrays:
    from bnn_itrd.stl10 import load_stl10

    return Arrays(*load_stl10(config))


def _published(config: DataConfig) -> ImageData:
    from bnn_itrd.layouts import load_published

    return load_published(config)


DATASETS: dict[str, Callable[[DataConfig], Arrays | ImageData]] = {
    "digits": digits,
    "cifar10": cifar,
    "cifar100": cifar,
    "stl10": _stl10,
    "tiny-imagenet": _published,
    "imagenet": _published,
    "mit67": _published,
    "cub200": _published,
    "folder": _folder,
}


def load_data(config: DataConfig) -> ImageData:
    """The data set of a configuration. Raises UserError: unknown name, missing or damaged files, bad labels."""
    if config.name not in DATASETS:
        raise unknown("data set", config.name, DATASETS)
    loaded = DATASETS[config.name](config)
    data = loaded if isinstance(loaded, ImageData) else from_arrays(config, loaded)
    return hide_labels(config, data) if config.unlabelled else data
