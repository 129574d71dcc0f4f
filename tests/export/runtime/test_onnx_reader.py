"""`read_model` reads what the package onnx reads, and raises nothing but ValueError on other bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export import ExportError, read_metadata, session
from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal
from bnn_itrd.export.runtime.onnx_file import Constant, Reference, all_operations, read_model, read_operation

ATTRIBUTES: dict[str, Any] = {
    "float": 0.1,
    "zero": 0.0,
    "int": -(2**63),
    "text": "é",
    "floats": [1.5, -0.25, 3e38],
    "ints": [0, -1, 2**63 - 1],
    "texts": ["a", ""],
}


def made(operation: str = "Sign", domain: str = "bnn_itrd", *, function: str = "Sign", **more: str) -> onnx.ModelProto:
    """Returns a model with one operation, a function, a constant and metadata; `save` adds its checksum."""
    body = helper.make_function(
        "bnn_itrd", function, ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    node = helper.make_node(operation, ["x"], ["y"], "name", domain=domain)
    weights = numpy_helper.from_array(np.arange(24, dtype=np.float32).reshape(2, 3, 4), "weights")
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], [weights])
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in dict.fromkeys(["bnn_itrd", domain]))]
    model = helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=8)
    helper.set_model_props(model, {"format_version": "3", "sha256": NO_DIGEST, **more})
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(seal(model.SerializeToString()))
    return path


def test_an_operation_with_every_kind_of_attribute() -> None:
    node = helper.make_node("Op", ["x", "", "w"], ["y", "z"], domain="d", **ATTRIBUTES)
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    node.attribute.append(helper.make_attribute("tensor", tensor))
    read = read_operation(node.SerializeToString())
    assert (read.op_type, read.domain, read.input, read.output) == ("Op", "d", ("x", "", "w"), ("y", "z"))
    expected = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "tensor"}
    assert {name: value for name, value in read.attributes.items() if name != "tensor"} == expected
    constant = read.attributes["tensor"]
    assert isinstance(constant, Constant) and (constant.dims, constant.data_type) == ([3], TensorProto.FLOAT)
    assert read.types == {a.name: a.type for a in node.attribute}


def test_a_model() -> None:
    read = read_model(made(classes='["é"]').SerializeToString())
    assert read.ir_version == 8 and read.domains == ("", "bnn_itrd") and read.shapes == {"weights": [2, 3, 4]}
    assert read.metadata == {"format_version": "3", "sha256": NO_DIGEST, "classes": '["é"]'}
    assert [(node.op_type, node.domain, node.input, node.output) for node in read.operations] == [
        ("Sign", "bnn_itrd", ("x",), ("y",))
    ]
    (function,) = read.functions
    assert (function.name, function.domain, function.input, function.output) == ("Sign", "bnn_itrd", ("a",), ("b",))
    assert [node.op_type for node in function.operations] == ["Neg"]


def test_a_function_with_attributes_and_graphs() -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["a"], ["c"])], "inner", [], [])
    branch = helper.make_graph(
        [helper.make_node("If", ["k"], ["d"], then_branch=inner, else_branch=inner)], "branch", [], []
    )
    steps = [
        helper.make_node("MaxPool", ["a"], ["b"]),
        helper.make_node("If", ["k"], ["e"], then_branch=branch, else_branch=inner),
    ]
    steps[0].attribute.append(onnx.AttributeProto(name="pads", type=onnx.AttributeProto.INTS, ref_attr_name="sides"))
    body = helper.make_function(
        "bnn_itrd", "F", ["a", "k"], ["b"], steps, [helper.make_opsetid("", 18), helper.make_opsetid("o", 2)],
        ["sides"], [helper.make_attribute("low", 0.5)],
    )  # fmt: skip
    (read,) = read_model(helper.make_model(inner, functions=[body]).SerializeToString()).functions
    assert read.attributes == ("sides",) and read.defaults == (("low", onnx.AttributeProto.FLOAT, 0.5),)
    assert read.opsets == (("", 18), ("o", 2))
    assert read.operations[0].attributes == {"pads": Reference("sides")}
    assert read.operations[0].types == {"pads": onnx.AttributeProto.INTS}
    found = [node.op_type for node in all_operations(read.operations)]
    assert found == ["MaxPool", "If", "Neg", "If", "Neg", "Neg"]  # the else branch stands first


def test_what_other_readers_merge_is_refused() -> None:
    """Other readers merge a message that occurs twice, and take one of two attributes of a name: both are refused."""
    graph = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "graph", [], [])
    data = helper.make_model(graph).SerializeToString()
    with pytest.raises(ValueError, match="a message occurs twice where only one is allowed"):
        read_model(data + onnx.ModelProto(graph=graph).SerializeToString())
    node = helper.make_node("Op", ["x"], ["y"], a=1)
    node.attribute.append(helper.make_attribute("a", 2))
    with pytest.raises(ValueError, match="an attribute occurs twice"):
        read_operation(node.SerializeToString())


def test_graphs_in_graphs_end() -> None:
    data = b"\x22\x03Neg"
    for _ in range(40):
        for tag in (b"\x0a", b"\x32", b"\x2a"):  # the node of a graph, the graph of an attribute, that of a node
            data = tag + number(len(data)) + data
    with pytest.raises(ValueError, match="its graphs are nested deeper than 32"):
        read_operation(data)


def number(size: int) -> bytes:
    """Returns an integer below 2^14 as protobuf encodes it."""
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])


def test_other_bytes_raise_nothing_but_value_error() -> None:
    data = made().SerializeToString()
    refused = 0
    for bit in range(0, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read_model(bytes(changed))
        except ValueError:
            refused += 1
    assert refused > len(data) // 3
    for cut in range(1, len(data)):
        try:
            read_model(data[:cut])
        except ValueError:
            refused += 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "it ends within a number"),
        (b"\x08" + b"\xff" * 10, "a number is longer than 64 bits"),
        (b"\x3a\x05ab", r"it ends within a field \(was the file cut short\?\)"),
        (b"\x0b", "field 1 has wire type 3"),
        (b"\x00\x01", "a field has number 0"),
        (b"\x38\x01", "a number stands where a message should"),
        # A name that is a number; as bytes(2**62) it would take the machine's memory.
        (b"\x3a\x0c\x0a\x0a\x20" + b"\xff" * 8 + b"\x3f", "a number stands where bytes should"),
        (b"\x3a\x04\x0a\x02\x22\x01", "it ends within a field"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_model(data)


def test_a_file_with_an_operation_that_the_format_does_not_have(tmp_path: Path) -> None:
    file = save(made("BinaryConvGelu", function="BinaryConvGelu"), tmp_path / "a.onnx")
    for opener in (session, read_metadata):
        with pytest.raises(
            ExportError,
            match=r"a\.onnx has operations that bnn-itrd 0\.1\.0 does not know: bnn_itrd\.BinaryConvGelu\. Update bnn-",
        ):
            opener(file)


def test_a_file_with_an_operation_of_another_tool(tmp_path: Path) -> None:
    model = made("BipolarQuant", "qonnx.custom_op.general")
    del model.functions[:]
    file = save(model, tmp_path / "a.onnx")
    message = (
        r"^onnxruntime [\d.]+ cannot run .*a\.onnx: it does not know the operations "
        r"qonnx\.custom_op\.general\.BipolarQuant$"
    )
    with pytest.raises(ExportError, match=message):
        session(file, native=False)
    assert read_metadata(file)["format_version"] == 3
