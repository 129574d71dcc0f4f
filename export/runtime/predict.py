"""Running a file: arrays in, logits out; or image files in, class names out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError, ImageError
from .images import picture_of_file, prepare_image
from .sessions import read_metadata, session

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Prediction", "as_array", "check_batches", "classify_images", "predict_file"]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, with softmax probabilities in [0, 1].

    >>> print(Prediction(Path("a.png"), ("cat", "dog"), (0.75, 0.25)))
    a.png: cat 75.0 %, dog 25.0 %
    """

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __str__(self) -> str:
        pairs = zip(self.classes, self.probabilities, strict=True)
        return f"{self.path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in pairs)


def as_array(images: Any) -> np.ndarray:
    """An array or a torch tensor on any device as a NumPy array, without torch."""
    return images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)


def check_batches(array: np.ndarray, batch_size: int) -> None:
    """Raises ValueError on no images, or batch_size < 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if not len(array):
        raise ValueError("images must hold at least one image, got none")


def predict_file(opened: onnxruntime.InferenceSession, images: Any, *, batch_size: int = 256) -> np.ndarray:
    """Logits (n, classes), float32, of images (n, c, h, w) in the file's own input type: float32, or uint8.

    Raises ValueError on another type or shape, on no images, or batch_size < 1.
    """
    source = opened.get_inputs()[0]
    expected = np.dtype(np.uint8 if source.type == "tensor(uint8)" else np.float32)
    array = as_array(images)
    takes = ["n", *source.shape[1:]]
    sizes = zip(array.shape[1:], takes[1:], strict=False)
    if array.ndim != len(takes) or any(isinstance(size, int) and got != size for got, size in sizes):
        raise ValueError(f"images must be ({', '.join(map(str, takes))}) for this file, got {array.shape}")
    check_batches(array, batch_size)
    if array.dtype != expected:
        raise ValueError(f"images must be {expected} for this file, got {array.dtype}")
    output = opened.get_outputs()[0].name
    parts = [
        opened.run([output], {source.name: np.ascontiguousarray(array[i : i + batch_size])})[0]
        for i in range(0, len(array), batch_size)
    ]
    return np.concatenate(parts)


def classify_images(
    file: Path, images: Sequence[Path], *, top: int = 3, threads: int = 1, native: bool | None = None
) -> list[Prediction]:
    """Classifies image files with an ONNX file written by bnn-itrd: brought to its size, normalised as it says.

    top: how many classes of each; threads, native: see `session`, whose errors it raises. Raises ExportError on a file
    without the metadata, ImageError on an image that cannot be read or has another size than a file that is not square.
    """
    metadata = read_metadata(file)
    missing = [key for key in ("classes", "mean", "std", "input_shape") if key not in metadata]
    if missing:
        raise ExportError(f"{file} has no {', '.join(missing)} in its metadata: was it exported by bnn-itrd?")
    opened = session(file, threads=threads, native=native)
    raw = opened.get_inputs()[0].type == "tensor(uint8)"
    result: list[Prediction] = []
    for path in images:
        picture = picture_of_file(path)
        try:
            prepared = prepare_image(picture, metadata, raw=raw)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        logits = predict_file(opened, prepared[None])[0]
        shifted = np.exp(logits - logits.max())
        probabilities = shifted / shifted.sum()
        order = np.argsort(-probabilities)[:top]
        names = tuple(metadata["classes"][i] for i in order)
        result.append(Prediction(path, names, tuple(float(probabilities[i]) for i in order)))
    return result
