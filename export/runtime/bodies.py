"""The bodies of a file's functions, held against those that this package writes.

onnxruntime alone runs a function's body; the native library runs its own code for that name, and reads no body. So a
body of another tool's would be one network with the library and another without it.
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

# Types of the constants that bodies have, by ONNX's numbers, as NumPy's; and the fields of TensorProto that hold them.
_TYPES = {1: "<f4", 2: "|u1", 3: "|i1", 5: "<i2", 6: "<i4", 7: "<i8", 9: "|b1"}
_RAW, _FLOATS, _INTS, _LONGS = 9, 4, 5, 7
_ELSEWHERE = {3, 13, 14}  # a segment of a larger constant, or a file beside this one


def _constant_bytes(tensor: Constant) -> bytes:
    """The numbers' bytes, little-endian. Raises ValueError where they are not in the file, or of another type."""
    if tensor.data_type not in _TYPES or tensor.fields.keys() & _ELSEWHERE:
        raise ValueError("it is no constant that a body has")
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
        raise ValueError("its numbers stand in a field of another type")
    if len(data) != kind.itemsize * math.prod(tensor.dims):
        raise ValueError("it has not as many numbers as its sizes say")
    return data


def _told(name: str, kind: int, value: Any) -> tuple[str, int, str]:
    """An attribute as the digest takes it. Raises ValueError where it holds what no body has."""
    if isinstance(value, Reference):
        return name, kind, f"@{value.name}"
    if value is None:
        raise ValueError(f"{name} is no number, text or constant")
    if isinstance(value, Constant):
        value = list(value.dims), value.data_type, _constant_bytes(value).hex()
    return name, kind, repr(value)


def body_digest(function: Function) -> str:
    """Returns 48 bits, in hex, of what a function computes: its steps and the names in them, not how they are stored.

    Raises ValueError on an attribute that holds nothing, or what no body has.
    """
    steps = [
        (
            node.domain,
            node.op_type,
            [*node.input],
            [*node.output],
            sorted(_told(name, node.types[name], value) for name, value in node.attributes.items()),
        )
        for node in function.operations
    ]
    head = (
        [*function.input],
        [*function.output],
        sorted(function.attributes),
        [_told(*entry) for entry in function.defaults],
    )
    return hashlib.sha256(repr((*head, sorted(function.opsets), steps)).encode()).hexdigest()[:12]


def check_bodies(model: ReadModel, *, where: str) -> None:
    """Raises ExportError where a function that the native library replaces has a body that was never written for it."""
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
                f"{where}: the body of {function.name}, which onnxruntime runs, is none that this {DISTRIBUTION} "
                "knows, and the native library runs something else in its place: another tool has changed the file, or "
                f"a newer bnn-itrd wrote it. Export it again, or update {DISTRIBUTION}"
            )
