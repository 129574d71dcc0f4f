"""Image files: reading them, and a split that reads them as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.data.augment import normalise
from bnn_itrd.data.splits import Batch, mix_seed, shuffled
from bnn_itrd.errors import UserError

__all__ = ["MEAN", "STD", "SUFFIXES", "FolderSplit", "read_image", "resize"]


SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# ImageNet's statistics: what large images are normalised with by every published network.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: Path) -> np.ndarray[Any, Any]:
    """RGB uint8 (h, w, 3); 16 grey bits are scaled to 8. Raises UserError, naming the file, where it cannot be read."""
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


def resize(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Shorter side to 8/7 of size, then the centre: the usual view for evaluation (256 -> 224)."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = size * 8 / 7 / min(height, width)
    picture = Image.fromarray(image).resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


class _Reader(Dataset[tuple[Tensor, int, int]]):
    """Reads and, in training, augments one image; its random numbers depend on (seed, epoch, index) alone."""

    def __init__(self, paths: list[Path], labels: Tensor, size: int, train: tuple[int, int] | None, flip: bool):
        from torchvision.transforms import v2

        self.paths, self.labels, self.size, self.train = paths, labels, size, train
        steps: list[Any] = [v2.RandomResizedCrop(size, antialias=True)]
        self.augment = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image = read_image(self.paths[index])
        if self.train is None:
            pixels = rearrange(torch.from_numpy(resize(image, self.size).copy()), "h w c -> c h w")
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mix_seed(*self.train, 1, index))
                pixels = self.augment(rearrange(torch.from_numpy(image.copy()), "h w c -> c h w"))
        return pixels, int(self.labels[index]), index


class FolderSplit:
    """Large images on disk, through DataLoader and torchvision.transforms.v2; normalised on the device.

    mean, std: (3,), on the 0..1 scale; ImageNet's unless `ImageData.normalised_with` sets others.
    """

    def __init__(self, paths: list[Path], labels: Tensor, *, size: int, workers: int, flip: bool) -> None:
        self.paths, self.labels, self.size, self.workers, self.flip = paths, labels, size, workers, flip
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)

    def __len__(self) -> int:
        return len(self.paths)

    def _walk(
        self, order: list[int], batch_size: int, train: tuple[int, int] | None, device: torch.device
    ) -> Iterator[Batch]:
        reader = _Reader(self.paths, self.labels, self.size, train, self.flip)
        loader = DataLoader(
            reader,
            batch_size=batch_size,
            sampler=order,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        mean, std = self.mean.to(device), self.std.to(device)
        try:
            for images, labels, index in loader:
                pixels, labels, index = (t.to(device, non_blocking=True) for t in (images, labels, index))
                yield normalise(pixels, mean, std), labels, index
        except UserError as error:
            # A worker process sends its traceback along; the message is its last line.
            raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from error

    def train_batches(
        self, batch_size: int, *, seed: int, epoch: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        order = shuffled(len(self), seed=seed, epoch=epoch).tolist()
        full = len(order) // batch_size * batch_size
        yield from self._walk(order[rank:full:world], batch_size // world, (seed, epoch), device)

    def eval_batches(self, batch_size: int, *, device: torch.device) -> Iterator[Batch]:
        yield from self._walk(list(range(len(self))), batch_size, None, device)

    def raw(self, index: int) -> np.ndarray[Any, Any]:
        return resize(read_image(self.paths[index]), self.size)
