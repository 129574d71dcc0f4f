"""The images of a file for FINN: whole numbers, which the host makes of pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import attribute, constant, layer_path, replace_value
from bnn_itrd.export.passes.integers import quantizer_constants
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.quant import integer_range

__all__ = ["FLOAT_IMAGES", "HostImages", "take_integers"]


class HostImages(NamedTuple):
    """What a file takes: ``INT8`` (or so many bits), ``BIPOLAR`` or ``FLOAT32``; a step of the integers; the layer.

    layer: the path of the quantiser, or of the binary layer, whose input the integers are; empty for floats.

    >>> HostImages("INT8", 0.5, "conv1").of(np.array([0.75, -0.75, 99.0], np.float32)).tolist()
    [2.0, -2.0, 127.0]
    """

    datatype: str
    scale: float = 1.0
    layer: str = ""

    def bounds(self) -> tuple[int, int]:
        """(lowest, highest) whole number; that of signs is (-1, 1)."""
        return (-1, 1) if self.datatype == "BIPOLAR" else integer_range(int(self.datatype.removeprefix("INT")))

    def of(self, images: np.ndarray) -> np.ndarray:
        """The host's part: whole numbers, as float32, of normalised images, ties to even; floats stay what they are."""
        if self.datatype == "FLOAT32":
            return images
        if self.datatype == "BIPOLAR":
            return np.where(images >= 0, np.float32(1), np.float32(-1))
        low, high = self.bounds()
        return np.rint(np.clip(images / np.float32(self.scale), np.float32(low), np.float32(high)))


FLOAT_IMAGES = HostImages("FLOAT32")


def _read_as(node: ir.Node, value: ir.Value) -> HostImages | None:
    if not node.domain or node.op_type not in ("Quant", "BipolarQuant") or node.inputs[0] is not value:
        return None
    if node.op_type == "BipolarQuant":
        return HostImages("BIPOLAR", layer=layer_path(node))
    bits = constant(node.inputs[3])
    if bits is None or attribute(node, "narrow", 0):
        return None
    return HostImages(f"INT{int(bits)}", quantizer_constants(node)[0], layer_path(node))


def take_integers(model: ir.Model) -> HostImages:
    """Takes the quantiser of the images out of the graph: its input are the whole numbers; returns which.

    Left in the file it would become thresholds on floats, which FINN's hardware layers have not. The input is
    annotated with the type as qonnx reads it (finn_datatype). Raises ExportError where the images are also read
    otherwise.
    """
    images = model.graph.inputs[0]
    nodes = [use.node for use in images.uses()]
    kinds = [_read_as(node, images) for node in nodes]
    if not any(kinds):
        return FLOAT_IMAGES
    if len({None if kind is None else kind[:2] for kind in kinds}) > 1 or kinds[0] is None:
        paths = ", ".join(sorted({layer_path(node) for node in nodes}))
        raise ExportError(
            f"the images are read in several ways, by {paths}: the host rounds them once, so give every layer that "
            "reads them the integers of one quantiser"
        )
    for node in nodes:
        replace_value(model, node.outputs[0], images)
        model.graph.remove(node, safe=True)
    images.meta["quant_parameter_tensor_names"] = {"finn_datatype": kinds[0].datatype}
    return kinds[0]
