"""A data set: its splits, each of which yields batches, its classes, its normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bnn_itrd.data.batches import Batch

__all__ = ["ImageData", "Split"]


class Split(Protocol):
    """A set of images that can be walked through in batches of (images float32 normalised, labels, sample indices).

    labels: int64 (n,), `UNLABELLED` for those that have none; mean, std: (c,) on the 0..1 scale. Small images are held
    in memory (`TensorSplit`), files are read as they are needed (`FolderSplit`).
    """

    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int: ...

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yields full batches only, shuffled and augmented; `batch_size` counts all processes, of which this is one."""
        ...

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        """Yields the images in order, not augmented; the last batch may be short."""
        ...

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        """Returns an image as uint8 (h, w, c), as evaluation sees it before normalisation."""
        ...


@dataclass(frozen=True)
class ImageData:
    """A data set: splits, class names, and the normalisation (mean, std per channel on the 0..1 scale).

    input_shape: (channels, height, width) of every image; val: None where no training image is held out; resize: how an
    image of another size is brought to input_shape: 'scale' it whole, or take its 'centre'.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    train: Split
    val: Split | None
    test: Split
    resize: str = "scale"

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """Returns the same images under a network's own statistics instead of theirs; the splits change in place."""
        for split in (self.train, self.val, self.test):
            if split is not None:
                split.mean, split.std = torch.tensor(mean), torch.tensor(std)
        return replace(self, mean=tuple(mean), std=tuple(std))
