"""The classes of a data set: `ImageData`, which has the splits, class names and normalisation, and what a split is."""

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
    """The interface of a split: a set of images, such as the training images, that yields batches.

    A batch is (normalised float32 images, labels, indices of the images in the split). labels: int64 (n,), `UNLABELLED`
    (-1) for images without a label; mean, std: (c,) on the 0..1 scale. `TensorSplit` holds small images in memory;
    `FolderSplit` reads files, and `DatasetSplit` reads a user's own Dataset.
    """

    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int: ...

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Yields an epoch's shuffled and augmented batches (images, labels, indices); a last short one is left out.

        batch_size: images per step, over all processes. rank, world: number of this process, and how many there are;
        each process gets batch_size / world images.
        """
        ...

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        """Yields batches (images, labels, indices) in order, without augmentation; the last one may be short."""
        ...

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        """Returns a single image as in evaluation, but before normalisation: uint8 (h, w, c)."""
        ...

    def fingerprint(self) -> str | None:
        """Returns a hash, in hex, of the images and labels of `eval_batches`, by which equal splits are recognised.

        Returns None if the hash is not known without reading every image.
        """
        ...


@dataclass(frozen=True)
class ImageFacts:
    """What an exported file records about its images: the fields of `ImageData`, as described there, without splits."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    resize: str = "scale"


@dataclass(frozen=True)
class ImageData:
    """A data set: its splits, class names and normalisation.

    classes: the names, in the order of the labels. mean, std: the normalisation, per channel on the 0..1 scale.
    input_shape: (channels, height, width) of every image. train, val, test: the splits; val holds training images that
    are held out, or is None. resize: how an image of another size gets input_shape: 'scale' the whole image, or crop
    its 'centre'.
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
        """The split on which a training is evaluated: the held-out images, or the test images if none are held out."""
        return self.test if self.val is None else self.val

    def check_crops(self) -> None:
        """Raises UserError if `crop_padding` is so wide that a random crop may contain padding alone.

        A batch of such crops has no variance, so that BatchNorm would divide by almost 0.
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
        """Returns a data set made from torch Datasets whose samples are (image, label).

        Every sample is read once and checked. An image is a Pillow picture, or an array or tensor with 1 or 3 channels,
        (h, w), (h, w, c) or (c, h, w), of uint8 or of floats from 0 to 1, which are rounded to 256 levels. A label is a
        whole number from 0. The training Dataset is read again in every epoch, so its random transforms run. Before
        each sample, the global random generators of torch, NumPy and Python are seeded with (seed, epoch, index), so
        that a resumed run continues exactly.

        Args:
            train, test, val: Datasets, or DataLoaders, of which the Dataset and num_workers are used; without `test`, a
                fifth of each class's training images is used; without `val`, the best epoch is chosen on `test`
            classes: names, or their number; by default the Dataset's `classes`, as torchvision's have, or the labels
            mean, std: per channel on the 0..1 scale; by default those of the training images, without augmentation
            normalised: the images are floats that are already normalised with mean and std
            image_size: height and width to which images are resized; by default all must have the same size
            resize: how that is done, here and by an exported file: 'scale' the whole image, or crop its 'centre'
            crop_padding, flip: zero padding before a random crop, mirroring at random; after the Dataset's transforms
            in_memory: keep the images in memory after the first reading; the Dataset's random transforms then run once
            workers: number of processes that read ahead; by default the DataLoader's, or 0: this process reads
            name: the data set's name in reports and files

        Raises UserError if a Dataset has no length or no images, an image or label cannot be used (the index is named),
        images differ in size or channels, labels are out of range, floats are outside 0..1 without `normalised`, or a
        DataLoader has its own sampler, batch sampler or collate function.

        >>> from torch.utils.data import TensorDataset
        >>> images, labels = torch.rand(20, 3, 8, 8), torch.arange(20) % 2
        >>> data = ImageData.from_datasets(TensorDataset(images, labels), TensorDataset(images[:4], labels[:4]))
        >>> data.input_shape, data.classes, len(data.train)
        ((3, 8, 8), ('0', '1'), 20)
        """
        options = OwnOptions(classes, mean, std, normalised, image_size, resize, crop_padding, flip, in_memory, workers)
        return cls(name, **vars(read_own(train, test, val, options)), resize=resize)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """Returns the same data set, normalised with another mean and std per channel (0..1 scale).

        The images are shared with this data set, not copied.
        """

        def under(split: Split) -> Split:
            changed = copy.copy(split)
            changed.mean, changed.std = torch.tensor(mean), torch.tensor(std)
            return changed

        val = None if self.val is None else under(self.val)
        splits: dict[str, Any] = {"train": under(self.train), "val": val, "test": under(self.test)}
        return replace(self, mean=tuple(mean), std=tuple(std), **splits)
