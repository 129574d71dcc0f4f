"""Augmentation and normalisation of a batch of images on their device: random crop with padding, flip, mean and std."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["crop_and_flip", "draw", "normalise"]


def draw(n: int, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draws a random crop and flip for each of n images, for `crop_and_flip`; returns int64 (n, 3).

    A row has the crop's row and column in the padded image, in [0, 2 * padding], and 1 if the image is mirrored, else
    0. The numbers are drawn on the CPU.

    >>> draw(5, padding=4, flip=True, generator=torch.Generator()).shape
    torch.Size([5, 3])
    """
    offsets = torch.randint(0, 2 * padding + 1, (n, 2), generator=generator)
    mirrored = torch.randint(0, 2, (n, 1), generator=generator) if flip else torch.zeros(n, 1, dtype=torch.long)
    return torch.cat([offsets, mirrored], dim=1)


def crop_and_flip(images: Tensor, choice: Tensor, *, padding: int) -> Tensor:
    """Returns the images, each padded with zeros, cropped to its old size at its own place, and mirrored if chosen.

    images: (n, c, h, w) of any dtype. choice: (n, 3) from `draw`, on the same device. The result has the shape of
    `images`.

    >>> images = torch.arange(4).reshape(1, 1, 2, 2)
    >>> crop_and_flip(images, torch.tensor([[1, 1, 1]]), padding=1).tolist()  # cropped in the middle, and mirrored
    [[[[1, 0], [3, 2]]]]
    """
    n, c, h, w = images.shape
    if padding:
        images = F.pad(images, (padding,) * 4)
    device = images.device
    columns = torch.arange(w, device=device).expand(n, w)
    columns = torch.where(choice[:, 2:3] == 1, w - 1 - columns, columns) + choice[:, 1:2]
    rows = torch.arange(h, device=device) + choice[:, 0:1]
    return images[
        rearrange(torch.arange(n, device=device), "n -> n 1 1 1"),
        rearrange(torch.arange(c, device=device), "c -> 1 c 1 1"),
        rearrange(rows, "n h -> n 1 h 1"),
        rearrange(columns, "n w -> n 1 1 w"),
    ]


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns ``(x / 255 - mean) / std`` in float32 for uint8 images x (n, c, h, w); mean, std: (c,), on their device.

    >>> normalise(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([0.5]), torch.tensor([0.25])).item()
    2.0
    """
    scale = rearrange(1 / (255 * std), "c -> 1 c 1 1")
    shift = rearrange(-mean / std, "c -> 1 c 1 1")
    return images.float() * scale + shift
