"""A network and its exported file on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.data import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.export import predict_model

if TYPE_CHECKING:
    from bnn_itrd.targets import OpenFile

__all__ = ["check_fits", "run_split"]

# Pixels of one chunk: 1,000 images of 32x32, 20 of 224x224.
_CHUNK_PIXELS = 1_024_000


def check_fits(what: Path, known: dict[str, Any], data: ImageData) -> None:
    """Raises UserError where a file's metadata or a checkpoint's identity speaks of other images or classes."""
    for key, have in (("input_shape", list(data.input_shape)), ("classes", list(data.classes))):
        want = known.get(key)
        if want is not None and list(want) != have:
            raise UserError(f"{what} was made for {key} {want}, but data set {data.name} has {have}")


def _chunks(data: ImageData, limit: int | None) -> Iterator[tuple[Tensor, Tensor, range]]:
    """The test images, preprocessed, in chunks that fit in memory: (images, labels, their indices)."""
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
    """Logits of the network and of the file on the test images, and labels: (n, k) or None, (n, k) or None, (n,).

    On the CPU in float32, a chunk at a time; a file that takes uint8 images gets those. limit: the first so many.
    """
    raw = opened is not None and opened.takes_raw
    theirs, ours, truth = [], [], []
    for images, labels, index in _chunks(data, limit):
        truth.append(labels.numpy())
        if model is not None:
            theirs.append(predict_model(model, images))
        if opened is not None:
            source = np.stack([data.test.raw(i).transpose(2, 0, 1) for i in index]) if raw else images
            ours.append(opened.predict(source))
    return (
        np.concatenate(theirs) if theirs else None,
        np.concatenate(ours) if ours else None,
        np.concatenate(truth),
    )
