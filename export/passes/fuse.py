"""A pass that fuses the operations behind a convolution into it: residual addition, hardtanh or RPReLU, and sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_initializer,
    attribute,
    constant,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.passes.thresholds import fold_into_threshold
from bnn_itrd.export.runtime.format import DOMAIN, SIGNS, VERSION

__all__ = ["fuse"]


def _convolutions(model: ir.Model) -> list[ir.Node]:
    """Returns the graph's convolutions, binary and float, that are operations of the ONNX domain bnn_itrd."""
    return [node for node in model.graph if node.domain == DOMAIN and "Conv" in node.op_type]


def _is_sign(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type in SIGNS


def _outputs(node: ir.Node) -> int:
    """Returns the number of output channels of a convolution."""
    weights = node.inputs[1]
    assert weights is not None and weights.shape is not None
    return int(weights.shape[3])  # type: ignore[arg-type]


def _per_channel(value: ir.Value | None, channels: int) -> np.ndarray | None:
    """Returns a float32 constant, one number or one per channel of (n, h, w, c), as (c,); None for other tensors."""
    array = constant(value)
    if array is None or array.dtype != np.float32 or (array.size > 1 and array.shape[-1:] != (channels,)):
        return None
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), channels)) if array.size in (1, channels) else None


def _added(node: ir.Node | None, x: ir.Value, channels: int) -> np.ndarray | None:
    """Returns the constants (c,) that a node adds to the channels of x; None if the node is no such addition."""
    if node is None or node.op_type != "Add" or node.domain:
        return None
    return _per_channel(node.inputs[1] if node.inputs[0] is x else node.inputs[0], channels)


def _replacement(
    model: ir.Model,
    node: ir.Node,
    before: ir.Node,
    op_type: str,
    *,
    inputs: list[ir.Value | None] | None = None,
    more: dict[str, Any] | None = None,
    outputs: int = 1,
) -> ir.Node:
    """Adds a copy of the convolution `node`, with another operation name, in front of the node `before`; returns it.

    more: further attributes; inputs: of the copy, by default those of `node`; outputs: number of its outputs.
    """
    attributes = {name: a.value for name, a in node.attributes.items()} | (more or {})
    new = ir.node(
        op_type,
        list(node.inputs) if inputs is None else inputs,
        attributes,
        domain=DOMAIN,
        version=VERSION,
        num_outputs=outputs,
    )
    new.metadata_props.update(node.metadata_props)
    model.graph.insert_before(before, new)
    return new


def _copy_type(new: ir.Value, old: ir.Value) -> None:
    new.shape, new.type = old.shape, old.type


def _is_bent(node: ir.Node) -> bool:
    """Returns whether a hardtanh or an RPReLU is already fused into the convolution."""
    return "Clip" in node.op_type or "RPReLU" in node.op_type


def _fuse_shift(model: ir.Model) -> int:
    """Replaces each ``sign(x + b)``, with a constant b per channel, by RSign: x >= -b; returns how many."""
    # Both give the same signs, because the rounded x + b is 0 only for x = -b.
    count = 0
    for node in [n for n in model.graph if n.domain == DOMAIN and n.op_type == "Sign"]:
        shifted = node.inputs[0]
        add = None if shifted is None else shifted.producer()
        if add is None or add.op_type != "Add" or add.domain or shifted is None or shifted.shape is None:
            continue
        # If other nodes read x + b too, it is computed anyway, and it may be the last addition of an RPReLU.
        if shifted.is_graph_output() or not all(_is_sign(use.node) for use in shifted.uses()):
            continue
        for x, other in (add.inputs, reversed(add.inputs)):
            channels = shifted.shape[len(shifted.shape) - 1]
            if x is None or x.shape != shifted.shape or not isinstance(channels, int):
                continue
            b = _per_channel(other, channels)
            if b is None or not np.isfinite(b).all():
                continue
            level = add_initializer(model, f"{node.outputs[0].name}.level", -b)
            new = ir.node("RSign", [x, level], domain=DOMAIN, version=VERSION)
            new.metadata_props.update(node.metadata_props)
            model.graph.insert_before(node, new)
            _copy_type(new.outputs[0], node.outputs[0])
            replace_value(model, node.outputs[0], new.outputs[0])
            count += 1
            break
    remove_unused(model)
    return count


