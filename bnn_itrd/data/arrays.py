"""Functions that load data sets of small images as arrays: scikit-learn's digits, CIFAR-10, CIFAR-100, .npz files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.images import channel_statistics, scale_whole
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.subset import choose, numbered_classes
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError
from bnn_itrd.words import counted

__all__ = ["Arrays", "from_arrays", "load_cifar", "load_digits"]


@dataclass(frozen=True)
class Arrays:
    """A data set as NumPy arrays, before it is split and normalised.

    x_train, x_test: images, uint8 (n, h, w, c); y_train, y_test: labels from 0, int64 (n,); classes: their names.
    """

    x_train: np.ndarray[Any, Any]
    y_train: np.ndarray[Any, Any]
    x_test: np.ndarray[Any, Any]
    y_test: np.ndarray[Any, Any]
    classes: tuple[str, ...]


def from_arrays(config: DataConfig, arrays: Arrays) -> ImageData:
    """Returns the data set that is made from arrays, normalised with mean and std of the images that are trained on.

    config: image size, augmentation, and which training images are used or held out. Raises UserError as
    `subset.choose` does, if there are too few images for that.
    """
    x, y = scale_whole(arrays.x_train, config.image_size), arrays.y_train
    x_test = scale_whole(arrays.x_test, config.image_size)
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


def load_digits(config: DataConfig) -> ImageData:
    """Returns the data set of scikit-learn's 1,797 handwritten digits, 8x8 pixels with 17 grey levels.

    Every fifth image of each class is a test image.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for c in range(10):
        test[np.flatnonzero(labels == c)[::5]] = True
    arrays = Arrays(images[~test], labels[~test], images[test], labels[test], tuple("0123456789"))
    return from_arrays(config, arrays)


def _check_images(where: str, key: str, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    """Raises UserError unless the arrays are uint8 images and one whole number for each of them.

    where: the file, for the message. key: 'train' or 'test', which the arrays are named after, such as x_train.
    """
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


def _array(path: Path, key: str, found: object) -> np.ndarray[Any, Any]:
    """Returns `found`, an entry of an .npz file; raises UserError if it is no array but bytes, as of another file."""
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: {key} in it is not a NumPy array: write the file again with numpy.savez")
    return found


def _load_npz(path: Path) -> Arrays:
    """Reads the arrays of an .npz file, and checks their dtypes, shapes and labels.

    x_train, x_test: uint8 (n, h, w, c); y_train, y_test: whole numbers (n,); classes, if present: names (k,). Raises
    UserError if the file cannot be read, or an array is missing or unusable.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                if key not in file:
                    raise UserError(f"{path}: no array {key!r} in it, found {', '.join(file.files) or 'none'}")
                arrays[key] = _array(path, key, file[key])
            classes = [str(c) for c in _array(path, "classes", file["classes"])] if "classes" in file else None
    except (UserError, PermissionError):
        raise
    except Exception as error:  # zipfile, zlib, numpy and the system each raise types of their own
        raise UserError(f"{path} cannot be read as .npz (is it cut short?): {error}") from error
    for split in ("train", "test"):
        _check_images(str(path), split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise UserError(
            f"{path}: x_train has images of {arrays['x_train'].shape[1:]}, x_test of {arrays['x_test'].shape[1:]}: all "
            "must have the same height, width and channels"
        )
    if classes is None:
        present = {*arrays["y_train"].tolist(), *arrays["y_test"].tolist()}
        try:
            classes = list(numbered_classes(present, instead="name the classes in an array 'classes'"))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    for split in ("train", "test"):
        labels = arrays[f"y_{split}"]
        outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(outside):
            raise UserError(
                f"{path}: y_{split}[{outside[0]}] is {labels[outside[0]]}, but there are {len(classes)} classes "
                f"(0 to {len(classes) - 1}); {counted(len(outside), 'label is', 'labels are')} out of range"
            )
    return Arrays(
        arrays["x_train"],
        arrays["y_train"].astype(np.int64),
        arrays["x_test"],
        arrays["y_test"].astype(np.int64),
        tuple(classes),
    )


def load_cifar(config: DataConfig) -> ImageData:
    """Returns CIFAR-10 or CIFAR-100, read from an .npz file or from the folder that torchvision downloads.

    Raises UserError if the file or folder is missing or damaged, if the arrays have a wrong shape or dtype, or if a
    label is out of range.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[config.name]
    remedies = (
        f"give --data.root a file {config.name}.npz (x_train uint8 NHWC, y_train, x_test, y_test, classes) or the "
        f"folder that holds {kind.base_folder}, or let torchvision fetch it with --data.download true"
    )
    if config.root is None and not config.download:
        raise UserError(f"data set {config.name!r} needs its images: {remedies}")
    root = Path(config.root or "data")
    if root.suffix == ".npz":
        if not root.is_file():
            raise UserError(f"no file {root}: {remedies}")
        return from_arrays(config, _load_npz(root))
    if not root.is_dir() and not config.download:
        raise UserError(f"no folder {root}: {remedies}")
    try:
        train = kind(root, train=True, download=config.download)
        test = kind(root, train=False, download=config.download)
    except (RuntimeError, OSError, EOFError) as error:
        raise UserError(
            f"{root} does not hold a whole {config.name} in torchvision's layout ({error}): {remedies}"
        ) from error
    arrays = Arrays(
        train.data,
        np.asarray(train.targets, dtype=np.int64),
        test.data,
        np.asarray(test.targets, dtype=np.int64),
        tuple(train.classes),
    )
    return from_arrays(config, arrays)
