"""Finds image files in folders, reads them as uint8 pixels, and makes an exported file's input of them.

Pillow reads and resizes the images, and is imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ImageError

__all__ = [
    "LEFT_BEHIND",
    "SUFFIXES",
    "images_of",
    "is_rest",
    "photo_files",
    "picture_of_file",
    "picture_pixels",
    "prepare_image",
    "scale_to",
    "take_centre",
]

# Endings of the file names of images.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Endings of images in formats that are not read; `images_of` says so.
_OTHER_FORMATS = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".svg", ".tga")
# Names of folders that some tool has left and that have no images of the user, and what each of them is.
LEFT_BEHIND = {
    "__MACOSX": "what macOS's archiver adds",
    "@eaDir": "what a Synology disk station adds",
    "__pycache__": "Python's",
    "lost+found": "the file system's",
}


def is_rest(name: str) -> bool:
    """Returns whether a file or folder of this name is to be ignored: a hidden one, or one that a tool left behind.

    >>> is_rest(".DS_Store"), is_rest("__MACOSX"), is_rest("cat.png")
    (True, True, False)
    """
    return name.startswith(".") or name in LEFT_BEHIND


def images_of(root: Path, *, say: Callable[[str], None] | None = None) -> list[Path]:
    """Returns the image files in a folder and its subfolders, in sorted order.

    say: a function that is called with a message if there are also images in formats that are not read.

    >>> images_of(Path("photos"))  # doctest: +SKIP
    [PosixPath('photos/cat.png')]
    """
    files = [p for p in root.rglob("*") if not any(map(is_rest, p.relative_to(root).parts))]
    others = sorted(p for p in files if p.suffix.lower() in _OTHER_FORMATS)
    if others and say is not None:
        say(f"images such as {others[0]} ({len(others)} in all) have a format that is not read: make them PNG or JPEG")
    return sorted(p for p in files if p.suffix.lower() in SUFFIXES)


def photo_files(paths: Sequence[Path], *, say: Callable[[str], None] | None = None) -> list[Path]:
    """Returns the image files that a user names: a file as it is, and for a folder all images in it (see `images_of`).

    Raises ImageError on a path that does not exist, and on a folder without images.

    >>> photo_files([Path("photos"), Path("a.png")])  # doctest: +SKIP
    [PosixPath('photos/cat.png'), PosixPath('a.png')]
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ImageError(f"no such image or folder of images: {path}")
        images = images_of(path, say=say) if path.is_dir() else [path]
        if not images:
            raise ImageError(f"{path} holds no image file (no name ends in {', '.join(SUFFIXES)})")
        found += images
    return found


def picture_of_file(path: Path) -> np.ndarray[Any, Any]:
    """Reads an image file as RGB pixels, uint8 (h, w, 3), turned upright as its EXIF entry says.

    Grey values of 16 bits become 8, and transparent pixels white. Raises ImageError if the file cannot be read, or if
    Pillow is not installed.

    >>> picture_of_file(Path("cat.png")).shape
    (4, 4, 3)
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImageError("image files are read with Pillow, which is not installed: pip install pillow") from error
    try:
        with Image.open(path) as image:
            _check_pixels(image.size)
            upright = ImageOps.exif_transpose(image)
            pixels = picture_pixels(upright, deep=upright.mode == "I" and image.format == "PNG")
            return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def _check_pixels(size: tuple[int, int]) -> None:
    """Raises ValueError if a picture has more pixels than Pillow's limit, because they could fill the memory."""
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise ValueError(f"it has {size[0]}x{size[1]} pixels, but at most {most:,} are read: make it smaller")


