"""`to_qonnx` writes a network as a QONNX file: ONNX with operations for signs and integers, for qonnx and FINN."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bnn_itrd.export.checks.file_metadata import file_metadata
from bnn_itrd.export.checks.replay import replay
from bnn_itrd.export.checks.writing import (
    CHECKED_IMAGES,
    Normalization,
    check_folder,
    check_function,
    check_normalization,
    replacing,
)
from bnn_itrd.export.ort.file import texts, to_proto
from bnn_itrd.export.runtime.checksum import seal
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.tracing.network_copy import unwrap
from bnn_itrd.export.tracing.trace import canonical, check_input_shape, random_images

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from bnn_itrd.export.fpga.finn import HostImages

__all__ = ["FLAVORS", "QONNX_FORMAT_VERSION", "to_qonnx"]

FLAVORS = ("qonnx", "finn")

# Version of the files that this module writes; a file with a higher version is not read. Since version 2 the images of
# the flavor `finn` are integers.
QONNX_FORMAT_VERSION = 2

_BORDERS = {
    "qonnx": "padding with -1 is done by a Pad node",
    "finn": "the padding of every binary convolution stands for -1, as in FINN's hardware; executed as ONNX it would "
    "be 0, and the results would be wrong",
}


def _of_network(standard: ir.Model, name: str, step: float) -> str:
    """Returns the name of a tensor that holds the values which the PyTorch network computes.

    The tensor `name` holds integers, and `step` times them are the network's values. If step is not 1, a Mul that
    multiplies them is added to the graph.
    """
    import onnx_ir as ir

    from bnn_itrd.export.graph import add_scalar

    if step == 1.0:
        return name
    value = next(output for node in standard.graph for output in node.outputs if output.name == name)
    made = ir.node("Mul", [value, add_scalar(standard, f"{name}.step", step)])
    made.outputs[0].name = f"{name}.of_network"
    standard.graph.append(made)
    return f"{name}.of_network"


def _check_graph(
    model: nn.Module,
    graph: ir.Model,
    shape: tuple[int, ...],
    classes: Sequence[str] | None,
    host: HostImages | None,
) -> None:
    """Runs the QONNX graph on a few images and compares all its signs and integers with the network's.

    shape: of one image; host: how the images are rounded if the file is for FINN, else None. For FINN a copy is run in
    which Pad nodes do the padding with -1. Raises ExportError if the values differ by more than rounding, ValueError
    if the network has another number of classes.
    """
    import onnx_ir as ir

    from bnn_itrd.export.fpga.finn import put_borders_back
    from bnn_itrd.export.fpga.qonnx_graph import watched_values
    from bnn_itrd.export.fpga.standard import to_standard

    logits = graph.graph.outputs[0].shape
    if classes is not None and logits is not None and logits[-1] != len(classes):
        raise ValueError(f"classes must have one name per logit, got {len(classes)} names for {logits[-1]} logits")
    images = random_images(CHECKED_IMAGES, shape)
    standard = to_standard(graph if host is None else put_borders_back(ir.from_proto(ir.to_proto(graph))))
    watched = watched_values(graph, "integers")
    integers = [(path, _of_network(standard, name, step), False) for path, name, step in watched]
    replayed = replay(
        model,
        ir.to_proto(standard),
        [(path, name) for path, name, _ in watched_values(graph, "sign")],
        source=images.numpy() if host is None else host.of(images.numpy()),
        images=images,
        integers=integers,
    )
    check_function(replayed)


def _of_images(images: HostImages) -> dict[str, Any]:
    """Returns the metadata entries that say which images a file takes: data type, scale, and layer that reads them."""
    return {"input_datatype": images.datatype, "input_scale": images.scale, "input_layer": images.layer}


def _write(proto: onnx.ModelProto, file: Path) -> None:
    """Writes the model to a temporary file, reads it back and checks it, then renames it to `file`."""
    import onnx

    data = seal(proto.SerializeToString())
    with replacing(file, data) as written:
        if written.read_bytes() != data:
            raise ExportError(
                f"{file} could not be written: what was read back differs from what was written; is the disk full?"
            )
        onnx.checker.check_model(onnx.load(str(written)))


def to_qonnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    flavor: str = "qonnx",
    classes: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the network as a QONNX file (ONNX opset 13, IR 8, domain qonnx.custom_op.general 2); returns its path.

    QONNX's operations BipolarQuant and Quant compute its signs and its integers. flavor: ``qonnx`` is for the program
    qonnx, which executes it, and can be written even if FINN cannot map the network (see `check_fpga`). ``finn`` is
    for FINN: all values up to the logits are integers, and MultiThreshold nodes make signs and integers of sums. It
    must not be executed as ONNX, because the padding of its convolutions stands for -1.
    The input is one normalised float32 image (1, c, h, w); for ``finn`` the host computer first computes
    ``round(clip(image / input_scale))`` with `input_datatype` and `input_scale` of the metadata. classes, normalization
    = (mean, std) and metadata (further entries) are stored in the file.
    Before an older file is replaced, all signs of a few images are compared with the network's (see `replay`).
    Raises ValueError on arguments that do not fit, FileNotFoundError if the folder does not exist, OSError if the file
    cannot be written, ExportError on a network that cannot be exported; for ``finn`` also on padding other than -1, a
    negative factor behind a MaxPool, and images that are quantised in two ways, or scaled before.

    >>> to_qonnx(network, "student.qonnx.onnx").name
    'student.qonnx.onnx'
    """
    import onnx

    from bnn_itrd.export.fpga.finn import FLOAT_IMAGES, for_finn
    from bnn_itrd.export.fpga.qonnx_graph import to_qonnx_graph

    file = Path(path)
    if flavor not in FLAVORS:
        raise ValueError(f"flavor must be one of {', '.join(FLAVORS)}, got {flavor!r}")
    shape = check_input_shape(unwrap(model), input_shape)
    mean_std = check_normalization(normalization, shape)
    check_folder(file)
    values = file_metadata(
        {"qonnx_format_version": QONNX_FORMAT_VERSION},
        input_shape=shape,
        classes=classes,
        mean_std=mean_std,
        own={
            "flavor": flavor,
            "border": _BORDERS[flavor],
            "onnx_version": onnx.__version__,
            **_of_images(FLOAT_IMAGES),
        },
        added=metadata,
    )
    graph = to_qonnx_graph(canonical(model, input_shape=shape))
    host = for_finn(graph) if flavor == "finn" else None
    if host is not None:
        values |= _of_images(host)
    _check_graph(model, graph, shape, classes, host)
    _write(to_proto(graph, texts(values)), file)
    return file
