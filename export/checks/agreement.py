"""`validate` runs a network and its exported file on the same images and compares their logits."""

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
    """An image for which the network and the exported file give different classes.

    image: its index in the compared images; model_class, file_class: the class that each gives; margin: the network's
    largest logit minus its second largest, which is near 0 if rounding alone explains the difference.

    >>> agreement(np.array([[1.0, 0.5]]), np.array([[1.0, 2.0]])).disagreements
    (Disagreement(image=0, model_class=0, file_class=1, margin=0.5),)
    """

    image: int
    model_class: int
    file_class: int
    margin: float


@dataclass(frozen=True)
class Agreement:
    """The result of comparing a network with its exported file; `validate` and `agreement` return it.

    images: their number; argmax_agreement: fraction of images with the same class; max_difference, median_difference:
    maximum and median of the absolute differences of all logits; disagreements: the images with different classes;
    top1_model, top1_file: fraction of images classified right, None without labels.
    Single images may differ, because rounding can move a value that is very near to 0 to its other sign: judge by the
    fractions. If the network or the file gives an image a logit that is not finite, the image counts as a disagreement
    and as wrong for that side, and the differences may be nan or inf.

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
    """Returns the labels as an array (images,). Raises ValueError if they have another shape."""
    truth = as_array(labels if isinstance(labels, Tensor) else np.asarray(labels))
    if truth.shape != (images,):
        raise ValueError(f"labels must be {images} class numbers, one per image, got an array of shape {truth.shape}")
    return truth


@torch.no_grad()
def predict_model(model: nn.Module, images: Images, *, batch_size: int = 256) -> np.ndarray:
    """Returns the network's logits (n, classes), float32, computed in evaluation mode on the CPU, batch by batch.

    images: normalised, (n, c, h, w). The network is copied and not changed. Raises ValueError if there are no images
    or batch_size is below 1.

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
    """Returns how far an exported file's logits agree with the network's, for results that are already computed.

    theirs: the network's logits, (n, classes); ours: the file's, of the same shape; labels: the images' right classes,
    (n,). Raises ValueError if the shapes differ, an axis is empty, or there are not n labels.

    >>> found = agreement(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.5], [3.0, 2.0]]), labels=[0, 1])
    >>> found.argmax_agreement, found.max_difference, found.top1_model, found.top1_file
    (0.5, 3.0, 1.0, 0.5)
    """
    if theirs.shape != ours.shape:
        raise ValueError(
            f"the network's logits have shape {theirs.shape}, the file's {ours.shape}: was it made from this network?"
        )
    if theirs.ndim != 2 or not theirs.size:
        raise ValueError(
            f"logits must have the shape (images, classes) with at least one of each, got the shape {theirs.shape}"
        )
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
    """Runs a network and its ONNX file on the same images and returns how far their logits agree.

    file: its path, or a session from `session`; images: normalised, (n, c, h, w), float32; raw_images: the same images
    as uint8, needed if the file normalises its images itself; labels: the right classes, (n,). The network is copied
    and not changed. For data that does not fit in memory, call `predict_model` and `predict_file` on parts of it, then
    `agreement` on the joined logits.
    Raises ValueError if the numbers of images or labels differ, the images do not have the file's shape, the file and
    the network have different numbers of classes, or `raw_images` is missing or not wanted; and what `session` raises.

    >>> found = validate(network, "student.onnx", images)
    >>> found.images, found.argmax_agreement
    (8, 1.0)
    """
    opened = session(file, threads=threads) if isinstance(file, (str, Path, os.PathLike)) else file
    takes_raw = opened.get_inputs()[0].type == "tensor(uint8)"
    if takes_raw != (raw_images is not None):
        need = (
            "normalises uint8 images itself: pass them as raw_images too"
            if takes_raw
            else "takes normalised float32 images: leave out raw_images"
        )
        raise ValueError(f"the file {need}")
    source = images if raw_images is None else raw_images
    if len(source) != len(images):
        raise ValueError(f"raw_images must be the same {len(images)} images as images, got {len(source)}")
    truth = None if labels is None else _truth(labels, len(images))
    ours = predict_file(opened, source, batch_size=batch_size)
    return agreement(predict_model(model, images, batch_size=batch_size), ours, truth)
