"""Images as uint8 pixels: they are found in folders, read, scaled, and brought to the input of an exported file."""

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

# Of the files that are read as images.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_OTHER_FORMATS = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".svg", ".tga")
# Folders of these names hold nobody's images.
LEFT_BEHIND = {
    "__MACOSX": "what macOS's archiver adds",
    "@eaDir": "what a Synology disk station adds",
    "__pycache__": "Python's",
    "lost+found": "the file system's",
}


def is_rest(name: str) -> bool:
    """Whether a file or folder of this name is no image of anybody's: hidden, or left behind by a tool.

    >>> is_rest(".DS_Store"), is_rest("__MACOSX"), is_rest("cat.png")
    (True, True, False)
    """
    return name.startswith(".") or name in LEFT_BEHIND


def images_of(root: Path, *, say: Callable[[str], None] | None = None) -> list[Path]:
    """Returns the images in a folder at any depth, in sorted order; say: is called about files in other formats.

    >>> images_of(Path("photos"))  # doctest: +SKIP
    [PosixPath('photos/cat.png')]
    """
    files = [p for p in root.rglob("*") if not any(map(is_rest, p.relative_to(root).parts))]
    others = sorted(p for p in files if p.suffix.lower() in _OTHER_FORMATS)
    if others and say is not None:
        say(f"files as {others[0]} ({len(others)}) are not read: make them PNG or JPEG")
    return sorted(p for p in files if p.suffix.lower() in SUFFIXES)


def photo_files(paths: Sequence[Path], *, say: Callable[[str], None] | None = None) -> list[Path]:
    """Returns the image files for a list of paths: files as they are, and of a folder all, at any depth (`images_of`).

    Raises ImageError on a path that is not there, and on a folder without an image.

    >>> photo_files([Path("photos"), Path("a.png")])  # doctest: +SKIP
    [PosixPath('photos/cat.png'), PosixPath('a.png')]
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ImageError(f"no such image or folder of images: {path}")
        images = images_of(path, say=say) if path.is_dir() else [path]
        if not images:
            raise ImageError(f"{path} holds no image ({', '.join(SUFFIXES)})")
        found += images
    return found


def picture_of_file(path: Path) -> np.ndarray[Any, Any]:
    """Reads an image file as RGB uint8 (h, w, 3), turned upright; 16 grey bits become 8; transparency becomes white.

    Raises ImageError, naming the file, where it cannot be read.
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
    except Exception as error:  # Pillow raises whatever the decoder found: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def _check_pixels(size: tuple[int, int]) -> None:
    """Raises ValueError on a picture with more pixels than Pillow's limit: a small file may hold very many."""
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise ValueError(f"it has {size[0]}x{size[1]} pixels, and more than {most:,} are not read: make it smaller")


def picture_pixels(picture: Any, *, deep: bool = False) -> np.ndarray[Any, Any]:
    """Returns a Pillow picture as uint8, (h, w, 1) if it is grey, else (h, w, 3); transparency becomes white.

    deep: the picture has 16 grey bits, whatever its mode is. Raises ValueError on pixels of another range.
    """
    # Pillow's own conversion of 16 bits clips at 255, which makes nearly all of a picture white.
    if deep or picture.mode.startswith("I;16"):
        return np.round(np.asarray(picture).astype(np.float64) / 257).astype(np.uint8)[..., None]
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are of Pillow's mode {picture.mode}, not of 8 or 16 bits")
    grey = picture.mode in ("1", "L")
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        # Dropping the alpha channel would show hidden pixels, which are mostly black: a black icon would disappear.
        picture = _on_white(picture)
    if grey:
        return np.array(picture.convert("L"))[..., None]
    return np.array(picture.convert("RGB"))


def _on_white(picture: Any) -> Any:
    from PIL import Image

    direct = {"RGBa": "RGBA", "La": "LA"}  # Pillow converts these modes to no others
    picture = picture.convert(direct.get(picture.mode, picture.mode)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def take_centre(image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Scales the shorter side of a uint8 image (h, w, c) to 8/7 of `size` and returns the centre, (size, size, c).

    It is the usual centre crop for evaluation (256 -> 224).
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

    The sums are floats that are rounded once: the result is that of training's `scale_whole`, except for ties.
    """
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
        for plane in np.moveaxis(image, 2, 0).astype(np.float32)
    ]
    return np.stack(planes, axis=2).round().clip(0, 255).astype(np.uint8)


def prepare_image(image: np.ndarray[Any, Any], metadata: dict[str, Any], *, raw: bool) -> np.ndarray[Any, Any]:
    """Turns an RGB image, uint8 (h, w, 3), into the file's input (c, h', w'): resized, and normalised unless `raw`.

    It becomes grey where c is 1. Raises ImageError on another size where the file's images are not square.
    """
    channels, height, width = metadata["input_shape"]
    if channels == 1:
        # ITU-R 601 luma, as Pillow's convert("L"); before resizing, as a grey data set is stored.
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
