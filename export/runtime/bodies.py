"""The bodies of a file's functions, held against those that this package writes.

onnxruntime alone runs a function's body; the native library runs its own code for that name, and reads no body. So a
body of another tool's would be one network with the library and another without it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .errors import ExportError
from .format import DOMAIN
from .known_bodies import KNOWN_BODIES

if TYPE_CHECKING:
    import onnx

__all__ = ["body_digest", "check_bodies"]


def _attribute(entry: onnx.AttributeProto) -> tuple[str, int, str]:
    import onnx

    if entry.ref_attr_name:
        return entry.name, entry.type, f"@{entry.ref_attr_name}"
    value = onnx.helper.get_attribute_value(entry)
    if isinstance(value, onnx.TensorProto):
        value = list(value.dims), value.data_type, onnx.numpy_helper.to_array(value).tobytes().hex()
    return entry.name, entry.type, repr(value)


def body_digest(function: onnx.FunctionProto) -> str:
    """Returns 48 bits, in hex, of what a function computes: its steps and the names in them, not how they are stored.

    Raises what onnx raises on an attribute that holds nothing.
    """
    steps = [
        (node.domain, node.op_type, [*node.input], [*node.output], sorted(map(_attribute, node.attribute)))
        for node in function.node
    ]
    head = (
        [*function.input],
        [*function.output],
        sorted(function.attribute),
        [*map(_attribute, function.attribute_proto)],
    )
    opsets = sorted((entry.domain, entry.version) for entry in function.opset_import)
    return hashlib.sha256(repr((*head, opsets, steps)).encode()).hexdigest()[:12]


def check_bodies(model: onnx.ModelProto, *, where: str) -> None:
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
                f"{where}: the body of {function.name}, which onnxruntime runs, is none that this bnn_itrd knows, and "
                "the native library runs something else in its place: another tool has changed the file, or a newer "
                "bnn_itrd wrote it. Export it again, or update bnn_itrd"
            )
