"""Reads ONNX files without the package onnx and without copying the weights, so that `sessions` can check them.

It reads metadata, operations with their attributes, functions, and the shapes of constants. An ONNX file is a message
of protocol buffers: a sequence of numbered fields, whose numbers are in onnx.proto (here of onnx 1.19).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Constant",
    "Function",
    "Operation",
    "ReadModel",
    "Reference",
    "all_operations",
    "read_floats",
    "read_ints",
    "read_model",
    "read_operation",
]

# Wire types of protocol buffers, which say how a field's value is encoded.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Numbers of the attribute types in onnx.proto.
_FLOAT, _INT, _TEXT, _TENSOR, _FLOATS, _INTS, _TEXTS = 1, 2, 3, 4, 6, 7, 8
# Maximum depth of graphs within graphs: protobuf, whose limit is 100 messages within messages, reads no deeper.
_DEEPEST = 32


@dataclass(frozen=True)
class Constant:
    """A constant: its shape, ONNX's number of its element type, and its TensorProto's fields (number -> raw values)."""

    dims: list[int]
    data_type: int
    fields: dict[int, list[Any]] = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """Stands, in a function's body, for a value that the caller of the function gives as its attribute `name`."""

    name: str


@dataclass(frozen=True)
class Operation:
    """A node of a graph: the name of what it computes, the names of its inputs and outputs, and its attributes.

    attributes: name -> number, bytes (for a text), Constant, Reference, list of these, or None for any other value;
    types: name -> ONNX's number of the attribute's type; inside: the nodes of the graphs among the attributes.
    """

    op_type: str
    domain: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    attributes: dict[str, Any]
    types: dict[str, int] = field(default_factory=dict)
    inside: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class Function:
    """A function that an ONNX file defines: its name, the names of its inputs and outputs, and its body, `operations`.

    attributes: names of those without default; defaults: (name, type, value) of the others; opsets: (domain, version).
    """

    name: str
    domain: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    operations: tuple[Operation, ...]
    attributes: tuple[str, ...] = ()
    defaults: tuple[tuple[str, int, Any], ...] = ()
    opsets: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ReadModel:
    """The content of an ONNX file, without the weights. shapes: the shapes of the constants, by name."""

    ir_version: int = 0
    domains: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()
    functions: tuple[Function, ...] = ()
    shapes: dict[str, list[int]] = field(default_factory=dict)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Reads the protobuf integer at `at`; returns (integer, next position). Raises ValueError if it has no end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number (was the file cut short?)")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("a number is longer than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of each field of a protobuf message, as int or bytes. Raises ValueError on other data."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has number 0")
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"field {number} has wire type {kind}")
        size = 8 if kind == _FIXED64 else 4
        if kind == _BYTES:
            size, at = _varint(data, at)
        if at + size > len(data):
            raise ValueError("it ends within a field (was the file cut short?)")
        yield number, data[at : at + size]
        at += size


def _message(data: Any) -> dict[int, list[Any]]:
    """Returns the fields of a protobuf message: number -> list of values, because a field may occur several times."""
    if not isinstance(data, memoryview):
        raise ValueError("a number stands where a message should")
    found: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _one_message(values: list[Any]) -> dict[int, list[Any]]:
    """Returns the fields of the only protobuf message in `values`. Two are refused, because onnxruntime merges them."""
    if len(values) > 1:
        raise ValueError("a message occurs twice where only one is allowed")
    return _message(values[0]) if values else {}


def _bytes(value: Any) -> bytes:
    if not isinstance(value, memoryview):
        raise ValueError("a number stands where bytes should")
    return bytes(value)


def _text(values: list[Any] | None) -> str:
    return _bytes(values[-1]).decode() if values else ""


def _texts(values: list[Any] | None) -> tuple[str, ...]:
    return tuple(_bytes(value).decode() for value in values or ())


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def read_ints(values: list[Any]) -> list[int]:
    """Returns the signed integers in a protobuf field's values: each value is an integer, or bytes with several."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            numbers.append(_signed(number))
    return numbers


def read_floats(values: list[Any]) -> list[float]:
    """Returns the 32-bit floats in a protobuf field's values: each value is bytes with one or several of them."""
    data = b"".join(map(_bytes, values))
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _int(values: list[Any] | None) -> int:
    return read_ints(values)[-1] if values else 0