def _fuse_add(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """Returns a binary convolution that includes the residual addition behind it; None if there is no such Add."""
    y = node.outputs[0]
    add = only_consumer(y)
    if (
        add is None
        or add.op_type != "Add"
        or add.domain
        or "BinaryConv" not in node.op_type
        or _is_bent(node)
        or "Add" in node.op_type
    ):
        return None
    other = add.inputs[1] if add.inputs[0] is y else add.inputs[0]
    if other is None or other is y or constant(other) is not None:
        return None
    if other.shape is None or y.shape is None or list(other.shape) != list(y.shape):
        return None
    new = _replacement(model, node, add, f"{node.op_type}Add", inputs=[*node.inputs, other])
    _copy_type(new.outputs[0], add.outputs[0])
    replace_value(model, add.outputs[0], new.outputs[0])
    return new


def _fuse_clip(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """Returns a convolution that includes the Clip (hardtanh) behind it; None if there is no Clip with fixed bounds."""
    clip = only_consumer(node.outputs[0])
    if clip is None or clip.op_type != "Clip" or clip.domain or _is_bent(node):
        return None
    bounds = [constant(optional_input(clip, i)) for i in (1, 2)]
    if bounds[0] is None or bounds[1] is None:
        return None
    low, high = (float(np.asarray(b).reshape(())) for b in bounds)
    if low > high:
        return None
    new = _replacement(model, node, clip, f"{node.op_type}Clip", more={"low": low, "high": high})
    _copy_type(new.outputs[0], clip.outputs[0])
    replace_value(model, clip.outputs[0], new.outputs[0])
    return new


def _fuse_rprelu(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """Returns a convolution that includes the RPReLU behind it, a PRelu with or without constant shifts, or None."""
    channels, x = _outputs(node), node.outputs[0]
    if _is_bent(node):
        return None
    first = only_consumer(x)
    before = _added(first, x, channels)
    if first is not None and before is not None:
        x = first.outputs[0]
    prelu = only_consumer(x)
    if prelu is None or prelu.op_type != "PRelu" or prelu.domain or prelu.inputs[0] is not x:
        return None
    slope = _per_channel(prelu.inputs[1], channels)
    if slope is None:
        return None
    y = prelu.outputs[0]
    last = only_consumer(y)
    after = _added(last, y, channels)
    if last is not None and after is not None:
        y = last.outputs[0]
    none = np.zeros(channels, np.float32)
    path = node.metadata_props.get("path") or "rprelu"
    constants = [
        add_initializer(model, f"{path}.{name}", none if values is None else values)
        for name, values in (("before", before), ("slope", slope), ("after", after))
    ]
    new = _replacement(model, node, prelu, f"{node.op_type}RPReLU", inputs=[*node.inputs, *constants])
    _copy_type(new.outputs[0], y)
    replace_value(model, y, new.outputs[0])
    return new


def _fuse_sign(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """Returns a convolution that includes the sign of its result; None if no Sign reads the result.

    If only the Sign reads it, a binary convolution compares its sum with a threshold and returns signs (`_threshold`).
    Otherwise the signs are a second output.
    """
    y = node.outputs[0]
    readers = [use.node for use in y.uses()]
    signs = [reader for reader in readers if _is_sign(reader)]
    if not signs:
        return None
    sign = signs[0]
    alone = len(readers) == 1 and not y.is_graph_output()
    new = _threshold(model, node, sign) if alone and "BinaryConv" in node.op_type else None
    if new is not None:
        made = new.outputs[0]
    else:
        # The fused operation has one level (the number that RSign compares with), so other levels are not fused.
        signs = [each for each in signs if list(each.inputs[1:]) == list(sign.inputs[1:])]
        inputs = [*node.inputs, *sign.inputs[1:]]
        # The new node takes the convolution's position, because readers of the floats may stand in front of the sign.
        new = _replacement(model, node, node, f"{node.op_type}{sign.op_type}", inputs=inputs, outputs=2)
        _copy_type(new.outputs[0], y)
        replace_value(model, y, new.outputs[0])
        made = new.outputs[1]
    _copy_type(made, sign.outputs[0])
    for each in signs:
        replace_value(model, each.outputs[0], made)
    return new


def _threshold(model: ir.Model, node: ir.Node, sign: ir.Node) -> ir.Node | None:
    """Returns a node that computes a binary convolution's signs by comparing its integer sum with a threshold.

    Returns None if one comparison is not enough: with a residual addition, or an RPReLU with a negative slope.
    """
    if "Add" in node.op_type:
        return None
    packed, scale, bias, *bends = (constant(value) for value in node.inputs[1:])
    assert packed is not None and scale is not None and bias is not None
    level = constant(optional_input(sign, 1))
    low, high = attribute(node, "low", -np.inf), attribute(node, "high", np.inf)
    before, slope, after = bends or (None, None, None)
    if slope is not None and (slope < 0).any():
        return None  # The function falls and then rises, so it would need two thresholds.

    def positive(y: np.ndarray) -> np.ndarray:
        if "Clip" in node.op_type:
            y = np.clip(y, np.float32(low), np.float32(high))
        if slope is not None:
            moved = y + before
            y = np.where(moved <= 0, moved * slope, moved) + after
        return y >= (0 if level is None else level)

    channels = attribute(node, "channels", 0) // attribute(node, "group", 1)
    kernel = attribute(node, "kernel_shape", (1, 1))
    threshold, flip = fold_into_threshold(scale, bias, channels * kernel[0] * kernel[1], positive)
    weights = node.inputs[1]
    path = node.metadata_props.get("path") or "binary"
    if flip.any():
        weights = add_initializer(model, f"{path}.weights", _negated(packed, flip, channels))
    constants = [weights, add_initializer(model, f"{path}.threshold", threshold)]
    name = "GroupedBinaryConvThreshold" if node.op_type.startswith("Grouped") else "BinaryConvThreshold"
    return _replacement(model, node, node, name, inputs=[node.inputs[0], *constants])


def _negated(packed: np.ndarray, flip: np.ndarray, channels: int) -> np.ndarray:
    """Returns packed weights (kh, kw, bytes, o) with the output channels in flip (o,) negated; unused bits stay 0."""
    used = np.packbits(np.arange(8 * packed.shape[2]) < channels, bitorder="little")
    return np.where(flip, ~packed & used[:, None], packed)


def _fuse_zeros(model: ir.Model) -> int:
    """Fuses each Pad that adds channels of zeros (a ResNet shortcut) into the pooling before; returns how many."""
    count = 0
    for node in [n for n in model.graph if n.domain == DOMAIN and n.op_type in ("AveragePool", "MaxPool")]:
        pad = only_consumer(node.outputs[0])
        if pad is None or pad.op_type != "Pad" or pad.domain or attribute(pad, "mode", "constant") != "constant":
            continue
        sizes, filling = constant(optional_input(pad, 1)), constant(optional_input(pad, 2))
        if sizes is None or sizes.size != 8 or optional_input(pad, 3) is not None or (sizes < 0).any():
            continue
        if sizes[[0, 1, 2, 4, 5, 6]].any() or (filling is not None and filling.any()):
            continue
        zeros = [int(sizes[3]), int(sizes[7])]
        new = _replacement(model, node, pad, f"{node.op_type}Pad", more={"zeros": zeros})
        _copy_type(new.outputs[0], pad.outputs[0])
        replace_value(model, pad.outputs[0], new.outputs[0])
        count += 1
    remove_unused(model)
    return count


def fuse(model: ir.Model) -> int:
    """Fuses operations into the convolution or pooling before them, in place; returns the number of fused operations.

    A convolution takes up a residual addition, a hardtanh or RPReLU, and a sign; a pooling takes up channels of zeros.
    """
    count = _fuse_zeros(model) + _fuse_shift(model)
    for step in (_fuse_add, _fuse_clip, _fuse_rprelu, _fuse_sign):
        for node in _convolutions(model):
            count += step(model, node) is not None
        remove_unused(model)
    return count
