"""A split (such as the training images) that reads a user's own torch Dataset, one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from bnn_itrd.data.augment import crop_and_flip, draw, normalise
from bnn_itrd.data.batches import Batch, Sample, read_batches
from bnn_itrd.data.images import scale_whole, to_pixels
from bnn_itrd.data.seeds import kept_generators, mix_seed, seed_all, shuffled
from bnn_itrd.errors import UserError
from bnn_itrd.export.runtime.images import take_centre

__all__ = ["DatasetSplit", "SampleReader", "Samples"]


@dataclass(frozen=True)
class Samples:
    """A user's map-style Dataset of (image, label), and how its images are read.

    name: its name in messages. shape: the (c, h, w) that every image must have; any by default. image_size: height and
    width to which images are resized before their shape is checked. resize: how; 'scale' the whole image, or crop its
    'centre'. normalised_with: see `images.to_pixels`.
    """

    name: str
    dataset: Any
    shape: tuple[int, int, int] | None = None
    image_size: int | None = None
    resize: str = "scale"
    normalised_with: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int, *, seed: int) -> tuple[Tensor, int]:
        """Returns one sample of the Dataset: its image as uint8 (c, h, w), and its label.

        The global random generators of torch, NumPy and Python are seeded with `seed` before, so that the Dataset's
        random transforms give the same image again. Raises UserError, which names the index, if the sample is not
        (image, label) or `to_pixels` does not take the image.
        """
        where = f"{self.name}[{index}]"
        try:
            seed_all(seed)
            sample = self.dataset[index]
        except Exception as error:  # the user's code may raise anything
            first = (str(error).splitlines() or [""])[0]
            raise UserError(f"{where} cannot be read: {type(error).__name__}: {first}") from error
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise UserError(f"{where} must be (image, label), got {_described(sample)}")
        try:
            pixels = to_pixels(sample[0], self.normalised_with)
        except ValueError as error:
            raise UserError(f"{where} cannot be used as an image: {error}") from error
        if (size := self.image_size) is not None and pixels.shape[:2] != (size, size):
            pixels = take_centre(pixels, size) if self.resize == "centre" else scale_whole(pixels[None], size)[0]
        height, width, channels = pixels.shape
        if self.shape is not None and (channels, height, width) != self.shape:
            raise UserError(
                f"{where} is an image of {_size(channels, height, width)}, but train[0] is one of "
                f"{_size(*self.shape)}: give image_size=, or bring the images to one form with a transform"
            )
        return rearrange(torch.from_numpy(pixels.copy()), "h w c -> c h w"), _whole(sample[1], where)


def _size(channels: int, height: int, width: int) -> str:
    return f"{height} x {width} pixels and {channels} channel{'s' if channels > 1 else ''}"


def _described(sample: object) -> str:
    name = type(sample).__name__
    return f"a {name} of {len(sample)}" if isinstance(sample, (tuple, list, dict)) else name


def _whole(label: object, where: str) -> int:
    """Returns a label as an int; raises UserError if it is no whole number. where: the sample, for the message."""
    value = label
    if isinstance(label, (Tensor, np.ndarray, np.generic)) and label.reshape(-1).shape[0] == 1:
        value = label.reshape(-1)[0].item()
    if not isinstance(value, int):
        # The message must be one line, because `read_batches` keeps only the last line of an error in a worker.
        line = " ".join(repr(label).split())
        raise UserError(f"{where} must have a whole number as its label, got {line[:80]}")
    return int(value)


class SampleReader(Dataset[Sample]):
    """A Dataset of chosen samples of a user's Dataset, for DataLoader, with random transforms that can be repeated.

    indices: the samples' indices in the user's Dataset. seeds: with the index, they seed a sample's random transforms.
    """

    def __init__(self, samples: Samples, indices: Sequence[int], seeds: tuple[int, ...] = ()) -> None:
        self.samples, self.indices, self.seeds = samples, indices, seeds

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[Sample]:
        """Reads the samples of a batch; DataLoader calls this."""
        samples = []
        with kept_generators():
            for place in places:
                index = int(self.indices[place])
                samples.append((*self.samples.read(index, seed=mix_seed(*self.seeds, index)), place))
        return samples


class DatasetSplit:
    """A split whose images come from a user's Dataset; they are read again in every epoch, with its random transforms.

    The Dataset's random transforms are seeded by (seed, epoch, index) in training, and by the index alone in
    evaluation. Crop and flip come after them. With several processes, crop and flip are drawn for the batch of all
    processes, so that they do not depend on the number of processes. Images are normalised on the device.

    indices: the samples of the Dataset that belong to the split, (n,); labels: their labels, (n,); mean, std: (c,) on
    the 0..1 scale; workers: number of processes that read ahead.
    """

    def __init__(
        self,
        samples: Samples,
        indices: Tensor,
        labels: Tensor,
        mean: Tensor,
        std: Tensor,
        *,
        crop_padding: int,
        flip: bool,
        workers: int,
    ) -> None:
        self.samples, self.indices, self.labels = samples, indices, labels
        self.mean, self.std = mean, std
        self.crop_padding, self.flip, self.workers = crop_padding, flip, workers

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor) -> DatasetSplit:
        """Returns a split with some of the images; places: their indices in this split, (m,) int64."""
        return DatasetSplit(
            self.samples,
            self.indices[places],
            self.labels[places],
            self.mean,
            self.std,
            crop_padding=self.crop_padding,
            flip=self.flip,
            workers=self.workers,
        )

    def _read(
        self, order: Sequence[int], batch_size: int, seeds: tuple[int, ...], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches of (uint8 images, their indices in this split), read in `order`; seeds: see `SampleReader`."""
        reader = SampleReader(self.samples, self.indices.tolist(), seeds)
        for pixels, _, place in read_batches(reader, order, batch_size=batch_size, workers=self.workers, device=device):
            yield pixels, place

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        n, share = len(self), batch_size // world
        mine = slice(rank, n // batch_size * batch_size, world)
        order = shuffled(n, seed=seed, epoch=epoch)[mine].tolist()
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch, 1))
        choices = draw(n, padding=self.crop_padding, flip=self.flip, generator=generator)[mine].to(device)
        mean, std, labels = self.mean.to(device), self.std.to(device), self.labels.to(device)
        for i, (images, place) in enumerate(self._read(order, share, (seed, epoch, 1), device)):
            if self.crop_padding or self.flip:
                images = crop_and_flip(images, choices[i * share : (i + 1) * share], padding=self.crop_padding)
            yield normalise(images, mean, std), labels[place], place

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        mean, std, labels = self.mean.to(device), self.std.to(device), self.labels.to(device)
        for images, place in self._read(range(len(self)), batch_size, (), device):
            yield normalise(images, mean, std), labels[place], place

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        pixels, _, _ = SampleReader(self.samples, [int(self.indices[index])])[0]
        return rearrange(pixels, "c h w -> h w c").numpy()

    def fingerprint(self) -> None:
        """Returns None in place of a hash of the images, which are not known before the user's Dataset is read."""
