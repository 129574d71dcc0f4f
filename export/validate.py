"""Validation: does a file give what the network gives? Images in, numbers out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.copies import copy_for_export, first_output
from bnn_itrd.export.session import session

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Agreement", "Disagreement", "predict_file", "validate"]

Images = np.ndarray | Tensor


class Disagreement(NamedTuple):
    """Index of an image put in different classes; margin: the network's best logit minus the second."""

    image: int
    model_class: int
    file_class: int
    margin: float


@dataclass(frozen=True)
class Agreement:
    """The network against its file on `images` images.

    argmax_agreement: fraction of images with the same class; max_difference, median_difference: of the
    absolute differences of all logits; top1_model, top1_file: fraction right, where labels were given. A
    value within 1e-6 of a threshold may fall on either side, so single images may differ: judge by fractions.
    """

    images: int
    argmax_agreement: float
    max_difference: float
    median_difference: float
    disagreements: tuple[Disagreement, ...]
    top1_model: float | None = None
    top1_file: float | None = None


def _array(images: Images) -> np.ndarray:
    return images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)


def predict_file(opened: onnxruntime.InferenceSession, images: Images, *, batch_size: int = 256) -> np.ndarray:
    """Logits (n, classes), float32, of images (n, c, h, w) in the file's own input type: float32, or uint8.

    Raises ValueError on another type, on no images, or batch_size < 1.
    """
    source = opened.get_inputs()[0]
    expected = np.dtype(np.uint8 if source.type == "tensor(uint8)" else np.float32)
    array = _array(images)
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if not len(array):
        raise ValueError("images must hold at least one image, got none")
    if array.dtype != expected:
        raise ValueError(f"images must be {expected} for this file, got {array.dtype}")
    output = opened.get_outputs()[0].name
    parts = [
        opened.run([output], {source.name: np.ascontiguousarray(array[i : i + batch_size])})[0]
        for i in range(0, len(array), batch_size)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def predict_model(model: nn.Module, images: Images, *, batch_size: int = 256) -> np.ndarray:
    """Logits (n, classes) of a copy of the network in evaluation mode, CPU, float32."""
    twin = copy_for_export(model)
    array = _array(images)
    parts = [
        first_output(twin(torch.from_numpy(np.ascontiguousarray(array[i : i + batch_size], np.float32)))).numpy()
        for i in range(0, len(array), batch_size)
    ]
    return np.concatenate(parts)


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
    """Compares the network with its file (a path, or a session) on preprocessed images (n, c, h, w), float32.

    A file with the normalisation baked in takes uint8 images: those, the same images in the same order, are
    `raw_images`. labels: (n,) class numbers. The network is copied and left as it was.
    Raises ValueError where numbers of images or labels differ or `raw_images` is missing; else as `session`.
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
    truth = None if labels is None else _array(labels if isinstance(labels, Tensor) else np.asarray(labels))
    if truth is not None and truth.shape != (len(images),):
        raise ValueError(f"labels must be {len(images)} class numbers, got shape {truth.shape}")

    ours = predict_file(opened, source, batch_size=batch_size)
    theirs = predict_model(model, images, batch_size=batch_size)
    difference = np.abs(ours - theirs)
    file_class, model_class = ours.argmax(1), theirs.argmax(1)
    best = -np.sort(-theirs, axis=1)
    margins = best[:, 0] - best[:, 1] if theirs.shape[1] > 1 else np.full(len(theirs), np.inf)
    return Agreement(
        images=len(ours),
        argmax_agreement=float((file_class == model_class).mean()),
        max_difference=float(difference.max()),
        median_difference=float(np.median(difference)),
        disagreements=tuple(
            Disagreement(int(i), int(model_class[i]), int(file_class[i]), float(margins[i]))
            for i in np.flatnonzero(file_class != model_class)
        ),
        top1_model=None if truth is None else float((model_class == truth).mean()),
        top1_file=None if truth is None else float((file_class == truth).mean()),
    )
