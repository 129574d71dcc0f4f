"""Steps that the writers of all targets share: they check arguments, and replace a file whole or not at all."""

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

# Random images on which a new file is compared with its network.
CHECKED_IMAGES = 3
# Relative to the logits' standard deviation and to the size of a layer's input: rounding errors are about a millionth,
# errors of a wrong translation about 1.
_TOLERANCE = 1e-2


def check_normalization(
    normalization: Normalization | None, shape: tuple[int, ...]
) -> tuple[list[float], list[float]] | None:
    """Returns (mean, std) as floats. Raises ValueError where they do not fit images of this shape."""
    if normalization is None:
        return None
    mean, std = ([float(v) for v in values] for values in normalization)
    if len(shape) != 3:
        raise ValueError(f"normalization needs images (c, h, w), and input_shape is {shape}: leave it out")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise ValueError(f"normalization's {name} must have {shape[0]} values, one per channel, got {values}")
    if min(std) <= 0:
        raise ValueError(f"normalization's std must be > 0, got {std}")
    return mean, std


def check_folder(file: Path) -> None:
    """Raises FileNotFoundError where the folder that the file is to be written to does not exist."""
    if not file.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {file.parent}")


def _cause(operation: str) -> str:
    """Returns the part of a message that names the operation whose signs differ, and what to do."""
    if operation in SATURATING.values():
        return (
            f". They are the signs of {operation}, which rounds to -0.0, whose sign is +1, for numbers far below 0, "
            "and each runtime rounds others: put nn.Hardtanh there, as binarize does"
        )
    return f". They are the signs of the result of {operation}" if operation else ""


def check_function(replayed: Replayed, *, where: str = "") -> None:
    """Raises ExportError where a file differs from its network by more than rounding.

    where: the runtime that ran the file, for the message.
    """
    # Written as "not smaller", so that a NaN fails too.
    if not replayed.margin <= _TOLERANCE:
        raise ExportError(
            f"{replayed.layer}: {where}the signs in front of it differ from the network's by more than rounding "
            f"({replayed.margin:.3g} of its input's size); nothing was written"
        )
    if replayed.too_many:
        raise ExportError(
            f"{replayed.flipped}: {where}{replayed.flips} of the {replayed.signs} signs in front of it differ from the "
            f"network's, more than rounding explains{_cause(replayed.operation)}; nothing was written"
        )
    if not replayed.difference <= _TOLERANCE:
        raise ExportError(
            f"{where}the logits differ from the network's by {replayed.difference:.3g} of their standard deviation; "
            "nothing was written"
        )


@contextlib.contextmanager
def replacing(file: Path, data: bytes) -> Iterator[Path]:
    """Writes the data to a temporary file in the same folder, and after the block moves it to `file`.

    The block checks the temporary file, whose path it gets. An error in the block, or while writing, leaves an older
    file as it was.
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
