"""Functions that choose which training images are trained on, held out, or used without their labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.errors import UserError
from bnn_itrd.words import counted

__all__ = ["choose", "hide_labels", "hold_out_fifth", "numbered_classes"]

_TEST_SHARE = 0.2


def _hold_out(labels: np.ndarray[Any, Any], fraction: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns (indices to train on, held-out indices) of images with these labels, (n,).

    The share `fraction` of each class is held out. The choice does not depend on a run's seed. Raises UserError if no
    image is left to train on.
    """
    held = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng(0)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        held[rng.permutation(members)[: round(fraction * len(members))]] = True
    if held.all():
        raise UserError(f"data.val_fraction {fraction} leaves no image to train on: give a smaller share")
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_fifth(labels: np.ndarray[Any, Any], where: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns (indices to train on, indices to test on) for a data set without test images: a fifth of each class.

    labels: those of its images, (n,). where: the data set's name in messages. Raises UserError if a class has fewer
    than 3 images.

    >>> train, test = hold_out_fifth(np.array([0] * 5 + [1] * 5), "mine")
    >>> len(train), len(test)
    (8, 2)
    """
    train, test = _hold_out(labels, _TEST_SHARE)
    if len(np.unique(labels[test])) < len(np.unique(labels)):
        raise UserError(f"{where}: a fifth of the images is kept for testing; give every class at least 3 images")
    return train, test


def numbered_classes(present: Collection[int], *, instead: str) -> tuple[str, ...]:
    """Returns the numbers from 0 to the largest label as texts, for classes that have no names.

    present: the labels that occur. instead: what else the user can do, for the message. Raises UserError if a number
    from 0 to the largest is missing, before names are made, so that a huge label takes no memory.

    >>> numbered_classes({0, 1, 2}, instead="name them")
    ('0', '1', '2')
    """
    most = max(present)
    absent = next(number for number in range(len(present) + 1) if number not in present)
    if absent < most:
        raise UserError(
            f"no image has the label {absent}, but some have {most}: labels count from 0 without gaps, or {instead}"
        )
    return tuple(map(str, range(most + 1)))


def choose(
    config: DataConfig, labels: np.ndarray[Any, Any], classes: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns (indices to train on, held-out indices) for training images with these labels, (n,).

    First `val_fraction` of the images is held out. Then `per_class` images of each class are taken from the rest. With
    `unlabelled`, all of the rest is taken; `hide_labels` then hides the labels of the others. The choice depends on the
    configuration alone, so every network of a run gets the same images. The held-out images do not depend on
    `per_class`, and a smaller `per_class` chooses a part of the images of a larger one. Ahn et al. 2019 train on so few
    images per class.
    Raises UserError if a class has too few images, or `val_fraction` is less than one image.

    >>> keep, held = choose(DataConfig(val_fraction=0.5), np.array([0, 0, 1, 1]), ["a", "b"])
    >>> len(keep), len(held)
    (2, 2)
    """
    keep, held = _hold_out(labels, config.val_fraction)
    if config.val_fraction and not len(held):
        raise UserError(
            f"data.val_fraction {config.val_fraction} of the {counted(len(labels), 'training image')} holds out none: "
            "give a larger share"
        )
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
    return keep if config.unlabelled else keep[_few_of_each(config, labels[keep])], held


def _few_of_each(config: DataConfig, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the indices of `per_class` images of each class, in rising order.

    labels: those of the images that are not held out, (n,), to which the indices refer.
    """
    few = []
    for c in np.unique(labels):
        rng = np.random.default_rng([config.per_class_seed, int(c)])
        few.append(rng.permutation(np.flatnonzero(labels == c))[: config.per_class])
    return np.sort(np.concatenate(few))


def hide_labels(config: DataConfig, labels: Tensor) -> None:
    """Sets the labels of all but `per_class` images of each class to `UNLABELLED`, in place; labels: (n,).

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> hide_labels(DataConfig(per_class=1), labels)
    >>> (labels == UNLABELLED).sum().item()
    2
    """
    hidden = torch.ones(len(labels), dtype=torch.bool)
    hidden[torch.from_numpy(_few_of_each(config, labels.numpy()))] = False
    labels[hidden] = UNLABELLED
