"""A function that classifies image files with an exported file, in that file's runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bnn_itrd.deploy.targets import metadata_of, open_file
from bnn_itrd.errors import UserError
from bnn_itrd.export import ImageError, Prediction
from bnn_itrd.export.runtime.predict import classify_with

__all__ = ["classify_photos"]

# The number of images in a batch for a runtime that is a separate process, because each batch starts the process.
_AT_ONCE = 64


def classify_photos(
    file: Path,
    photos: Sequence[Path],
    *,
    top: int = 3,
    python: str | None = None,
    skipped: Callable[[ImageError], None] | None = None,
) -> list[Prediction]:
    """Returns a prediction for each image file, made by an exported file of any target.

    For .onnx files alone there is also `export.classify_images`, which needs no torch. top: the number of classes in a
    prediction. python: a Python interpreter that has the target's runtime. skipped: a function that is called with the
    error of each image that cannot be used, which is then left out; without it, such an image raises UserError.
    Raises UserError also if `file` is not of a kind that `export --to` writes. Raises ExportError if the file or its
    runtime cannot be used; the message says how to get the runtime.

    >>> classify_photos(Path("student.tflite"), [Path("cat.jpg")], top=1)  # doctest: +SKIP
    """
    opened = open_file(file, python=python)
    try:
        return classify_with(
            opened.predict,
            file,
            photos,
            metadata=metadata_of(file, python=python),
            raw=opened.takes_raw,
            top=top,
            batch_size=1 if opened.target.runtime is None else _AT_ONCE,
            skipped=skipped,
        )
    except ImageError as error:
        raise UserError(str(error)) from error
