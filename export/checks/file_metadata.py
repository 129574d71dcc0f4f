"""What every file says of itself: the same entries in all formats, each written in its own form."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bnn_itrd.export.runtime.checksum import NO_DIGEST

__all__ = ["file_metadata"]


def _own_version() -> str:
    try:
        return importlib.metadata.version("bnn-itrd")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def file_metadata(
    version: Mapping[str, int],
    *,
    input_shape: Sequence[int],
    classes: Sequence[str] | None,
    mean_std: tuple[list[float], list[float]] | None,
    own: Mapping[str, Any],
    added: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the entries of a file, in the order in which they are written; what is None is left out.

    version: the name and number of the file's format; own: further entries of this format, None where a file has no
    such entry; added: what the caller adds, under names that no file of this format uses itself.
    ``sha256`` is the place for the checksum, see `seal`.
    Raises ValueError on a name in `added` that the export writes itself, and on a text for classes.
    """
    if isinstance(classes, str):
        raise ValueError("classes must be a list of names, got one text")
    mean, std = (None, None) if mean_std is None else mean_std
    written = {
        **version,
        "input_shape": list(input_shape),
        "classes": None if classes is None else list(classes),
        "mean": mean,
        "std": std,
        **own,
        "sha256": NO_DIGEST,
        "torch_version": torch.__version__,
        "bnn_itrd_version": _own_version(),
    }
    taken = sorted(written.keys() & set(added or {}))
    if taken:
        raise ValueError(f"metadata must not hold {', '.join(taken)}: written by the export itself")
    return {name: value for name, value in written.items() if value is not None} | dict(added or {})
