"""A pass that replaces integer quantisers by standard ONNX operations, and weights by their quantised values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_itrd.export.graph import (
    add_float32,
    add_scalar,
    attribute,
    constant,
    insert,
    nodes_of,
    remove_unused,
    replace_value,
)
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.quant import integer_range

__all__ = ["lower_quantizers", "quantized_values", "quantizer_constants"]

# Metadata key of a node whose output is an activation that was rounded to integers; its entry is the quantiser's path.
_QUANTIZER = "quantizer_of"
# Ending of that node's name. A node that replaces it in the layout (n, h, w, c) has no such ending.
_FIRST = ".nchw"


def quantizer_constants(node: ir.Node) -> tuple[float, int, int]:
    """Returns (scale, lowest integer, highest integer) of a Quant node, which rounds to multiples of its scale.

    Raises ExportError if the scale is not a constant number.
    """
    scale = constant(node.inputs[1])
    if scale is None or scale.size != 1:
        raise ExportError(
            f"{attribute(node, 'path', node.name)}: the scale of its integers must be one constant, the same for all "
            "images and channels"
        )
    return (
        float(scale.reshape(())),
        *integer_range(attribute(node, "bits", 8), narrow=bool(attribute(node, "narrow", 0))),
    )


def _lower(model: ir.Model, node: ir.Node) -> ir.Value:
    """Adds the standard operations, or the quantised weight, that stand for a Quant node; returns their result."""
    scale, low, high = quantizer_constants(node)
    weight = constant(node.inputs[0])
    if weight is not None:
        step = np.float32(scale)
        return add_float32(model, node, "weight", np.round(np.clip(weight / step, low, high)) * step)
    step_value = add_scalar(model, f"{attribute(node, 'path', '')}.scale", scale)
    y = insert(model, node, "Div", [node.inputs[0], step_value])
    bounds = [add_scalar(model, f"integer.{bound}", float(bound)) for bound in (low, high)]
    y = insert(model, node, "Round", [insert(model, node, "Clip", [y, *bounds])])
    y = insert(model, node, "Mul", [y, step_value])
    producer = y.producer()
    if producer is not None:
        producer.metadata_props[_QUANTIZER] = attribute(node, "path", "")
        producer.name = f"{attribute(node, 'path', '')}{_FIRST}"
    return y


def lower_quantizers(model: ir.Model) -> int:
    """Replaces each Quant node by the operations Div, Clip, Round (ties to even) and Mul; returns how many.

    A Quant of a constant weight is computed at once and replaced by the quantised weight.
    """
    nodes = nodes_of(model, "Quant", DOMAIN)
    for node in nodes:
        replace_value(model, node.outputs[0], _lower(model, node))
    remove_unused(model)
    return len(nodes)


def quantized_values(model: ir.Model) -> list[tuple[str, str, bool]]:
    """Returns a tuple for each activation that was rounded to integers, in a graph after `lower_quantizers`.

    Its entries are the quantiser's path, the name of the quantised tensor, and whether that tensor is (n, h, w, c)
    instead of (n, c, h, w).
    """
    return [
        (
            node.metadata_props[_QUANTIZER],
            node.outputs[0].name or "",
            not (node.name or "").endswith(_FIRST),
        )
        for node in model.graph
        if _QUANTIZER in node.metadata_props and node.op_type == "Mul"
    ]
