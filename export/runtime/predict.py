"""Runs exported files: `predict_file` returns the logits of arrays, `classify_images` the classes of image files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError, ImageError
from .images import picture_of_file, prepare_image
from .sessions import read_metadata, session

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "MOST_PIXELS",
    "Prediction",
    "as_array",
    "check_batches",
    "check_metadata",
    "classify_images",
    "classify_with",
    "predict_file",
    "run_session",
]

# Maximum number of channels, rows and columns of a file's images; larger numbers come from a damaged file.
MOST_PIXELS = 4096


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, most probable first, with softmax probabilities in [0, 1].

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
    """Returns a NumPy array of an array, a list, or a torch tensor on any device; torch is not imported.

    >>> as_array([1, 2])
    array([1, 2])
    """
    return images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)


def check_batches(array: np.ndarray, batch_size: int) -> None:
    """Raises ValueError if an array has no image, or if batch_size, the number of images per call, is below 1.

    >>> check_batches(np.zeros((0, 3, 4, 4)), 256)
    Traceback (most recent call last):
    ValueError: images must hold at least one image, got none
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if not len(array):
        raise ValueError("images must hold at least one image, got none")


def run_session(
    opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], names: list[str] | None = None
) -> list[np.ndarray]:
    """Runs a session on `inputs`, arrays by name, and returns the outputs with these `names`, or all of them.

    Raises ExportError, with the shapes of the inputs, if onnxruntime fails.

    >>> run_session(session("student.onnx"), {"images": images.numpy()}, ["logits"])[0].shape
    (8, 2)
    """
    try:
        results: list[np.ndarray] = opened.run(names, inputs)
    except Exception as error:  # onnxruntime's errors have no common base class
        shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        raise ExportError(f"the file cannot be run on {shapes}: {error}") from error
    return results


