"""What is done to a good file: bytes, the values of a tree (JSON, YAML, a checkpoint), the fields of a protobuf.

Every function takes a generator of random numbers, so that a case is told by its part, seed and number alone.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["mutate_archive", "mutate_bytes", "mutate_message", "mutate_object", "mutate_operators", "mutate_tree"]

# Where programs stumble: the ends of integers, and sizes that are just too large.
NUMBERS = [-1, 0, 1, 2, 3, 5, 7, 8, 63, 64, 65, 1000, 2**16, 2**30, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
_FLOATS = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 1e38, -1.0, 0.5]
_TEXTS = ["", "a", "/", "..", "\x00", "a|b\n<b>[/x]`&", "ö" * 300, "NaN", "1e999", "os:system", "{}", "[", "9" * 50]
# In the place of a value: another of each kind.
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 10**6, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e308),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, {"name": {}}, [1, 2, 3], *_TEXTS),
]


def _one_of(rng: np.random.Generator, options: Any) -> Any:
    options = list(options)
    return options[int(rng.integers(len(options)))]


def _number(rng: np.random.Generator) -> int:
    return int(_one_of(rng, NUMBERS)) if rng.random() < 0.5 else int(rng.integers(0, 20))


# Bytes


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips bits, replaces bytes, cuts, doubles, removes or splices pieces; one such change, or a few."""
    out = bytearray(data)
    for _ in range(_one_of(rng, [1, 1, 1, 2, 5])):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 65))
        other = int(rng.integers(len(data)))
        match _one_of(rng, ["flip"] * 4 + ["byte"] * 3 + ["number", "cut", "double", "remove", "splice", "fill"]):
            case "flip":
                out[at] ^= 1 << int(rng.integers(8))
            case "byte":
                out[at] = int(rng.integers(256))
            case "number":  # a length or an offset of four bytes
                out[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])).to_bytes(4, "little")
            case "cut":
                del out[at:]
            case "double":
                out[at:at] = out[at : at + length]
            case "remove":
                del out[at : at + length]
            case "splice":
                out[at : at + length] = data[other : other + length]
            case "fill":
                out[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
    return bytes(out)


# Trees: JSON, YAML, what a checkpoint holds


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*above, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 20)):
            yield from _places(value[i], (*above, i))


