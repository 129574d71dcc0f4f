"""Classification of image files by an exported file, in that file's runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bnn_itrd.deploy.targets import metadata_of, open_file
from bnn_itrd.errors import UserError
from bnn_itrd.export import ImageError, Prediction
from bnn_itrd.export.runtime.predict import classify_with

__all__ = ["classify_photos"]

# The number of images for each start of a runtime that is a separate process.
_AT_ONCE = 64


def classify_photos(
    file: Path,
    photos: Sequence[Path],
    *,
    top: int = 3,
    python: str | None = None,
    skipped: Callable[[ImageError], None] | None = None,
) -> list[Prediction]:
    """Classifies image files with a file of any target, as `export.classify_images` does with an .onnx file.

    top: the number of classes for each image. python: an interpreter that has the target's runtime. skipped: a function
    that is called with the error of an image that cannot be used, which is then left out. Raises UserError on such an
    image without `skipped`, and on a file that `export --to` does not write; ExportError, which says how to get the
    runtime, if the file or its runtime cannot be used.
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
