"""Data sets by their names."""

from __future__ import annotations

from collections.abc import Callable

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.archives import load_published
from bnn_itrd.data.arrays import load_cifar, load_digits
from bnn_itrd.data.folders import load_folder
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.stl10 import load_stl10
from bnn_itrd.data.subset import hide_labels
from bnn_itrd.errors import unknown

__all__ = ["DATASETS", "load_data"]

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
    """Loads the data set of a configuration.

    Raises UserError: unknown name, missing or damaged files, bad labels.

    >>> data = load_data(DataConfig(name="digits", val_fraction=0.1))
    >>> len(data.classes), data.input_shape
    (10, (1, 8, 8))
    """
    if config.name not in DATASETS:
        raise unknown("data set", config.name, DATASETS)
    data = DATASETS[config.name](config)
    if config.unlabelled:
        hide_labels(config, data.train.labels)
    return data
