"""Validation: an exported file and its network are run on the same images, and their logits are compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.runtime.sessions import session
from bnn_itrd.export.tracing.network_copy import copy_for_export, logits_of

if TYPE_CHECKING:
    import onnxruntime
from bnn_itrd.export.runtime.predict import as_array, check_batches, predict_file

__all__ = ["Agreement", "Disagreement", "agreement", "predict_model", "validate"]


Images = np.ndarray | Tensor


class Disagreement(NamedTuple):
    """One image that the network and the file put in different classes.

    image: its index; margin: the network's largest logit minus the second largest.

    >>> agreement(np.array([[1.0, 0.5]]), np.array([[1.0, 2.0]])).disagreements
    (Disagreement(image=0, model_class=0, file_class=1, margin=0.5),)
    """

    image: int
    model_class: int
    file_class: int
    margin: float


@dataclass(frozen=True)
class Agreement:
    """The result of comparing a network with its file on `images` images.

    argmax_agreement: fraction of images with the same class; max_difference, median_difference: maximum and median of
    the absolute differences of all logits; top1_model, top1_file: fraction of images classified right, None without
    labels. A value within 1e-6 of a threshold may fall on either side of it, so single images may differ: judge by
    the fractions. An image for which one side gives a logit that is not finite counts as a disagreement, and as wrong
    for that side; the differences may then be nan or inf.

    >>> found = agreement(np.array([[1.0, 0.5]]), np.array([[1.0, 0.75]]))
    >>> found.argmax_agreement, found.max_difference, found.top1_file
    (1.0, 0.25, None)
    """

    images: int
    argmax_agreement: float
    max_difference: float
    median_difference: float
    disagreements: tuple[Disagreement, ...]
    top1_model: float | None = None
    top1_file: float | None = None


def _truth(labels: Sequence[int] | Images, images: int) -> np.ndarray:
    truth = as_array(labels if isinstance(labels, Tensor) else np.asarray(labels))
    if truth.shape != (images,):
        raise ValueError(f"labels must be {images} class numbers, got shape {truth.shape}")
    return truth


@torch.no_grad()
def predict_model(model: nn.Module, images: Images, *, batch_size: int = 256) -> np.ndarray:
    """Returns the logits (n, classes), float32, that a copy of the network gives in evaluation mode on the CPU.

    images: normalised, (n, c, h, w). Raises ValueError on no images, or batch_size < 1.

    >>> predict_model(network, images).shape
    (8, 2)
    """
    array = as_array(images)
    check_batches(array, batch_size)
    network = copy_for_export(model)
    parts = [
        logits_of(network(torch.from_numpy(np.ascontiguousarray(array[i : i + batch_size], np.float32)))).numpy()
        for i in range(0, len(array), batch_size)
    ]
    return np.concatenate(parts)


def agreement(theirs: np.ndarray, ours: np.ndarray, labels: Sequence[int] | Images | None = None) -> Agreement:
    """Compares the network's logits (theirs) with the file's (ours), each (n, k); labels: (n,) class numbers.

    Raises ValueError where the shapes differ or are not (n, k) with n, k >= 1, or where there are not n labels.

    >>> found = agreement(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.5], [3.0, 2.0]]), labels=[0, 1])
    >>> found.argmax_agreement, found.max_difference, found.top1_model, found.top1_file
    (0.5, 3.0, 1.0, 0.5)
    """
    if theirs.shape != ours.shape:
        raise ValueError(f"the network's logits have shape {theirs.shape}, the file's {ours.shape}")
    if theirs.ndim != 2 or not theirs.size:
        raise ValueError(f"logits must be (n, k) of at least one image and one class, got {theirs.shape}")
    truth = None if labels is None else _truth(labels, len(theirs))
    model_class, file_class = theirs.argmax(1), ours.argmax(1)
    model_finite, file_finite = np.isfinite(theirs).all(1), np.isfinite(ours).all(1)
    same = (model_class == file_class) & model_finite & file_finite
    with np.errstate(invalid="ignore"):
        difference = np.abs(ours - theirs)
        best = -np.sort(-theirs, axis=1)
        margins = best[:, 0] - best[:, 1] if theirs.shape[1] > 1 else np.full(len(theirs), np.inf)
        median = float(np.median(difference))
    return Agreement(
        images=len(ours),
        argmax_agreement=float(same.mean()),
        max_difference=float(difference.max()),
        median_difference=median,
        disagreements=tuple(
            Disagreement(int(i), int(model_class[i]), int(file_class[i]), float(margins[i]))
            for i in np.flatnonzero(~same)
        ),
        top1_model=None if truth is None else float(((model_class == truth) & model_finite).mean()),
        top1_file=None if truth is None else float(((file_class == truth) & file_finite).mean()),
    )


def validate(
    model: nn.Module,
    file: str | os.PathLike[str] | onnxruntime.InferenceSession,
    images: Images,
    *,
    raw_images: Images | None = None,
    labels: Sequence[int] | Images | None = None,
    batch_size: int = 256,
    threads: int = 1,
) -> Agreement:
    """Compares the network with its file (a path, or a session) on normalised images (n, c, h, w), float32.

    raw_images: the same images in the same order as uint8, for a file that normalises them itself. labels: (n,) class
    numbers. The network is copied and left as it was. Data too large for one array: call `predict_model` and
    `predict_file` on parts of it, then `agreement`.
    Raises ValueError where the numbers of images or labels differ, the images do not have the file's shape, the logits
    of file and network have different shapes, or `raw_images` is missing; and what `session` raises.

    >>> found = validate(network, "student.onnx", images)
    >>> found.images, found.argmax_agreement
    (8, 1.0)
    """
    opened = session(file, threads=threads) if isinstance(file, (str, Path, os.PathLike)) else file
    takes_raw = opened.get_inputs()[0].type == "tensor(uint8)"
    if takes_raw != (raw_images is not None):
        need = (
            "takes uint8 images: pass them as raw_images" if takes_raw else "takes float32 images: leave out raw_images"
        )
        raise ValueError(f"the file {need}")
    source = images if raw_images is None else raw_images
    if len(source) != len(images):
        raise ValueError(f"raw_images must be the same {len(images)} images, got {len(source)}")
    truth = None if labels is None else _truth(labels, len(images))
    ours = predict_file(opened, source, batch_size=batch_size)
    return agreement(predict_model(model, images, batch_size=batch_size), ours, truth)
