"""From image files to class names, with an exported file alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.data.images import read_image, scale_whole, take_centre
from bnn_itrd.deploy.targets import TARGETS, OpenFile, check_metadata
from bnn_itrd.errors import UserError
from bnn_itrd.export import predict_file, read_metadata, session

__all__ = ["Prediction", "classify_images", "prepare_image"]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, with softmax probabilities in [0, 1]."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def prepare_image(image: np.ndarray[Any, Any], metadata: dict[str, Any], *, raw: bool) -> np.ndarray[Any, Any]:
    """Makes of an RGB image, uint8 (h, w, 3), what the file expects, (c, h', w'): resized, grey where c is 1, and
    normalised unless `raw`. Raises UserError on another size where the file's images are not square."""
    channels, height, width = metadata["input_shape"]
    if channels == 1:
        # ITU-R 601 luma, as Pillow's convert("L"); before resizing, as a grey data set is stored.
        image = np.round(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    if image.shape[:2] != (height, width):
        if height != width:
            raise UserError(
                f"images must be {height} x {width} pixels for this file, got {image.shape[0]} x {image.shape[1]}"
            )
        centre = metadata.get("resize") == "centre"
        image = take_centre(image, height) if centre else scale_whole(image[None], height)[0]
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    if raw:
        return pixels
    mean = np.asarray(metadata["mean"], np.float32)[:, None, None]
    std = np.asarray(metadata["std"], np.float32)[:, None, None]
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def classify_images(file: Path, images: list[Path], *, top: int = 3, threads: int = 1) -> list[Prediction]:
    """Classifies image files with an ONNX file written by this package. Raises UserError: no metadata, bad image."""
    metadata = read_metadata(file)
    missing = [key for key in ("classes", "mean", "std", "input_shape") if key not in metadata]
    if missing:
        raise UserError(f"{file} has no {', '.join(missing)} in its metadata: was it exported by bnn-itrd?")
    check_metadata(file, metadata)
    opened = session(file, threads=threads)
    raw = opened.get_inputs()[0].type == "tensor(uint8)"
    batch = np.stack([prepare_image(read_image(path), metadata, raw=raw) for path in images])
    ready = OpenFile(TARGETS["onnx"], file, raw, lambda batch: predict_file(opened, batch), opened)
    logits = ready.logits(batch, classes=len(metadata["classes"]))
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    result = []
    for path, row in zip(images, probabilities, strict=True):
        order = np.argsort(-row)[:top]
        result.append(
            Prediction(path, tuple(metadata["classes"][i] for i in order), tuple(float(row[i]) for i in order))
        )
    return result
