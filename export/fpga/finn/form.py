"""`for_finn`, which applies the steps that turn a QONNX graph into one for FINN."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.fpga.finn.borders import merge_padding
from bnn_itrd.export.fpga.finn.images import HostImages, take_integers
from bnn_itrd.export.fpga.finn.pooling import pool_last
from bnn_itrd.export.fpga.finn.thresholds import write_thresholds

__all__ = ["for_finn"]


def for_finn(model: ir.Model) -> HostImages:
    """Turns the graph of `to_qonnx_graph` into the form for FINN, in place; returns which images it then takes.

    Raises ExportError, with the layer's path, on a binary convolution that pads with something else than -1, a negative
    factor behind a MaxPool, and images that are quantised in two ways or scaled before they are quantised.
    """
    merge_padding(model)
    pool_last(model)
    images = take_integers(model)
    write_thresholds(model, images)
    return images
