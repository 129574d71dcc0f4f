"""The images of a file for FINN: integers, to which the host rounds the normalised pixels."""

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
    """The images that a file takes.

    datatype: ``INT8`` (or with another number of bits), ``BIPOLAR`` or ``FLOAT32``; scale: step of the integers; layer:
    path of the quantiser, or of the binary layer, that quantised the images; empty for floats.

    >>> HostImages("INT8", 0.5, "conv1").of(np.array([0.75, -0.75, 99.0], np.float32)).tolist()
    [2.0, -2.0, 127.0]
    """

    datatype: str
    scale: float = 1.0
    layer: str = ""

    def bounds(self) -> tuple[int, int]:
        """Returns (lowest, highest) integer, for signs (-1, 1)."""
        return (-1, 1) if self.datatype == "BIPOLAR" else integer_range(int(self.datatype.removeprefix("INT")))

    def of(self, images: np.ndarray) -> np.ndarray:
        """Rounds normalised images to integers, as float32, ties to even, as the host does it; FLOAT32 keeps floats."""
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
    """Removes the quantiser of the images from the graph, whose input then are integers; returns which ones.

    Otherwise it would become thresholds on floats, which FINN's hardware does not have. The input is annotated with its
    type as qonnx reads it (finn_datatype). Raises ExportError where other nodes read the images too.
    """
    images = model.graph.inputs[0]
    nodes = [use.node for use in images.uses()]
    kinds = [_read_as(node, images) for node in nodes]
    if not any(kinds):
        return FLOAT_IMAGES
    if len({None if kind is None else kind[:2] for kind in kinds}) > 1 or kinds[0] is None:
        paths = ", ".join(sorted({layer_path(node) for node in nodes}))
        raise ExportError(
            f"the images are read in several ways, by {paths}, and the host rounds them only once: give every layer "
            "that reads them the integers of one quantiser"
        )
    for node in nodes:
        replace_value(model, node.outputs[0], images)
        model.graph.remove(node, safe=True)
    images.meta["quant_parameter_tensor_names"] = {"finn_datatype": kinds[0].datatype}
    return kinds[0]
