"""Functions that run a network and its exported file on the same test images and compare their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.data.splits import ImageData, ImageFacts
from bnn_itrd.errors import UserError
from bnn_itrd.export import predict_model

if TYPE_CHECKING:
    from bnn_itrd.deploy.targets import OpenFile
    from bnn_itrd.export.fpga import Outlier

__all__ = ["Compared", "check_fits", "compare_split", "run_split"]

# The number of pixels that are run at a time: those of 1,000 images of 32x32, or of 20 of 224x224.
_CHUNK_PIXELS = 1_024_000


@dataclass(frozen=True)
class Compared:
    """The outputs of a network and of its exported file on the same n images with k classes.

    theirs: the network's logits, (n, k). ours: the file's logits, (n, k). labels: (n,). outliers: the images whose
    logits differ, largest difference first, each with the first layer in which a sign or an integer differs. It is None
    if the file's runtime does not give the values inside the network.
    """

    theirs: np.ndarray[Any, Any]
    ours: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    outliers: tuple[Outlier, ...] | None


def check_fits(what: Path, known: dict[str, Any], data: ImageData | ImageFacts) -> None:
    """Raises UserError if a file or checkpoint is for other classes or another image shape than the data set has.

    what: the file or checkpoint, for the message. known: the file's metadata or the checkpoint's configuration, in
    which `input_shape` and `classes` are compared if present.

    >>> from bnn_itrd.config import DataConfig
    >>> from bnn_itrd.data import load_data
    >>> check_fits(Path("student.onnx"), {"input_shape": [1, 8, 8]}, load_data(DataConfig()))
    """
    for key, have in (("input_shape", list(data.input_shape)), ("classes", list(data.classes))):
        want = known.get(key)
        if want is not None and list(want) != have:
            raise UserError(f"{what} was made for {key} {want}, but data set {data.name} has {have}: give its own data")


def _chunks(data: ImageData, limit: int | None) -> Iterator[tuple[Tensor, Tensor, range]]:
    """Yields the normalised test images in chunks that fit in memory: (images, labels, indices).

    limit: the largest number of images in all; None: all test images.
    """
    _, height, width = data.input_shape
    size = max(1, _CHUNK_PIXELS // (height * width))
    start = 0
    for images, labels, _ in data.test.eval_batches(size, device=torch.device("cpu")):
        keep = len(labels) if limit is None else min(len(labels), limit - start)
        if keep <= 0:
            return
        yield images[:keep], labels[:keep], range(start, start + keep)
        start += keep


def run_split(
    model: nn.Module | None,
    opened: OpenFile | None,
    data: ImageData,
    *,
    limit: int | None = None,
) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None, np.ndarray[Any, Any]]:
    """Returns (the network's logits, the file's logits, labels) for the test images: (n, k), (n, k), (n,).

    It computes on the CPU in float32. model, opened: the network and the file; if one is None, so are its logits.
    A file that takes uint8 images gets them before normalisation. limit: use only so many images; all by default.
    """
    raw = opened is not None and opened.takes_raw
    theirs, ours, truth = [], [], []
    for images, labels, index in _chunks(data, limit):
        truth.append(labels.numpy())
        if model is not None:
            theirs.append(predict_model(model, images))
        if opened is not None:
            source = np.stack([data.test.raw(i).transpose(2, 0, 1) for i in index]) if raw else images
            ours.append(opened.logits(source, classes=len(data.classes)))
    return (
        np.concatenate(theirs) if theirs else None,
        np.concatenate(ours) if ours else None,
        np.concatenate(truth),
    )


def compare_split(model: nn.Module, opened: OpenFile, data: ImageData, *, limit: int | None = None) -> Compared:
    """Runs a network and its exported file on the test images and returns the outputs of both.

    If the file's runtime gives the values inside the network, these are compared too, and the result lists the images
    whose logits differ. limit: use only so many images; all by default. Raises UserError if there are no test images.
    """
    if opened.values is None:
        theirs, ours, truth = run_split(model, opened, data, limit=limit)
        if theirs is None or ours is None:
            raise UserError(f"data set {data.name} has no test images")
        return Compared(theirs, ours, truth, None)
    from bnn_itrd.export.fpga import compare_values

    parts: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
    outliers: list[Outlier] = []
    for images, labels, index in _chunks(data, limit):
        values = opened.values(images)
        logits = predict_model(model, images)
        found = compare_values(model, values, logits, images, batch_size=256).outliers
        outliers += [outlier._replace(image=outlier.image + index.start) for outlier in found]
        parts.append((logits, values.logits, labels.numpy()))
    if not parts:
        raise UserError(f"data set {data.name} has no test images")
    theirs, ours, truth = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Compared(theirs, ours, truth, tuple(sorted(outliers, key=lambda outlier: -outlier.difference)))
