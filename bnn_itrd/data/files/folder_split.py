"""A split (such as the training images) of large image files, which are read from disk when they are needed."""

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
    """A Dataset, for DataLoader, that reads image files and augments them in training.

    A sample is (uint8 image (3, size, size), label, index). train: (seed, epoch), on which with the index alone the
    augmentation depends; None in evaluation, where the image is scaled and its centre is cropped.
    """

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
    """A split of large images on disk: DataLoader reads them, torchvision augments them, the device normalises them.

    In training an image gets a random resized crop and, with `flip`, is mirrored at random. paths, labels: the files
    and their labels, (n,). size: height and width of the images that the network gets. workers: number of processes
    that read. mean, std: (3,), on the 0..1 scale; ImageNet's unless `ImageData.normalised_with` sets others.
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
        """Returns a hash of the files, the labels, mean and std, as every `Split` does; None if a file is missing.

        The files are read but not decoded.
        """
        try:
            files = " ".join(file_hash(path) for path in self.paths)
        except OSError:
            return None
        return tensors_hash({f"size {self.size} {files}": self.labels, "mean": self.mean, "std": self.std})
