"""Helpers that read and change a network's graph in the library onnx-ir; the passes are written with them.

In this library a node is one operation, a value (`ir.Value`) is one tensor between operations, and an initializer is a
constant tensor that is stored in the file.
"""

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
    """Returns the nodes of one operation, such as ``"Conv"``, in their order in the graph.

    The list is a copy, so the graph may be changed while a caller iterates over it.
    """
    return [node for node in model.graph if node.op_type == op_type and node.domain == domain]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Returns the numbers of a constant tensor; None if `value` is None or is computed when the network runs."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Returns the value of a node's attribute, or `default` if the node does not have that attribute."""
    found = node.attributes.get(name)
    return default if found is None or found.value is None else found.value


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Returns the only node that reads `value`; None if none or several read it, or it is an output of the graph."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Adds `array` to the graph as a constant tensor and returns that tensor.

    If the graph already has a constant of this name, the new one is called ``name.1``, ``name.2``, and so on.
    """
    unique, count = name, 0
    while unique in model.graph.initializers:
        count += 1
        unique = f"{name}.{count}"
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def add_scalar(model: ir.Model, name: str, number: float) -> ir.Value:
    """Returns the float32 scalar constant called `name`; the first call adds it to the graph, later calls share it."""
    found = model.graph.initializers.get(name)
    return add_initializer(model, name, np.array(number, np.float32)) if found is None else found


def insert(
    model: ir.Model,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    """Adds a standard ONNX operation to the graph in front of the node `before`; returns the operation's one output.

    The new node gets the metadata of `before`, so both belong to the same PyTorch module.
    """
    node = ir.node(op_type, list(inputs), attributes or {})
    node.metadata_props.update(before.metadata_props)
    model.graph.insert_before(before, node)
    return node.outputs[0]


def layer_path(node: ir.Node) -> str:
    """Returns the path of the PyTorch module that a node was made from, such as ``layer1.0.conv1``.

    Returns the name of the node's operation if the graph has no path for the node.
    """
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
    """Adds an operation like `insert`, but gives the node and its output a name; returns that output.

    It is used for QONNX files, because programs that read them identify tensors by name. The name is ``PATH.name``,
    where PATH is the `layer_path` of `before`; if it is taken, a number is appended. version: version of the operation
    set `domain`.
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
    """Replaces the tensor `old` by `new` in all nodes that read it and among the graph's outputs.

    `new` takes over the shape and type of `old` if it has none, and the name of `old` if that is a graph output.
    """
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
    """Returns the node's input number `index`, or None if the node has no such input or leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None


def with_inputs(model: ir.Model, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
    """Replaces a node with one output by a copy that has other inputs; returns the copy."""
    attributes = list(node.attributes.values())
    new = ir.Node(node.domain, node.op_type, inputs, attributes=attributes, version=node.version)
    new.metadata_props.update(node.metadata_props)
    model.graph.insert_before(node, new)
    replace_value(model, node.outputs[0], new.outputs[0])
    return new


def add_float32(model: ir.Model, node: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """Adds `array` to the graph as a float32 constant called ``PATH.name``; returns it.

    PATH is the path of the module that `node` was made from, or else the name of its operation in lower case.
    """
    path = node.metadata_props.get("path") or node.op_type.lower()
    return add_initializer(model, f"{path}.{name}", array.astype(np.float32))


def remove_unused(model: ir.Model) -> None:
    """Removes from the graph all nodes, constants, functions and operation sets that are no longer used."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def clean(model: ir.Model) -> None:
    """Removes the metadata that torch's exporter adds, such as source lines and folders; keeps a node's ``path``."""
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
