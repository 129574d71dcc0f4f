"""Executing a QONNX file with qonnx, in its own environment, and holding it against the network."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.checks.agreement import Agreement, agreement, predict_model
from bnn_itrd.export.fpga.finn import POOLED
from bnn_itrd.export.fpga.qonnx_file import QONNX_FORMAT_VERSION
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.sessions import read_metadata
from bnn_itrd.export.runtimes import environments as runtimes
from bnn_itrd.export.tracing.network_copy import copy_for_export
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, IntegerQuantizer

__all__ = [
    "Outlier",
    "QonnxAgreement",
    "QonnxValues",
    "compare_values",
    "inference_cost",
    "qonnx_values",
    "run_qonnx",
    "validate_qonnx",
]

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


class Outlier(NamedTuple):
    """An image whose logits differ: by how much at most; the first layer with a sign or integer that differs.

    differing: how many values do there; layer is empty where none does anywhere (the logits differ by rounding).
    """

    image: int
    difference: float
    layer: str
    differing: int


@dataclass(frozen=True)
class QonnxAgreement:
    """The file against the network (see `Agreement`), and the images beyond the tolerance, largest difference first."""

    agreement: Agreement
    outliers: tuple[Outlier, ...]


def _open(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """(file, metadata). Raises ExportError on what this module did not write."""
    file = Path(path)
    metadata = read_metadata(file)
    if metadata.get("flavor") is None:
        raise ExportError(f"{file} is not a QONNX file of bnn_itrd: write it with to_qonnx")
    if int(metadata.get("qonnx_format_version", 0)) > QONNX_FORMAT_VERSION:
        raise ExportError(f"{file} was written by a newer bnn_itrd: update bnn_itrd")
    return file, metadata


def _python(python: str | os.PathLike[str] | None) -> Path:
    found = runtimes.find("fpga", python=python)
    if found is None:
        raise ExportError(
            "qonnx runs in an environment of its own, which is not there yet: make it once with "
            "`bnn-itrd validate --setup fpga`, or name the python of one that has qonnx"
        )
    return found


def _quantised(file: Path) -> list[tuple[str, str, str]]:
    """(path of the layer or quantiser, name of the value, name of its scale) of each activation, in order.

    The value is what the network has there: where FINN's file pools behind the quantiser, what the pooling gives.
    """
    import onnx

    graph = onnx.load(str(file)).graph
    constants = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        name = _NAME.fullmatch(node.output[0])
        if node.op_type in ("BipolarQuant", "Quant") and node.input[0] not in constants and name is not None:
            pooled = f"{node.output[0]}{POOLED}"
            found.append((name.group(1), pooled if pooled in made else node.output[0], node.input[1]))
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
    with _executable(file, metadata["flavor"]) as executable:
        arguments = {
            "task": "run",
            "path": str(executable),
            "watched": [(name, scale) for _, name, scale in quantised],
            "batch_size": batch_size,
        }
        timeout = _STARTING + _PER_IMAGE * len(array)
        arrays, _ = runtimes.call(runtime, _CHILD, arrays={"images": array}, arguments=arguments, timeout=timeout)
    return QonnxValues(arrays["logits"], [(path, arrays[name]) for path, name, _ in quantised])


def run_qonnx(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    python: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Logits (n, k), float32, of normalised images (n, c, h, w), float32, executed by qonnx. python: see `runtimes`.

    A file for FINN is executed with its borders put back: its padding stands for -1, which qonnx does not know.
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


@torch.no_grad()
def _network_levels(model: nn.Module, images: np.ndarray, batch_size: int) -> dict[str, list[np.ndarray]]:
    """The network's own signs and integers: path -> one array (n, ...) per call, int16."""
    twin = copy_for_export(model)
    parts: dict[str, list[list[np.ndarray]]] = {}
    calls: dict[str, int] = {}

    def note(path: str, values: Tensor) -> None:
        call = calls.get(path, 0)
        calls[path] = call + 1
        per_call = parts.setdefault(path, [])
        if call == len(per_call):
            per_call.append([])
        per_call[call].append(values.round().to(torch.int16).numpy())

    def watch(path: str, module: nn.Module) -> None:
        if isinstance(module, IntegerQuantizer):
            scale = module.scale()
            module.register_forward_hook(lambda _m, _x, y: note(path, y / scale))
        elif isinstance(module, (BinaryConv2d, BinaryLinear)):
            module.activation_binarizer.register_forward_hook(lambda _m, _x, y: note(path, y))

    for path, module in twin.named_modules():
        watch(path, module)
    for start in range(0, len(images), batch_size):
        calls.clear()
        twin(torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])))
    return {path: [np.concatenate(arrays) for arrays in per_call] for path, per_call in parts.items()}


