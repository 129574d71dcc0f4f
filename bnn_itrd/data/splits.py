"""Sets of images that can be walked through, and the data set they make up.

Small images live as one uint8 tensor on the training device (`TensorSplit`); large ones are read as they are needed
(`data.images.FolderSplit`). Both yield batches of (images float32 normalised, labels, sample indices).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from bnn_itrd.data.augment import crop_and_flip, draw, normalise

__all__ = ["UNLABELLED", "Batch", "ImageData", "Split", "TensorSplit", "mix_seed", "shuffled"]


Batch = tuple[Tensor, Tensor, Tensor]

# The label of a training image that has none.
UNLABELLED = -1


def mix_seed(*parts: int) -> int:
    """One seed of several numbers (seed, epoch, ...), so that every epoch can be made again by itself."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def shuffled(n: int, *, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of n, (n,) int64, a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 0))
    return torch.randperm(n, generator=generator)


class Split(Protocol):
    """A set of images that can be walked through; labels: int64 (n,), `UNLABELLED` for those that have none."""

    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int: ...

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Shuffled, augmented, full batches only; `batch_size` over all processes, of which this is one."""
        ...

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        """In order, as they are, the last one short."""
        ...

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        """The image as uint8 (h, w, c), as evaluation sees it before normalisation."""
        ...


class TensorSplit:
    """Small images as one uint8 tensor (n, c, h, w), moved to the device once and augmented there in batches.

    The global batch is drawn alike in every process, each of which takes its share: so N processes see what one does.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, *, crop_padding: int, flip: bool
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = mean, std
        self.crop_padding, self.flip = crop_padding, flip

    def __len__(self) -> int:
        return len(self.labels)

    def _to(self, device: torch.device) -> None:
        if self.images.device != device:
            self.images, self.labels = self.images.to(device), self.labels.to(device)
            self.mean, self.std = self.mean.to(device), self.std.to(device)

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        self._to(device)
        n = len(self)
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 1))
        # All of an epoch's random numbers cross to the device at once: no copy, and no wait, inside the epoch.
        order = shuffled(n, seed=seed, epoch=epoch).to(device)
        choices = draw(n, padding=self.crop_padding, flip=self.flip, generator=generator).to(device)
        for start in range(rank, n // batch_size * batch_size, batch_size):
            take = slice(start, start - rank + batch_size, world)
            index = order[take]
            images = self.images[index]
            if self.crop_padding or self.flip:
                images = crop_and_flip(images, choices[take], padding=self.crop_padding)
            yield normalise(images, self.mean, self.std), self.labels[index], index

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        self._to(device)
        for start in range(0, len(self), batch_size):
            index = torch.arange(start, min(start + batch_size, len(self)), device=device)
            yield normalise(self.images[index], self.mean, self.std), self.labels[index], index

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        return rearrange(self.images[index], "c h w -> h w c").cpu().numpy()


@dataclass(frozen=True)
class ImageData:
    """A data set: splits, class names, and the normalisation (mean, std per channel on the 0..1 scale)."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    train: Split
    val: Split | None
    test: Split
    resize: str = "scale"  # how an image of another size is brought to input_shape: scale it whole, or crop its centre

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """The same images under a network's own statistics instead of theirs. Splits are changed in place."""
        for split in (self.train, self.val, self.test):
            if split is not None:
                split.mean, split.std = torch.tensor(mean), torch.tensor(std)
        return replace(self, mean=tuple(mean), std=tuple(std))
