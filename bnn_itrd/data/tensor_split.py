"""A split (such as the training images) of small images that are held in memory as one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from bnn_itrd.data.augment import crop_and_flip, draw, normalise
from bnn_itrd.data.batches import Batch, steps_together
from bnn_itrd.data.seeds import mix_seed, shuffled
from bnn_itrd.hashes import tensors_hash

__all__ = ["TensorSplit"]


class TensorSplit:
    """A split of small images in one uint8 tensor, which is moved to the device once and augmented there in batches.

    With several processes, each one draws the random order and crops of all processes and takes its share of them. So N
    processes train on the same batches as a single one.

    images: (n, c, h, w); labels: (n,); mean, std: (c,) on the 0..1 scale; crop_padding, flip: as in `DataConfig`.

    >>> images, half = torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.full((3,), 0.5)
    >>> split = TensorSplit(images, torch.arange(6), half, half, crop_padding=1, flip=True)
    >>> batches = list(split.train_batches(4, seed=0, epoch=0, device=torch.device("cpu")))
    >>> len(batches), batches[0][0].shape
    (1, torch.Size([4, 3, 8, 8]))
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, *, crop_padding: int, flip: bool
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = mean, std
        self.crop_padding, self.flip = crop_padding, flip

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor) -> TensorSplit:
        """Returns a split with some of the images; places: their indices in this split, (m,) int64."""
        places = places.to(self.images.device)
        return TensorSplit(
            self.images[places],
            self.labels[places],
            self.mean,
            self.std,
            crop_padding=self.crop_padding,
            flip=self.flip,
        )

    def _to(self, device: torch.device) -> None:
        """Moves images, labels, mean and std to a device, unless they are there already."""
        if self.images.device != device:
            self.images, self.labels = self.images.to(device), self.labels.to(device)
            self.mean, self.std = self.mean.to(device), self.std.to(device)

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        self._to(device)
        n = len(self)
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 1))
        # All random numbers of an epoch are copied to the device before its first step, so that no step waits for a
        # copy.
        order = shuffled(n, seed=seed, epoch=epoch).to(device)
        choices = draw(n, padding=self.crop_padding, flip=self.flip, generator=generator).to(device)
        end, own = n // batch_size * batch_size, batch_size // world
        step = batch_size * steps_together(device, own * self.images[0].numel())
        for start in range(0, end, step):
            take = slice(start + rank, min(start + step, end), world)
            index = order[take]
            images = self.images[index]
            if self.crop_padding or self.flip:
                images = crop_and_flip(images, choices[take], padding=self.crop_padding)
            images = normalise(images, self.mean, self.std)
            yield from zip(images.split(own), self.labels[index].split(own), index.split(own), strict=True)

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        self._to(device)
        for start in range(0, len(self), batch_size):
            index = torch.arange(start, min(start + batch_size, len(self)), device=device)
            yield normalise(self.images[index], self.mean, self.std), self.labels[index], index

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        return rearrange(self.images[index], "c h w -> h w c").cpu().numpy()

    def fingerprint(self) -> str:
        shape = f"images {tuple(self.images.shape)}"
        return tensors_hash({shape: self.images, "labels": self.labels, "mean": self.mean, "std": self.std})
