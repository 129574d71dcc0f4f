"""Functions that load STL-10 (Coates et al. 2011) from its published binary files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.arrays import Arrays, from_arrays
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError

__all__ = ["load_stl10"]

_Array = np.ndarray[Any, Any]

_SIDE = 96


def _split(folder: Path, split: str, classes: int) -> tuple[_Array, _Array]:
    """Reads the images, uint8 (n, 96, 96, 3), and labels (n,) from 0 of a split, 'train' or 'test'.

    In the files an image is stored column by column, and labels begin at 1. Raises UserError if the files have another
    size, or a label is no class.
    """
    x, y = (np.fromfile(folder / f"{split}_{part}.bin", dtype=np.uint8) for part in ("X", "y"))
    image = 3 * _SIDE**2
    if len(x) == 0 or len(x) % image:
        raise UserError(f"{folder / f'{split}_X.bin'} must hold whole images of {image} bytes, got {len(x)} bytes")
    images = rearrange(x, "(n c w h) -> n h w c", c=3, w=_SIDE, h=_SIDE)
    if len(y) != len(images) or not ((y >= 1) & (y <= classes)).all():
        raise UserError(
            f"{folder / f'{split}_y.bin'} must hold {len(images)} labels from 1 to {classes}, a byte for each image of "
            f"{split}_X.bin; got {len(y)}" + (f" from {y.min()} to {y.max()}" if len(y) else "")
        )
    return np.ascontiguousarray(images), y.astype(np.int64) - 1


def load_stl10(config: DataConfig) -> ImageData:
    """Returns STL-10: 5,000 training and 8,000 test images of 96x96, read from the files that torchvision downloads.

    Its unlabelled images are not read. Raises UserError if the folder or a file is missing, a file has another size, or
    a label is out of range.
    """
    files = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    remedies = (
        f"give --data.root the folder stl10_binary with {', '.join(files)}, or the folder that contains it, or let "
        "torchvision fetch it with --data.download true"
    )
    if config.root is None and not config.download:
        raise UserError(f"data set 'stl10' needs its images: {remedies}")
    root = Path(config.root or "data")
    if config.download:
        from torchvision.datasets import STL10

        try:
            STL10(root, split="train", download=True)
        except (RuntimeError, OSError) as error:
            raise UserError(f"stl10 could not be fetched into {root} ({error}): {remedies}") from error
    folder = root / "stl10_binary" if (root / "stl10_binary").is_dir() else root
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(f"no file {folder / missing[0]}: {remedies}")
    classes = tuple((folder / "class_names.txt").read_text().split())
    train, test = (_split(folder, name, len(classes)) for name in ("train", "test"))
    return from_arrays(config, Arrays(*train, *test, classes))
