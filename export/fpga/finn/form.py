"""The steps from the QONNX graph to what FINN reads."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.fpga.finn.borders import merge_padding
from bnn_itrd.export.fpga.finn.images import HostImages, take_integers
from bnn_itrd.export.fpga.finn.pooling import pool_last
from bnn_itrd.export.fpga.finn.thresholds import write_thresholds

__all__ = ["for_finn"]


def for_finn(model: ir.Model) -> HostImages:
    """The graph of `to_qonnx_graph` for FINN, in place; returns what its images are.

    Raises ExportError, by layer, on a binary border that is not -1, a negative factor behind a MaxPool, and images
    that are rounded in more than one way or behind arithmetic.
    """
    merge_padding(model)
    pool_last(model)
    images = take_integers(model)
    write_thresholds(model, images)
    return images
