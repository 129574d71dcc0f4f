"""A comparison of a network and its exported file on the same images."""

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

# The number of pixels in a chunk: 1,000 images of 32x32, 20 of 224x224.
_CHUNK_PIXELS = 1_024_000


@dataclass(frozen=True)
class Compared:
    """The outputs of a network and its file on the same images.

    theirs, ours: logits (n, k) of the network and of the file; labels: (n,); outliers: the images whose logits differ,
    largest difference first, each with the first layer in which a sign or an integer differs; None if the file's
    runtime does not give the values of layers.
    """

    theirs: np.ndarray[Any, Any]
    ours: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    outliers: tuple[Outlier, ...] | None


def check_fits(what: Path, known: dict[str, Any], data: ImageData | ImageFacts) -> None:
    """Raises UserError if a file's metadata, or a checkpoint's identity, has other classes or another image shape."""
    for key, have in (("input_shape", list(data.input_shape)), ("classes", list(data.classes))):
        want = known.get(key)
        if want is not None and list(want) != have:
            raise UserError(f"{what} was made for {key} {want}, but data set {data.name} has {have}: give its own data")


def _chunks(data: ImageData, limit: int | None) -> Iterator[tuple[Tensor, Tensor, range]]:
    """Yields the preprocessed test images in chunks that fit in memory: (images, labels, indices)."""
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
    """Returns logits of the network and of the file on the test images, and labels: (n, k), (n, k), (n,).

    It computes on the CPU in float32, a chunk at a time; a file that takes uint8 images gets uint8. The logits of a
    network or file that is None are None. limit: use only that many images.
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
    """Runs a network and its file on the test images; see `Compared`.

    A file whose runtime gives the values of its layers runs once for logits and values.
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