# Number of an attribute's type -> (number of the field with its value, function that decodes the field's values).
_VALUES: dict[int, tuple[int, Callable[[list[Any]], Any]]] = {
    _FLOAT: (2, lambda values: read_floats(values)[-1] if values else 0.0),
    _INT: (3, _int),
    _TEXT: (4, lambda values: _bytes(values[-1]) if values else b""),
    _FLOATS: (7, read_floats),
    _INTS: (8, read_ints),
    _TEXTS: (9, lambda values: [_bytes(value) for value in values]),
}


def _tensor(values: list[Any]) -> Constant:
    found = _one_message(values)
    return Constant(read_ints(found.get(1, [])), _int(found.get(2)), found)


def _attribute(found: dict[int, list[Any]]) -> tuple[str, int, Any]:
    """Returns (name, number of the type, value) of an attribute. found: the fields of its AttributeProto."""
    name, kind = _text(found.get(1)), _int(found.get(20))
    if reference := _text(found.get(21)):
        return name, kind, Reference(reference)
    if kind == _TENSOR:
        return name, kind, _tensor(found.get(5, []))
    if kind not in _VALUES:
        return name, kind, None
    number, read = _VALUES[kind]
    return name, kind, read(found.get(number, []))


def read_operation(data: Any, *, depth: int = 0) -> Operation:
    """Returns the node whose NodeProto has these bytes, inside `depth` graphs. Raises ValueError if they are not one.

    >>> read_operation(memoryview(bytes([10, 1, 120, 18, 1, 121, 34, 4]) + b"Sign")).op_type
    'Sign'
    """
    if depth > _DEEPEST:
        raise ValueError(f"its graphs are nested deeper than {_DEEPEST}")
    found = _message(memoryview(data))
    messages = [_message(entry) for entry in found.get(5, [])]
    entries = [_attribute(message) for message in messages]
    attributes = {name: value for name, _, value in entries}
    if len(attributes) < len(entries):
        raise ValueError("an attribute occurs twice")
    graphs = [graph for m in messages for graph in (_one_message(m.get(6, [])), *map(_message, m.get(11, [])))]
    return Operation(
        _text(found.get(4)),
        _text(found.get(7)),
        _texts(found.get(1)),
        _texts(found.get(2)),
        attributes,
        {name: kind for name, kind, _ in entries},
        tuple(read_operation(node, depth=depth + 1) for graph in graphs for node in graph.get(1, [])),
    )


def all_operations(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yields the operations and, at any depth, those of the graphs inside them, which are branches and loops."""
    for operation in operations:
        yield operation
        yield from all_operations(operation.inside)


def _opset(data: Any) -> tuple[str, int]:
    found = _message(data)
    return _text(found.get(1)), _int(found.get(2))


def _function(data: Any) -> Function:
    found = _message(data)
    return Function(
        _text(found.get(1)),
        _text(found.get(10)),
        _texts(found.get(4)),
        _texts(found.get(5)),
        tuple(read_operation(node) for node in found.get(7, [])),
        _texts(found.get(6)),
        tuple(_attribute(_message(entry)) for entry in found.get(11, [])),
        tuple(map(_opset, found.get(9, []))),
    )


def _shape(data: Any) -> tuple[str, list[int]]:
    found = _message(data)
    return _text(found.get(8)), read_ints(found.get(1, []))


def read_model(data: bytes) -> ReadModel:
    """Reads an ONNX file from its bytes, without the weights. Raises ValueError if they are not an ONNX file.

    >>> from pathlib import Path
    >>> read_model(Path("student.onnx").read_bytes()).metadata["format_version"]
    '3'
    """
    try:
        model = _message(memoryview(data))
        graph = _one_message(model.get(7, []))
        entries = [_message(entry) for entry in model.get(14, [])]
        version = model.get(1, [0])[-1]
        return ReadModel(
            ir_version=version if isinstance(version, int) else 0,
            domains=tuple(_opset(entry)[0] for entry in model.get(8, [])),
            metadata={_text(entry.get(1)): _text(entry.get(2)) for entry in entries},
            operations=tuple(read_operation(node) for node in graph.get(1, [])),
            functions=tuple(_function(entry) for entry in model.get(25, [])),
            shapes=dict(_shape(entry) for entry in graph.get(5, [])),
        )
    except (TypeError, struct.error) as error:  # a field is of another kind than onnx.proto says
        raise ValueError(str(error)) from error
