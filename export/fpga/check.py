"""Can FINN map this network? Asked of its graph, before anyone trains for a day."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from torch import nn

from bnn_itrd.export.fpga.report import FpgaLayer, FpgaReport
from bnn_itrd.export.graph import attribute, constant, optional_input
from bnn_itrd.export.passes.batchnorm import fold_batchnorm_into_next
from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.export.passes.integers import quantizer_constants
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.tracing.trace import canonical

__all__ = ["check_fpga"]

_FIRST_LAST = "give the first and last layer integers: first_last_bits=8"
_RESIDUAL = "quantise the residual stream: residual_bits=4"
_PADDING = "train with borders of -1: padding_value=-1"
_SHORTCUT = "down-sample by a binary 1x1 convolution: shortcut='binary'"
_BINARY = "train a binary student of it: binary='recu'"
_PER_CHANNEL = "use one value per channel"
_FLATTEN = "reshape only to flatten: x.flatten(1)"
# FINN turns a quantiser of b bits into 2^b - 1 thresholds, by default up to this many bits.
_MOST_BITS = 8


class _Kind(NamedTuple):
    """What a value is to FINN.

    name: ``sign`` or ``integer`` (whole numbers times `scale`), ``sum`` (of integers: scale and shift per channel may
    follow, all absorbed by the next thresholds), ``image`` (the network's input) or ``float``.
    """

    name: str
    scale: float = 1.0
    bits: int = 0


_FLOAT = _Kind("float")


class _Checker:
    """One walk over the canonical graph, noting each value's kind and each layer's fate."""

    def __init__(self, model: ir.Model) -> None:
        self.kinds: dict[int, _Kind] = {id(value): _Kind("image") for value in model.graph.inputs}
        self.layers: list[FpgaLayer] = []
        self.node: ir.Node
        self.seen_weighted = False
        self.any_binary = any(node.domain == DOMAIN and node.op_type.startswith("Binary") for node in model.graph)

    def kind(self, value: ir.Value | None) -> _Kind:
        return _FLOAT if value is None else self.kinds.get(id(value), _FLOAT)

    def give(self, kind: _Kind) -> None:
        for output in self.node.outputs:
            self.kinds[id(output)] = kind

    def note(self, operation: str, becomes: str, *problems: tuple[str, str]) -> None:
        """The layer's line. problems: (why it does not map, the way out); none where it maps."""
        path = str(attribute(self.node, "path", "") or self.node.metadata_props.get("path") or self.node.op_type)
        why, ways_out = "; ".join(problem for problem, _ in problems), tuple(way for _, way in problems)
        self.layers.append(FpgaLayer(path, operation, not problems, why or becomes, ways_out))

    def sizes(self) -> list[int]:
        """(h, w) of the first input; empty where it is not a map of fixed size."""
        value = self.node.inputs[0]
        shape = [] if value is None or value.shape is None else list(value.shape)[2:]
        return [size for size in shape if isinstance(size, int)] if len(shape) == 2 else []


def _binary_problems(c: _Checker, kernel: str) -> Iterator[tuple[str, str]]:
    node = c.node
    border, scale = attribute(node, "padding_value", 0), constant(optional_input(node, 2))
    if any(attribute(node, "pads", (0,))) and border == 0:
        yield "pads with 0, and bipolar values have no zero: it would be taken for -1", _PADDING
    elif any(attribute(node, "pads", (0,))) and border == 1:
        yield "pads with +1, and FINN's padding of bipolar values is -1", _PADDING
    if optional_input(node, 3) is not None:
        yield "an offset needs a second, real-valued sum", "take weights without one: scheme recu or xnor"
    if attribute(node, "group", 1) != 1:
        yield "groups of binary channels", "take groups=1"
    if kernel == "1x1" and max(attribute(node, "strides", (1, 1))) > 1 and len(set(c.sizes())) > 1:
        yield "a strided 1x1 convolution needs square images", "bring the images to a square"
    if scale is not None and not scale.all():
        zeros = int((scale == 0).sum())
        yield f"{zeros} channels have a scale of 0, by which FINN divides thresholds", "train on, or leave them out"


def _binary(c: _Checker) -> None:
    weight = c.node.inputs[1]
    sizes = [] if weight is None or weight.shape is None else list(weight.shape)[2:]
    kernel = "x".join(str(size) for size in sizes)
    c.seen_weighted = True
    operation = f"binary {kernel} conv" if kernel else "binary linear"
    c.note(operation, "XNOR-popcount matrix unit", *_binary_problems(c, kernel))
    c.give(_Kind("sum"))


def _sign(c: _Checker) -> None:
    if c.kind(c.node.inputs[0]).name == "image":
        c.note("sign of the image", "on the host, or thresholds on its pixels")
    # A sign of floats is not a fault of its own: what made them is on the list.
    c.give(_Kind("sign"))


def _quant(c: _Checker) -> None:
    node = c.node
    bits = int(attribute(node, "bits", 8))
    scale, _, _ = quantizer_constants(node)
    if constant(node.inputs[0]) is None:
        thresholds = f"{2**bits - 1} thresholds per channel"
        becomes = "on the host" if c.kind(node.inputs[0]).name == "image" else thresholds
        problems = [(f"{bits} bits are {thresholds}", f"take at most {_MOST_BITS} bits")] if bits > _MOST_BITS else []
        c.note(f"INT{bits}", becomes, *problems)
    c.give(_Kind("integer", scale, bits))


def _is_constant_weight(value: ir.Value | None) -> bool:
    """Whether a value is constant, or the integers of a constant."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Quant":
        value = producer.inputs[0]
    return constant(value) is not None


def _weighted(c: _Checker) -> None:
    node = c.node
    inputs, weights = c.kind(node.inputs[0]), c.kind(node.inputs[1])
    what = "conv" if node.op_type == "Conv" else "linear"
    whole = inputs.name in ("sign", "integer") and weights.name in ("sign", "integer")
    way_out = _FIRST_LAST if what == "linear" or not c.seen_weighted else _SHORTCUT
    if not c.any_binary:
        way_out = _BINARY
    operation = f"INT{weights.bits} {what}" if weights.name == "integer" else f"float {what}"
    problems = [] if whole else [("multiplies floats", way_out)]
    if not _is_constant_weight(node.inputs[1]):
        whole = False
        problems = [("multiplies two values that follow from the image", "use layers with constant weights")]
    c.note(operation, "integer matrix unit", *problems)
    c.seen_weighted = True
    c.give(_Kind("sum") if whole else _FLOAT)


def _batchnorm(c: _Checker) -> None:
    x, gamma = c.node.inputs[0], constant(c.node.inputs[1])
    if gamma is None or attribute(c.node, "training_mode", 0):
        why = "normalises with statistics that follow from the images"
        c.note("BatchNorm", "", (why, "track running statistics, and no computed factors"))
        c.give(_FLOAT)
        return
    producer = None if x is None else x.producer()
    negative = int((gamma < 0).sum())
    if producer is not None and producer.op_type == "MaxPool" and negative:
        # FINN can turn the signs of a matrix unit's rows, but not through a maximum.
        c.note("BatchNorm", f"{negative} negative factors behind a MaxPool: a ChannelwiseOp more in FINN's steps")
    c.give(_Kind("sum") if c.kind(x).name in ("sum", "integer", "sign") else _FLOAT)


def _is_per_channel(array: np.ndarray, value: ir.Value | None) -> bool:
    """Whether a constant is one number for each channel of the value it is broadcast against, or one for all."""
    if array.size == 1:
        return value is not None and value.shape is not None and array.ndim <= len(value.shape)
    shape = [] if value is None or value.shape is None else list(value.shape)
    if len(shape) not in (2, 4) or array.ndim > len(shape):
        return False
    full = (1,) * (len(shape) - array.ndim) + array.shape
    return full[1] == shape[1] and array.size == full[1]


def _constant_arithmetic(c: _Checker, array: np.ndarray, value: ir.Value | None, *, first: bool) -> None:
    """A constant with which a value is added, multiplied, ...: the thresholds absorb it where it is one per channel."""
    if first and c.node.op_type == "Div":
        c.note("Div", "", ("divides by a value that follows from the image", "multiply or divide by constants only"))
        c.give(_FLOAT)
        return
    kind = c.kind(value)
    if kind.name != "image" and not _is_per_channel(array, value):
        why = f"a constant of shape {tuple(array.shape)}, and thresholds are one set per channel"
        c.note(c.node.op_type, "", (why, _PER_CHANNEL))
        c.give(_FLOAT)
        return
    c.give(_Kind("sum") if kind.name in ("sum", "integer", "sign") else _FLOAT)


def _arithmetic(c: _Checker) -> None:
    """An addition of two values, or a constant that is added, subtracted or multiplied: the thresholds absorb that."""
    first, second = c.node.inputs[:2]
    a, b = c.kind(first), c.kind(second)
    for index, array in enumerate((constant(first), constant(second))):
        if array is not None:
            _constant_arithmetic(c, array, (second, first)[index], first=index == 0)
            return
    if c.node.op_type != "Add":
        _unknown(c)
        return
    problems = []
    if a.name != "integer" or b.name != "integer":
        problems.append(("adds values that are not integers", _RESIDUAL))
    elif a.bits != b.bits or not np.isclose(a.scale, b.scale, rtol=1e-6, atol=0):
        what = f"({a.scale:.4g}, {b.scale:.4g}; {a.bits}, {b.bits} bits)"
        way_out = "give both operands one scale: IntegerQuantizer.tied"
        problems.append((f"adds integers of different scales or widths {what}", way_out))
    c.note("addition", f"AddStreams of INT{a.bits}", *problems)
    c.give(_FLOAT if problems else _Kind("integer", a.scale, a.bits + 1))


def _clip(c: _Checker) -> None:
    into_last = any(use.node.op_type in ("Reshape", "Flatten", "Gemm") for use in c.node.outputs[0].uses())
    way_out = _FIRST_LAST if into_last else _RESIDUAL
    c.note("hardtanh", "", ("saturates floats that more than signs read", way_out))
    c.give(_FLOAT)


def _max_pool(c: _Checker) -> None:
    node = c.node
    kernel = list(attribute(node, "kernel_shape", ()))
    tiles = kernel == list(attribute(node, "strides", [1] * len(kernel))) and not any(attribute(node, "pads", (0,)))
    problem = ("its windows overlap or are padded", "take stride = kernel size and no padding")
    c.note("MaxPool", "StreamingMaxPool", *([] if tiles else [problem]))
    c.give(c.kind(node.inputs[0]))


def _mean(c: _Checker) -> None:
    node = c.node
    axes = constant(optional_input(node, 1))
    whole_image = node.op_type == "GlobalAveragePool" or (
        axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]
    )
    problems = []
    if not whole_image:
        problems.append(("averages over something other than the whole image", _SHORTCUT))
    elif c.kind(node.inputs[0]).name not in ("integer", "sign"):
        problems.append(("averages floats", _RESIDUAL))
    c.note("global average", "GlobalAccPool", *problems)
    c.give(_FLOAT if problems else _Kind("sum"))


def _average_pool(c: _Checker) -> None:
    why = "FINN's needs a truncation behind it, which is not what the network computes"
    c.note("average pool", "", (why, _SHORTCUT))
    c.give(_FLOAT)


def _pad(c: _Checker) -> None:
    why = "there is no hardware layer that pads or cuts channels and pixels"
    c.note(c.node.op_type.lower(), "", (why, _SHORTCUT))
    c.give(_FLOAT)


def _keep(c: _Checker) -> None:
    c.give(c.kind(c.node.inputs[0]))


def _reshape(c: _Checker) -> None:
    """Flattening: (n, c, ...) as (n, c ...). Other shapes bring values of one channel to another's thresholds."""
    x, y = c.node.inputs[0], c.node.outputs[0]
    before, after = ([] if v is None or v.shape is None else list(v.shape) for v in (x, y))
    sizes = [size for size in before[1:] if isinstance(size, int)]
    flattens = len(sizes) == len(before) - 1 and len(after) == 2 and after[1] == math.prod(sizes)
    if not flattens and (not before or before != after):
        c.note(c.node.op_type.lower(), "", ("changes the shape of its input to another than a flat one", _FLATTEN))
        c.give(_FLOAT)
        return
    _keep(c)


def _unknown(c: _Checker) -> None:
    op = c.node.op_type
    way_out = f"build the network without {op}" if c.any_binary else _BINARY
    c.note(op, "", (f"{op} is none of the operations FINN maps in a binary network", way_out))
    c.give(_FLOAT)


_RULES: dict[str, Callable[[_Checker], None]] = {
    "Sign": _sign,
    "Quant": _quant,
    "BinaryConv2d": _binary,
    "BinaryLinear": _binary,
    "Conv": _weighted,
    "Gemm": _weighted,
    "MatMul": _weighted,
    "BatchNormalization": _batchnorm,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "Clip": _clip,
    "MaxPool": _max_pool,
    "ReduceMean": _mean,
    "GlobalAveragePool": _mean,
    "AveragePool": _average_pool,
    "Pad": _pad,
    "Slice": _pad,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Identity": _keep,
}


def check_fpga(model: nn.Module, *, input_shape: Sequence[int] | None = None) -> FpgaReport:
    """Which layers FINN can map to hardware, which not and why, and the way out; ``print(check_fpga(model))``.

    The rules are those of FINN's public source (docs/fpga.md); FINN itself is not run. Scales and shifts (alpha,
    BatchNorm) are not listed: the thresholds behind them absorb them, or the host at the end. An untrained network
    gives the same answer as a trained one, but for scales of 0 and negative factors behind a MaxPool.
    Raises ValueError without an input shape, ExportError on a network that cannot be traced.
    """
    graph = canonical(model, input_shape=input_shape)
    drop_clips(graph)
    fold_batchnorm_into_next(graph)
    checker = _Checker(graph)
    for node in graph.graph:
        checker.node = node
        known = not node.domain or node.domain == DOMAIN
        (_RULES.get(node.op_type, _unknown) if known else _unknown)(checker)
    return FpgaReport(tuple(checker.layers))
