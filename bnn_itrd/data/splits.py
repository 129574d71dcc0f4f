"""A data set: splits that yield batches, class names, normalisation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bnn_itrd.data.batches import Batch
from bnn_itrd.data.own import OwnOptions, read_own
from bnn_itrd.errors import UserError

__all__ = ["ImageData", "ImageFacts", "Split"]


class Split(Protocol):
    """A set of images that yields batches of (images float32 normalised, labels, sample indices).

    labels: int64 (n,), `UNLABELLED` for images without a label; mean, std: (c,) on the 0..1 scale. Small images are
    held in memory (`TensorSplit`); files and a user's own Dataset are read as needed (`FolderSplit`, `DatasetSplit`).
    """

    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int: ...

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yields shuffled and augmented batches of this process; only full ones, of batch_size / world images each."""
        ...

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        """Yields batches in order, not augmented; the last one may be short."""
        ...

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        """Returns an image as in an evaluation, before normalisation: uint8 (h, w, c)."""
        ...

    def fingerprint(self) -> str | None:
        """Returns a hash of all that `eval_batches` yields, in hex; None where only reading every image would tell."""
        ...


@dataclass(frozen=True)
class ImageFacts:
    """What an exported file records of its images: the fields of `ImageData`, which describes them, without splits."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    resize: str = "scale"


@dataclass(frozen=True)
class ImageData:
    """A data set: splits, class names, and the normalisation (mean, std per channel on the 0..1 scale).

    input_shape: (channels, height, width) of every image; val: the held-out images, or None; resize: how an image of
    another size is brought to input_shape: 'scale' it whole, or take its 'centre'.
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

    @property
    def held(self) -> Split:
        """The images that a training is evaluated on: those that are held out, or the test images where none are."""
        return self.test if self.val is None else self.val

    def check_crops(self) -> None:
        """Raises UserError if the padding is so wide that a random crop may contain nothing of the image.

        A batch of such crops has no variance, so BatchNorm would divide by almost 0.
        """
        _, height, width = self.input_shape
        padding, side = getattr(self.train, "crop_padding", 0), min(height, width)
        if padding >= side:
            raise UserError(
                f"data.crop_padding {padding} is too much for images of {height}x{width}: a crop may contain nothing "
                f"of one. Give less than {side} (--data.crop_padding {side - 1}), or larger images (--data.image_size)"
            )

    @classmethod
    def from_datasets(
        cls,
        train: Any,
        test: Any = None,
        *,
        val: Any = None,
        classes: Sequence[str] | int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        normalised: bool = False,
        image_size: int | None = None,
        resize: str = "scale",
        crop_padding: int = 0,
        flip: bool = False,
        in_memory: bool = False,
        workers: int | None = None,
        name: str = "own",
    ) -> ImageData:
        """Makes a data set from torch Datasets whose samples are (image, label); every sample is read once and checked.

        An image is a Pillow picture, uint8 (h, w), (h, w, c) or (c, h, w), or the same as floats from 0 to 1, with 1 or
        3 channels; floats are rounded to 256 levels, as in a file. A label is a whole number from 0. The training
        Dataset is read again in every epoch, so its random transforms run; the global generators of torch, NumPy and
        Python are seeded with (seed, epoch, index) before each sample, so a run that is resumed continues exactly.

        Args:
            train, test, val: Datasets, or DataLoaders, of which the Dataset and num_workers are used; without `test`, a
                fifth of each class's training images is used; without `val`, the best epoch is chosen on `test`
            classes: names, or their number; by default the Dataset's `classes`, as torchvision's have, or the labels
            mean, std: per channel on the 0..1 scale; by default those of the training images, without augmentation
            normalised: the images are floats that are already normalised with mean and std
            image_size: height and width to which images are brought; by default all must have the same size
            resize: how that is done, here and by an exported file: 'scale' the whole image, or take its 'centre'
            crop_padding, flip: zero padding before a random crop, mirroring at random; after the Dataset's transforms
            in_memory: keep the images in memory after the first reading; the Dataset's random transforms then run once
            workers: number of processes that read ahead; by default the DataLoader's, or 0: this process reads
            name: the data set's name in reports and files

        Raises UserError: a Dataset without length or images, an unusable image or label (the index is named),
        images that differ in size or channels, labels out of range, floats outside 0..1 without `normalised`, a
        DataLoader with its own sampler, batch sampler or collate function.

        >>> from torch.utils.data import TensorDataset
        >>> images, labels = torch.rand(20, 3, 8, 8), torch.arange(20) % 2
        >>> data = ImageData.from_datasets(TensorDataset(images, labels), TensorDataset(images[:4], labels[:4]))
        >>> data.input_shape, data.classes, len(data.train)
        ((3, 8, 8), ('0', '1'), 20)
        """
        options = OwnOptions(classes, mean, std, normalised, image_size, resize, crop_padding, flip, in_memory, workers)
        return cls(name, **vars(read_own(train, test, val, options)), resize=resize)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """Returns the same images, not copied, normalised with this mean and std per channel (0..1 scale)."""

        def under(split: Split) -> Split:
            changed = copy.copy(split)
            changed.mean, changed.std = torch.tensor(mean), torch.tensor(std)
            return changed

        val = None if self.val is None else under(self.val)
        splits: dict[str, Any] = {"train": under(self.train), "val": val, "test": under(self.test)}
        return replace(self, mean=tuple(mean), std=tuple(std), **splits)
