"""Functions that execute a QONNX file with the program qonnx, which runs in a separate virtual environment."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from bnn_itrd.export.fpga.finn import POOLED, HostImages
from bnn_itrd.export.fpga.qonnx_file import QONNX_FORMAT_VERSION
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.sessions import read_metadata
from bnn_itrd.export.runtimes import environments

__all__ = ["QonnxValues", "inference_cost", "qonnx_values", "run_qonnx"]

_CHILD = Path(__file__).with_name("qonnx_child.py")
# Seconds after which the process is stopped, for its start and for each image. A 224x224 image takes qonnx one or two
# seconds in a deep network.
_STARTING, _PER_IMAGE = 600.0, 60.0
_NAME = re.compile(r"(.*)\.(sign|integers)(?:\.\d+)?")


class QonnxValues(NamedTuple):
    """The values that a QONNX file computes for n images; `qonnx_values` returns them.

    logits: (n, classes), float32. levels: (path, values) for each binary layer and each quantiser of activations, in
    the order of execution. The values, int16 (n, ...), are the binary layer's inputs, +1 and -1, or the quantiser's
    integers.
    """

    logits: np.ndarray
    levels: list[tuple[str, np.ndarray]]


def _open(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Returns a QONNX file's path and metadata.

    Raises ExportError if `to_qonnx` did not write the file, or a newer version of it did.
    """
    file = Path(path)
    metadata = read_metadata(file)
    if metadata.get("flavor") is None:
        raise ExportError(f"{file} is not a QONNX file of bnn_itrd: write it with to_qonnx")
    if int(metadata.get("qonnx_format_version", 0)) > QONNX_FORMAT_VERSION:
        raise ExportError(f"{file} was written by a newer bnn_itrd: update bnn_itrd")
    return file, metadata


def _images_of(metadata: dict[str, Any]) -> HostImages:
    """Returns the kind of images, floats, integers or signs, that a file takes according to its metadata.

    A file of format version 1 has no such entries and takes floats.
    """
    datatype, scale = metadata.get("input_datatype", "FLOAT32"), float(metadata.get("input_scale", 1.0))
    return HostImages(datatype, scale, metadata.get("input_layer", ""))


def _python(python: str | os.PathLike[str] | None) -> Path:
    """Returns a Python interpreter that has the package qonnx: `python`, or by default that of its own environment.

    Raises ExportError, with how to make the environment, if there is none.
    """
    found = environments.find("fpga", python=python)
    if found is None:
        raise ExportError(
            "qonnx runs in a separate virtual environment, which does not exist yet: make it once with `bnn-itrd "
            "validate --setup fpga`, or name the Python interpreter of an environment that has qonnx (--fpga-python)"
        )
    return found


def _quantised(file: Path) -> list[tuple[str, str, str]]:
    """Returns (path, tensor's name, name of its scale or "") for each sign and quantised activation in a file.

    path: of the binary layer or quantiser in the network. Where a file for FINN has a MaxPool behind a quantiser that
    the network has in front of it, the tensor is the MaxPool's output, which equals the network's.
    """
    import onnx

    graph = onnx.load(str(file)).graph
    constants = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        name = _NAME.fullmatch(node.output[0])
        kinds = ("BipolarQuant", "Quant", "MultiThreshold")
        if node.op_type in kinds and node.input[0] not in constants and name is not None:
            pooled = f"{node.output[0]}{POOLED}"
            scale = "" if node.op_type == "MultiThreshold" else node.input[1]
            found.append((name.group(1), pooled if pooled in made else node.output[0], scale))
    return found


@contextlib.contextmanager
def _executable(file: Path, flavor: str) -> Iterator[Path]:
    """Returns a context with the path of a file that qonnx can execute.

    That is `file` itself, or, if it was written with ``flavor="finn"``, a temporary copy in which Pad nodes do the
    padding with -1.
    """
    if flavor != "finn":
        yield file.absolute()
        return
    import onnx
    import onnx_ir as ir

    from bnn_itrd.export.fpga.finn import put_borders_back

    with tempfile.TemporaryDirectory(prefix="bnn_itrd-") as folder:
        copy = Path(folder) / "executable.onnx"
        onnx.save(ir.to_proto(put_borders_back(ir.from_proto(onnx.load(str(file))))), str(copy))
        yield copy


def _execute(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    watch: bool,
    python: str | os.PathLike[str] | None,
    batch_size: int,
) -> QonnxValues:
    """Returns the file's values for the images, with `watch` also the signs and integers; see `run_qonnx`."""
    file, metadata = _open(path)
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    shape = tuple(metadata["input_shape"])
    if array.shape[1:] != shape or not len(array):
        raise ValueError(f"images must be (n, {', '.join(map(str, shape))}) for this file, got {array.shape}")
    if array.dtype != np.float32:
        raise ValueError(f"images must be normalised float32 numbers, got {array.dtype}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    quantised = _quantised(file) if watch else []
    runtime = _python(python)
    host = _images_of(metadata)
    array = host.of(array)
    with _executable(file, metadata["flavor"]) as executable:
        arguments = {
            "task": "run",
            "path": str(executable),
            "watched": [(name, scale) for _, name, scale in quantised],
            "batch_size": batch_size,
        }
        timeout = _STARTING + _PER_IMAGE * len(array)
        arrays, _ = environments.call(runtime, _CHILD, arrays={"images": array}, arguments=arguments, timeout=timeout)
    levels = [(path, arrays[name]) for path, name, _ in quantised]
    if watch and host.layer:
        levels.insert(0, (host.layer, array.astype(np.int16)))
    return QonnxValues(arrays["logits"], levels)


def run_qonnx(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    python: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Executes a QONNX file with the program qonnx and returns the logits (n, classes), float32.

    images: normalised, (n, c, h, w), float32; python: an interpreter that has qonnx, by default that of the environment
    that `runtimes.setup("fpga")` made. For a file that was written with ``flavor="finn"`` the images are first rounded
    to integers (see `HostImages`), and a copy of the file is executed, because qonnx does not know that its padding
    stands for -1. Raises ValueError on images that do not fit or batch_size < 1, FileNotFoundError if there is no such
    file, ExportError if there is no environment with qonnx, or the execution fails or takes more than a minute per
    image.

    >>> run_qonnx("student.onnx", images).shape  # doctest: +SKIP
    (8, 2)
    """
    return _execute(path, images, watch=False, python=python, batch_size=batch_size).logits


def qonnx_values(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    python: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
) -> QonnxValues:
    """Executes a QONNX file like `run_qonnx` and returns the logits with all signs and integers inside the network.

    The arguments and errors are those of `run_qonnx`.

    >>> [path for path, _ in qonnx_values("student.onnx", images).levels]  # doctest: +SKIP
    ['0']
    """
    return _execute(path, images, watch=True, python=python, batch_size=batch_size)


def inference_cost(path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> dict[str, float]:
    """Returns what running a QONNX file on one image costs, as qonnx's function inference_cost counts it.

    The entries are ``total_bops`` (MACs x input bits x weight bits), ``total_macs``, ``total_mem_w_bits`` (bits of all
    weights), and counts by data type. Raises FileNotFoundError and ExportError like `run_qonnx`.

    >>> inference_cost("student.onnx")["total_macs"]  # doctest: +SKIP
    464.0
    """
    file, _ = _open(path)
    arguments = {"task": "cost", "path": str(file.absolute())}
    return environments.call(_python(python), _CHILD, arguments=arguments, timeout=_STARTING)[1]
