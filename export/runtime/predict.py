"""Running a file on images: arrays in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["as_array", "check_batches", "predict_file"]


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
