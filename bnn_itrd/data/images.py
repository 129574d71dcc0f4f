"""Functions for images as uint8 arrays: they read and scale images, and compute mean and standard deviation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from bnn_itrd.errors import UserError
from bnn_itrd.export.runtime.errors import ImageError
from bnn_itrd.export.runtime.images import picture_of_file, picture_pixels

__all__ = [
    "MEAN",
    "STD",
    "channel_statistics",
    "channel_sums",
    "read_image",
    "scale_whole",
    "statistics",
    "to_pixels",
]

# Mean and standard deviation of ImageNet, with which published networks normalise large images.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: Path) -> np.ndarray[Any, Any]:
    """Returns an image file's pixels as RGB, uint8 (h, w, 3). Raises UserError, which names the file, if it fails.

    >>> read_image(Path("cat.jpg")).shape  # doctest: +SKIP
    (480, 640, 3)
    """
    try:
        return picture_of_file(path)
    except ImageError as error:
        raise UserError(str(error)) from error


def to_pixels(
    image: Any, normalised_with: tuple[Sequence[float], Sequence[float]] | None = None
) -> np.ndarray[Any, Any]:
    """Returns an image as uint8 pixels (h, w, c), c = 1 or 3.

    image: a Pillow picture, or an array or tensor of uint8 or of floats from 0 to 1, with the shape (h, w), (h, w, c)
    or (c, h, w). Floats are rounded to the nearest of 256 levels. If both the first and the last axis could be the
    channels, it is the last one of an array and the first one of a tensor. normalised_with: (mean, std) per channel if
    the floats are ``(x - mean) / std`` of values x from 0 to 1.
    Raises ValueError if the image is none of these.

    >>> to_pixels(torch.tensor([[[0.0, 1.0]]])).tolist()
    [[[0], [255]]]
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        if normalised_with is not None:
            raise ValueError(
                "it is a Pillow picture, but normalised=True says that the images are normalised floats: leave out "
                "normalised, or give arrays or tensors"
            )
        return picture_pixels(image)
    if not isinstance(image, (np.ndarray, Tensor)):
        raise ValueError(f"it must be a Pillow picture, an array or a tensor, got {type(image).__name__}")
    array = image.detach().cpu() if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image).copy())
    last = array.ndim == 3 and array.shape[2] in (1, 3)
    first = array.ndim == 3 and array.shape[0] in (1, 3)
    if array.ndim == 2:
        array = array[..., None]
    elif first and (not last or isinstance(image, Tensor)):
        array = rearrange(array, "c h w -> h w c")
    elif not last:
        raise ValueError(
            f"its shape is {tuple(array.shape)}: an image is (h, w), (h, w, c) or (c, h, w), with 1 or 3 channels"
        )
    if 0 in array.shape:
        raise ValueError(f"it has no pixels: its shape is {tuple(image.shape)}")
    return _levels(array, normalised_with)


def _levels(array: Tensor, normalised_with: tuple[Sequence[float], Sequence[float]] | None) -> np.ndarray[Any, Any]:
    """Returns an image of uint8 or floats, (h, w, c), as uint8; normalised_with: see `to_pixels`.

    Raises ValueError if its values have another type or are out of range.
    """
    if array.dtype == torch.uint8:
        if normalised_with is not None:
            raise ValueError("it is uint8, but normalised=True says that the images are normalised floats")
        return array.numpy()
    if not array.is_floating_point():
        raise ValueError(f"it is {_name(array)}: give uint8 from 0 to 255 or floats from 0 to 1")
    values = array.float()
    if normalised_with is not None:
        mean, std = (torch.tensor(v, dtype=torch.float32) for v in normalised_with)
        values = values * std + mean
    low, high = float(values.min()), float(values.max())
    # Half a level on either side is allowed, as an error of rounding. It is written `not (... >= ...)` instead of `<`,
    # so that NaN is refused too.
    if not (low >= -0.5 / 255 and high <= 1 + 0.5 / 255):
        found = f"its values go from {float(array.min()):.4g} to {float(array.max()):.4g}"
        if normalised_with is not None:
            raise ValueError(
                f"{found}, which are {low:.4g} to {high:.4g} before the normalisation with the mean and std given: "
                "that must be 0 to 1, so give those it was normalised with, and normalise after every other transform"
            )
        raise ValueError(
            f"{found}, outside 0 to 1: leave out its normalisation (it is done here, with mean= and std=, or the "
            "training images' own), or state it with ImageData.from_datasets(..., mean=, std=, normalised=True)"
        )
    return (values * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _name(array: Tensor) -> str:
    """Returns the name of a tensor's dtype, such as 'int64'."""
    return str(array.dtype).removeprefix("torch.")


def _check_memory(images: int, size: int, channels: int) -> None:
    """Raises UserError if so many float32 images of size x size pixels do not fit into the memory of this machine."""
    needed = 4 * images * channels * size**2
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise UserError(
            f"data.image_size {size}: {images} images of {size}x{size} take {needed / 2**30:,.0f} GiB, but this "
            f"machine has {there / 2**30:,.0f} GiB of memory: choose a smaller size"
        )


def scale_whole(images: np.ndarray[Any, Any], size: int | None) -> np.ndarray[Any, Any]:
    """Returns uint8 images (n, h, w, c) scaled to (n, size, size, c) by bilinear interpolation.

    Images that are not square are stretched. With size None the images are returned unchanged.
    """
    if size is None or images.shape[1:3] == (size, size):
        return images
    _check_memory(len(images), size, images.shape[3])
    pixels = rearrange(torch.from_numpy(images), "n h w c -> n c h w").float()
    scaled = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return rearrange(scaled.round().clamp(0, 255).byte(), "n c h w -> n h w c").numpy()


def channel_sums(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the sum of the values, and of their squares, for each image and channel, as `statistics` needs them.

    images: uint8 (n, h, w, c). The result is float64 (n, 2, c): entry 0 is the sum of values, entry 1 that of squares.
    They are whole numbers, so that adding them up is exact in any order.

    >>> channel_sums(np.array([3, 4], dtype=np.uint8).reshape(1, 1, 2, 1)).tolist()
    [[[7.0], [25.0]]]
    """
    values = images.astype(np.float64)
    return np.stack([values.sum((1, 2)), np.square(values).sum((1, 2))], axis=1)


def statistics(sums: np.ndarray[Any, Any], pixels: int) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation per channel, each float32 (c,) on the 0..1 scale.

    sums: the sum of the values and of their squares, (2, c), as of `channel_sums`. pixels: their number per channel.
    The standard deviation is at least 0.001, so that a channel without contrast can be divided by it.
    """
    mean = sums[0] / pixels
    std = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 0))
    as_tensor = [torch.tensor(v / 255, dtype=torch.float32) for v in (mean, np.maximum(std, 0.255))]
    return as_tensor[0], as_tensor[1]


def channel_statistics(images: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation per channel of uint8 images (n, h, w, c); both float32 (c,), 0..1 scale.

    >>> channel_statistics(np.array([0, 255], dtype=np.uint8).reshape(1, 1, 2, 1))
    (tensor([0.5000]), tensor([0.5000]))
    """
    # The images are summed in chunks, because a float64 copy of all takes eight times their memory.
    sums = [channel_sums(images[start : start + 2048]).sum(0) for start in range(0, len(images), 2048)]
    return statistics(np.sum(sums, axis=0), images.size // images.shape[3])
