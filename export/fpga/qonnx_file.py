"""`to_qonnx` writes a network as one .onnx file with BipolarQuant and Quant nodes, for qonnx and FINN."""

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

# Version of the files that this module writes; a file with a higher one is refused.
QONNX_FORMAT_VERSION = 2  # 2: the images of `finn` are whole numbers

_BORDERS = {
    "qonnx": "as written: a border of -1 is a Pad node",
    "finn": "the padding of every binary convolution stands for -1, as FINN's hardware has it; executed as ONNX it "
    "would be 0 and the numbers others",
}


def _of_network(standard: ir.Model, name: str, step: float) -> str:
    """Returns the name of `step` times the graph's value `name`; unless step is 1, a Mul is added to compute it.

    That is the value in the PyTorch network: the graph holds integers, in units of the quantiser's step.
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
    """Runs the graph on a few images and compares all signs and integers with the network's.

    host: the images of the flavor ``finn``, else None. For ``finn`` a copy is run in which the padding of binary
    convolutions is -1. Raises ExportError where they differ by more than rounding, ValueError on another number of
    classes.
    """
    import onnx_ir as ir

    from bnn_itrd.export.fpga.finn import put_borders_back
    from bnn_itrd.export.fpga.qonnx_graph import watched_values
    from bnn_itrd.export.fpga.standard import to_standard

    logits = graph.graph.outputs[0].shape
    if classes is not None and logits is not None and logits[-1] != len(classes):
        raise ValueError(f"classes has {len(classes)} names, and the network gives {logits[-1]} logits")
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
    return {"input_datatype": images.datatype, "input_scale": images.scale, "input_layer": images.layer}


def _write(proto: onnx.ModelProto, file: Path) -> None:
    """Writes a temporary file, reads it back and checks it, then moves it to its place."""
    import onnx

    data = seal(proto.SerializeToString())
    with replacing(file, data) as written:
        if written.read_bytes() != data:
            raise ExportError(f"{file} could not be written whole: what was read back differs")
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
    """Writes the network as QONNX (domain qonnx.custom_op.general 2, opset 13, IR 8, one image); returns its path.

    Signs and binary weights are BipolarQuant with scale 1, then Mul(alpha), BatchNormalization; integers are Quant
    (`residual_bits`, `first_last_bits`). flavor: ``qonnx`` is executed by qonnx; a padding of -1 is a Pad node.
    ``finn`` is for FINN: a padding of -1 is the convolution's own, so it must not be executed as ONNX; MaxPools are
    behind the signs; the host rounds the images (`input_datatype`, `input_scale` in the metadata), and all values up
    to the logits are integers, with MultiThreshold for signs and quantisers. A network that FINN cannot map, as
    `check_fpga` says, can still be written as ``qonnx``.
    The input ``images`` is (1, c, h, w), float32, normalised by `normalization` = (mean, std), and for ``finn`` then
    ``round(clip(image / input_scale))``. The metadata are those, classes, input_shape, flavor, versions, and the
    entries of `metadata`. Before the file takes its place, the signs of a few images are compared with the network's
    (see `replay`).
    Raises ValueError on arguments that do not fit, FileNotFoundError where the folder does not exist, OSError where the
    file cannot be written, ExportError on a network that cannot be exported, and for ``finn`` on a padding other than
    -1, a negative factor behind a MaxPool, and images that are not quantised first.

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
