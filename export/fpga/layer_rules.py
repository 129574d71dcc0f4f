"""Rules for layers: how FINN maps binary layers, integers, convolutions and linear layers, and BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from bnn_itrd.export.fpga import ways_out
from bnn_itrd.export.fpga.finn_walk import FLOAT, FinnWalk, ValueKind
from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.passes.integers import quantizer_constants

__all__ = ["check_batchnorm", "check_binary_layer", "check_integers", "check_sign", "check_weighted_layer"]

# FINN turns a quantiser of b bits into 2^b - 1 thresholds, by default up to this many bits.
_MOST_BITS = 8


def _binary_problems(walk: FinnWalk, kernel: str) -> Iterator[tuple[str, str]]:
    """Yields (why it does not map, what to do) of the current binary layer."""
    node = walk.node
    border = attribute(node, "padding_value", 0)
    if any(attribute(node, "pads", (0,))) and border == 0:
        yield "pads with 0, and bipolar values have no zero: it would be taken for -1", ways_out.PADDING
    elif any(attribute(node, "pads", (0,))) and border == 1:
        yield "pads with +1, and FINN's padding of bipolar values is -1", ways_out.PADDING
    if optional_input(node, 3) is not None:
        yield "an offset needs a second, real-valued sum", "take weights without one: scheme recu or xnor"
    if attribute(node, "group", 1) != 1:
        yield "groups of binary channels", "take groups=1"
    if kernel == "1x1" and max(attribute(node, "strides", (1, 1))) > 1 and len(set(walk.sizes())) > 1:
        yield "a strided 1x1 convolution needs square images", "bring the images to a square"


def check_binary_layer(walk: FinnWalk) -> None:
    """A binary layer maps if it has no offset and no groups, and pads with -1."""
    weight = walk.node.inputs[1]
    sizes = [] if weight is None or weight.shape is None else list(weight.shape)[2:]
    kernel = "x".join(str(size) for size in sizes)
    walk.seen_weighted = True
    operation = f"binary {kernel} conv" if kernel else "binary linear"
    walk.note(operation, "XNOR-popcount matrix unit", *_binary_problems(walk, kernel))
    walk.give(ValueKind("sum"))


def check_sign(walk: FinnWalk) -> None:
    """A sign maps; the sign of the image is computed on the host."""
    if walk.kind(walk.node.inputs[0]).name == "image":
        walk.note("sign of the image", "on the host, or thresholds on its pixels")
    # A sign of floats is not reported, because the layer that computed the floats is.
    walk.give(ValueKind("sign"))


def check_integers(walk: FinnWalk) -> None:
    """Integer activations map up to `_MOST_BITS` bits; integer weights are part of their layer."""
    node = walk.node
    bits = int(attribute(node, "bits", 8))
    scale, _, _ = quantizer_constants(node)
    if constant(node.inputs[0]) is None:
        thresholds = f"{2**bits - 1} thresholds per channel"
        becomes = "on the host" if walk.kind(node.inputs[0]).name == "image" else thresholds
        problems = [(f"{bits} bits are {thresholds}", f"take at most {_MOST_BITS} bits")] if bits > _MOST_BITS else []
        walk.note(f"INT{bits}", becomes, *problems)
    walk.give(ValueKind("integer", scale, bits))


def _is_constant_weight(value: ir.Value | None) -> bool:
    """Whether a value is constant, or the integers of a constant."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Quant":
        value = producer.inputs[0]
    return constant(value) is not None


def check_weighted_layer(walk: FinnWalk) -> None:
    """A convolution or linear layer maps where its input and its constant weights are integers."""
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
    """BatchNorm with constant statistics maps: the next thresholds absorb it."""
    x, gamma = walk.node.inputs[0], constant(walk.node.inputs[1])
    if gamma is None or attribute(walk.node, "training_mode", 0):
        why = "normalises with statistics that follow from the images"
        walk.note("BatchNorm", "", (why, "track running statistics, and no computed factors"))
        walk.give(FLOAT)
        return
    walk.give(ValueKind("sum") if walk.kind(x).name in ("sum", "integer", "sign") else FLOAT)
