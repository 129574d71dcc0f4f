"""A data set: its splits, each of which yields batches, its classes, its normalisation."""

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
    """A set of images that can be walked through in batches of (images float32 normalised, labels, sample indices).

    labels: int64 (n,), `UNLABELLED` for those that have none; mean, std: (c,) on the 0..1 scale. Small images are held
    in memory (`TensorSplit`), files and a user's own Dataset are read as needed (`FolderSplit`, `DatasetSplit`).
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
class ImageFacts:
    """What a file must know of the images it was made for: all of an `ImageData` but the images; see there."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    resize: str = "scale"


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

    def check_crops(self) -> None:
        """Raises UserError where random crops may hold nothing of an image.

        A batch of such crops are all the same, and a network's BatchNorms then divide by next to nothing.
        """
        _, height, width = self.input_shape
        padding, side = getattr(self.train, "crop_padding", 0), min(height, width)
        if padding >= side:
            raise UserError(
                f"data.crop_padding {padding} is too much for images of {height}x{width}: a crop may hold nothing of "
                f"one. Give less than {side} (--data.crop_padding {side - 1}), or larger images (--data.image_size)"
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
        """Makes a data set of torch Datasets whose samples are (image, label); each is read once, and so checked.

        An image is a Pillow picture, uint8 (h, w), (h, w, c) or (c, h, w), or the same in floats from 0 to 1, with 1 or
        3 channels; inside it has 256 levels, as in a file. A label is a whole number from 0. The training Dataset is
        read anew in every epoch, so its random transforms run; what they draw from the global generators of torch,
        NumPy and Python is a function of (seed, epoch, index), so a run that is resumed continues exactly.

        Args:
            train, test, val: Datasets, or DataLoaders, of which the Dataset and num_workers are used; without `test` a
                fifth of the training images of each class is kept for it; without `val` the best epoch is chosen by it
            classes: names, or how many; by default the Dataset's `classes`, as torchvision's have it, or the labels
            mean, std: per channel on the 0..1 scale; by default those of the training images, as evaluation sees them
            normalised: the images are normalised with mean and std already (floats)
            image_size: height and width the images are brought to; by default all must have one size
            resize: how that is done, and how an exported file is to treat other sizes: 'scale' the whole, or 'centre'
            crop_padding, flip: zero padding before a random crop, mirroring at random; after the Dataset's transforms
            in_memory: keep the images as they are read the first time; random transforms of the Dataset's then run once
            workers: processes that read ahead; by default the DataLoader's, or 0: this process reads
            name: what reports and files call the data set

        Raises UserError: a Dataset without length or images, an image or label of another form (the index is named),
        images that differ in size or channels, labels out of range, floats outside 0..1 that are not said to be
        normalised, a DataLoader with a sampler, batch sampler or collate function of its own.

        >>> from torch.utils.data import TensorDataset
        >>> images, labels = torch.rand(20, 3, 8, 8), torch.arange(20) % 2
        >>> data = ImageData.from_datasets(TensorDataset(images, labels), TensorDataset(images[:4], labels[:4]))
        >>> data.input_shape, data.classes, len(data.train)
        ((3, 8, 8), ('0', '1'), 20)
        """
        options = OwnOptions(classes, mean, std, normalised, image_size, resize, crop_padding, flip, in_memory, workers)
        return cls(name, **vars(read_own(train, test, val, options)), resize=resize)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """Returns the same images under a network's own statistics instead of theirs; they are not copied."""

        def under(split: Split) -> Split:
            changed = copy.copy(split)
            changed.mean, changed.std = torch.tensor(mean), torch.tensor(std)
            return changed

        val = None if self.val is None else under(self.val)
        splits: dict[str, Any] = {"train": under(self.train), "val": val, "test": under(self.test)}
        return replace(self, mean=tuple(mean), std=tuple(std), **splits)
