"""A file is refused if a chain's attributes do not fit its body, or if a body is none that this package wrote.

The native library reads an operation's name and attributes, and onnxruntime reads its body. Where these disagree the
file would give two results, even if its checksum is right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from bnn_itrd.cli import main
from bnn_itrd.export import ExportError, read_metadata, session, to_onnx
from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.bodies import body_digest
from bnn_itrd.export.runtime.chain_program import chain_attributes
from bnn_itrd.export.runtime.checksum import NO_DIGEST, seal
from bnn_itrd.export.runtime.format import CONVOLUTIONS, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS
from bnn_itrd.export.runtime.known_bodies import KNOWN_BODIES
from bnn_itrd.export.runtime.onnx_file import read_model, read_operation
from bnn_itrd.quant import BinaryConv2d


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Returns the model of a small network whose layers form one chain."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(),
        BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(),
        nn.AvgPool2d(2), BinaryConv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip
    network.train()(torch.randn(16, 3, 8, 8))
    file = to_onnx(network.eval(), tmp_path_factory.mktemp("chain") / "a.onnx", input_shape=(3, 8, 8))
    model = onnx.load(file)
    assert [node.op_type for node in model.graph.node][:1] == ["Chain0"]
    return model


def changed(model: onnx.ModelProto, change: Callable[[onnx.NodeProto, onnx.FunctionProto], None], path: Path) -> Path:
    """Writes the file with its chain changed by `change`, and with a checksum that fits; returns its path."""

    def change_chain(copy: onnx.ModelProto) -> None:
        call = next(node for node in copy.graph.node if node.op_type == "Chain0")
        change(call, next(function for function in copy.functions if function.name == "Chain0"))

    return resealed(model, change_chain, path)


def resealed(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], None], path: Path) -> Path:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    next(entry for entry in copy.metadata_props if entry.key == "sha256").value = NO_DIGEST
    path.write_bytes(seal(copy.SerializeToString()))
    return path


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(a for a in node.attribute if a.name == name)


def other_limits(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    attribute(call, "limits").floats[0] = 0.9


def other_program(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    program = attribute(call, "program")
    program.ints[-1] += 1


def other_size(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    attribute(call, "output_size").ints[2] += 1


def without_limits(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    call.attribute.remove(attribute(call, "limits"))


def other_clip(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    clip = next(node for node in body.node if "Clip" in node.op_type)
    attribute(clip, "high").f = 0.25


def other_constants(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    """Exchanges the scale and the bias of the last convolution, in the body alone."""
    last = next(node for node in reversed(body.node) if "BinaryConv" in node.op_type)
    last.input[2], last.input[3] = last.input[3], last.input[2]


def other_operation(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    """Adds an operation to the body that is not one of the domain: it negates the result."""
    last = body.node[-1]
    inner = f"{last.output[0]}_inner"
    body.node.append(helper.make_node("Neg", [inner], [last.output[0]]))
    last.output[0] = inner


def without_body(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    body.name = "Chain1"


def no_stride(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    """Sets a stride to 0, by which nothing can be divided."""
    node = next(node for node in body.node if "BinaryConv" in node.op_type)
    attribute(node, "strides").ints[0] = 0


def no_window(call: onnx.NodeProto, body: onnx.FunctionProto) -> None:
    node = next(node for node in body.node if "Pool" in node.op_type)
    attribute(node, "kernel_shape").ints[0] = 0


CHANGES = [
    no_stride,
    no_window,
    other_limits,
    other_program,
    other_size,
    without_limits,
    other_clip,
    other_constants,
    other_operation,
    without_body,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_attributes_that_are_not_the_body_s_are_refused(change: Any, chained: onnx.ModelProto, tmp_path: Path) -> None:
    file = changed(chained, change, tmp_path / "b.onnx")
    for opener in (session, read_metadata):
        with pytest.raises(ExportError, match=r"b\.onnx: the attributes of Chain0, .*: export it again"):
            opener(file)


def test_a_file_that_is_sealed_again_unchanged_opens(chained: onnx.ModelProto, tmp_path: Path) -> None:
    file = changed(chained, lambda call, body: None, tmp_path / "b.onnx")
    assert session(file).get_outputs()[0].name == "logits" and read_metadata(file)["input_shape"] == [3, 8, 8]


def chain_in_a_function(model: onnx.ModelProto) -> None:
    """Moves the call of the chain into a function of another domain, which the graph calls."""
    call = next(node for node in model.graph.node if node.op_type == "Chain0")
    inner = onnx.NodeProto()
    inner.CopyFrom(call)
    opsets = [helper.make_opsetid("bnn_itrd", 1)]
    model.functions.append(helper.make_function("other", "Around", [*call.input], [*call.output], [inner], opsets))
    model.opset_import.append(helper.make_opsetid("other", 1))
    del call.attribute[:]
    call.domain, call.op_type = "other", "Around"


def chain_in_a_branch(model: onnx.ModelProto) -> None:
    call = next(node for node in model.graph.node if node.op_type == "Chain0")
    inner = onnx.NodeProto()
    inner.CopyFrom(call)
    branch = helper.make_graph([inner], "branch", [], [helper.make_empty_tensor_value_info(call.output[0])])
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))


@pytest.mark.parametrize("change", [chain_in_a_function, chain_in_a_branch], ids=lambda change: change.__name__)
def test_a_chain_is_called_by_the_graph_alone(change: Any, chained: onnx.ModelProto, tmp_path: Path) -> None:
    file = resealed(chained, change, tmp_path / "b.onnx")
    with pytest.raises(
        ExportError, match="Chain0 is called inside another operation, where this package puts no chain"
    ):
        session(file)


def step(model: onnx.ModelProto, operation: str) -> tuple[onnx.FunctionProto, onnx.NodeProto]:
    """Returns (a function of the domain whose body has this operation, the operation)."""
    functions = [function for function in model.functions if not function.name.startswith("Chain")]
    return next((f, node) for f in functions for node in f.node if node.op_type == operation)


def other_comparison(model: onnx.ModelProto) -> None:
    step(model, "GreaterOrEqual")[1].op_type = "Less"


def other_order(model: onnx.ModelProto) -> None:
    node = step(model, "Sub")[1]
    node.input[0], node.input[1] = node.input[1], node.input[0]


def other_number(model: onnx.ModelProto) -> None:
    """Changes the number that stands for the sign +1."""
    code = next(n for n in step(model, "GreaterOrEqual")[0].node if n.output[0].endswith("_plus"))
    code.attribute[0].t.int32_data[0] = 1


def other_attribute(model: onnx.ModelProto) -> None:
    """Makes an operation take the function's kernel_shape for its pads."""
    node = next(n for f in model.functions for n in f.node if n.attribute and n.attribute[0].ref_attr_name == "pads")
    node.attribute[0].ref_attr_name = "kernel_shape"


