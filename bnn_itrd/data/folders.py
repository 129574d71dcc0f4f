"""Data sets of image files, in a folder for each class or listed: small ones in memory, large ones read as needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.folder_split import FolderSplit
from bnn_itrd.data.images import MEAN, STD, SUFFIXES, channel_statistics, read_image, scale_whole, take_centre
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.subset import choose, hold_out_fifth
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError

__all__ = ["LARGE_SIZE", "Listing", "load_folder", "load_listing", "scan", "scan_pair"]

LARGE_SIZE = 224
_SMALL_SIZE, _SMALL_BYTES = 64, 2**30


@dataclass(frozen=True)
class Listing:
    """The classes, and files with their labels (n,) from 0, to train on and to test on."""

    classes: tuple[str, ...]
    paths: list[Path]
    labels: np.ndarray[Any, Any]
    test_paths: list[Path]
    test_labels: np.ndarray[Any, Any]


def scan(root: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray[Any, Any]]:
    """Lists a folder with one folder of images per class: (classes, files, labels), at any depth, in sorted order.

    Raises UserError on fewer than two classes or an empty one.
    """
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        raise UserError(f"{root} must hold at least two folders of images, one for each class; found {found}")
    if "__MACOSX" in classes:
        raise UserError(f"{root / '__MACOSX'} is no class: macOS adds it to its archives, so remove it")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{root / name} holds no image ({', '.join(SUFFIXES)})")
        paths += files
        labels += [label] * len(files)
    return classes, paths, np.asarray(labels, dtype=np.int64)


def scan_pair(train: Path, test: Path) -> Listing:
    """Lists two folders of the same classes. Raises UserError as `scan` does, and where the classes differ."""
    classes, paths, labels = scan(train)
    test_classes, test_paths, test_labels = scan(test)
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise UserError(f"{train} and {test} must hold the same classes; they differ in {odd}")
    return Listing(classes, paths, labels, test_paths, test_labels)


def load_folder(config: DataConfig) -> ImageData:
    """Loads root/train/CLASS/* with root/test (or root/val), or root/CLASS/*, of which a fifth is kept for testing.

    Raises UserError: no folder, fewer than two classes, an empty class, classes that differ between train and test,
    an image that cannot be read (named).
    """
    if config.root is None or not Path(config.root).is_dir():
        raise UserError(
            f"data set 'folder' needs --data.root, a folder with one folder of images per class; got {config.root!r}"
        )
    root = Path(config.root)
    if (root / "train").is_dir():
        tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
        if not tests:
            raise UserError(f"{root} has a folder 'train' but neither 'test' nor 'val' beside it")
        return load_listing(config, scan_pair(root / "train", tests[0]))
    classes, paths, labels = scan(root)
    train, test = hold_out_fifth(labels, str(root))
    listing = Listing(classes, [paths[i] for i in train], labels[train], [paths[i] for i in test], labels[test])
    return load_listing(config, listing)


def load_listing(
    config: DataConfig,
    listing: Listing,
    *,
    size: int | None = None,
    small_bytes: int = _SMALL_BYTES,
    scale: bool = False,
) -> ImageData:
    """Makes the data set of listed files: in memory where they are small (64 pixels, `small_bytes`), else on disk.

    size: height and width without `config.image_size`; by default the files' own where they are small and alike, else
    224. scale: small images of another size are scaled whole; otherwise their centre is taken, as of large ones.
    Raises UserError on an image that cannot be read (named).
    """
    keep, held = choose(config, listing.labels, listing.classes)
    groups = {
        "train": ([listing.paths[i] for i in keep], listing.labels[keep]),
        "val": ([listing.paths[i] for i in held], listing.labels[held]),
        "test": (listing.test_paths, listing.test_labels),
    }
    paths = [path for files, _ in groups.values() for path in files]
    size = config.image_size or size or _common_small_size(paths) or LARGE_SIZE
    small = size <= _SMALL_SIZE and len(paths) * size * size * 3 <= small_bytes
    splits = _in_memory(config, groups, size, scale) if small else _on_disk(config, groups, size)
    mean, std = MEAN, STD
    first = splits["train"]
    if isinstance(first, TensorSplit):
        mean, std = tuple(first.mean.tolist()), tuple(first.std.tolist())
    return ImageData(
        config.name,
        listing.classes,
        mean,
        std,
        (3, size, size),
        first,
        splits["val"] if len(held) else None,
        splits["test"],
        resize="scale" if small and scale else "centre",
    )


def _common_small_size(paths: list[Path]) -> int | None:
    """Returns the side of the images where all are square, alike and small, else None: then they need resizing."""
    from PIL import Image

    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except Exception as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error
        if len(sizes) > 1:
            return None
    width, height = sizes.pop()
    return width if width == height <= _SMALL_SIZE else None


_Groups = dict[str, tuple[list[Path], np.ndarray[Any, Any]]]


def _in_memory(config: DataConfig, groups: _Groups, size: int, scale: bool) -> dict[str, TensorSplit]:
    def fitted(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if image.shape == (size, size, 3):
            return image
        return scale_whole(image[None], size)[0] if scale else take_centre(image, size)

    def pixels(paths: list[Path]) -> np.ndarray[Any, Any]:
        images = np.zeros((len(paths), size, size, 3), dtype=np.uint8)
        for i, path in enumerate(paths):
            images[i] = fitted(read_image(path))
        return images

    arrays = {name: pixels(paths) for name, (paths, _) in groups.items()}
    mean, std = channel_statistics(arrays["train"])
    return {
        name: TensorSplit(
            rearrange(torch.from_numpy(arrays[name]), "n h w c -> n c h w").contiguous(),
            torch.from_numpy(labels),
            mean,
            std,
            crop_padding=config.crop_padding,
            flip=config.flip,
        )
        for name, (_, labels) in groups.items()
    }


def _on_disk(config: DataConfig, groups: _Groups, size: int) -> dict[str, FolderSplit]:
    return {
        name: FolderSplit(paths, torch.from_numpy(labels), size=size, workers=config.workers, flip=config.flip)
        for name, (paths, labels) in groups.items()
    }
