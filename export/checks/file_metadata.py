"""The metadata of an exported file: all formats hold the same entries, and each writer encodes them in its own way."""

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
    """Returns the metadata of a file, in the order in which they are written; an entry that is None is left out.

    version: the name and number of the file's format; own: further entries of this format, None where a file has no
    such entry; added: the caller's entries, under names that the export does not use itself.
    ``sha256`` is filled with zeros: `seal` puts the checksum there.
    Raises ValueError where `added` has a name that the export writes itself, and where classes is one string.
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
