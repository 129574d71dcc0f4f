"""Functions that load data sets of image files; sets of small images are held in memory, large images are not."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.files.photo_sizes import SMALL_SIZE, usual_square
from bnn_itrd.data.images import MEAN, STD, channel_statistics, read_image, scale_whole
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.subset import choose, hold_out_fifth
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError
from bnn_itrd.export.runtime.images import LEFT_BEHIND, SUFFIXES, images_of, is_rest, take_centre
from bnn_itrd.words import counted

__all__ = [
    "LARGE_SIZE",
    "Listing",
    "list_folder",
    "load_folder",
    "load_listing",
    "scan",
    "scan_pair",
    "split_folders",
]

LARGE_SIZE = 224
_SMALL_BYTES = 2**30
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "val"
)


@dataclass(frozen=True)
class Listing:
    """The image files of a data set: the class names, and the files of its splits with their labels.

    paths, labels: those of the training images. labels, test_labels: (n,) from 0. val: files and labels of held-out
    images, if the data set has them.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    labels: np.ndarray[Any, Any]
    test_paths: list[Path]
    test_labels: np.ndarray[Any, Any]
    val: tuple[list[Path], np.ndarray[Any, Any]] | None = None


def scan(root: Path, *, quiet: bool = False) -> tuple[tuple[str, ...], list[Path], np.ndarray[Any, Any]]:
    """Returns (class names, files, labels) of a folder that holds one folder of images for each class.

    Images may lie at any depth in a class's folder. All is in sorted order. Hidden files, and those that archivers and
    file systems leave behind (``__MACOSX``), are left out; quiet: without a note about it. Raises UserError if there
    are fewer than two classes, or a class has no image.

    >>> scan(Path("photos"))[0]  # doctest: +SKIP
    ('cat', 'dog')
    """
    for name, what in LEFT_BEHIND.items():
        if (root / name).is_dir() and not quiet:
            _note(f"{root / name} is not read: it is {what}, and no class")
    classes = tuple(path.name for path in _folders_of(root))
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        inside = [p.name for p in _folders_of(root / classes[0])] if classes else []
        hint = f"; is {root / classes[0]} meant, which holds {', '.join(inside[:3])}?" if len(inside) > 1 else ""
        raise UserError(f"{root} must hold at least two folders of images, one for each class; found {found}{hint}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = images_of(root / name, say=None if quiet else _note)
        if not files:
            raise UserError(f"{root / name} holds no image ({', '.join(SUFFIXES)})")
        paths += files
        labels += [label] * len(files)
    return classes, paths, np.asarray(labels, dtype=np.int64)


def _folders_of(root: Path) -> list[Path]:
    """Returns the folders in a folder, in sorted order, without hidden ones and those of archivers."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_rest(path.name))


def _loose_images(root: Path) -> list[Path]:
    """Returns the image files that lie directly in a folder, in sorted order."""
    return sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and not is_rest(p.name) and p.is_file())


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def scan_pair(train: Path, test: Path, *, quiet: bool = False) -> Listing:
    """Lists a folder of training images and one of test images, which must have the same classes; see `scan`.

    Raises UserError as `scan` does, and if the classes differ.
    """
    classes, paths, labels = scan(train, quiet=quiet)
    test_classes, test_paths, test_labels = scan(test, quiet=quiet)
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise UserError(f"{train} and {test} must hold the same classes; they differ in {odd}")
    return Listing(classes, paths, labels, test_paths, test_labels)


def load_folder(config: DataConfig) -> ImageData:
    """Returns the data set of a user's folder of images, ``config.root``.

    The folder holds train/CLASS/* and test/CLASS/*, or CLASS/*, of which a fifth is then kept for testing. A folder val
    is held out to choose the best epoch; without test it is used for testing. The names may be in capitals, or
    training, testing, valid and validation.
    Raises UserError as `list_folder` does, and if an image cannot be read.
    """
    return load_listing(config, list_folder(config))


def list_folder(config: DataConfig, *, quiet: bool = False) -> Listing:
    """Returns the files, labels and classes that `load_folder` loads, without reading an image.

    quiet: without a note about files that are left out. Raises UserError if there is no folder, there are fewer than
    two classes, a class is empty, or train and test have different classes.

    >>> list_folder(DataConfig(name="folder", root="photos")).classes  # doctest: +SKIP
    ('cat', 'dog')
    """
    if config.root is None or not Path(config.root).is_dir():
        raise UserError(
            f"data set 'folder' needs --data.root, a folder with one folder of images per class; got {config.root!r}"
        )
    root = Path(config.root)
    if parts := split_folders(root, quiet=quiet):
        listing = scan_pair(parts["train"], parts.get("test") or parts["val"], quiet=quiet)
        if "test" in parts and "val" in parts:
            if config.val_fraction:
                raise UserError(f"{parts['val']} is held out already: leave out data.val_fraction")
            held = scan_pair(parts["train"], parts["val"], quiet=quiet)
            listing = replace(listing, val=(held.test_paths, held.test_labels))
        return listing
    classes, paths, labels = scan(root, quiet=quiet)
    train, test = hold_out_fifth(labels, str(root))
    return Listing(classes, [paths[i] for i in train], labels[train], [paths[i] for i in test], labels[test])


def split_folders(root: Path, *, quiet: bool = False) -> dict[str, Path]:
    """Returns the folders of a data set that is split already, as a dict with the keys 'train', 'test' and 'val'.

    The dict is empty if `root` has no such folders. Raises UserError if it has two for one key, or has train without
    test and val, or the reverse.
    """
    found: dict[str, Path] = {}
    folders = _folders_of(root)
    for path in folders:
        name = _SPLITS.get(path.name.lower())
        if name is not None and found.setdefault(name, path) != path:
            raise UserError(
                f"{root} has two folders of the same meaning, {found[name].name!r} and {path.name!r}: keep one of them"
            )
    loose = {path: files for path in found.values() if (files := _loose_images(path))}
    # A folder called train is a class if images lie directly in it, and a split if it contains folders.
    if not found or any(len(found) == 1 or not _folders_of(path) for path in loose):
        return {}
    for files in () if quiet else loose.values():
        _note(f"images such as {files[0]} ({len(files)}) are not read: they are not in the folder of a class")
    if "train" not in found:
        there = next(iter(found.values())).name
        raise UserError(f"{root} has a folder {there!r} of folders, but no folder 'train': add one")
    if len(found) == 1:
        raise UserError(f"{root} has a folder {found['train'].name!r} but neither 'test' nor 'val': add one of them")
    for path in folders:
        if path not in found.values() and not quiet:
            _note(f"{path} is not read: only {', '.join(sorted(p.name for p in found.values()))} of {root} are")
    return found


def load_listing(
    config: DataConfig,
    listing: Listing,
    *,
    size: int | None = None,
    small_bytes: int = _SMALL_BYTES,
    scale: bool = False,
) -> ImageData:
    """Returns the data set of listed image files.

    Images of at most 64x64 pixels are held in memory, if they are at most `small_bytes` in all; others are read when
    needed. size: height and width if `config.image_size` is None; by default that of nine tenths of the files if these
    are equal, square and small, else 224. scale: small images of another size are scaled whole; otherwise, and for
    large images always, their centre is cropped.
    Raises UserError, which names the file, if an image cannot be read.
    """
    keep, held = choose(config, listing.labels, listing.classes)
    groups = {
        "train": ([listing.paths[i] for i in keep], listing.labels[keep]),
        "val": listing.val or ([listing.paths[i] for i in held], listing.labels[held]),
        "test": (listing.test_paths, listing.test_labels),
    }
    paths = [path for files, _ in groups.values() for path in files]
    size = config.image_size or size or _usual_size(paths)
    small = size <= SMALL_SIZE and len(paths) * size * size * 3 <= small_bytes
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
        splits["val"] if len(groups["val"][0]) else None,
        splits["test"],
        resize="scale" if small and scale else "centre",
    )


def _usual_size(paths: list[Path]) -> int:
    """Returns the height and width that images get if the user gives none.

    It is that of nine tenths of the files if these are equal, square and small, else 224. Up to two thousand files are
    opened to see their sizes. Prints a note if some have another size, or all are enlarged.
    """
    from PIL import Image

    sizes: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in paths[:: max(1, len(paths) // 1000)]:
        try:
            with Image.open(path) as image:
                sizes[image.size].append(path)
        except Exception as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error
    seen = [size for size, files in sizes.items() for _ in files]
    if (width := usual_square(seen)) is not None:
        if odd := [files[0] for size, files in sizes.items() if size != (width, width)]:
            one, several = (f"of {len(seen)} images {verb}" for verb in ("is", "are"))
            told = counted(len(seen) - len(sizes[width, width]), one, several)
            _note(f"{told} of another size ({odd[0]}) and resized to {width}x{width}, like the others")
        return width
    width, height = max(sizes, key=lambda size: len(sizes[size]))
    if max(max(size) for size in sizes) < LARGE_SIZE:
        found = f"of {width}x{height}" if len(sizes) == 1 else f"of {len(sizes)} sizes, most of {width}x{height}"
        _note(f"the images are {found}, and are enlarged to {LARGE_SIZE}x{LARGE_SIZE}; --data.image_size sets another")
    return LARGE_SIZE


# 'train', 'val' or 'test' -> (files, labels).
_Groups = dict[str, tuple[list[Path], np.ndarray[Any, Any]]]


def _in_memory(config: DataConfig, groups: _Groups, size: int, scale: bool) -> dict[str, TensorSplit]:
    """Reads all images and returns the splits that hold them in memory; scale: see `load_listing`."""

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
    """Returns the splits whose images are read when they are needed."""
    return {
        name: FolderSplit(paths, torch.from_numpy(labels), size=size, workers=config.workers, flip=config.flip)
        for name, (paths, labels) in groups.items()
    }
