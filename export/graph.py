"""Helpers that read and change an onnx-ir graph; all passes are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = [
    "add_float32",
    "add_initializer",
    "add_scalar",
    "attribute",
    "clean",
    "constant",
    "insert",
    "insert_named",
    "layer_path",
    "nodes_of",
    "only_consumer",
    "optional_input",
    "remove_unused",
    "replace_value",
    "with_inputs",
]


def nodes_of(model: ir.Model, op_type: str, domain: str = "") -> list[ir.Node]:
    """Returns the graph's nodes of one operation, in order, as a list: the graph may change while it is iterated."""
    return [node for node in model.graph if node.op_type == op_type and node.domain == domain]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Returns the numbers of an initializer or a Constant node; None where the value is computed or missing."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Returns an attribute's value, or the default where the node does not have it."""
    found = node.attributes.get(name)
    return default if found is None or found.value is None else found.value


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Returns the one node that reads the value; None where several do, or the value is an output of the graph."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Adds a constant to the graph and returns its value; a name that is taken gets a number behind it."""
    unique, count = name, 0
    while unique in model.graph.initializers:
        count += 1
        unique = f"{name}.{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def add_scalar(model: ir.Model, name: str, number: float) -> ir.Value:
    """Returns the float32 scalar of this name; it is added at the first call and shared by later ones."""
    found = model.graph.initializers.get(name)
    return add_initializer(model, name, np.array(number, np.float32)) if found is None else found


def insert(
    model: ir.Model,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    """Adds a node of standard ONNX in front of another, for the same module; returns its one output."""
    node = ir.node(op_type, list(inputs), attributes or {})
    node.metadata_props.update(before.metadata_props)
    model.graph.insert_before(before, node)
    return node.outputs[0]


def layer_path(node: ir.Node) -> str:
    """Returns the path of the module a node is for, or its operation's name where the graph has no path for it."""
    return str(attribute(node, "path", "") or node.metadata_props.get("path") or node.op_type)


def insert_named(
    model: ir.Model,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    *,
    name: str,
    domain: str = "",
    version: int | None = None,
) -> ir.Value:
    """Adds a named node in front of another, for files whose readers look at names; returns its one output.

    The node and its output are called PATH.name, where PATH is the `layer_path` of `before`; a name that is taken gets
    a number behind it. version: the version of the operation set `domain`.
    """
    node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, version=version)
    node.metadata_props.update(before.metadata_props)
    model.graph.insert_before(before, node)
    taken = {output.name for other in model.graph for output in other.outputs}
    base = unique = f"{layer_path(before)}.{name}"
    count = 1
    while unique in taken:
        count += 1
        unique = f"{base}.{count}"
    node.name = node.outputs[0].name = unique
    return node.outputs[0]


def replace_value(model: ir.Model, old: ir.Value, new: ir.Value) -> None:
    """Puts `new` in the place of `old`, in the nodes that read it and among the graph's outputs."""
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type
    for user, index in list(old.uses()):
        user.replace_input_with(index, new)
    for i, output in enumerate(model.graph.outputs):
        if output is old:
            name = old.name
            model.graph.outputs[i] = new
            old.name = f"{name}.old"
            new.name = name


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Returns an input of the node, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def with_inputs(model: ir.Model, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
    """Puts a copy of the node with other inputs in its place; returns the copy."""
    attributes = list(node.attributes.values())
    new = ir.Node(node.domain, node.op_type, inputs, attributes=attributes, version=node.version)
    new.metadata_props.update(node.metadata_props)
    model.graph.insert_before(node, new)
    replace_value(model, node.outputs[0], new.outputs[0])
    return new


def add_float32(model: ir.Model, node: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """Adds a float32 constant named after the node's module; returns its value."""
    path = node.metadata_props.get("path") or node.op_type.lower()
    return add_initializer(model, f"{path}.{name}", array.astype(np.float32))


def remove_unused(model: ir.Model) -> None:
    """Removes the nodes, initializers, functions and domains that nothing uses."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def clean(model: ir.Model) -> None:
    """Removes the exporter's metadata from nodes and values (source lines, folders); keeps a node's ``path``."""
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        path = node.metadata_props.get("path")
        node.metadata_props.clear()
        if path:
            node.metadata_props["path"] = path
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
