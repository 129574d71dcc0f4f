"""The settings of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from bnn_itrd.errors import require

__all__ = ["MOST_PIXELS", "DataConfig"]

# The largest height or width, in pixels, of the images that a network gets.
MOST_PIXELS = 4096
_MOST_WORKERS = 1024


@dataclass(frozen=True)
class DataConfig:
    """The settings of a data set: which images there are, how they are divided, and how they are changed at random.

    >>> DataConfig(name="cifar10", root="data", val_fraction=0.1).crop_padding
    4

    Raises FieldError on a value that is out of its range.

    Args:
        name: data set: digits (it comes with the package), cifar10, cifar100, stl10, tiny-imagenet, imagenet, mit67,
            cub200, folder (your own images, one folder per class), or package.module:make (your own code)
        root: where the data set lies: an .npz file, the folder of torchvision's download, or a folder of images
        download: let torchvision fetch cifar10, cifar100 or stl10 into root
        val_fraction: share of the training images that is held out to choose the best epoch and settings, in [0, 1)
        per_class: number of training images of each class, chosen from those not held out; all by default
        per_class_seed: seed of the choice of per_class images; with the same seed a smaller choice is part of a larger
            one
        unlabelled: train also on the images that per_class leaves out, without their labels; only distillers learn
            from those
        image_size: height and width in pixels to which images are scaled; their own size by default
        crop_padding: pixels of zero padding before the random crop of small images; 0: no crop
        flip: mirror images at random
        workers: processes that read large images from disk
    """

    name: str = "digits"
    root: str | None = None
    download: bool = False
    val_fraction: float = 0.0
    per_class: int | None = None
    per_class_seed: int = 0
    unlabelled: bool = False
    image_size: int | None = None
    crop_padding: int = 4
    flip: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "data.val_fraction", "in [0, 1)", self.val_fraction)
        require(self.per_class is None or self.per_class >= 1, "data.per_class", ">= 1", self.per_class)
        rule = "false without data.per_class, the number of images of each class that keep their labels"
        require(not self.unlabelled or self.per_class is not None, "data.unlabelled", rule, self.unlabelled)
        require(0 <= self.per_class_seed < 2**31, "data.per_class_seed", "in [0, 2^31)", self.per_class_seed)
        # Upper limits keep a typing error, or a file from elsewhere, from taking all memory.
        most = MOST_PIXELS
        rule = f"in [0, {most}]"
        require(0 <= self.crop_padding <= most, "data.crop_padding", rule, self.crop_padding)
        require(0 <= self.workers <= _MOST_WORKERS, "data.workers", f"in [0, {_MOST_WORKERS}]", self.workers)
        size = self.image_size
        require(size is None or 1 <= size <= most, "data.image_size", f"in [1, {most}]", size)
