"""`file_metadata` collects the metadata of an exported file, which are the same for all file formats."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bnn_itrd.export.runtime.checksum import NO_DIGEST

__all__ = ["file_metadata"]


def _own_version() -> str:
    """Returns the installed version of this package."""
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
    """Returns the metadata entries of an exported file, in the order in which they are written.

    version: name and number of the file format, such as ``{"format_version": 1}``; classes: their names; mean_std: the
    normalisation, one value per channel each; own: further entries of this file format; added: the user's entries.
    Entries that are None are left out. The entry ``sha256`` holds zeros, which `seal` later replaces by the checksum.
    Raises ValueError if `added` has a name that the export uses itself, or classes is a string.
    """
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, got one string, {classes!r}")
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
        raise ValueError(
            f"metadata must not have an entry {', '.join(taken)}, which the export writes itself: choose another name"
        )
    return {name: value for name, value in written.items() if value is not None} | dict(added or {})
