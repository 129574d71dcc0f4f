"""Makes the input of a graph for FINN integers, because FINN, a compiler for FPGAs, has no circuits that round floats.

The host, the computer that sends images to the FPGA, rounds the normalised pixels instead. `HostImages` says how.
"""

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
    """What a QONNX file takes as its input: integers, signs or floats. `of` computes them from normalised images.

    datatype: ``INT8`` (or with another number of bits) for integers, ``BIPOLAR`` for signs, or ``FLOAT32``. scale: the
    number by which pixels are divided before they are rounded to integers. layer: path of the quantiser or binary layer
    that rounds the images in the PyTorch network, but not in the file; "" for floats.

    >>> HostImages("INT8", 0.5, "conv1").of(np.array([0.75, -0.75, 99.0], np.float32)).tolist()
    [2.0, -2.0, 127.0]
    """

    datatype: str
    scale: float = 1.0
    layer: str = ""

    def bounds(self) -> tuple[int, int]:
        """Returns the lowest and the highest integer of a pixel, which are (-1, 1) for signs."""
        return (-1, 1) if self.datatype == "BIPOLAR" else integer_range(int(self.datatype.removeprefix("INT")))

    def of(self, images: np.ndarray) -> np.ndarray:
        """Returns normalised images rounded to the file's integers or signs, as float32; ties go to even integers.

        For the datatype ``FLOAT32`` the images are returned as they are.
        """
        if self.datatype == "FLOAT32":
            return images
        if self.datatype == "BIPOLAR":
            return np.where(images >= 0, np.float32(1), np.float32(-1))
        low, high = self.bounds()
        return np.rint(np.clip(images / np.float32(self.scale), np.float32(low), np.float32(high)))


FLOAT_IMAGES = HostImages("FLOAT32")


def _read_as(node: ir.Node, value: ir.Value) -> HostImages | None:
    """Returns the kind of images to which a node rounds its input `value`; None if it is no quantiser of `value`."""
    if not node.domain or node.op_type not in ("Quant", "BipolarQuant") or node.inputs[0] is not value:
        return None
    if node.op_type == "BipolarQuant":
        return HostImages("BIPOLAR", layer=layer_path(node))
    bits = constant(node.inputs[3])
    if bits is None or attribute(node, "narrow", 0):
        return None
    return HostImages(f"INT{int(bits)}", quantizer_constants(node)[0], layer_path(node))


def take_integers(model: ir.Model) -> HostImages:
    """Removes the node that rounds the input images to signs or integers, so that the input is these; returns its kind.

    FINN cannot round floats, so the host computer rounds the images. The input gets qonnx's annotation of its data
    type (finn_datatype). If nothing quantises the images, the graph stays as it is, with float images. Raises
    ExportError if the images are read by a quantiser and also by another kind of quantiser or operation.
    """
    images = model.graph.inputs[0]
    nodes = [use.node for use in images.uses()]
    kinds = [_read_as(node, images) for node in nodes]
    if not any(kinds):
        return FLOAT_IMAGES
    if len({None if kind is None else kind[:2] for kind in kinds}) > 1 or kinds[0] is None:
        paths = ", ".join(sorted({layer_path(node) for node in nodes}))
        raise ExportError(
            f"the images are quantised in different ways, by {paths}, but the host can round them only once: let every "
            "layer that reads them read the integers of one quantiser"
        )
    for node in nodes:
        replace_value(model, node.outputs[0], images)
        model.graph.remove(node, safe=True)
    images.meta["quant_parameter_tensor_names"] = {"finn_datatype": kinds[0].datatype}
    return kinds[0]
