"""What an ONNX file says of itself, read from its bytes: without onnx, and without copying the weights.

Only what `sessions` looks at: metadata, domains, operations with their attributes, functions, the shapes of the
constants. The fields' numbers are those of onnx.proto (onnx 1.19), the encoding is that of protocol buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Function", "Operation", "ReadModel", "read_model", "read_operation"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Of an attribute: what its type says, the field that holds the value, and whether there are several.
_FLOAT, _INT, _TEXT, _FLOATS, _INTS, _TEXTS = 1, 2, 3, 6, 7, 8


@dataclass(frozen=True)
class Operation:
    """A node: its operation, the names it reads and gives, and its attributes, bytes where they are texts."""

    op_type: str
    domain: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Function:
    """A model-local function: its name, the names inside, and its body."""

    name: str
    domain: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class ReadModel:
    """A whole file. shapes: of the constants, by name."""

    ir_version: int = 0
    domains: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()
    functions: tuple[Function, ...] = ()
    shapes: dict[str, list[int]] = field(default_factory=dict)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends). Raises ValueError where the bytes end first, or it is longer than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("a number is longer than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of every field of a message: whole numbers, or bytes. Raises ValueError on anything else."""
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
            raise ValueError("it ends within a field: was it cut short?")
        yield number, data[at : at + size]
        at += size


def _message(data: Any) -> dict[int, list[Any]]:
    if not isinstance(data, memoryview):
        raise ValueError("a number stands where a message should")
    found: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


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


def _ints(values: list[Any]) -> list[int]:
    """Whole numbers, one by one or packed."""
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


def _floats(values: list[Any]) -> list[float]:
    """Numbers of 32 bits, one by one or packed."""
    data = b"".join(map(_bytes, values))
    return list(struct.unpack(f"<{len(data) // 4}f", data))


# Type -> (number of the field, how it is read).
_VALUES: dict[int, tuple[int, Callable[[list[Any]], Any]]] = {
    _FLOAT: (2, lambda values: _floats(values)[-1] if values else 0.0),
    _INT: (3, lambda values: _ints(values)[-1] if values else 0),
    _TEXT: (4, lambda values: _bytes(values[-1]) if values else b""),
    _FLOATS: (7, _floats),
    _INTS: (8, _ints),
    _TEXTS: (9, lambda values: [_bytes(value) for value in values]),
}


def _attribute(data: Any) -> tuple[str, Any]:
    """(name, value); the bytes themselves of a tensor, a graph, or what refers to an attribute of the function."""
    found = _message(data)
    kind = found.get(20, [0])[-1]
    if 21 in found or kind not in _VALUES:
        return _text(found.get(1)), bytes(data)
    number, read = _VALUES[kind]
    return _text(found.get(1)), read(found.get(number, []))


def read_operation(data: Any) -> Operation:
    """The bytes of a NodeProto. Raises ValueError where they are none.

    >>> read_operation(memoryview(bytes([10, 1, 120, 18, 1, 121, 34, 4]) + b"Sign"))
    Operation(op_type='Sign', domain='', input=('x',), output=('y',), attributes={})
    """
    found = _message(memoryview(data))
    attributes = dict(_attribute(entry) for entry in found.get(5, []))
    return Operation(_text(found.get(4)), _text(found.get(7)), _texts(found.get(1)), _texts(found.get(2)), attributes)


def _function(data: Any) -> Function:
    found = _message(data)
    return Function(
        _text(found.get(1)),
        _text(found.get(10)),
        _texts(found.get(4)),
        _texts(found.get(5)),
        tuple(read_operation(node) for node in found.get(7, [])),
    )


def _shape(data: Any) -> tuple[str, list[int]]:
    found = _message(data)
    return _text(found.get(8)), _ints(found.get(1, []))


def read_model(data: bytes) -> ReadModel:
    """The bytes of a ModelProto. Raises ValueError where they are none."""
    try:
        model = _message(memoryview(data))
        graph = _message(model[7][-1]) if 7 in model else {}
        entries = [_message(entry) for entry in model.get(14, [])]
        version = model.get(1, [0])[-1]
        return ReadModel(
            ir_version=version if isinstance(version, int) else 0,
            domains=tuple(_text(_message(entry).get(1)) for entry in model.get(8, [])),
            metadata={_text(entry.get(1)): _text(entry.get(2)) for entry in entries},
            operations=tuple(read_operation(node) for node in graph.get(1, [])),
            functions=tuple(_function(entry) for entry in model.get(25, [])),
            shapes=dict(_shape(entry) for entry in graph.get(5, [])),
        )
    except (TypeError, struct.error) as error:  # a field of another kind than the one that stands at its number
        raise ValueError(str(error)) from error
