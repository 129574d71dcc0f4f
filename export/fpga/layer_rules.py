"""Rules of `check_fpga` for layers: binary and other convolutions and linear layers, quantisers and BatchNorm.

Each rule adds the walk's current node to the report, if it is a layer, and sets what kind of values it computes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from bnn_itrd.export.fpga import ways_out
from bnn_itrd.export.fpga.finn_walk import FLOAT, FinnWalk, ValueKind
from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.passes.integers import quantizer_constants

__all__ = ["check_batchnorm", "check_binary_layer", "check_integers", "check_sign", "check_weighted_layer"]

# The most bits of a quantiser that FINN maps by default; b bits become 2^b - 1 thresholds.
_MOST_BITS = 8


def _binary_problems(walk: FinnWalk, kernel: str) -> Iterator[tuple[str, str]]:
    """Yields (why FINN cannot map it, what to do) for each problem of the current node, a binary layer.

    kernel: size of its kernel, such as ``"3x3"``, and "" for a linear layer.
    """
    node = walk.node
    border = attribute(node, "padding_value", 0)
    if any(attribute(node, "pads", (0,))) and border == 0:
        yield "pads with 0, which FINN would take for -1 because signs have no zero", ways_out.PADDING
    elif any(attribute(node, "pads", (0,))) and border == 1:
        yield "pads with +1, and FINN pads signs with -1", ways_out.PADDING
    if optional_input(node, 3) is not None:
        yield "has weights with an offset, which needs a second sum of floats", "take scheme recu or xnor, without one"
    if attribute(node, "group", 1) != 1:
        yield "has groups of binary channels", "take groups=1"
    if kernel == "1x1" and max(attribute(node, "strides", (1, 1))) > 1 and len(set(walk.sizes())) > 1:
        yield "is a 1x1 convolution with a stride, which needs square images", "use images of equal height and width"


def check_binary_layer(walk: FinnWalk) -> None:
    """Adds the current node, a binary layer, to the report of `check_fpga`.

    FINN can map it if it has no groups, pads with -1 or not at all, and has no offset, which is a number that is added
    to all binary weights of a channel.
    """
    weight = walk.node.inputs[1]
    sizes = [] if weight is None or weight.shape is None else list(weight.shape)[2:]
    kernel = "x".join(str(size) for size in sizes)
    walk.seen_weighted = True
    operation = f"binary {kernel} conv" if kernel else "binary linear"
    walk.note(operation, "XNOR-popcount matrix unit", *_binary_problems(walk, kernel))
    walk.give(ValueKind("sum"))


def check_sign(walk: FinnWalk) -> None:
    """Records that the current node computes signs; adds it to the report if they are the signs of the images."""
    if walk.kind(walk.node.inputs[0]).name == "image":
        walk.note("sign of the image", "on the host, or thresholds on its pixels")
    # A sign of floats is not reported, because the layer that computed the floats is.
    walk.give(ValueKind("sign"))


def check_integers(walk: FinnWalk) -> None:
    """Adds the current node, which rounds activations to integers, to the report of `check_fpga`.

    FINN can map it if the integers have at most 8 bits. A node that rounds a weight is not added, because it is part
    of its layer.
    """
    node = walk.node
    bits = int(attribute(node, "bits", 8))
    scale, _, _ = quantizer_constants(node)
    if constant(node.inputs[0]) is None:
        thresholds = f"{2**bits - 1} thresholds per channel"
        becomes = "on the host" if walk.kind(node.inputs[0]).name == "image" else thresholds
        problems = [(f"{bits} bits need {thresholds}", f"take at most {_MOST_BITS} bits")] if bits > _MOST_BITS else []
        walk.note(f"INT{bits}", becomes, *problems)
    walk.give(ValueKind("integer", scale, bits))


def _is_constant_weight(value: ir.Value | None) -> bool:
    """Returns whether a tensor is a constant, or a quantiser's result that is computed from a constant."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Quant":
        value = producer.inputs[0]
    return constant(value) is not None


def check_weighted_layer(walk: FinnWalk) -> None:
    """Adds the current node, a convolution or linear layer, to the report of `check_fpga`.

    FINN can map it if its input and its constant weights are integers.
    """
    node = walk.node
    inputs, weights = walk.kind(node.inputs[0]), walk.kind(node.inputs[1])
    what = "conv" if node.op_type == "Conv" else "linear"
    whole = inputs.name in ("sign", "integer") and weights.name in ("sign", "integer")
    way_out = ways_out.FIRST_LAST if what == "linear" or not walk.seen_weighted else ways_out.SHORTCUT
    if not walk.any_binary:
        way_out = ways_out.BINARY
    operation = f"INT{weights.bits} {what}" if weights.name == "integer" else f"float {what}"
    problems = [] if whole else [("multiplies floats", way_out)]
    if not _is_constant_weight(node.inputs[1]):
        whole = False
        problems = [("multiplies two values that follow from the image", "use layers with constant weights")]
    walk.note(operation, "integer matrix unit", *problems)
    walk.seen_weighted = True
    walk.give(ValueKind("sum") if whole else FLOAT)


def check_batchnorm(walk: FinnWalk) -> None:
    """Adds the current node, a BatchNorm, to the report of `check_fpga` if its statistics are not constants.

    Any other BatchNorm becomes part of the thresholds behind it and is no layer of its own.
    """
    x, gamma = walk.node.inputs[0], constant(walk.node.inputs[1])
    if gamma is None or attribute(walk.node, "training_mode", 0):
        why = "normalises with statistics that follow from the images"
        walk.note("BatchNorm", "", (why, "use nn.BatchNorm2d with track_running_stats=True"))
        walk.give(FLOAT)
        return
    walk.give(ValueKind("sum") if walk.kind(x).name in ("sum", "integer", "sign") else FLOAT)
