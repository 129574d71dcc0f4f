"""Data sets as a user might write them, from a list or from coloured images, and their batches of one epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import (
    Dataset,
    TensorDataset,
)

from bnn_itrd.data.splits import ImageData, Split

CPU = torch.device("cpu")


class Listed(Dataset):  # type: ignore[type-arg]
    """A torch Dataset made of a list of samples, with a transform of the images."""

    def __init__(self, samples: list[Any], transform: Callable[[Any], Any] = lambda image: image) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        return (self.transform(sample[0]), *sample[1:]) if isinstance(sample, tuple) else sample


def colours(n: int, first: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images uint8 (n, 3, size, size) and labels (n,); an image's label is its brightest channel."""
    generator = torch.Generator().manual_seed(first)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    images[torch.arange(n), labels] += 120
    return images, labels


def pair(n: int = 48, **options: Any) -> ImageData:
    return ImageData.from_datasets(TensorDataset(*colours(n)), TensorDataset(*colours(12, 1)), **options)


def epoch(split: Split, *, seed: int = 1, number: int = 2, size: int = 16, rank: int = 0, world: int = 1) -> Any:
    return list(split.train_batches(size, seed=seed, epoch=number, device=CPU, rank=rank, world=world))
