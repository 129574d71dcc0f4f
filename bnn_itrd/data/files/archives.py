"""Functions that load published data sets of image files, as unpacked: TinyImageNet, ImageNet, MIT-67 and CUB-200."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.files.folders import LARGE_SIZE, Listing, load_listing, scan, scan_pair
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError

__all__ = ["load_published"]

# Image files and their labels (n,).
_Part = tuple[list[Path], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Layout:
    """The layout of a published data set's folder.

    archive: the folder's name after unpacking. parts: files and folders that it must have. expected: the same in words,
    for messages. read: a function that lists the images of the folder. size: height and width of the images by default.
    small_bytes, scale: see `load_listing`.
    """

    archive: str
    parts: tuple[str, ...]
    expected: str
    read: Callable[[Path], Listing]
    size: int = LARGE_SIZE
    small_bytes: int = 2**30
    scale: bool = False


def _rows(file: Path, columns: int, separator: str | None = None) -> list[list[str]]:
    """Returns the lines of a text file, each split into columns; empty lines are left out.

    separator: the text between columns; white space by default. Raises UserError if a line has fewer than `columns`, or
    the file is empty.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = line.strip().split(separator)
        if len(row) < columns:
            raise UserError(f"{file}, line {number}: expected {columns} columns, got {line.strip()!r}")
        rows.append(row)
    if not rows:
        raise UserError(f"{file} is empty: unpack the data set again")
    return rows


def _present(folder: Path, names: Sequence[str], listed_in: Path) -> list[Path]:
    """Returns the paths of named files in a folder; raises UserError if one is missing. listed_in: the list's file."""
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise UserError(f"no file {path}, which is listed in {listed_in}")
    return paths


def _labels(names: Sequence[str], classes: Sequence[str], file: Path) -> np.ndarray[Any, Any]:
    """Returns the labels (n,) of images from the names of their classes; raises UserError on an unknown name.

    classes: all class names in the order of their labels. file: where `names` stand, for the message.
    """
    index = {name: i for i, name in enumerate(classes)}
    for name in names:
        if name not in index:
            raise UserError(f"{file} names the class {name!r}, which has no training image")
    return np.array([index[name] for name in names], dtype=np.int64)


def _tiny_imagenet(root: Path) -> Listing:
    """Lists the images of TinyImageNet.

    Its validation images become the test images, because those in its folder test have no labels.
    """
    classes, paths, labels = scan(root / "train")
    file = root / "val" / "val_annotations.txt"
    rows = _rows(file, 2, "\t")
    test = _present(root / "val" / "images", [row[0] for row in rows], file)
    return Listing(classes, paths, labels, test, _labels([row[1] for row in rows], classes, file))


def _imagenet(root: Path) -> Listing:
    """Lists the images of ImageNet; its validation images become the test images, also if there is a folder test."""
    return scan_pair(root / "train", root / "val")


def _mit67(root: Path) -> Listing:
    """Lists the images of MIT-67, whose two text files name the training and the test images as CLASS/NAME."""
    files = [root / "TrainImages.txt", root / "TestImages.txt"]
    # The names of files may contain spaces, so a line is not split into columns.
    train, test = ([line.strip() for line in f.read_text(encoding="utf-8").splitlines() if line.strip()] for f in files)
    for file, names in zip(files, (train, test), strict=True):
        odd = [name for name in names if name.count("/") != 1]
        if odd or not names:
            raise UserError(f"{file} must list images as CLASS/NAME, got {odd[0] if odd else 'nothing'!r}")
    classes = tuple(sorted({name.split("/")[0] for name in train}))

    def part(file: Path, names: list[str]) -> _Part:
        labels = _labels([name.split("/")[0] for name in names], classes, file)
        return _present(root / "Images", names, file), labels

    return Listing(classes, *part(files[0], train), *part(files[1], test))


def _cub200(root: Path) -> Listing:
    """Lists the images of CUB-200, whose text files number images and classes and say which images are for training."""

    def table(name: str) -> dict[str, str]:
        return {row[0]: row[1] for row in _rows(root / name, 2)}

    images, split, numbers, names = (
        table(f"{name}.txt") for name in ("images", "train_test_split", "image_class_labels", "classes")
    )
    for name, other in (("train_test_split.txt", split), ("image_class_labels.txt", numbers)):
        if other.keys() != images.keys():
            odd = sorted(other.keys() ^ images.keys())[0]
            raise UserError(
                f"{root / name} and {root / 'images.txt'} must number the same images; {odd} is in one of them alone"
            )
    order = {number: i for i, number in enumerate(names)}
    for number, value in split.items():
        if value not in ("0", "1"):
            raise UserError(f"{root / 'train_test_split.txt'}: image {number} must have 0 or 1, got {value!r}")
        if numbers[number] not in order:
            raise UserError(
                f"{root / 'image_class_labels.txt'}: image {number} has class {numbers[number]}, which "
                "classes.txt does not name"
            )

    def part(side: str) -> _Part:
        ids = [number for number in images if split[number] == side]
        if not ids:
            raise UserError(
                f"{root / 'train_test_split.txt'} marks no image with {side} (1: for training, 0: for testing)"
            )
        labels = np.array([order[numbers[number]] for number in ids], dtype=np.int64)
        return _present(root / "images", [images[number] for number in ids], root / "images.txt"), labels

    return Listing(tuple(names.values()), *part("1"), *part("0"))


_LAYOUTS: dict[str, _Layout] = {
    "tiny-imagenet": _Layout(
        "tiny-imagenet-200",
        ("train", "val/images", "val/val_annotations.txt"),
        "train/WNID/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt",
        _tiny_imagenet,
        size=64,
        small_bytes=2**31,  # 1.4 GB
        scale=True,
    ),
    "imagenet": _Layout("imagenet", ("train", "val"), "train/CLASS/* and val/CLASS/*", _imagenet),
    "mit67": _Layout(
        "mit67",
        ("Images", "TrainImages.txt", "TestImages.txt"),
        "Images/CLASS/*.jpg, TrainImages.txt and TestImages.txt",
        _mit67,
    ),
    "cub200": _Layout(
        "CUB_200_2011",
        ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
        "images/CLASS/*.jpg, images.txt, image_class_labels.txt, train_test_split.txt and classes.txt",
        _cub200,
    ),
}


def load_published(config: DataConfig) -> ImageData:
    """Returns a published data set of image files; `config.root` is its unpacked folder, or the folder around it.

    Raises UserError if there is no folder, a part of the published layout is missing, or a list in it does not fit the
    files.
    """
    layout = _LAYOUTS[config.name]
    if config.root is None or not Path(config.root).is_dir():
        raise UserError(
            f"data set {config.name!r} needs --data.root, a folder with {layout.expected}; got {config.root!r}"
        )
    root = Path(config.root)
    if (root / layout.archive).is_dir():
        root = root / layout.archive
    missing = [part for part in layout.parts if not (root / part).exists()]
    if missing:
        raise UserError(f"no {root / missing[0]}: data set {config.name!r} needs a folder with {layout.expected}")
    listing = layout.read(root)
    return load_listing(config, listing, size=layout.size, small_bytes=layout.small_bytes, scale=layout.scale)
