"""Rules of `check_fpga` for operations between layers: arithmetic, poolings and reshapes.

Each rule adds the walk's current node to the report, and sets what kind of values it computes.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.fpga import ways_out
from bnn_itrd.export.fpga.finn.affine import per_channel
from bnn_itrd.export.fpga.finn.pooling import readers_of
from bnn_itrd.export.fpga.finn_walk import FLOAT, FinnWalk, ValueKind
from bnn_itrd.export.graph import attribute, constant

__all__ = [
    "check_arithmetic",
    "check_average_pool",
    "check_clip",
    "check_max_pool",
    "check_mean",
    "check_pad",
    "check_reshape",
    "check_unknown",
    "keep_kind",
]


def _constant_arithmetic(walk: FinnWalk, array: np.ndarray, value: ir.Value | None, *, first: bool) -> None:
    """Adds the current node, arithmetic with a constant, to the report of `check_fpga` if FINN cannot map it.

    FINN can if the constant is one number per channel, which becomes part of the thresholds behind it. array: the
    constant; value: the other operand; first: whether the constant is the first operand.
    """
    if first and walk.node.op_type == "Div":
        walk.note("Div", "", ("divides by a value that follows from the image", "multiply or divide by constants only"))
        walk.give(FLOAT)
        return
    kind = walk.kind(value)
    if kind.name == "image":
        why = "computes with the floats of the images, and FINN has no thresholds on floats"
        walk.note(walk.node.op_type, "", (why, ways_out.NORMALISE))
        walk.give(FLOAT)
        return
    if value is None or value.shape is None or not per_channel(array, len(value.shape), value.shape[1]):
        why = f"has a constant of shape {tuple(array.shape)}, and FINN's thresholds differ by channel only"
        walk.note(walk.node.op_type, "", (why, ways_out.PER_CHANNEL))
        walk.give(FLOAT)
        return
    walk.give(ValueKind("sum") if kind.name in ("sum", "integer", "sign") else FLOAT)


def check_arithmetic(walk: FinnWalk) -> None:
    """Adds the current node, an addition or other arithmetic, to the report of `check_fpga`.

    FINN can map an addition of integers with the same scale and number of bits. Arithmetic with a constant follows
    `_constant_arithmetic`.
    """
    first, second = walk.node.inputs[:2]
    a, b = walk.kind(first), walk.kind(second)
    for index, array in enumerate((constant(first), constant(second))):
        if array is not None:
            _constant_arithmetic(walk, array, (second, first)[index], first=index == 0)
            return
    if walk.node.op_type != "Add":
        check_unknown(walk)
        return
    problems = []
    if a.name != "integer" or b.name != "integer":
        problems.append(("adds values that are not integers", ways_out.RESIDUAL))
    elif a.bits != b.bits or not np.isclose(a.scale, b.scale, rtol=1e-6, atol=0):
        what = f"({a.scale:.4g}, {b.scale:.4g}; {a.bits}, {b.bits} bits)"
        way_out = "give both operands one scale: IntegerQuantizer.tied"
        problems.append((f"adds integers of different scales or numbers of bits {what}", way_out))
    walk.note("addition", f"ElementwiseAdd of INT{a.bits}", *problems)
    walk.give(FLOAT if problems else ValueKind("integer", a.scale, a.bits + 1))


def check_clip(walk: FinnWalk) -> None:
    """Adds the current node, a hardtanh, to the report of `check_fpga`: FINN cannot map it, because it limits floats.

    A hardtanh that only signs read is not in the graph any more, because `drop_clips` has removed it.
    """
    into_last = any(use.node.op_type in ("Reshape", "Flatten", "Gemm") for use in walk.node.outputs[0].uses())
    way_out = ways_out.FIRST_LAST if into_last else ways_out.RESIDUAL
    walk.note("hardtanh", "", ("limits floats that other operations than signs read", way_out))
    walk.give(FLOAT)


def check_max_pool(walk: FinnWalk) -> None:
    """Adds the current node, a MaxPool, to the report of `check_fpga`.

    FINN can map it if its windows tile the image and it pools signs or integers, or can be moved behind the node that
    makes signs or integers of its result.
    """
    node, kind = walk.node, walk.kind(walk.node.inputs[0])
    kernel = list(attribute(node, "kernel_shape", ()))
    tiles = kernel == list(attribute(node, "strides", [1] * len(kernel))) and not any(attribute(node, "pads", (0,)))
    problems = [] if tiles else [("its windows overlap or are padded", "take stride = kernel size and no padding")]
    behind = readers_of(node)
    if behind.negative:
        why = f"{behind.negative} channels have a negative factor behind it, so that the largest becomes the smallest"
        problems.append((why, ways_out.NORM_FIRST))
    elif kind.name == "sum" and behind.quantiser is None:
        why = "pools the sums of a layer, and is not read by one sign or quantiser that could be moved in front of it"
        problems.append((why, ways_out.NORM_FIRST))
    trained = any(one.op_type == "BatchNormalization" for one in behind.nodes)
    note = "StreamingMaxPool, if training leaves no factor of the BatchNorm behind it negative"
    walk.note("MaxPool", note if trained else "StreamingMaxPool", *problems)
    walk.give(kind)


def check_mean(walk: FinnWalk) -> None:
    """Adds the current node, a mean, to the report; FINN can map only a GlobalAveragePool of integers or signs."""
    node = walk.node
    problems = []
    if node.op_type != "GlobalAveragePool":
        problems.append(("averages over something other than the whole image", ways_out.SHORTCUT))
    elif walk.kind(node.inputs[0]).name not in ("integer", "sign"):
        problems.append(("averages floats", ways_out.RESIDUAL))
    walk.note("global average", "GlobalAccPool", *problems)
    walk.give(FLOAT if problems else ValueKind("sum"))


def check_average_pool(walk: FinnWalk) -> None:
    """Adds the current node, an average over windows, to the report as one that FINN cannot map."""
    why = "FINN's average pool truncates its result to an integer, which the network does not do"
    walk.note("average pool", "", (why, ways_out.SHORTCUT))
    walk.give(FLOAT)


def check_pad(walk: FinnWalk) -> None:
    """Adds the current node, a Pad or Slice, to the report as one that FINN cannot map."""
    why = "FINN has no hardware layer that pads or cuts channels or pixels"
    walk.note(walk.node.op_type.lower(), "", (why, ways_out.SHORTCUT))
    walk.give(FLOAT)


def keep_kind(walk: FinnWalk) -> None:
    """Records that the current node's output holds the same kind of values, such as signs, as its input."""
    walk.give(walk.kind(walk.node.inputs[0]))


