"""Functions that read a .tflite file which `to_lce` wrote, check its checksum, and return its metadata."""

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

# Version of the files that this package writes; a file with a higher version is not read.
LCE_FORMAT_VERSION = 1
# Name of the metadata entry in the file.
METADATA = b"bnn_itrd"


def _metadata(model: Any) -> dict[str, Any] | None:
    """Returns the metadata that this package wrote into a parsed file, or None if it has none."""
    for entry in model.metadata or []:
        if entry.name == METADATA:
            text = np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes()
            values = json.loads(text)
            return values if isinstance(values, dict) else None
    return None


def read_lce_model(
    path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Returns (parsed file, metadata) of a .tflite file that `to_lce` wrote.

    The parsed file is an object of the class ModelT in LCE's schema. python: see `load_schema`. Raises
    FileNotFoundError if there is no such file, ExportError if it is not a TFLite file, was not written by `to_lce`, is
    damaged, or has a newer format than this package reads.
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
        raise ExportError(f"{file} was not written by bnn_itrd, whose metadata it lacks: write it with to_lce")
    version = metadata.get("format_version")
    if not isinstance(version, int) or version > LCE_FORMAT_VERSION:
        raise ExportError(
            f"{file} has format version {version}, and this bnn_itrd reads up to {LCE_FORMAT_VERSION}: update bnn_itrd"
        )
    if not fits(data, metadata.get("sha256")):
        raise ExportError(f"{file} is damaged: its checksum does not fit its contents; export it again")
    return model, metadata


def read_lce_metadata(path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Returns the metadata of a .tflite file that `to_lce` wrote.

    They are classes, mean, std, input_shape, format_version, binary_layers (their number), versions, the checksum, and
    the entries that the user added. python: an interpreter whose environment has larq-compute-engine, if this Python
    does not have it. Raises FileNotFoundError if there is no such file, ExportError if the file cannot be read.

    >>> read_lce_metadata("student.tflite")["binary_layers"]  # doctest: +SKIP
    1
    """
    return read_lce_model(path, python=python)[1]


def input_shape(model: Any) -> tuple[int, ...]:
    """Returns the shape of a parsed file's first input, which is (n, h, w, c) for images."""
    graph = model.subgraphs[0]
    return tuple(int(size) for size in graph.tensors[graph.inputs[0]].shape)
