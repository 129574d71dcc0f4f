"""The version of ONNX in which QONNX files are written."""

from __future__ import annotations

import onnx_ir as ir

from bnn_itrd.export.fpga.writer import QONNX_DOMAIN, QONNX_VERSION
from bnn_itrd.export.graph import constant, layer_path, optional_input
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["QONNX_OPSET", "to_older_opset"]

# FINN's transformations read the operations' older forms (axes as attributes).
QONNX_OPSET = 13


def to_older_opset(model: ir.Model) -> None:
    """Version QONNX_OPSET of ONNX. Raises ExportError on an operation, or a form of one, that is newer, by layer."""
    import onnx

    for node in model.graph:
        if node.domain:
            continue
        node.version = None
        if node.op_type == "BatchNormalization":
            node.attributes.pop("training_mode", None)
        if node.op_type == "Reshape":
            node.attributes.pop("allowzero", None)
        if node.op_type == "AveragePool":
            node.attributes.pop("dilations", None)
        try:
            schema = onnx.defs.get_schema(node.op_type, QONNX_OPSET)
        except onnx.defs.SchemaError as error:
            raise ExportError(f"{layer_path(node)}: {node.op_type} does not exist in ONNX {QONNX_OPSET}") from error
        axes = constant(optional_input(node, 1)) if "axes" in schema.attributes else None
        if axes is not None and schema.max_input == 1:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])
            node.attributes.pop("noop_with_empty_axes", None)
            node.resize_inputs(1)
        if len(node.inputs) > schema.max_input or set(node.attributes) - set(schema.attributes):
            raise ExportError(f"{layer_path(node)}: this form of {node.op_type} does not exist in ONNX {QONNX_OPSET}")
    model.graph.opset_imports.clear()
    model.graph.opset_imports.update({"": QONNX_OPSET, QONNX_DOMAIN: QONNX_VERSION})
