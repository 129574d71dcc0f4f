"""Reading a .tflite file: it is parsed and its checksum checked, and its metadata are returned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.export.lce.schema import load_schema
from bnn_itrd.export.runtime.checksum import fits
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["LCE_FORMAT_VERSION", "METADATA", "input_shape", "read_lce_metadata", "read_lce_model"]

# Version of the files that this package writes; a file with a higher one is refused.
LCE_FORMAT_VERSION = 1
# Name of the metadata entry in the file.
METADATA = b"bnn_itrd"


def _metadata(model: Any) -> dict[str, Any] | None:
    for entry in model.metadata or []:
        if entry.name == METADATA:
            text = np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes()
            values = json.loads(text)
            return values if isinstance(values, dict) else None
    return None


def read_lce_model(
    path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Returns (the schema's ModelT, metadata) of a file that this package wrote; python: see `load_schema`.

    Raises FileNotFoundError, ExportError on a file that is not TFLite, was not written by this package, is damaged, or
    has a newer format than this package reads.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    schema = load_schema(python)
    data = file.read_bytes()
    if data[4:8] != b"TFL3":
        raise ExportError(f"{file} is not a TFLite file: write it with to_lce")
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        metadata = _metadata(model)
    # A damaged flatbuffer can raise any exception.
    except Exception as error:
        raise ExportError(f"{file} is damaged or was cut short: export it again ({type(error).__name__})") from error
    if metadata is None:
        raise ExportError(f"{file} was not written by bnn_itrd: it has no metadata of that name")
    version = metadata.get("format_version")
    if not isinstance(version, int) or version > LCE_FORMAT_VERSION:
        raise ExportError(
            f"{file} has format version {version}, this bnn_itrd reads {LCE_FORMAT_VERSION}: update bnn_itrd"
        )
    if not fits(data, metadata.get("sha256")):
        raise ExportError(f"{file} is damaged: its checksum does not fit its contents; export it again")
    return model, metadata


def read_lce_metadata(path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Returns the file's metadata: classes, mean, std, input_shape, format_version, binary_layers and others.

    python: see `load_schema`. Raises FileNotFoundError, ExportError as `read_lce_model`.

    >>> read_lce_metadata("student.tflite")["binary_layers"]  # doctest: +SKIP
    1
    """
    return read_lce_model(path, python=python)[1]


def input_shape(model: Any) -> tuple[int, ...]:
    """Returns the first input's shape in the file, (n, h, w, c) for images."""
    graph = model.subgraphs[0]
    return tuple(int(size) for size in graph.tensors[graph.inputs[0]].shape)
