"""Running a file on images: arrays in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["as_array", "check_batches", "predict_file", "run_session"]


def as_array(images: Any) -> np.ndarray:
    """An array or a torch tensor on any device as a NumPy array, without torch."""
    return images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)


def check_batches(array: np.ndarray, batch_size: int) -> None:
    """Raises ValueError on no images, or batch_size < 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if not len(array):
        raise ValueError("images must hold at least one image, got none")


def run_session(
    opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], names: list[str] | None = None
) -> list[np.ndarray]:
    """Returns the outputs of a session by `names`, all by default. Raises ExportError where the runtime fails on them.

    >>> run_session(session("student.onnx"), {"images": images}, ["logits"])  # doctest: +SKIP
    """
    try:
        results: list[np.ndarray] = opened.run(names, inputs)
    except Exception as error:  # onnxruntime has a class for each of its statuses, below nothing but Exception
        shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        raise ExportError(f"the file cannot be run on {shapes}: {error}") from error
    return results


def predict_file(opened: onnxruntime.InferenceSession, images: Any, *, batch_size: int = 256) -> np.ndarray:
    """Logits (n, classes), float32, of images (n, c, h, w) in the file's own input type: float32, or uint8.

    Raises ValueError on another type or shape, on no images, or batch_size < 1, ExportError where the runtime fails on
    them.
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
    batches = (np.ascontiguousarray(array[i : i + batch_size]) for i in range(0, len(array), batch_size))
    return np.concatenate([run_session(opened, {source.name: batch}, [output])[0] for batch in batches])