def predict_file(opened: onnxruntime.InferenceSession, images: Any, *, batch_size: int = 256) -> np.ndarray:
    """Returns the logits of images, float32 (n, classes).

    images: an array or a tensor (n, c, h, w), normalised float32, or uint8 pixels if the file normalises them itself;
    batch_size: number of images per call of the session. Raises ValueError if the images have another type or shape,
    if there are none, or if batch_size is below 1. Raises ExportError if onnxruntime fails.

    >>> predict_file(session("student.onnx"), images).shape
    (8, 2)
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


def _is_number(value: object) -> bool:
    """Returns whether a value is a number that float32 can hold: no NaN, and not infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def check_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raises ExportError if `input_shape`, `classes`, `mean` or `std` in a file's metadata is not of the right form.

    Entries that are missing are no error. path: the file, for the message.

    >>> check_metadata(Path("a.onnx"), {"classes": "cat"})
    Traceback (most recent call last):
    bnn_itrd.export.runtime.errors.ExportError: a.onnx: its metadata's classes must be a list of names, got 'cat'
    """
    shape = metadata.get("input_shape")
    channels = shape[0] if isinstance(shape, list) and shape else None

    def check(key: str, rule: str, fits: Callable[[Any], bool]) -> None:
        if (found := metadata.get(key)) is not None and not fits(found):
            raise ExportError(f"{path}: its metadata's {key} must be {rule}, got {str(found)[:40]!r}")

    def are_numbers(values: Any) -> bool:
        return isinstance(values, list) and channels in (None, len(values)) and all(map(_is_number, values))

    check(
        "input_shape",
        f"three whole numbers from 1 to {MOST_PIXELS}",
        lambda s: isinstance(s, list) and len(s) == 3 and all(type(v) is int and 1 <= v <= MOST_PIXELS for v in s),
    )
    check("classes", "a list of names", lambda c: isinstance(c, list) and c != [] and all(type(n) is str for n in c))
    check("mean", "a number for each channel", are_numbers)
    # Smaller numbers are 0 in float32.
    check("std", "a number above 0 for each channel", lambda std: are_numbers(std) and min(std, default=1) > 1e-30)


def _logits(file: Path, run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, *, classes: int) -> np.ndarray:
    """Returns run(images), the logits (n, classes) of an exported file, after checking their shape.

    run: a function that runs `file` on images (n, c, h, w). Raises ExportError if the images or the result have
    another shape than they must have.
    """
    try:
        found = run(images)
    except ValueError as error:
        raise ExportError(f"{file}: {error}") from error
    if found.shape != (len(images), classes):
        raise ExportError(f"{file} returns logits of shape {found.shape}, expected {(len(images), classes)}")
    return found


def _prepared(path: Path, metadata: dict[str, Any], *, raw: bool) -> np.ndarray[Any, Any]:
    """Reads an image file and returns it as one input image of the exported file, (c, h, w); see `prepare_image`.

    Raises ImageError, with the image's path, if it cannot be read or has a size that does not fit.
    """
    picture = picture_of_file(path)
    try:
        return prepare_image(picture, metadata, raw=raw)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def classify_with(
    run: Callable[[np.ndarray], np.ndarray],
    file: Path,
    images: Sequence[Path],
    *,
    metadata: dict[str, Any],
    raw: bool = False,
    top: int = 3,
    batch_size: int = 1,
    skipped: Callable[[ImageError], None] | None = None,
) -> list[Prediction]:
    """Classifies image files with an exported file that runs in any runtime, not only in onnxruntime.

    run: a function that returns the file's logits (n, classes) for images (n, c, h, w); metadata: the file's, by which
    the images are resized and normalised; raw: the file normalises its images itself and takes uint8; batch_size:
    number of images per call of `run`. top, skipped: see `classify_images`, whose errors it raises.

    >>> def run(batch):
    ...     return predict_file(session("student.onnx"), batch)
    >>> file = Path("student.onnx")
    >>> len(classify_with(run, file, [Path("cat.png")], metadata=read_metadata(file)))
    1
    """
    missing = [key for key in ("classes", "mean", "std", "input_shape") if key not in metadata]
    if missing:
        raise ExportError(f"{file} has no {', '.join(missing)} in its metadata: was it exported by bnn-itrd?")
    check_metadata(file, metadata)
    result: list[Prediction] = []
    for i in range(0, len(images), batch_size):
        paths, prepared = [], []
        for path in images[i : i + batch_size]:
            try:
                prepared.append(_prepared(path, metadata, raw=raw))
            except ImageError as error:
                if skipped is None:
                    raise
                skipped(error)
            else:
                paths.append(path)
        if not paths:
            continue
        batch = np.stack(prepared)
        for path, logits in zip(paths, _logits(file, run, batch, classes=len(metadata["classes"])), strict=True):
            shifted = np.exp(logits - logits.max())
            probabilities = shifted / shifted.sum()
            order = np.argsort(-probabilities)[:top]
            names = tuple(metadata["classes"][k] for k in order)
            result.append(Prediction(path, names, tuple(float(probabilities[k]) for k in order)))
    return result


def classify_images(
    file: Path,
    images: Sequence[Path],
    *,
    top: int = 3,
    threads: int = 1,
    native: bool | None = None,
    skipped: Callable[[ImageError], None] | None = None,
) -> list[Prediction]:
    """Classifies image files with an ONNX file exported by bnn-itrd; returns a Prediction for each image.

    Images are resized and normalised as the file's metadata say. top: number of classes to return for each image;
    threads, native: see `session`, whose errors it raises. skipped: a function that is called with the ImageError of
    each image that cannot be used; such an image is then left out of the result.
    Raises ExportError if the file's metadata do not describe its images, or do not fit the file. Without `skipped`,
    raises ImageError if an image cannot be read, or has a size that does not fit a file whose images are not square.

    >>> [found] = classify_images(Path("student.onnx"), [Path("cat.png")], top=2)
    >>> sorted(found.classes), round(sum(found.probabilities), 3)
    (['cat', 'dog'], 1.0)
    """
    metadata = read_metadata(file)
    opened = session(file, threads=threads, native=native)
    raw = opened.get_inputs()[0].type == "tensor(uint8)"
    return classify_with(
        lambda batch: predict_file(opened, batch), file, images, metadata=metadata, raw=raw, top=top, skipped=skipped
    )