def check_reshape(walk: FinnWalk) -> None:
    """Adds the current node, a reshape, to the report if it does not flatten its input to (n, features).

    FINN cannot map such a reshape, because values would come to another channel, which has other thresholds.
    """
    x, y = walk.node.inputs[0], walk.node.outputs[0]
    before, after = ([] if v is None or v.shape is None else list(v.shape) for v in (x, y))
    sizes = [size for size in before[1:] if isinstance(size, int)]
    flattens = len(sizes) == len(before) - 1 and len(after) == 2 and after[1] == math.prod(sizes)
    if not flattens and (not before or before != after):
        why = "reshapes its input to something else than (images, features)"
        walk.note(walk.node.op_type.lower(), "", (why, ways_out.FLATTEN))
        # Integers have one scale in any shape, but a sum has scales and shifts that belong to its channels.
        kind = walk.kind(x)
        walk.give(kind if kind.name in ("sign", "integer") else FLOAT)
        return
    keep_kind(walk)


def check_unknown(walk: FinnWalk) -> None:
    """Adds the current node, an operation without a rule, to the report as one that FINN cannot map."""
    op = walk.node.op_type
    way_out = f"build the network without {op}" if walk.any_binary else ways_out.BINARY
    walk.note(op, "", (f"{op} is not an operation that FINN maps in a binary network", way_out))
    walk.give(FLOAT)