def picture_pixels(picture: Any, *, deep: bool = False) -> np.ndarray[Any, Any]:
    """Returns the pixels of a Pillow picture as uint8, (h, w, 1) if it is grey, else (h, w, 3) in the order RGB.

    Transparent pixels become white. deep: the picture has grey values of 16 bits, whatever Pillow's mode is; such
    values become 8 bits in any case. Raises ValueError if the pixels have neither 8 nor 16 bits.

    >>> from PIL import Image
    >>> picture_pixels(Image.new("L", (5, 4))).shape
    (4, 5, 1)
    """
    # Pillow's own conversion would clip the values at 255, which makes nearly all of such a picture white.
    if deep or picture.mode.startswith("I;16"):
        return np.round(np.asarray(picture).astype(np.float64) / 257).astype(np.uint8)[..., None]
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels have neither 8 nor 16 bits (Pillow's mode {picture.mode}): save it with 8 bits")
    grey = picture.mode in ("1", "L")
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        # Without its alpha channel a picture shows the colour of its transparent pixels, which is mostly black: a black
        # icon would disappear.
        picture = _on_white(picture)
    if grey:
        return np.array(picture.convert("L"))[..., None]
    return np.array(picture.convert("RGB"))


def _on_white(picture: Any) -> Any:
    """Returns a Pillow picture with transparency as one in front of a white background."""
    from PIL import Image

    direct = {"RGBa": "RGBA", "La": "LA"}  # Pillow converts each of these modes only to that one
    picture = picture.convert(direct.get(picture.mode, picture.mode)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def take_centre(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Scales the shorter side of a uint8 image (h, w, c) to 8/7 of `size` and returns the centre, (size, size, c).

    It is the usual centre crop of ImageNet's evaluation (256 -> 224).

    >>> take_centre(np.zeros((80, 100, 3), np.uint8), 56).shape
    (56, 56, 3)
    """
    from PIL import Image

    height, width = image.shape[:2]
    scale = size * 8 / 7 / min(height, width)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size))).reshape(size, size, -1)


def scale_to(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Scales a whole uint8 image (h, w, c) to (size, size, c), bilinear with antialiasing.

    A value is computed in floats and rounded once, as the training's `scale_whole` does. Only a value halfway between
    two integers may be rounded the other way there.

    >>> scale_to(np.full((8, 6, 1), 7, np.uint8), 2).tolist()
    [[[7], [7]], [[7], [7]]]
    """
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
        for plane in np.moveaxis(image, 2, 0).astype(np.float32)
    ]
    return np.stack(planes, axis=2).round().clip(0, 255).astype(np.uint8)


def prepare_image(image: np.ndarray[Any, Any], metadata: dict[str, Any], *, raw: bool) -> np.ndarray[Any, Any]:
    """Turns an RGB image, uint8 (h, w, 3), into one input image of an exported file, (c, h', w').

    metadata: the file's, with `input_shape` (c, h', w'), `mean` and `std` per channel, and `resize`, which is "centre"
    for a centre crop and else scales the whole image. The image becomes grey if c is 1. The result is normalised
    float32, or uint8 if `raw`, for a file that normalises the images itself.
    Raises ImageError if the image has another size and the file's images are not square.

    >>> metadata = {"input_shape": [1, 4, 4], "mean": [0.5], "std": [0.25]}
    >>> prepare_image(np.zeros((8, 8, 3), np.uint8), metadata, raw=False).shape
    (1, 4, 4)
    """
    channels, height, width = metadata["input_shape"]
    if channels == 1:
        # These are the weights of ITU-R 601, as in Pillow's convert("L"). It comes before the resizing, because the
        # images of a grey data set are stored grey.
        image = np.round(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    if image.shape[:2] != (height, width):
        if height != width:
            raise ImageError(
                f"images must be {height} x {width} pixels for this file, got {image.shape[0]} x {image.shape[1]}"
            )
        image = take_centre(image, height) if metadata.get("resize") == "centre" else scale_to(image, height)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    if raw:
        return pixels
    mean = np.asarray(metadata["mean"], np.float32)[:, None, None]
    std = np.asarray(metadata["std"], np.float32)[:, None, None]
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std
