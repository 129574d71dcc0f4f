"""Data sets by their names."""

from __future__ import annotations

from collections.abc import Callable

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.arrays import Arrays, cifar, digits, from_arrays
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.subset import hide_labels
from bnn_itrd.errors import unknown

__all__ = ["DATASETS", "load_data"]


def _folder(config: DataConfig) -> ImageData:
    from bnn_itrd.data.folders import load_folder

    return load_folder(config)


def _stl10(config: DataConfig) -> Arrays:
    from bnn_itrd.data.stl10 import load_stl10

    return Arrays(*load_stl10(config))


def _published(config: DataConfig) -> ImageData:
    from bnn_itrd.data.archives import load_published

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
