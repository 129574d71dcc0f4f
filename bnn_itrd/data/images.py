"""Images as uint8 pixels: read from a file, brought to a size, their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from bnn_itrd.errors import UserError

__all__ = ["MEAN", "STD", "SUFFIXES", "channel_statistics", "read_image", "scale_whole", "take_centre"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# ImageNet's statistics: what large images are normalised with by every published network.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: Path) -> np.ndarray[Any, Any]:
    """Reads a file as RGB uint8 (h, w, 3), upright; 16 grey bits are scaled to 8.

    Raises UserError, naming the file, where it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            # Pillow's own conversion of these cuts at 255: nearly all of a picture would be white.
            if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format == "PNG"):
                grey = np.round(np.asarray(upright).astype(np.float64) / 257).astype(np.uint8)
                return repeat(grey, "h w -> h w c", c=3)
            if upright.mode in ("I", "F"):
                raise ValueError(f"its pixels are of Pillow's mode {upright.mode}, not of 8 or 16 bits")
            return np.array(upright.convert("RGB"))
    except Exception as error:  # Pillow raises whatever the decoder found: OSError, SyntaxError, struct.error, ...
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def take_centre(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Scales the shorter side of a uint8 image (h, w, 3) to 8/7 of `size` and returns the centre, (size, size, 3).

    It is the usual view for evaluation (256 -> 224).
    """
    from PIL import Image

    height, width = image.shape[:2]
    scale = size * 8 / 7 / min(height, width)
    picture = Image.fromarray(image).resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def scale_whole(images: np.ndarray[Any, Any], size: int | None) -> np.ndarray[Any, Any]:
    """Scales uint8 images (n, h, w, c) to (n, size, size, c), bilinear; returns them as they are where size is None."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    pixels = rearrange(torch.from_numpy(images), "n h w c -> n c h w").float()
    scaled = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return rearrange(scaled.round().clamp(0, 255).byte(), "n c h w -> n h w c").numpy()


def channel_statistics(images: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation per channel, (c,) float32 on the 0..1 scale, of uint8 images (n, h, w, c).

    The standard deviation is at least 0.001, so that a channel without any contrast can be divided by it.
    """
    channels = images.shape[3]
    total, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(images), 2048):  # in chunks: float64 copies of all would be eight times the images
        chunk = images[start : start + 2048].reshape(-1, channels).astype(np.float64)
        total += chunk.sum(0)
        squares += np.square(chunk).sum(0)
    count = images.size // channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    as_tensor = [torch.tensor(v / 255, dtype=torch.float32) for v in (mean, np.maximum(std, 0.255))]
    return as_tensor[0], as_tensor[1]
