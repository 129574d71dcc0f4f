"""Functions that choose defaults for a run on a user's folder of photos: the image size, and the number of epochs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.files.folders import list_folder
from bnn_itrd.data.files.photo_sizes import fitting_size
from bnn_itrd.models import MODELS
from bnn_itrd.words import counted
from bnn_itrd.yaml_files import read_yaml

__all__ = ["fit_to_photos"]

# How many photos a training on a CPU sees, over all epochs; it then takes minutes on two cores.
_SEEN = {"teacher_train": 8_000, "train": 12_000}
_LEAST_EPOCHS = 10


def fit_to_photos(
    config: RunConfig, out: Path, *, given: Collection[str], budget: bool, on_cpu: bool, say: Callable[[str], None]
) -> RunConfig:
    """Returns the configuration of a run on a folder of images, with an image size and epochs that suit the images.

    The image size is chosen by `fitting_size` if the network is one of this package, because those are made for small
    images. With `budget`, and on a CPU, the epochs are chosen so that a student's training sees about 12,000 photos and
    a teacher's 8,000; they are at least 10 and at most the recipe's. A run that is continued keeps what was chosen when
    it began.

    out: the run's folder. given: names of the fields that the user gave, which are not changed. say: a function that is
    called with a line of text about each choice and how to make another. Raises UserError if the data set's folder does
    not hold one folder of images for each class.
    """
    root = config.data.root
    if config.data.name != "folder" or root is None or not Path(root).is_dir():
        return config
    if (recorded := _recorded(out)) is not None:
        return _as_recorded(config, recorded, given, budget=budget)
    training, sizes = _look_at(config)
    fits = fitting_size(sizes)
    free = config.data.image_size is None and "data.image_size" not in given
    if free and fits is not None and config.network.name in MODELS:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, image_size=fits[0]))
        say(
            f"image size: {fits[0]}, the largest multiple of 8 up to 64 that nine tenths of the photos have on their "
            f"shorter side ({fits[1]}); --data.image_size sets another, a larger one takes longer"
        )
    if budget and on_cpu and training:
        config = _shortened(config, training, given, say)
    return config


def _look_at(config: RunConfig) -> tuple[int, list[tuple[int, int]]]:
    """Returns (number of training photos, sizes): the (width, height) of up to two thousand of the photos.

    Raises UserError if the data set's folder does not hold one folder of images for each class.
    """
    from PIL import Image

    paths, sizes = list_folder(config.data, quiet=True).paths, list[tuple[int, int]]()
    for path in paths[:: max(1, len(paths) // 1000)]:
        # A file that cannot be read raises an error later, when all files are read.
        with contextlib.suppress(Exception), Image.open(path) as image:
            sizes.append(image.size)
    return len(paths), sizes


def _shortened(config: RunConfig, training: int, given: Collection[str], say: Callable[[str], None]) -> RunConfig:
    """Returns the configuration with fewer epochs if there are many photos, unless the user gave the epochs.

    training: the number of training photos. say: a function that is called with a line of text about the choice.
    """
    changed: dict[str, Any] = {}
    for field, seen in _SEEN.items():
        train = getattr(config, field)
        if f"{field}.epochs" not in given and field not in given:
            epochs = min(train.epochs, max(_LEAST_EPOCHS, -(-seen // training)))
            changed[field] = dataclasses.replace(train, epochs=epochs)
    if changed:
        told = ", ".join(f"{field}.epochs {train.epochs}" for field, train in changed.items())
        longer = " ".join(
            f"--{field}.epochs {_longer(getattr(config, field), train)}" for field, train in changed.items()
        )
        say(f"length: {told}, for {counted(training, 'training photo')} on a CPU; to train longer: {longer}")
    return dataclasses.replace(config, **changed)


def _longer(recipe: TrainConfig, chosen: TrainConfig) -> int:
    """Returns epochs for a longer training, to be suggested to the user: the recipe's, or twice as many as those."""
    return recipe.epochs if recipe.epochs > chosen.epochs else 2 * recipe.epochs


def _recorded(out: Path) -> dict[str, Any] | None:
    """Returns the saved configuration of the run in `out` if its data is a folder of images; else None."""
    path = out / "config.yaml"
    tree = read_yaml(path) if path.is_file() else None
    return tree if isinstance(tree, dict) and _of(tree, "data", "name") == "folder" else None


def _of(tree: dict[str, Any], group: str, field: str) -> Any:
    """Returns the value of a group's field in a saved configuration; None if it is missing."""
    fields = tree.get(group)
    return fields.get(field) if isinstance(fields, dict) else None


def _as_recorded(config: RunConfig, tree: dict[str, Any], given: Collection[str], *, budget: bool) -> RunConfig:
    """Returns the configuration with the image size and epochs of the run's saved configuration, `tree`.

    So a run that is continued keeps what was chosen when it began. given, budget: see `fit_to_photos`.
    """
    changed: dict[str, Any] = {}
    size = _of(tree, "data", "image_size")
    if config.data.image_size is None and type(size) is int:
        changed["data"] = dataclasses.replace(config.data, image_size=size)
    for field in _SEEN if budget else ():
        epochs = _of(tree, field, "epochs")
        if f"{field}.epochs" not in given and field not in given and type(epochs) is int:
            changed[field] = dataclasses.replace(getattr(config, field), epochs=epochs)
    return dataclasses.replace(config, **changed)
