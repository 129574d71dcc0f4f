"""Functions that every exporter calls when it writes a file.

They check the exporter's arguments, raise an error if the new file does not compute what the network computes, and
replace an older file only when the new one is complete.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_itrd.export.checks.operations import SATURATING
from bnn_itrd.export.runtime.errors import ExportError

if TYPE_CHECKING:
    from bnn_itrd.export.checks.replay import Replayed

__all__ = [
    "CHECKED_IMAGES",
    "Normalization",
    "check_folder",
    "check_function",
    "check_normalization",
    "replacing",
]

Normalization = tuple[Sequence[float], Sequence[float]]

# Number of random images on which a new file is compared with its network.
CHECKED_IMAGES = 3
# The largest difference that counts as rounding, relative to the logits' standard deviation or to the size of a layer's
# input. Rounding gives about a millionth, and a wrong file about 1.
_TOLERANCE = 1e-2


def check_normalization(
    normalization: Normalization | None, shape: tuple[int, ...]
) -> tuple[list[float], list[float]] | None:
    """Returns the normalisation (mean, std) as two lists of floats, or None if it is None.

    shape: of one image, (c, h, w). Raises ValueError if there is not one value per channel, or a std is not > 0.
    """
    if normalization is None:
        return None
    mean, std = ([float(v) for v in values] for values in normalization)
    if len(shape) != 3:
        raise ValueError(
            f"normalization is for images of shape (c, h, w), and input_shape is {shape}: leave out normalization"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise ValueError(f"normalization's {name} must have {shape[0]} values, one per channel, got {values}")
    if min(std) <= 0:
        raise ValueError(f"normalization's std must be > 0, got {std}")
    return mean, std


def check_folder(file: Path) -> None:
    """Raises FileNotFoundError if the folder in which `file` is to be written does not exist."""
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {file.parent}: make it first, or write {file.name} to another one")


def _cause(operation: str) -> str:
    """Returns the end of an error message: it names the operation that computed the differing signs, if known."""
    if operation in SATURATING.values():
        return (
            f". They are the signs of the result of {operation}. For numbers far below 0 this result is rounded to "
            "-0.0, whose sign is +1, and each runtime does so for other numbers: replace it by nn.Hardtanh, as "
            "binarize does"
        )
    return f". They are the signs of the result of {operation}" if operation else ""


def check_function(replayed: Replayed, *, where: str = "") -> None:
    """Raises ExportError if a comparison of a new file with its network shows more than rounding errors.

    replayed: the result of `replay`; where: words for the message that say which runtime ran the file.
    """
    # "not <=" instead of ">", so that NaN raises too.
    if not replayed.margin <= _TOLERANCE:
        raise ExportError(
            f"{replayed.layer}: {where}the signs or integers of its input differ from the network's by more than "
            f"rounding ({replayed.margin:.3g} times its input's root mean square): report this network; nothing was "
            "written"
        )
    if replayed.too_many:
        raise ExportError(
            f"{replayed.flipped}: {where}{replayed.flips} of the {replayed.signs} signs of its input differ from the "
            f"network's, which is more than rounding explains{_cause(replayed.operation)}; nothing was written"
        )
    if not replayed.difference <= _TOLERANCE:
        raise ExportError(
            f"{where}the logits differ from the network's by {replayed.difference:.3g} times their standard deviation: "
            "report this network; nothing was written"
        )


@contextlib.contextmanager
def replacing(file: Path, data: bytes) -> Iterator[Path]:
    """Returns a context that writes `data` to a temporary file in the same folder and at its end moves it to `file`.

    The context gives the temporary file's path, so that the ``with`` block can check it. If the block raises an error,
    or writing fails, the temporary file is removed and an older `file` stays as it was.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
