"""`validate_qonnx` lets qonnx execute a QONNX file and compares its logits with the network's."""

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
    """An image for which a QONNX file and its network give different logits or classes.

    image: its index; difference: the largest absolute difference of a logit; layer: path of the first binary layer or
    quantiser at which a sign or integer differs, "" if all are equal and only rounding differs; differing: how many
    signs or integers differ there.
    """

    image: int
    difference: float
    layer: str
    differing: int


@dataclass(frozen=True)
class QonnxAgreement:
    """The result of comparing a QONNX file with its network.

    agreement: how far their logits agree; outliers: the images with another class or with logits that differ by more
    than the tolerance, the largest difference first.
    """

    agreement: Agreement
    outliers: tuple[Outlier, ...]


@torch.no_grad()
def _network_levels(model: nn.Module, images: np.ndarray, batch_size: int) -> dict[str, list[np.ndarray]]:
    """Runs a network and returns the binary inputs of its layers, +1 and -1, and the integers of its quantisers.

    The result maps the path of a binary layer or quantiser to one int16 array (n, ...) for each of its calls.
    """
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
    """Returns an `Outlier` for each image whose index is in `beyond`.

    theirs: logits, signs and integers of the file; logits: the network's, (n, classes); images: the network's input.
    """
    # The batches are the same as for the logits, because values may be rounded differently in other batches.
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
    """Returns how a network differs from a QONNX file that was already executed; `validate_qonnx` executes it first.

    theirs: the file's result, from `qonnx_values`; logits: the network's, (n, classes); images: normalised, (n, c, h,
    w). The other arguments are those of `validate_qonnx`. Raises ValueError if shapes or the number of labels differ.

    >>> logits = np.zeros((8, 2), np.float32)
    >>> compare_values(network, QonnxValues(logits, []), logits, images).outliers
    ()
    """
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    compared = agreement(logits, theirs.logits, labels)
    largest = np.abs(logits - theirs.logits).max(1)
    other_class = {disagreement.image for disagreement in compared.disagreements}
    order = np.argsort(-largest, kind="stable").tolist()
    # "not <=" instead of ">", so that NaN counts as beyond the tolerance.
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
    """Runs a network, and its QONNX file in the program qonnx, on the same images; returns how they differ.

    images: normalised, (n, c, h, w), float32; labels: the right classes, (n,); tolerance: an image with a logit that
    differs by more is an outlier, as is one with another class. An outlier names the first layer at which a sign or
    integer differs, because a value that is rounded to the other sign there can change all layers behind it.
    python, batch_size: see `run_qonnx`. Raises what `run_qonnx` raises, and ValueError if there are not n labels.

    >>> validate_qonnx(network, "student.onnx", images).agreement.argmax_agreement  # doctest: +SKIP
    1.0
    """
    theirs = qonnx_values(path, images, python=python, batch_size=batch_size)
    logits = predict_model(model, images, batch_size=batch_size)
    return compare_values(model, theirs, logits, images, labels=labels, tolerance=tolerance, batch_size=batch_size)
