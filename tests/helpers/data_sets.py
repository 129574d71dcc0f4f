"""Functions that write small image folders, also in the layout of published data sets, and load them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.splits import ImageData

CPU = torch.device("cpu")


def write_images(root: Path, *, size: tuple[int, int] = (20, 20), n: int = 5, classes: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / f"kind{c}").mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"kind{c}" / f"{i}.png")
    return root


def folder(root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name="folder", root=str(root), **more))  # type: ignore[arg-type]


def save(path: Path, *, side: int = 70, value: int = 128) -> None:
    """Writes a square grey image with a white frame, whose width is an eighth of the side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), 255, np.uint8)
    edge = side // 8
    pixels[edge:-edge, edge:-edge] = value
    Image.fromarray(pixels).save(path, quality=95)


def write_imagenet(root: Path) -> None:
    for c, name in enumerate(("n01440764", "n01443537")):
        for i in range(4):
            save(root / "train" / name / f"{name}_{i}.JPEG", value=50 * c)
        save(root / "val" / name / "ILSVRC2012_val_00000001.JPEG")
    save(root / "test" / "ILSVRC2012_test_00000001.JPEG")


def published(name: str, root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name=name, root=str(root), workers=0, **more))  # type: ignore[arg-type]


def files(split: object) -> list[str]:
    assert isinstance(split, FolderSplit)
    return [path.name for path in split.paths]