def _outliers(
    model: nn.Module, theirs: QonnxValues, logits: np.ndarray, images: np.ndarray, beyond: list[int], batch_size: int
) -> list[Outlier]:
    """The images `beyond`, each with the first layer in which the network's signs or integers are others."""
    # All images, in the batches of the logits: in others a value may round to the other side.
    ours = _network_levels(model, images, batch_size) if beyond else {}
    seen: dict[str, int] = {}
    differing: list[tuple[str, np.ndarray]] = []
    for layer, values in theirs.levels if beyond else []:
        call = seen.get(layer, 0)
        seen[layer] = call + 1
        wrong = values.reshape(len(values), -1) != ours[layer][call].reshape(len(values), -1)
        differing.append((layer, wrong.sum(1)))
    found = []
    for image in beyond:
        layer, count = next(((layer, int(wrong[image])) for layer, wrong in differing if wrong[image]), ("", 0))
        found.append(Outlier(image, float(np.abs(logits[image] - theirs.logits[image]).max()), layer, count))
    return found


def compare_values(
    model: nn.Module,
    theirs: QonnxValues,
    logits: np.ndarray,
    images: np.ndarray | Tensor,
    *,
    labels: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    batch_size: int = 32,
) -> QonnxAgreement:
    """`validate_qonnx` of a file that was executed already: its values, and the network's logits, on the images."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    compared = agreement(logits, theirs.logits, labels)
    largest = np.abs(logits - theirs.logits).max(1)
    other_class = {disagreement.image for disagreement in compared.disagreements}
    order = np.argsort(-largest, kind="stable").tolist()
    # Not >: a difference that is not a number is beyond too.
    beyond = [i for i in order if not largest[i] <= tolerance or i in other_class]
    return QonnxAgreement(compared, tuple(_outliers(model, theirs, logits, array, beyond, batch_size)))


def validate_qonnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    labels: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    python: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
) -> QonnxAgreement:
    """Compares the network with its QONNX file, executed by qonnx, on normalised images (n, c, h, w), float32.

    An outlier is an image with a logit that differs by more than `tolerance`, or another class: with the first layer
    (in the order of execution) in front of which a sign, or behind whose quantiser an integer, differs. Such a value
    lies within rounding of its threshold, and what follows from it may be large.
    Raises what `run_qonnx` raises; ValueError where numbers of images and labels differ.
    """
    theirs = qonnx_values(path, images, python=python, batch_size=batch_size)
    logits = predict_model(model, images, batch_size=batch_size)
    return compare_values(model, theirs, logits, images, labels=labels, tolerance=tolerance, batch_size=batch_size)


def inference_cost(path: str | os.PathLike[str], *, python: str | os.PathLike[str] | None = None) -> dict[str, float]:
    """What one image costs by qonnx's inference_cost: ``total_bops`` (multiply-accumulates x input bits x weight bits),
    ``total_macs``, ``total_mem_w_bits`` (weights), and its counts by type.

    Of either flavor. Raises FileNotFoundError, ExportError as `run_qonnx`.
    """
    file, _ = _open(path)
    arguments = {"task": "cost", "path": str(file.absolute())}
    return runtimes.call(_python(python), _CHILD, arguments=arguments, timeout=_STARTING)[1]
