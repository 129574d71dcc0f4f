"""The choice among the training images: which are trained on, which are held out, which lose their label."""

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
    """Returns the indices to train on and those held out: of each class the same share, the same for every seed.

    labels: (n,). Raises UserError where nothing is left to train on.
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
    """Returns the indices to train on and a fifth of each class to test on, for a set without test images.

    labels: (n,); where: what messages call it. Raises UserError on a class of fewer than 3 images.
    """
    train, test = _hold_out(labels, _TEST_SHARE)
    if len(np.unique(labels[test])) < len(np.unique(labels)):
        raise UserError(f"{where}: a fifth of the images is kept for testing; give every class at least 3 images")
    return train, test


def numbered_classes(present: Collection[int], *, instead: str) -> tuple[str, ...]:
    """Returns the names of classes that have none, "0" to the largest of the labels that there are.

    instead: what messages tell to do where the numbers mean something else. Raises UserError on a gap among them, or
    where they do not count from 0; a label may be any whole number, and what is made here does not grow with it.

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
    """Returns the indices to train on, of labels (n,), and those held out.

    First `val_fraction` is held out, then `per_class` of each class's rest are taken; all of the rest are where the
    others are to be seen without labels (`hide_labels` then hides those). The choice is a function of the configuration
    alone, so every member of a run sees the same images; those held out do not depend on `per_class`, and the images of
    a smaller `per_class` are among those of a larger one (Ahn et al. 2019 train on so few).
    Raises UserError where a class has fewer, or a share to hold out is not a single image.
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
    """Returns the places of `per_class` images of each class, in order, in the labels (n,) of those not held out."""
    few = []
    for c in np.unique(labels):
        rng = np.random.default_rng([config.per_class_seed, int(c)])
        few.append(rng.permutation(np.flatnonzero(labels == c))[: config.per_class])
    return np.sort(np.concatenate(few))


def hide_labels(config: DataConfig, labels: Tensor) -> None:
    """Leaves `per_class` labels of each class alone and sets the others, in place, to `UNLABELLED`; labels: (n,)."""
    hidden = torch.ones(len(labels), dtype=torch.bool)
    hidden[torch.from_numpy(_few_of_each(config, labels.numpy()))] = False
    labels[hidden] = UNLABELLED
