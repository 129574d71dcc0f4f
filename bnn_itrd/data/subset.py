"""Which of the training images are trained on, held out, or have no label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.splits import UNLABELLED, ImageData
from bnn_itrd.errors import UserError

__all__ = ["choose", "few_of_each", "hide_labels", "hold_out"]


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