def mutate_tree(tree: Any, rng: np.random.Generator) -> Any:
    """Returns a copy of nested dicts and lists with one value, or a few, replaced, removed, renamed or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(_one_of(rng, [1, 1, 1, 2, 3])):
        places = list(_places(tree))
        if not places:
            return _one_of(rng, _VALUES)
        *above, key = _one_of(rng, places)
        parent = tree
        for step in above:
            parent = parent[step]
        _change(tree, places, parent, key, rng)
    return tree


def _change(tree: Any, places: list[tuple[Any, ...]], parent: Any, key: Any, rng: np.random.Generator) -> None:
    match _one_of(rng, ["value"] * 4 + ["remove", "remove", "rename", "wrap", "move", "text", "near"]):
        case "value":
            parent[key] = copy.deepcopy(_one_of(rng, _VALUES))
        case "remove":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[_one_of(rng, ["", "extra", f"{key}_", "name", "x" * 300])] = parent.pop(key)
        case "wrap":
            parent[key] = _one_of(rng, [[parent[key]], {"inner": parent[key]}])
        case "move":  # a value of another place of the tree
            found = tree
            for step in _one_of(rng, places):
                found = found[step]
            parent[key] = copy.deepcopy(found)
        case "text":
            parent[key] = str(parent[key])[:200]
        case "near" if isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * _one_of(rng, [-1, 2, 10**6]) + _one_of(rng, [0, 1])
        case _:
            parent[key] = None


# Archives: .npz, torch's checkpoints


def mutate_archive(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns a zip archive with one of its parts damaged, renamed, doubled or left out, under checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = int(rng.integers(len(parts)))
    name, part = parts[at]
    match _one_of(rng, ["bytes"] * 6 + ["remove", "double", "rename", "exchange"]):
        case "bytes":
            parts[at] = name, mutate_bytes(part, rng) if part else b"\x00"
        case "remove":
            del parts[at]
        case "double":
            parts.append((name, mutate_bytes(part, rng) if part else b""))
        case "rename":
            parts[at] = _one_of(rng, ["../up", name + "_", "x", "/etc/x"]), part
        case "exchange":
            parts[at] = name, _one_of(rng, parts)[1]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", _one_of(rng, [zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED])) as archive:
        for name, part in parts:
            archive.writestr(name, part)
    return buffer.getvalue()


# Protobuf: ONNX


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "extend")


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every (message, its field) of a protobuf that is set, itself and below."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for inner in value if _is_repeated(value) else [value]:
                yield from _fields(inner)


def mutate_message(message: Any, rng: np.random.Generator) -> None:
    """Changes one field, or a few, of a protobuf anywhere in its tree."""
    for _ in range(_one_of(rng, [1, 1, 1, 2, 4])):
        found = list(_fields(message))
        if not found:
            return
        holder, field = _one_of(rng, found)
        if _is_repeated(getattr(holder, field.name)):
            _change_repeated(getattr(holder, field.name), field, rng)
        elif field.message_type is not None or rng.random() < 0.1:
            holder.ClearField(field.name)
        else:
            setattr(holder, field.name, _scalar(field, getattr(holder, field.name), rng))


def _change_repeated(values: Any, field: Any, rng: np.random.Generator) -> None:
    at, other = (int(rng.integers(len(values))) for _ in range(2))
    match _one_of(rng, ["remove", "double", "exchange", "value", "value"]):
        case "remove":
            del values[at]
        case "double" if field.message_type is not None:
            values.add().CopyFrom(values[at])
        case "double":
            values.append(values[at])
        case "exchange" if field.message_type is not None:
            kept = copy.deepcopy(values[at])
            values[at].CopyFrom(values[other])
            values[other].CopyFrom(kept)
        case "exchange":
            values[at], values[other] = values[other], values[at]
        case _ if field.message_type is None:
            values[at] = _scalar(field, values[at], rng)
        case _:
            mutate_message(values[at], rng)


def _scalar(field: Any, value: Any, rng: np.random.Generator) -> Any:
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        if isinstance(value, bytes):
            return mutate_bytes(value, rng) if value and rng.random() < 0.8 else b""
        return _one_of(rng, [value + "_", value[:-1], *_TEXTS])
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return _one_of(rng, _FLOATS)
    if field.type == field.TYPE_BOOL:
        return not value
    if field.type == field.TYPE_ENUM:
        return int(_one_of(rng, field.enum_type.values).number)
    low, high = (-(2**31), 2**31) if field.type in (field.TYPE_INT32, field.TYPE_SINT32) else (-(2**63), 2**63)
    if field.type in (field.TYPE_UINT32, field.TYPE_UINT64):
        low, high = 0, 2**32 if field.type == field.TYPE_UINT32 else 2**64
    number = value + _one_of(rng, [-1, 1]) if rng.random() < 0.3 else _number(rng)
    return min(max(number, low), high - 1)


def mutate_operators(model: Any, rng: np.random.Generator, *, bounded: bool = False) -> None:
    """Changes attributes, constants' shapes and inputs of a model's operators of ours. bounded: no size of millions."""
    from onnx import helper, numpy_helper

    kind, nodes = rng.integers(5), [n for n in model.graph.node if n.domain and n.attribute]
    for _ in range(rng.integers(0, 3)):
        attribute = _one_of(rng, _one_of(rng, nodes).attribute)
        value = _number(rng)
        value = value % 20 if bounded and value in (1000, 2**16, 2**30) else value
        if attribute.ints and rng.random() < 0.9:
            attribute.ints[rng.integers(len(attribute.ints))] = value
        elif attribute.ints:
            attribute.ints.append(value)
        elif attribute.floats:
            attribute.floats[rng.integers(len(attribute.floats))] = _one_of(rng, _FLOATS)
        elif attribute.type == attribute.INT:
            attribute.i = value
        elif rng.random() < 0.5:
            attribute.f = _one_of(rng, _FLOATS)
    if kind == 0 and model.graph.initializer:  # shapes of constants, with data of that size
        tensor = _one_of(rng, model.graph.initializer)
        dims = [int(d) for d in tensor.dims]
        dims[rng.integers(len(dims))] = int(rng.integers(0, 12))
        dims = dims if rng.random() < 0.8 else dims[:-1]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(rng.integers(0, 100, dims).astype(dtype), tensor.name))
    if kind == 1 and nodes:  # inputs of a node exchanged
        node = _one_of(rng, nodes)
        node.input[rng.integers(len(node.input))] = node.input[rng.integers(len(node.input))]


# Objects of flatbuffers' generated classes: .tflite


def _slots(value: Any, seen: set[int]) -> Iterator[tuple[Any, str]]:
    if id(value) in seen or not hasattr(value, "__dict__"):
        return
    seen.add(id(value))
    for name, inner in vars(value).items():
        yield value, name
        for part in inner if isinstance(inner, list) else [inner]:
            yield from _slots(part, seen)


def mutate_object(model: Any, rng: np.random.Generator) -> None:
    """Changes one field, or a few, of a tree of flatbuffers' objects (ModelT and what it holds)."""
    for _ in range(_one_of(rng, [1, 1, 2, 4])):
        found = [(o, n) for o, n in _slots(model, set()) if getattr(o, n) is not None]
        holder, name = _one_of(rng, found)
        value = getattr(holder, name)
        if isinstance(value, (list, np.ndarray)) and len(value):
            setattr(holder, name, _changed_list(value, rng))
        elif isinstance(value, bool):
            setattr(holder, name, not value)
        elif isinstance(value, (int, np.integer)):
            setattr(holder, name, _one_of(rng, [int(value) + 1, 0, 1, 2, 7, 127, -1, 2**31 - 1]))
        elif isinstance(value, (float, np.floating)):
            setattr(holder, name, _one_of(rng, _FLOATS))
        elif isinstance(value, (bytes, str)):
            setattr(holder, name, value[:-1])
        else:
            setattr(holder, name, None)


def _changed_list(value: Any, rng: np.random.Generator) -> Any:
    at = int(rng.integers(len(value)))
    if isinstance(value, np.ndarray):
        value = value.copy()
        if rng.random() < 0.3:
            return value[:at]
        value[at] = int(rng.integers(256)) if value.dtype == np.uint8 else _one_of(rng, [0, -1, 1, 2, 7, 1000, 2**20])
        return value
    match _one_of(rng, ["remove", "double", "exchange"]):
        case "remove":
            return [*value[:at], *value[at + 1 :]]
        case "double":
            return [*value, value[at]]
        case _:
            other = int(rng.integers(len(value)))
            out = list(value)
            out[at], out[other] = out[other], out[at]
            return out
