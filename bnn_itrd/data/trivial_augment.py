"""TrivialAugment for a batch of small images on their device: each image gets one random operation.

Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021, in its wide form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

__all__ = ["OPERATIONS", "TrivialChoices", "draw_trivial", "trivial_augment"]

_BINS = 31
# The largest magnitude of each operation, and whether its sign is drawn too. The magnitudes of posterize and solarize
# are subtracted: from 8 bits down to 2, from the threshold 255 down to 0.
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
    """The random operations of n images, drawn on the CPU and sorted by operation.

    order: (n,) int64, the places of the images; counts: the number of images for each of `OPERATIONS`; magnitudes:
    (n,) float32, in the order of `order`.
    """

    order: Tensor
    counts: tuple[int, ...]
    magnitudes: Tensor


def draw_trivial(n: int, random: np.random.Generator) -> TrivialChoices:
    """Draws for each of n images an operation, one of 31 magnitudes, and a sign if the operation has one.

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


def trivial_augment(images: Tensor, choices: TrivialChoices) -> Tensor:
    """Returns the images, (n, c, h, w) uint8 with 1 or 3 channels, each after its own operation; same shape and type.

    The operations give torchvision's values, except for a few pixels of ``colour`` that differ by one level.
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
    """Applies one operation to images (n, c, h, w) uint8, with a magnitude for each image, (n,)."""
    if operation in _GEOMETRIC:
        return _warp(images, *_sources(operation, images.shape[2:], magnitude))
    size = magnitude.reshape(-1, 1, 1, 1)
    if operation == "identity":
        return images
    if operation == "autocontrast":
        made: Tensor = tv.autocontrast(images)
        return made
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


def _pole(operation: str, pixels: Tensor) -> Tensor:
    """Returns the image that a blend gives at the magnitude -1: black, grey, the mean grey, or blurred."""
    if operation == "brightness":
        return torch.zeros_like(pixels)
    if operation == "sharpness":
        return _blurred(pixels)
    grey = pixels
    if pixels.shape[1] == 3:
        grey = (0.2989 * pixels[:, 0:1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:3]).floor()
    return grey if operation == "colour" else grey.mean((1, 2, 3), keepdim=True)


def _blurred(pixels: Tensor) -> Tensor:
    """Returns the pixels smoothed with 3x3 weights, 5/13 in the middle and 1/13 around it; the border is kept."""
    if min(pixels.shape[2:]) < 3:
        return pixels
    # This is not a convolution, since a GPU would round its inputs to TF32's ten bits.
    nine = 9 * F.avg_pool2d(pixels, 3, stride=1)
    blurred = pixels.clone()
    blurred[:, :, 1:-1, 1:-1] = ((nine + 4 * pixels[:, :, 1:-1, 1:-1]) / 13).round()
    return blurred


def _sources(operation: str, size: torch.Size, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where each pixel of the result is taken from: x and y, (n, h, w), from the middle of the image."""
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
    """Returns the nearest pixel of each place, and 0 outside the image; x, y: (n, h, w)."""
    height, width = images.shape[2:]
    grid = torch.stack([2 * x / width, 2 * y / height], dim=3)
    made: Tensor = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return made.round().to(torch.uint8)
