"""Functions that apply TrivialAugment to a batch of images on their device: each image gets one random operation.

The method is that of Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021,
with its wide ranges of magnitudes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

__all__ = ["OPERATIONS", "TrivialChoices", "draw_trivial", "join_trivial", "trivial_augment"]

# The number of magnitudes of an operation, evenly spaced from 0 to the largest.
_BINS = 31
# Operation -> (its largest magnitude, whether its sign is random too). The magnitude of posterize is subtracted from 8
# bits, which leaves at least 2; that of solarize is subtracted from the threshold 255.
_STRONGEST: dict[str, tuple[float, bool]] = {
    "identity": (0.0, False),
    "shear_x": (0.99, True),
    "shear_y": (0.99, True),
    "translate_x": (32.0, True),
    "translate_y": (32.0, True),
    "rotate": (135.0, True),
    "brightness": (0.99, True),
    "colour": (0.99, True),
    "contrast": (0.99, True),
    "sharpness": (0.99, True),
    "posterize": (6.0, False),
    "solarize": (255.0, False),
    "autocontrast": (0.0, False),
    "equalize": (0.0, False),
}
OPERATIONS = tuple(_STRONGEST)
_GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


@dataclass(frozen=True)
class TrivialChoices:
    """The random operations for n images, sorted by operation, so that each operation runs on all its images at once.

    order: int64 (n,), the images' indices in the batch, sorted. counts: how many of them, from the front, get each of
    `OPERATIONS`. magnitudes: float32 (n,), in the same order.
    """

    order: Tensor
    counts: tuple[int, ...]
    magnitudes: Tensor


def draw_trivial(n: int, random: np.random.Generator) -> TrivialChoices:
    """Draws an operation for each of n images, with one of its 31 magnitudes, and a sign if the operation has one.

    >>> choices = draw_trivial(100, np.random.default_rng(0))
    >>> sum(choices.counts), len(choices.counts), choices.order.shape
    (100, 14, torch.Size([100]))
    """
    operations = random.integers(0, len(OPERATIONS), n)
    bins = random.integers(0, _BINS, n) / (_BINS - 1)
    signs = np.where(random.integers(0, 2, n) == 1, -1.0, 1.0)
    strongest = np.array([most for most, _ in _STRONGEST.values()])[operations]
    signed = np.array([has_sign for _, has_sign in _STRONGEST.values()])[operations]
    magnitudes = bins * strongest * np.where(signed, signs, 1.0)
    order = np.argsort(operations, kind="stable")
    counts = np.bincount(operations, minlength=len(OPERATIONS))
    return TrivialChoices(
        torch.from_numpy(order), tuple(int(c) for c in counts), torch.from_numpy(magnitudes[order].astype(np.float32))
    )


def join_trivial(choices: Sequence[TrivialChoices]) -> TrivialChoices:
    """Returns the choices for several batches as those for one, which has the batches' images one after the other.

    >>> random = np.random.default_rng(0)
    >>> joined = join_trivial([draw_trivial(3, random), draw_trivial(2, random)])
    >>> sorted(joined.order.tolist()), sum(joined.counts)
    ([0, 1, 2, 3, 4], 5)
    """
    kinds = torch.arange(len(OPERATIONS))
    operations = torch.cat([kinds.repeat_interleave(torch.tensor(each.counts)) for each in choices])
    starts = np.cumsum([0, *(len(each.order) for each in choices)])
    order = torch.cat([each.order + int(start) for each, start in zip(choices, starts, strict=False)])
    magnitudes = torch.cat([each.magnitudes for each in choices])
    place = operations.argsort(stable=True)
    counts = np.sum([each.counts for each in choices], axis=0)
    return TrivialChoices(order[place], tuple(int(c) for c in counts), magnitudes[place])


def trivial_augment(images: Tensor, choices: TrivialChoices) -> Tensor:
    """Returns the images after each has undergone its own operation, in the same shape and dtype.

    images: uint8 (n, c, h, w) with 1 or 3 channels. choices: from `draw_trivial`, on the same device. The operations
    give the same values as torchvision's, except for a few pixels of ``colour`` that differ by one level.

    >>> images = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    >>> trivial_augment(images, draw_trivial(5, np.random.default_rng(0))).shape
    torch.Size([5, 3, 8, 8])
    """
    sorted_images = images[choices.order]
    parts, start = [], 0
    for operation, count in zip(OPERATIONS, choices.counts, strict=True):
        if count:
            stop = start + count
            parts.append(_apply(operation, sorted_images[start:stop], choices.magnitudes[start:stop]))
            start = stop
    made = torch.empty_like(images)
    made[choices.order] = torch.cat(parts)
    return made


def _apply(operation: str, images: Tensor, magnitude: Tensor) -> Tensor:
    """Returns uint8 images (n, c, h, w) after one operation, with a magnitude for each image, (n,)."""
    if operation in _GEOMETRIC:
        return _warp(images, *_sources(operation, images.shape[2:], magnitude))
    size = magnitude.reshape(-1, 1, 1, 1)
    if operation == "identity":
        return images
    if operation == "autocontrast":
        return _autocontrast(images)
    if operation == "equalize":
        equalized: Tensor = tv.equalize(images)
        return equalized
    if operation == "posterize":
        lowest = (2.0 ** torch.round(size)).to(torch.int32)  # value of the lowest bit that is kept: 2 ** (8 - bits)
        return (images.int() // lowest * lowest).to(torch.uint8)
    if operation == "solarize":
        return torch.where(images >= 255.0 - size, 255 - images, images)
    pixels = images.float()
    return (pixels + size * (pixels - _pole(operation, pixels))).clamp(0, 255).to(torch.uint8)


def _autocontrast(images: Tensor) -> Tensor:
    """Returns uint8 images whose darkest and brightest value in each channel become 0 and 255, as torchvision's do.

    torchvision's own function looks for channels of a single value, which stay as they are, by an operation that waits
    for the GPU: in every step of a training the GPU would then wait for the CPU.
    """
    pixels = images.float()
    darkest = pixels.amin((2, 3), keepdim=True)
    span = (pixels.amax((2, 3), keepdim=True) - darkest) * (1.0 / 255)
    flat = span == 0
    darkest, span = darkest.masked_fill(flat, 0.0), span.masked_fill(flat, 1.0)
    return ((pixels - darkest) / span).clamp(0, 255).to(torch.uint8)


def _pole(operation: str, pixels: Tensor) -> Tensor:
    """Returns the images with which an operation blends the given ones: black, grey, of the mean grey, or blurred.

    operation: brightness, colour, contrast or sharpness. A magnitude of -1 gives these images, and 0 the given ones.
    """
    if operation == "brightness":
        return torch.zeros_like(pixels)
    if operation == "sharpness":
        return _blurred(pixels)
    grey = pixels
    if pixels.shape[1] == 3:
        grey = (0.2989 * pixels[:, 0:1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:3]).floor()
    return grey if operation == "colour" else grey.mean((1, 2, 3), keepdim=True)


def _blurred(pixels: Tensor) -> Tensor:
    """Returns the images smoothed by a 3x3 filter, 5/13 in the middle and 1/13 around it; border pixels stay."""
    if min(pixels.shape[2:]) < 3:
        return pixels
    # A convolution is not used, because a GPU may round its inputs to the ten bits of TF32.
    nine = 9 * F.avg_pool2d(pixels, 3, stride=1)
    blurred = pixels.clone()
    blurred[:, :, 1:-1, 1:-1] = ((nine + 4 * pixels[:, :, 1:-1, 1:-1]) / 13).round()
    return blurred


def _sources(operation: str, size: torch.Size, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the coordinates (x, y) from which a geometric operation takes each pixel of its result.

    size: (h, w). magnitude: (n,). x, y: (n, h, w), in pixels from the middle of the image.
    """
    height, width = size
    m = magnitude[:, None, None]
    y = (torch.arange(height, device=m.device) + 0.5 - height / 2)[:, None].expand(len(m), height, width)
    x = (torch.arange(width, device=m.device) + 0.5 - width / 2).expand(len(m), height, width)
    if operation == "shear_x":
        return x + m * (y + height / 2), y
    if operation == "shear_y":
        return x, y + m * (x + width / 2)
    if operation == "translate_x":
        return x - m.trunc(), y
    if operation == "translate_y":
        return x, y - m.trunc()
    angle = m * (math.pi / 180)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return cosine * x - sine * y, sine * x + cosine * y


def _warp(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Returns images whose pixels are the nearest ones to the coordinates x, y, and 0 outside the image.

    x, y: (n, h, w), in pixels from the middle of the image, as `_sources` gives them.
    """
    height, width = images.shape[2:]
    grid = torch.stack([2 * x / width, 2 * y / height], dim=3)
    made: Tensor = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return made.round().to(torch.uint8)
