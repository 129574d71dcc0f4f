"""Image files and .npz data sets, damaged. What still decodes is a picture like any other: no format knows better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import write_npz

from faults.exports import CLASSES, SHAPE, small_network
from faults.mutations import mutate_archive, mutate_bytes
from faults.outcomes import OPENED, REFUSED, run_command

__all__ = ["mutate", "open_image", "prepare"]

_SELDOM = 10


def prepare(folder: Path) -> None:
    """Writes a picture of each format and mode, a data set, and a file that classifies."""
    from PIL import Image

    from bnn_itrd.export import to_onnx

    good = folder / "good"
    good.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    pixels[4:20, 4:16] = 200
    colour = Image.fromarray(pixels[..., :3])
    exif = Image.Exif()
    exif[274] = 6  # turned
    for suffix in ("bmp", "png", "ppm", "tif", "webp"):
        colour.save(good / f"colour.{suffix}")
    colour.save(good / "turned.jpg", exif=exif)
    colour.save(good / "progressive.jpeg", progressive=True)
    colour.save(good / "packed.tiff", compression="tiff_lzw")
    Image.fromarray(pixels).save(good / "transparent.png")
    colour.quantize(16).save(good / "palette.png", transparency=3)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(good / "deep.png")
    write_npz(good / "data.npz")
    to_onnx(
        small_network(), folder / "a.onnx", input_shape=SHAPE, normalization=([0.5] * 3, [0.2] * 3), classes=CLASSES
    )


def mutate(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages the bytes of a picture or a data set, or the parts of the latter."""
    files = sorted((folder / "good").iterdir())
    file = files[int(rng.integers(len(files)))]
    data = file.read_bytes()
    if file.suffix == ".npz" and rng.random() < 0.7:
        return file.name, mutate_archive(data, rng), "archive"
    return file.name, mutate_bytes(data, rng), "bytes"


def open_image(path: Path, folder: Path, how: str, number: int) -> str:
    """Reads it as a data set's image; now and then a file classifies it."""
    from bnn_itrd.config.data import DataConfig
    from bnn_itrd.data.datasets import load_data
    from bnn_itrd.data.images import read_image
    from bnn_itrd.errors import UserError

    if path.suffix != ".npz" and number % _SELDOM == 0:
        run_command("predict", folder / "a.onnx", path)
    try:
        if path.suffix == ".npz":
            load_data(DataConfig(name="cifar10", root=str(path), image_size=8))
        else:
            pixels = read_image(path)
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    except UserError:
        return REFUSED
    return OPENED
