"""Validation of a QONNX file: qonnx executes it, and its logits are compared with the network's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.export.checks.agreement import Agreement, agreement, predict_model
from bnn_itrd.export.fpga.execution import QonnxValues, qonnx_values
from bnn_itrd.export.tracing.network_copy import copy_for_export
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, IntegerQuantizer

__all__ = ["Outlier", "QonnxAgreement", "compare_values", "validate_qonnx"]


class Outlier(NamedTuple):
    """An image whose logits differ.

    image: its index; difference: the largest difference of a logit; layer: the first layer or quantiser with a sign or
    integer that differs, empty where none differs and the logits differ by rounding; differing: how many values differ
    there.
    """

    image: int
    difference: float
    layer: str
    differing: int


@dataclass(frozen=True)
class QonnxAgreement:
    """The file compared with the network (see `Agreement`), and the images beyond the tolerance, the worst first."""

    agreement: Agreement
    outliers: tuple[Outlier, ...]


@torch.no_grad()
def _network_levels(model: nn.Module, images: np.ndarray, batch_size: int) -> dict[str, list[np.ndarray]]:
    """Returns the network's own signs and integers: path -> one array (n, ...), int16, for each call."""
    network = copy_for_export(model)
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

    for path, module in network.named_modules():
        watch(path, module)
    for start in range(0, len(images), batch_size):
        calls.clear()
        network(torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])))
    return {path: [np.concatenate(arrays) for arrays in per_call] for path, per_call in parts.items()}


def _outliers(
    model: nn.Module, theirs: QonnxValues, logits: np.ndarray, images: np.ndarray, beyond: list[int], batch_size: int
) -> list[Outlier]:
    """Returns the images `beyond`, each with the first layer in which the network's signs or integers differ."""
    # All images run in the same batches as for the logits: in other batches a value may be rounded differently.
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
    """Compares a file that was executed already with its network, as `validate_qonnx` does.

    theirs: the file's values; logits: the network's, (n, k); images: normalised, (n, c, h, w). Raises ValueError where
    the shapes or the number of labels do not fit.

    >>> logits = np.zeros((8, 2), np.float32)
    >>> compare_values(network, QonnxValues(logits, []), logits, images).outliers
    ()
    """
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    compared = agreement(logits, theirs.logits, labels)
    largest = np.abs(logits - theirs.logits).max(1)
    other_class = {disagreement.image for disagreement in compared.disagreements}
    order = np.argsort(-largest, kind="stable").tolist()
    # "not <=", so that a difference that is NaN is beyond the tolerance.
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

    labels: (n,) class numbers. An outlier is an image with another class, or with a logit that differs by more than
    `tolerance`. Its `layer` is the first one, in the order of execution, whose input signs or integers differ: such a
    value lies within rounding of its threshold, and the difference can grow in the layers behind it.
    python, batch_size: see `run_qonnx`, whose errors it raises; ValueError where numbers of images and labels differ.

    >>> validate_qonnx(network, "student.onnx", images).agreement.argmax_agreement  # doctest: +SKIP
    1.0
    """
    theirs = qonnx_values(path, images, python=python, batch_size=batch_size)
    logits = predict_model(model, images, batch_size=batch_size)
    return compare_values(model, theirs, logits, images, labels=labels, tolerance=tolerance, batch_size=batch_size)
