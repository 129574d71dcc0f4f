"""A split of large image files, which are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from bnn_itrd.data.augment import normalise
from bnn_itrd.data.batches import Batch, Sample, read_batches
from bnn_itrd.data.images import MEAN, STD, read_image
from bnn_itrd.data.seeds import kept_generators, mix_seed, seed_all, shuffled
from bnn_itrd.export.runtime.images import take_centre
from bnn_itrd.files import file_hash
from bnn_itrd.hashes import tensors_hash

__all__ = ["FolderSplit"]


class _Reader(Dataset[Sample]):
    """Reads one image and, in training, augments it; the augmentation depends on (seed, epoch, index) alone."""

    def __init__(self, paths: list[Path], labels: Tensor, size: int, train: tuple[int, int] | None, flip: bool):
        from torchvision.transforms import v2

        self.paths, self.labels, self.size, self.train = paths, labels, size, train
        steps: list[Any] = [v2.RandomResizedCrop(size, antialias=True)]
        self.augment = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.paths[index])
        if self.train is None:
            pixels = rearrange(torch.from_numpy(take_centre(image, self.size).copy()), "h w c -> c h w")
        else:
            with kept_generators():
                seed_all(mix_seed(*self.train, 1, index))
                pixels = self.augment(rearrange(torch.from_numpy(image.copy()), "h w c -> c h w"))
        return pixels, int(self.labels[index]), index


class FolderSplit:
    """Large images on disk, read by DataLoader, augmented by torchvision.transforms.v2, normalised on the device.

    mean, std: (3,), on the 0..1 scale; ImageNet's unless `ImageData.normalised_with` sets others.
    """

    def __init__(self, paths: list[Path], labels: Tensor, *, size: int, workers: int, flip: bool) -> None:
        self.paths, self.labels, self.size, self.workers, self.flip = paths, labels, size, workers, flip
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)

    def __len__(self) -> int:
        return len(self.paths)

    def _read(
        self, order: list[int], batch_size: int, train: tuple[int, int] | None, device: torch.device
    ) -> Iterator[Batch]:
        reader = _Reader(self.paths, self.labels, self.size, train, self.flip)
        mean, std = self.mean.to(device), self.std.to(device)
        batches = read_batches(reader, order, batch_size=batch_size, workers=self.workers, device=device)
        for pixels, labels, index in batches:
            yield normalise(pixels, mean, std), labels, index

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        order = shuffled(len(self), seed=seed, epoch=epoch).tolist()
        full = len(order) // batch_size * batch_size
        yield from self._read(order[rank:full:world], batch_size // world, (seed, epoch), device)

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        yield from self._read(list(range(len(self))), batch_size, None, device)

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        return take_centre(read_image(self.paths[index]), self.size)

    def fingerprint(self) -> str | None:
        """As of every `Split`; the files are read, but not decoded. None where one is not there any more."""
        try:
            files = " ".join(file_hash(path) for path in self.paths)
        except OSError:
            return None
        return tensors_hash({f"size {self.size} {files}": self.labels, "mean": self.mean, "std": self.std})
