"""Images in files, a user's own in a folder per class: small ones held in memory, large ones read when needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.augment import normalise
from bnn_itrd.config import DataConfig
from bnn_itrd.data import (
    Batch,
    ImageData,
    TensorSplit,
    hold_out,
    channel_statistics,
    choose,
    mix_seed,
    resized,
    shuffled,
)
from bnn_itrd.errors import UserError

__all__ = ["FolderSplit", "Listing", "load_folder", "load_listing", "read_image", "resize", "scan", "scan_pair"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# ImageNet's statistics: what large images are normalised with by every published network.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGE_SIZE = 224
_SMALL_SIZE, _SMALL_BYTES = 64, 2**30
_TEST_SHARE = 0.2


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


@dataclass(frozen=True)
class Listing:
    """Files and labels (n,) from 0, to train on and to test on."""

    classes: tuple[str, ...]
    paths: list[Path]
    labels: np.ndarray[Any, Any]
    test_paths: list[Path]
    test_labels: np.ndarray[Any, Any]


def scan(root: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray[Any, Any]]:
    """(classes, files, labels) of a folder with one folder of images per class, at any depth, in sorted order.

    Raises UserError on fewer than two classes or an empty one.
    """
    classes = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        raise UserError(f"{root} must hold at least two folders of images, one for each class; found {found}")
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
    """Two folders of the same classes. Raises UserError as `scan` does, and where the classes differ."""
    classes, paths, labels = scan(train)
    test_classes, test_paths, test_labels = scan(test)
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise UserError(f"{train} and {test} must hold the same classes; they differ in {odd}")
    return Listing(classes, paths, labels, test_paths, test_labels)


def load_folder(config: DataConfig) -> ImageData:
    """root/train/CLASS/* with root/test (or root/val), or root/CLASS/*, of which a fifth is then kept for testing.

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
    train, test = hold_out(labels, _TEST_SHARE)
    if len(np.unique(labels[test])) < len(classes):
        raise UserError(f"{root}: a fifth of the images is kept for testing; give every class at least 3 images")
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
    """The data set of listed files, in memory where they are small (64 pixels, `small_bytes`), else read as needed.

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
    """The side of the images when all are square, alike and small: then they need no resizing."""
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
        return resized(image[None], size)[0] if scale else resize(image, size)

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
