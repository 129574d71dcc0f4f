"""`check_fpga` reports which layers of a network, trained or not, FINN can map to the hardware of an FPGA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from bnn_itrd.export import passes
from bnn_itrd.export.fpga import layer_rules, stream_rules
from bnn_itrd.export.fpga.finn_walk import FinnWalk
from bnn_itrd.export.fpga.report import FpgaReport
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.tracing.trace import canonical

__all__ = ["check_fpga"]

# Operation of the graph -> the function that adds its layer to the report.
_RULES: dict[str, Callable[[FinnWalk], None]] = {
    "Sign": layer_rules.check_sign,
    "Quant": layer_rules.check_integers,
    "BinaryConv2d": layer_rules.check_binary_layer,
    "BinaryLinear": layer_rules.check_binary_layer,
    "Conv": layer_rules.check_weighted_layer,
    "Gemm": layer_rules.check_weighted_layer,
    "MatMul": layer_rules.check_weighted_layer,
    "BatchNormalization": layer_rules.check_batchnorm,
    "Add": stream_rules.check_arithmetic,
    "Sub": stream_rules.check_arithmetic,
    "Mul": stream_rules.check_arithmetic,
    "Div": stream_rules.check_arithmetic,
    "Clip": stream_rules.check_clip,
    "MaxPool": stream_rules.check_max_pool,
    "ReduceMean": stream_rules.check_mean,
    "GlobalAveragePool": stream_rules.check_mean,
    "AveragePool": stream_rules.check_average_pool,
    "Pad": stream_rules.check_pad,
    "Slice": stream_rules.check_pad,
    "Reshape": stream_rules.check_reshape,
    "Flatten": stream_rules.check_reshape,
    "Identity": stream_rules.keep_kind,
}


def check_fpga(model: nn.Module, *, input_shape: Sequence[int] | None = None) -> FpgaReport:
    """Returns a report on which layers of the network FINN can map to hardware, why not the others, and what to do.

    input_shape: of one image, by default ``model.input_shape``. The rules are those of FINN's public source
    (docs/guides/fpga.md); FINN itself is not run. Scales and BatchNorms are not listed, because they become part of the
    next layer's thresholds or, behind the last layer, are computed on the host. The network need not be trained: an
    untrained one gives the same report, except for negative BatchNorm factors behind a MaxPool.
    Raises ValueError if the input shape is not known, ExportError on a network that cannot be traced.

    >>> for layer in check_fpga(network).failures:
    ...     print(layer.path, layer.note, layer.ways_out, sep=": ")
    2: multiplies floats: ('let the first and last layer compute with integers: first_last_bits=8',)
    """
    graph = passes.apply(canonical(model, input_shape=input_shape), passes.QONNX)
    walk = FinnWalk(graph)
    for node in graph.graph:
        walk.node = node
        known = not node.domain or node.domain == DOMAIN
        (_RULES.get(node.op_type, stream_rules.check_unknown) if known else stream_rules.check_unknown)(walk)
    return FpgaReport(tuple(walk.layers))
