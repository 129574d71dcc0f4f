"""The choice of the training images: those that are trained on, held out, or used without their labels."""

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
    """Returns the indices to train on and those held out, the same share of each class, the same for every seed.

    labels: (n,). Raises UserError if no image is left to train on.
    """
    held = np.zeros(len(labels), dtype=bool)
    rng = np.random.default_rng(0)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        held[rng.permutation(members)[: round(fraction * len(members))]] = True
    if held.all():
        raise UserError(f"data.val_fraction {fraction} leaves no image to train on")
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_fifth(labels: np.ndarray[Any, Any], where: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the indices to train on and those of a fifth of each class to test on, for data without test images.

    labels: (n,); where: the data's name in messages. Raises UserError on a class of fewer than 3 images.
    """
    train, test = _hold_out(labels, _TEST_SHARE)
    if len(np.unique(labels[test])) < len(np.unique(labels)):
        raise UserError(f"{where}: a fifth of the images is kept for testing; give every class at least 3 images")
    return train, test


def numbered_classes(present: Collection[int], *, instead: str) -> tuple[str, ...]:
    """Returns the names of classes without names: "0" to the largest label.

    present: the labels that occur. instead: what else the user can do, for the message. Raises UserError if a number
    from 0 to the largest is missing; then no list of names is made, so a huge label takes no memory.

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
    """Returns the indices to train on and those held out, for labels (n,).

    First `val_fraction` is held out, then `per_class` images of each class are taken from the rest; with `unlabelled`
    all of the rest is taken, and `hide_labels` hides the other labels. The choice depends on the configuration alone,
    so every network of a run gets the same images. The held-out images do not depend on `per_class`, and a smaller
    `per_class` chooses a part of a larger one's images (Ahn et al. 2019 train on few images per class).
    Raises UserError if a class has fewer images, or `val_fraction` is less than one image.
    """
    keep, held = _hold_out(labels, config.val_fraction)
    if config.val_fraction and not len(held):
        raise UserError(
            f"data.val_fraction {config.val_fraction} of the {counted(len(labels), 'training image')} holds out none"
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
    """Returns the places of `per_class` images of each class, in order; labels: (n,), of the images not held out."""
    few = []
    for c in np.unique(labels):
        rng = np.random.default_rng([config.per_class_seed, int(c)])
        few.append(rng.permutation(np.flatnonzero(labels == c))[: config.per_class])
    return np.sort(np.concatenate(few))


def hide_labels(config: DataConfig, labels: Tensor) -> None:
    """Sets all but `per_class` labels of each class to `UNLABELLED`, in place; labels: (n,)."""
    hidden = torch.ones(len(labels), dtype=torch.bool)
    hidden[torch.from_numpy(_few_of_each(config, labels.numpy()))] = False
    labels[hidden] = UNLABELLED
