"""Functions that make a data set from its name, from the address of the user's own code, or from a user's objects."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from bnn_itrd.config.addresses import call_named, import_address, is_address
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.arrays import load_cifar, load_digits
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.dataset_split import DatasetSplit
from bnn_itrd.data.files.archives import load_published
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.files.folders import load_folder
from bnn_itrd.data.own import is_own
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.data.stl10 import load_stl10
from bnn_itrd.data.subset import choose, hide_labels
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.words import counted

__all__ = ["DATASETS", "as_image_data", "load_data"]

DATASETS: dict[str, Callable[[DataConfig], ImageData]] = {
    "digits": load_digits,
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "stl10": load_stl10,
    "tiny-imagenet": load_published,
    "imagenet": load_published,
    "mit67": load_published,
    "cub200": load_published,
    "folder": load_folder,
}


def load_data(config: DataConfig) -> ImageData:
    """Returns the data set of a configuration, with its splits.

    If its name is an address, ``package.module:make``, the user's code is imported and makes the data set. Raises
    UserError if the name is unknown, files are missing or damaged, labels are out of range, or an option does not
    apply to the user's data set.

    >>> data = load_data(DataConfig(name="digits", val_fraction=0.1))
    >>> len(data.classes), data.input_shape
    (10, (1, 8, 8))
    """
    if is_address(config.name):
        return _load_own(config)
    if config.name not in DATASETS:
        raise unknown("data set", config.name, [*DATASETS, "package.module:make"])
    data = DATASETS[config.name](config)
    if config.unlabelled:
        hide_labels(config, data.train.labels)
    return data


def as_image_data(data: Any) -> tuple[ImageData, dict[str, Any] | None]:
    """Returns (data set, its configuration as a dict) for what a user passed as data to a function of the package.

    data: a name or an address, a `DataConfig`, `ImageData`, a torch Dataset or DataLoader, a pair of these (train,
    test), or a mapping of them with the keys train, test and val. The configuration is None unless data is a name, an
    address or a `DataConfig`. Raises UserError as `load_data` and `ImageData.from_datasets` do, and if data has another
    type.

    >>> as_image_data("digits")[1]["name"]
    'digits'
    """
    if isinstance(data, str):
        data = DataConfig(name=data, crop_padding=1, flip=False) if data == "digits" else DataConfig(name=data)
    if isinstance(data, DataConfig):
        return load_data(data), to_dict(data)
    return _of_object(data, image_size=None, workers=None), None


_EXPECTED = (
    "the name of a data set, a DataConfig, ImageData, a torch Dataset or DataLoader of (image, label), a pair of these "
    "(train, test), or a mapping of them with the keys train, test and val"
)


def _of_object(data: Any, *, image_size: int | None, workers: int | None) -> ImageData:
    """Returns `data` if it is ImageData, or else makes ImageData from a Dataset, a pair or a mapping of Datasets.

    image_size, workers: see `ImageData.from_datasets`. Raises UserError if `data` is something else.
    """
    if isinstance(data, ImageData):
        _check_labels(data)
        return data
    if isinstance(data, Mapping):
        keys = ("train", "test", "val")
        for key in data:
            if key not in keys:
                raise unknown("key of the data", str(key), keys)
        if "train" not in data:
            raise UserError(f"the data has no key 'train', only {', '.join(map(repr, data)) or 'none'}")
        parts = dict(data)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and all(map(is_own, data)):
        parts = {"train": data[0], "test": data[1]}
    elif is_own(data) and not isinstance(data, tuple):
        parts = {"train": data}
    else:
        got = f"a tuple of {', '.join(type(d).__name__ for d in data)}" if isinstance(data, tuple) else ""
        hint = ": arrays become a Dataset with TensorDataset(images, labels)" if "Tensor" in got or "arr" in got else ""
        raise UserError(f"data must be {_EXPECTED}; got {got or type(data).__name__}{hint}")
    train, test, val = (parts.get(key) for key in ("train", "test", "val"))
    return ImageData.from_datasets(train, test, val=val, image_size=image_size, workers=workers)


def _check_labels(data: ImageData) -> None:
    """Raises UserError if the labels of a split are no whole numbers, or one is not the number of a class."""
    classes = len(data.classes)
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        labels = None if split is None else split.labels
        if not isinstance(labels, torch.Tensor):
            continue
        if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
            raise UserError(
                f"{data.name}: the labels of {name} must be a whole number for each image, got "
                f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
            )
        odd = ((labels < 0) & (labels != UNLABELLED)) | (labels >= classes)
        if odd.any():
            index = int(odd.nonzero()[0])
            odd_ones = counted(int(odd.sum()), f"label of {name} is", f"labels of {name} are")
            raise UserError(
                f"{data.name}: image {index} of {name} has the label {int(labels[index])}, but there are {classes} "
                f"classes (0 to {classes - 1}); {odd_ones} out of range: correct the labels, or the list of classes"
            )


# ---- a data set that is made by a user's own function or object, which is named by its address

_DEFAULTS = DataConfig()
# The fields that choose the training images. A user's function that takes one of them must apply all three.
_FEW = {"per_class", "per_class_seed", "unlabelled"}


def _load_own(config: DataConfig) -> ImageData:
    """Returns the data set that the user's function at the address ``config.name`` makes.

    The function gets the fields that its signature names. The other fields are applied to its result here, or refused
    with a UserError if that is not possible.
    """
    made, taken = _make(config)
    if taken & _FEW:
        taken |= _FEW
    for name in ("root", "download"):
        if name not in taken and getattr(config, name) != getattr(_DEFAULTS, name):
            raise UserError(
                f"data.{name} has no effect, because {config.name} has no parameter {name}: add one, or leave "
                "the option out"
            )
    size = None if "image_size" in taken else config.image_size
    workers = None if "workers" in taken else config.workers
    if isinstance(made, (str, DataConfig)):
        data = as_image_data(made)[0]
    else:
        data = _of_object(made, image_size=size, workers=workers)
    if size is not None and data.input_shape[1:] != (size, size):
        raise UserError(
            f"{config.name} gives images of {data.input_shape[1]} x {data.input_shape[2]} pixels, whatever "
            f"data.image_size ({size}) is: use a parameter image_size in it, or leave the option out"
        )
    keeps = isinstance(made, ImageData)
    data = replace(data, name=config.name, train=_augmented(data.train, config, taken, keeps=keeps))
    # The user's function has applied the fields that it takes, so they are not applied a second time.
    rest = replace(config, **{name: getattr(_DEFAULTS, name) for name in taken - {"name"}})
    return _chosen(data, rest) if rest.val_fraction or rest.per_class is not None else data


def _make(config: DataConfig) -> tuple[Any, set[str]]:
    """Returns (what the user's address gives, the names of the fields that it takes).

    It gives the object at the address or, if that is callable, the result of calling it. Raises UserError if the import
    or the call fails.
    """
    what = f"data.name: {config.name}"
    make = import_address(config.name, what="data.name")
    if not callable(make):
        return make, set()
    offered = {field.name: getattr(config, field.name) for field in fields(config)}
    try:
        made = call_named(make, {**offered, "config": config}, what=what)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} failed to make a data set: {type(error).__name__}: {error}") from error
    parameters = inspect.signature(make).parameters.values()
    whole = any(p.name == "config" or p.kind is p.VAR_KEYWORD for p in parameters)
    return made, set(offered) if whole else set(offered) & {p.name for p in parameters}


def _augmented(split: Split, config: DataConfig, taken: set[str], *, keeps: bool) -> Split:
    """Returns a copy of the training split with the configuration's `crop_padding` and `flip`.

    taken: the fields that the user's code takes, which are not changed here. keeps: whether the split keeps its own
    values where the configuration has the defaults. Raises UserError if the split has a class of the user's own.
    """
    wanted = {name: getattr(config, name) for name in ("crop_padding", "flip") if name not in taken}
    if keeps:
        wanted = {name: value for name, value in wanted.items() if value != getattr(_DEFAULTS, name)}
    if isinstance(split, FolderSplit):
        wanted.pop("crop_padding", None)  # images that are read from disk get a random resized crop instead
    elif wanted and not isinstance(split, (TensorSplit, DatasetSplit)):
        raise UserError(
            f"{config.name} gives a training split of its own, {type(split).__name__}, which data.crop_padding and "
            "data.flip cannot change: give it the parameters crop_padding and flip, and apply them there"
        )
    changed = copy.copy(split)
    for name, value in wanted.items():
        setattr(changed, name, value)
    return changed


def _chosen(data: ImageData, config: DataConfig) -> ImageData:
    """Returns the data set with only the training images that the configuration chooses; its normalisation stays.

    `val_fraction` of the images is held out, `per_class` of each class are kept, and with `unlabelled` the others are
    kept without labels. Raises UserError if the data set has held-out images already, or its training split has a class
    of the user's own.
    """
    split = data.train
    if not isinstance(split, (TensorSplit, DatasetSplit)):
        raise UserError(
            f"{data.name} gives a training split of the class {type(split).__name__}, of which data.val_fraction and "
            "data.per_class cannot take a part: give it the parameters val_fraction and per_class, and apply them there"
        )
    if config.val_fraction and data.val is not None:
        raise UserError(
            f"{data.name} holds images out itself: leave out data.val_fraction, or give it a parameter val_fraction"
        )
    keep, held = (torch.from_numpy(places) for places in choose(config, split.labels.numpy(), data.classes))
    train = split.take(keep)
    if config.unlabelled:
        hide_labels(config, train.labels)
    return replace(data, train=train, val=split.take(held) if len(held) else data.val)
