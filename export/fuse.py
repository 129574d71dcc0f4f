"""Fusion: what follows a binary convolution (residual, hardtanh, sign) into the operation itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.functions import DOMAIN, VERSION
from bnn_itrd.export.graph import (
    add_initializer,
    attribute,
    constant,
    only_consumer,
    optional_input,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.thresholds import fold_into_threshold

__all__ = ["fuse"]


def _convolutions(model: ir.Model) -> list[ir.Node]:
    """Ours, binary ones and those of floats."""
    return [node for node in model.graph if node.domain == DOMAIN and "Conv" in node.op_type]


def _is_sign(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type == "Sign"


def _again(
    model: ir.Model,
    node: ir.Node,
    before: ir.Node,
    op_type: str,
    *,
    inputs: list[ir.Value | None] | None = None,
    more: dict[str, Any] | None = None,
    outputs: int = 1,
) -> ir.Node:
    """The convolution as another operation, in front of `before`; its readers are the caller's."""
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


def _fuse_add(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """BinaryConv -> Add of the same shape."""
    y = node.outputs[0]
    add = only_consumer(y)
    if (
        add is None
        or add.op_type != "Add"
        or add.domain
        or "BinaryConv" not in node.op_type
        or "Add" in node.op_type
        or "Clip" in node.op_type
    ):
        return None
    other = add.inputs[1] if add.inputs[0] is y else add.inputs[0]
    if other is None or other is y or constant(other) is not None:
        return None
    if other.shape is None or y.shape is None or list(other.shape) != list(y.shape):
        return None
    new = _again(model, node, add, f"{node.op_type}Add", inputs=[*node.inputs, other])
    _copy_type(new.outputs[0], add.outputs[0])
    replace_value(model, add.outputs[0], new.outputs[0])
    return new


def _fuse_clip(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """BinaryConv[Add] -> Clip with constant bounds."""
    clip = only_consumer(node.outputs[0])
    if clip is None or clip.op_type != "Clip" or clip.domain or "Clip" in node.op_type:
        return None
    bounds = [constant(optional_input(clip, i)) for i in (1, 2)]
    if bounds[0] is None or bounds[1] is None:
        return None
    low, high = (float(np.asarray(b).reshape(())) for b in bounds)
    if low > high:
        return None
    new = _again(model, node, clip, f"{node.op_type}Clip", more={"low": low, "high": high})
    _copy_type(new.outputs[0], clip.outputs[0])
    replace_value(model, clip.outputs[0], new.outputs[0])
    return new


def _fuse_sign(model: ir.Model, node: ir.Node) -> ir.Node | None:
    """A Sign of the result becomes the operation's second output, or, alone, a threshold on the sum."""
    y = node.outputs[0]
    readers = [use.node for use in y.uses()]
    signs = [reader for reader in readers if _is_sign(reader)]
    if not signs:
        return None
    sign = signs[0]
    alone = len(readers) == 1 and not y.is_graph_output()
    if alone and node.op_type in ("BinaryConv", "GroupedBinaryConv"):
        new = _threshold(model, node)
        made = new.outputs[0]
    else:
        new = _again(model, node, node, f"{node.op_type}Sign", outputs=2)
        _copy_type(new.outputs[0], y)
        replace_value(model, y, new.outputs[0])
        made = new.outputs[1]
    _copy_type(made, sign.outputs[0])
    for each in signs:
        replace_value(model, each.outputs[0], made)
    return new


def _threshold(model: ir.Model, node: ir.Node) -> ir.Node:
    packed, scale, bias = (constant(value) for value in node.inputs[1:4])
    assert packed is not None and scale is not None and bias is not None
    channels = attribute(node, "channels", 0) // attribute(node, "group", 1)
    kernel = attribute(node, "kernel_shape", (1, 1))
    threshold, flip = fold_into_threshold(scale, bias, channels * kernel[0] * kernel[1])
    weights = node.inputs[1]
    path = node.metadata_props.get("path") or "binary"
    if flip.any():
        weights = add_initializer(model, f"{path}.weights", _negated(packed, flip, channels))
    level = add_initializer(model, f"{path}.threshold", threshold)
    name = node.op_type.replace("BinaryConv", "BinaryConvThreshold")
    return _again(model, node, node, name, inputs=[node.inputs[0], weights, level])


def _negated(packed: np.ndarray, flip: np.ndarray, channels: int) -> np.ndarray:
    """The packed weights with the output channels of `flip` negated; unused bits stay 0."""
    used = np.packbits(np.arange(8 * packed.shape[2]) < channels, bitorder="little")
    return np.where(flip, ~packed & used[:, None], packed)


def _fuse_zeros(model: ir.Model) -> int:
    """A Pad with zero channels behind a pooling of ours: the shortcut between two stages of a ResNet."""
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
        new = _again(model, node, pad, f"{node.op_type}Pad", more={"zeros": zeros})
        _copy_type(new.outputs[0], pad.outputs[0])
        replace_value(model, pad.outputs[0], new.outputs[0])
        count += 1
    remove_unused(model)
    return count


def fuse(model: ir.Model) -> int:
    """What follows a convolution (residual, hardtanh, signs) or a pooling (zero channels) into it; how many it were."""
    count = _fuse_zeros(model)
    for step in (_fuse_add, _fuse_clip, _fuse_sign):
        for node in _convolutions(model):
            count += step(model, node) is not None
        remove_unused(model)
    return count
