"""Checks that the functions in a file have the bodies that this package writes.

A binary layer in a file is a call of an ONNX function, whose body has standard operations. A stock onnxruntime runs the
body. The native library runs its own code for the function's name and does not read the body. So a file with a changed
body would give one result with the library and another without it.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from .distribution import DISTRIBUTION
from .errors import ExportError
from .format import DOMAIN
from .known_bodies import KNOWN_BODIES
from .onnx_file import Constant, Function, ReadModel, Reference, read_floats, read_ints

__all__ = ["body_digest", "check_bodies"]

# ONNX's number of an element type -> NumPy's type, for the types that the constants in bodies have.
_TYPES = {1: "<f4", 2: "|u1", 3: "|i1", 5: "<i2", 6: "<i4", 7: "<i8", 9: "|b1"}
# Numbers of TensorProto's fields in which data can stand.
_RAW, _FLOATS, _INTS, _LONGS = 9, 4, 5, 7
# Numbers of its fields which say that the data are a part of a larger constant, or in another file.
_ELSEWHERE = {3, 13, 14}


def _constant_bytes(tensor: Constant) -> bytes:
    """Returns a constant's data as little-endian bytes, from whichever field of its TensorProto has them.

    Raises ValueError if they do not fit the constant's type or shape.
    """
    if tensor.data_type not in _TYPES or tensor.fields.keys() & _ELSEWHERE:
        raise ValueError(f"no body has constants of type {tensor.data_type} or with data outside the file")
    kind = np.dtype(_TYPES[tensor.data_type])
    place = {1: _FLOATS, 7: _LONGS}.get(tensor.data_type, _INTS)
    found = tensor.fields.keys() & {_RAW, _FLOATS, _INTS, _LONGS}
    if found == {_RAW}:
        data = bytes(tensor.fields[_RAW][-1])
    elif found <= {place}:
        values = tensor.fields.get(place, [])
        numbers = np.array(read_floats(values) if place == _FLOATS else read_ints(values))
        data = numbers.astype(kind).tobytes()
    else:
        raise ValueError("its data are in a field that does not belong to its type")
    if len(data) != kind.itemsize * math.prod(tensor.dims):
        raise ValueError("its data do not fit its shape")
    return data


def _attribute_text(name: str, kind: int, value: Any) -> tuple[str, int, str]:
    """Returns (name, number of the type, value as a text) of an ONNX attribute, for `body_digest`.

    Raises ValueError on a value that does not occur in a body.
    """
    if isinstance(value, Reference):
        return name, kind, f"@{value.name}"
    if value is None:
        raise ValueError(f"{name} is not a number, text or constant")
    if isinstance(value, Constant):
        value = list(value.dims), value.data_type, _constant_bytes(value).hex()
    return name, kind, repr(value)


def body_digest(function: Function) -> str:
    """Returns 12 hex digits of a SHA-256 of an ONNX function: of its operations and of all names in it.

    It does not depend on how the file stores them. Raises ValueError on an attribute without a value, or with
    one that does not occur in a body.

    >>> len(body_digest(Function("Sign", DOMAIN, ("x",), ("y",), ())))
    12
    """
    steps = [
        (
            node.domain,
            node.op_type,
            [*node.input],
            [*node.output],
            sorted(_attribute_text(name, node.types[name], value) for name, value in node.attributes.items()),
        )
        for node in function.operations
    ]
    head = (
        [*function.input],
        [*function.output],
        sorted(function.attributes),
        [_attribute_text(*entry) for entry in function.defaults],
    )
    return hashlib.sha256(repr((*head, sorted(function.opsets), steps)).encode()).hexdigest()[:12]


def check_bodies(model: ReadModel, *, where: str) -> None:
    """Raises ExportError if a function of this package in a file has a body that no version of the package wrote.

    Otherwise the file could give two results, because the native library replaces the function and does not read the
    body. where: the file's name, for the message.

    >>> check_bodies(ReadModel(), where="student.onnx")  # a file without functions
    """
    seen: set[str] = set()
    for function in model.functions:
        if function.domain != DOMAIN:
            continue
        twice = function.name in seen
        seen.add(function.name)
        if function.name not in KNOWN_BODIES and not twice:
            continue
        try:
            known = not twice and body_digest(function) in KNOWN_BODIES[function.name].split()
        except (ValueError, TypeError):
            known = False
        if not known:
            raise ExportError(
                f"{where}: the body of the function {function.name} is none that this {DISTRIBUTION} knows. "
                "onnxruntime would run this body, and the native library its own code instead, with other results. "
                "Another tool has changed the file, or a newer bnn-itrd wrote it: "
                f"export it again, or update {DISTRIBUTION}"
            )
