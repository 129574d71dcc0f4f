"""Executing a QONNX file with qonnx, which has a virtual environment of its own."""

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
# Seconds after which something hangs: node by node, a 224x224 image of a deep network takes one or two.
_STARTING, _PER_IMAGE = 600.0, 60.0
_NAME = re.compile(r"(.*)\.(sign|integers)(?:\.\d+)?")


class QonnxValues(NamedTuple):
    """logits (n, k); levels: (path, values) of each activation quantiser in the order of execution, int16 (n, ...).

    The values are +-1 in front of a binary layer (its path), whole numbers behind a quantiser of integers (its path).
    """

    logits: np.ndarray
    levels: list[tuple[str, np.ndarray]]


def _open(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """(file, metadata). Raises ExportError on what this module did not write."""
    file = Path(path)
    metadata = read_metadata(file)
    if metadata.get("flavor") is None:
        raise ExportError(f"{file} is not a QONNX file of bnn_itrd: write it with to_qonnx")
    if int(metadata.get("qonnx_format_version", 0)) > QONNX_FORMAT_VERSION:
        raise ExportError(f"{file} was written by a newer bnn_itrd: update bnn_itrd")
    return file, metadata


def _images_of(metadata: dict[str, Any]) -> HostImages:
    """What the file takes; one of version 1, which does not say it, takes floats."""
    datatype, scale = metadata.get("input_datatype", "FLOAT32"), float(metadata.get("input_scale", 1.0))
    return HostImages(datatype, scale, metadata.get("input_layer", ""))


def _python(python: str | os.PathLike[str] | None) -> Path:
    found = environments.find("fpga", python=python)
    if found is None:
        raise ExportError(
            "qonnx runs in an environment of its own, which is not there yet: make it once with "
            "`bnn-itrd validate --setup fpga`, or name the python of one that has qonnx"
        )
    return found


def _quantised(file: Path) -> list[tuple[str, str, str]]:
    """(path of the layer or quantiser, name of the value, name of its scale, "" for none) of each activation, in order.

    The value is what the network has there: where FINN's file pools behind the quantiser, what the pooling gives.
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
    """The file as qonnx can execute it: one for FINN as a copy in which the borders of -1 are written out."""
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
    file, metadata = _open(path)
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    shape = tuple(metadata["input_shape"])
    if array.shape[1:] != shape or not len(array):
        raise ValueError(f"images must be (n, {', '.join(map(str, shape))}) for this file, got {array.shape}")
    if array.dtype != np.float32:
        raise ValueError(f"images must be float32, normalised, got {array.dtype}")
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
    """Logits (n, k), float32, of normalised images (n, c, h, w), float32, executed by qonnx.

    python: an interpreter that has qonnx; by default that of the environment which `runtimes.setup("fpga")` made.
    A file for FINN is given the whole numbers that the host makes of the images (see `HostImages`), and is executed
    with its borders put back: its padding stands for -1, which qonnx does not know.
    Raises ValueError on images that do not fit or batch_size < 1, FileNotFoundError, ExportError where there is no
    environment with qonnx, and where the execution fails or takes minutes per image.
    """
    return _execute(path, images, watch=False, python=python, batch_size=batch_size).logits


def qonnx_values(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    python: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
) -> QonnxValues:
    """`run_qonnx` with every sign and every integer on the way. Raises what that raises."""
    return _execute(path, images, watch=True, python=python, batch_size=batch_size)


def inference_cost(path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> dict[str, float]:
    """What one image costs by qonnx's inference_cost: ``total_bops`` (multiply-accumulates x input bits x weight bits),
    ``total_macs``, ``total_mem_w_bits`` (weights), and its counts by type.

    Of either flavor. Raises FileNotFoundError, ExportError as `run_qonnx`.
    """
    file, _ = _open(path)
    arguments = {"task": "cost", "path": str(file.absolute())}
    return environments.call(_python(python), _CHILD, arguments=arguments, timeout=_STARTING)[1]