def another_result(model: onnx.ModelProto) -> None:
    function = step(model, "GreaterOrEqual")[0]
    function.output[0] = function.node[0].output[0]


def two_bodies(model: onnx.ModelProto) -> None:
    model.functions.append(step(model, "GreaterOrEqual")[0])


def a_type_that_is_none(model: onnx.ModelProto) -> None:
    """Gives an attribute a type that ONNX does not have."""
    node = next(n for f in model.functions for n in f.node if n.attribute)
    node.attribute[0].MergeFromString(b"\xa0\x01\xe8\x07")  # field 20, its type: 1000


BODIES = [
    other_comparison,
    other_order,
    other_number,
    other_attribute,
    another_result,
    two_bodies,
    a_type_that_is_none,
]


@pytest.mark.parametrize("change", BODIES, ids=lambda change: change.__name__)
def test_a_body_that_was_never_written_is_refused(change: Any, chained: onnx.ModelProto, tmp_path: Path) -> None:
    file = resealed(chained, change, tmp_path / "b.onnx")
    for opener in (session, read_metadata):
        with pytest.raises(ExportError, match=r"b\.onnx: the body of the function \w+ is none that this"):
            opener(file)


def test_the_bodies_that_are_written_now_are_known() -> None:
    """A new version of a body must be added to known_bodies.py, after those that older files have."""
    names = {*CONVOLUTIONS, *FLOAT_CONVOLUTIONS, *POOLINGS, *SIGNS}
    assert names == KNOWN_BODIES.keys()
    graph = onnx.GraphProto(name="none")
    made = helper.make_model(graph, functions=function_bodies(names))
    for function in read_model(made.SerializeToString()).functions:
        assert body_digest(function) in KNOWN_BODIES[function.name].split(), function.name


def test_validate_refuses_such_a_file(
    chained: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = changed(chained, other_limits, tmp_path / "b.onnx")
    assert main(["validate", str(file), "--data.name=digits"]) == 2
    assert "the attributes of Chain0, by which the native library computes it" in capsys.readouterr().err


def test_the_program_of_two_operations() -> None:
    """The expected program is written by hand, from the tables of docs/reference/format.md."""
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1]}
    own = {"input_size": [8, 8], "channels": 16, "group": 1, "padding_value": 0, **window}
    made = [
        helper.make_node("Sign", ["x"], ["s"], domain="bnn_itrd"),
        helper.make_node("BinaryConvClip", ["s", "w", "a", "b"], ["y"], domain="bnn_itrd", low=-1.0, high=0.5, **own),
    ]
    nodes = [read_operation(node.SerializeToString()) for node in made]
    assert chain_attributes(nodes, ["x", "w", "a", "b"], {"w": 32}) == {
        "program": [1, 0, 8, 8, 16, 0, 0, 2, 1, -1, 5, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        "output_size": [8, 8, 32],
        "limits": [-1.0, 0.5],
    }
    with pytest.raises(ValueError, match="the constants of BinaryConvClip do not follow each other"):
        chain_attributes(nodes, ["x", "w", "b", "a"], {"w": 32})
    with pytest.raises(ValueError, match="a constant comes before a value among the inputs"):
        chain_attributes(nodes, ["w", "x", "a", "b"], {"w": 32})
