"""The deployment targets, which are the kinds of exported files, and functions that write and run a file of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from bnn_itrd.data.splits import ImageData, ImageFacts
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.export.runtime.predict import check_metadata
from bnn_itrd.files import file_hash
from bnn_itrd.words import counted

if TYPE_CHECKING:
    import onnxruntime

    from bnn_itrd.export.fpga import QonnxValues

__all__ = [
    "TARGETS",
    "OpenFile",
    "Target",
    "check_target",
    "judge",
    "metadata_of",
    "open_file",
    "target_of",
    "write_target",
]


@dataclass(frozen=True)
class Target:
    """A deployment target: a kind of exported file, with the limits that `bnn-itrd validate` applies to it.

    name: as after ``export --to``. suffix: the end of the file's name. what: what the file is for. runtime: the
    environment that runs it, 'lce' or 'fpga', or None for onnxruntime. min_agreement: the percentage of images that
    must get the same class as in PyTorch. images: the number of images that are compared by default; None: all.
    max_median: the largest median difference of logits that passes; None: any (see `judge`).
    """

    name: str
    suffix: str
    what: str
    runtime: str | None
    min_agreement: float
    images: int | None = None
    max_median: float | None = None


TARGETS = {
    target.name: target
    for target in (
        Target("onnx", ".onnx", "onnxruntime: servers, desktops, browsers, phones", None, 99.9),
        # 1,000 images, because it computes binary layers in floats: ten thousand images would take minutes.
        Target("onnx-plain", ".plain.onnx", "standard ONNX alone: OpenVINO, converters", None, 99.9, 1000, 1e-4),
        Target("lce", ".tflite", "Larq Compute Engine: ARM phones and boards", "lce", 99.0, max_median=1e-4),
        # 200 images, because qonnx runs the file node by node: ten thousand images would take hours.
        Target("qonnx", ".qonnx.onnx", "QONNX: FPGA flows", "fpga", 99.9, 200, 1e-4),
        Target("finn", ".finn.onnx", "QONNX as FINN reads it, with a padding of -1", "fpga", 99.9, 200, 1e-4),
    )
}


def check_target(name: str, *, uint8: bool = False) -> None:
    """Raises UserError if a target is unknown, or if `uint8` is set and its files cannot take uint8 images.

    >>> check_target("onnx", uint8=True)
    """
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    if uint8 and not name.startswith("onnx"):
        raise UserError(f"--uint8 is for ONNX files, but {name} takes normalised images: leave it out")


def judge(
    target: Target, agreement: float, images: int, median: float, *, min_agreement: float | None = None
) -> str | None:
    """Returns the reason why an exported file fails `bnn-itrd validate`, as text, or None if it passes.

    agreement: the percentage of `images` that file and network put in the same class. median: the median difference of
    all logits. min_agreement: replaces the target's own limit.

    A single image may always differ, unless 100 % are required. Rounding may put a value on the other side of a sign's
    threshold, and one image is more than 0.1 % of fewer than a thousand. Such an image hardly changes the median, but a
    file that computes something else does. NaN fails.

    >>> judge(TARGETS["onnx"], 99.0, 1000, 0.0)
    'agreement 99.000 % is below 99.9 %'
    >>> judge(TARGETS["onnx"], 99.0, 100, 0.0) is None  # a single image
    True
    """
    least = target.min_agreement if min_agreement is None else min_agreement
    differing = round(images * (100 - agreement) / 100) if np.isfinite(agreement) else images
    if not agreement >= least and (differing > 1 or least >= 100):
        return f"agreement {agreement:.3f} % is below {least} %"
    if target.max_median is not None and not median <= target.max_median:
        return f"median difference {median:.3g} is above {target.max_median:.3g}"
    return None


@dataclass(frozen=True)
class OpenFile:
    """An exported file that `open_file` has made ready to run.

    takes_raw: whether it takes uint8 images and normalises them itself. predict: a function from images (n, c, h, w),
    normalised float32 or uint8, to logits (n, k). session: onnxruntime's session, for an .onnx file. values: a function
    that also returns the signs and integers of every layer; None if the runtime cannot give these.
    """

    target: Target
    path: Path
    takes_raw: bool
    predict: Callable[[Any], np.ndarray]
    session: onnxruntime.InferenceSession | None = None
    values: Callable[[Any], QonnxValues] | None = None

    def logits(self, images: Any, *, classes: int) -> np.ndarray:
        """Returns the file's logits for images, (n, classes).

        images: (n, c, h, w), normalised float32 or, with `takes_raw`, uint8. Raises UserError if the file takes or
        returns another shape.

        >>> open_file(Path("student.onnx")).logits(images, classes=10)  # doctest: +SKIP
        """
        try:
            found = self.predict(images)
        except ValueError as error:
            raise error if isinstance(error, UserError) else UserError(f"{self.path}: {error}") from error
        if found.shape != (len(images), classes):
            asked = f"{counted(len(images), 'image')} of {counted(classes, 'class', 'classes')}"
            raise UserError(f"{self.path} gives {found.shape} numbers for {asked}: it is no classifier of these images")
        return found


def target_of(path: Path) -> Target:
    """Returns the target of an exported file from the end of its name; raises UserError if no target has that.

    >>> target_of(Path("student.plain.onnx")).name
    'onnx-plain'
    """
    for target in sorted(TARGETS.values(), key=lambda t: -len(t.suffix)):
        if path.name.endswith(target.suffix):
            return target
    known = ", ".join(t.suffix for t in TARGETS.values())
    raise UserError(f"{path} is not a file of a known target: its name must end in one of {known}")


def metadata_of(path: Path, *, python: str | None = None) -> dict[str, Any]:
    """Returns the metadata that `write_target` put into an exported file, such as its classes and input shape.

    python: a Python interpreter that has the target's runtime; it reads a .tflite if this one cannot. Raises
    FileNotFoundError if there is no file, ExportError if it is damaged or of a newer version, and as `check_metadata`
    does.

    >>> metadata_of(Path("student.onnx"))["classes"]  # doctest: +SKIP
    ['cat', 'dog']
    """
    if target_of(path).name == "lce":
        from bnn_itrd.export.lce import read_lce_metadata

        metadata = read_lce_metadata(path, python=python)
    else:
        from bnn_itrd.export import read_metadata

        metadata = read_metadata(path)
    check_metadata(path, metadata)
    return metadata


def write_target(
    name: str,
    model: nn.Module,
    data: ImageData | ImageFacts,
    path: Path,
    *,
    member: str,
    checkpoint: Path | None,
    uint8: bool = False,
    python: str | None = None,
) -> Path:
    """Writes a network as a file of a target, with the metadata that `predict` and `validate` need; returns its path.

    name: the target. data: gives the input shape, classes and normalisation. member: the network's name in its run.
    checkpoint: the file whose hash is recorded, so that `validate` can tell whether it has changed. uint8: the file
    takes uint8 images and normalises them itself (ONNX only). python: a Python interpreter that has the target's
    runtime. Raises UserError if the target is unknown. Raises ExportError, which names the layer and what to change, if
    the target cannot represent the network.
    """
    check_target(name, uint8=uint8)
    metadata = {"member": member, "dataset": data.name, "resize": data.resize}
    if checkpoint is not None and checkpoint.is_file():
        metadata["source_sha256"] = file_hash(checkpoint)
    common: dict[str, Any] = {
        "input_shape": data.input_shape,
        "normalization": (data.mean, data.std),
        "classes": data.classes,
        "metadata": metadata,
    }
    if name == "lce":
        from bnn_itrd.export.lce import to_lce

        return to_lce(model, path, python=python, **common)
    if name in ("qonnx", "finn"):
        from bnn_itrd.export.fpga import to_qonnx

        return to_qonnx(model, path, flavor=name, **common)
    from bnn_itrd.export import to_onnx

    return to_onnx(model, path, bake_normalization=uint8, functions=name == "onnx", **common)


def open_file(path: Path, *, threads: int = 1, native: bool | None = None, python: str | None = None) -> OpenFile:
    """Opens an exported file in the runtime of its target, ready to run.

    threads: how many run the file. native: whether an .onnx file uses this package's library (see `export.session`).
    python: a Python interpreter that has the target's runtime. Raises UserError if the file is not of a kind that
    `export --to` writes, FileNotFoundError if it is missing, ExportError if the file or its runtime cannot be used.

    >>> open_file(Path("student.onnx"), threads=2).target.name  # doctest: +SKIP
    'onnx'
    """
    target = target_of(path)
    if target.name == "lce":
        from bnn_itrd.export.lce import run_lce

        return OpenFile(target, path, False, lambda images: run_lce(path, images, python=python, threads=threads))
    if target.name in ("qonnx", "finn"):
        from bnn_itrd.export.fpga import qonnx_values, run_qonnx

        return OpenFile(
            target,
            path,
            False,
            lambda images: run_qonnx(path, images, python=python),
            values=lambda images: qonnx_values(path, images, python=python),
        )
    from bnn_itrd.export import predict_file, session

    opened = session(path, threads=threads, native=native)
    takes_raw = opened.get_inputs()[0].type == "tensor(uint8)"
    return OpenFile(target, path, takes_raw, lambda images: predict_file(opened, images), opened)
