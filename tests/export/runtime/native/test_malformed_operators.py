"""Operators with impossible attributes, constants or inputs are refused with a message, without a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from faults.native import open_operators
from helpers.chains import opened
from helpers.kernels import CASE, one_node
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.runtime.native import library_path, why_unavailable

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


def _changed(op: str = "BinaryConvAddClip", /, **changes: Any) -> onnx.ModelProto:
    """Returns a valid model in which attributes or constants are replaced, or removed if None is given."""
    model, _ = one_node(op, CASE, np.random.default_rng(0))
    node = model.graph.node[1]
    for name, value in changes.items():
        for attribute in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(attribute)
        for tensor in [t for t in model.graph.initializer if t.name == name]:
            model.graph.initializer.remove(tensor)
            if value is not None:
                model.graph.initializer.append(numpy_helper.from_array(value, name))
            else:
                kind = helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
                model.graph.input.append(kind)
            break
        else:
            if value is not None:
                node.attribute.append(helper.make_attribute(name, value))
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": None}, "attribute channels is missing or not an integer"),
        ({"channels": 60}, "input signs must have shape"),
        ({"input_size": [9, 13]}, "input signs must have shape \\(batch, 9, 13, 64\\), got \\(1, 9, 12, 64\\)"),
        ({"input_size": [9]}, "attribute input_size must be 2 integers, got 1"),
        ({"kernel_shape": [3, 5]}, "weights must have shape \\(3, 5, 8, outputs\\), got \\(3, 3, 8, 32\\)"),
        ({"strides": [0, 1]}, "strides must be in"),
        ({"pads": [1, 1]}, "attribute pads must be 4 integers, got 2"),
        ({"pads": [2**40, 0, 0, 0]}, "pads must be in"),
        ({"pads": [2**30] * 4}, "too large"),
        ({"dilations": [50, 1]}, "the window is larger than the padded image"),
        ({"group": 2}, "this operator must have group 1, got group 2"),
        ({"padding_value": 3}, "padding_value must be -1, 0 or 1, got 3"),
        ({"low": None}, "attribute low is missing or not a float"),
        ({"low": 2.0}, "low must not be above high"),
        ({"low": float("nan")}, "low must not be above high"),
        ({"weights": None}, "input weights must be a constant of the file"),
        ({"weights": np.zeros((3, 3, 8), np.uint8)}, "must have shape"),
        ({"weights": np.zeros((3, 3, 8, 0), np.uint8)}, "must"),
        (
            {"scale": np.zeros(31, np.float32)},
            "scale must have shape \\(32\\), a number for each output of weights, got",
        ),
        ({"bias": np.zeros((1, 32), np.float32)}, "bias must have shape \\(32\\)"),
    ],
)
def test_malformed_operators_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=f'BinaryConvClip "layer1.0.conv2": .*{message}'):
        opened(_changed("BinaryConvClip", **changes)).run(None, {"x": np.zeros((1, 9, 12, 64), np.float32)})


@pytest.mark.parametrize("name", ["before", "slope", "after", "level"])
def test_malformed_constants_of_rprelu_and_rsign_are_refused(name: str) -> None:
    for op in ("BinaryConvRPReLURSign", "BinaryConvAddRPReLURSign"):
        with pytest.raises(
            Exception,
            match=f"{op} .*{name} must have shape \\(32\\), a number for each output of weights, got \\(31\\)",
        ):
            opened(_changed(op, **{name: np.zeros(31, np.float32)}))
        with pytest.raises(Exception, match=f"input {name} must be a constant of the file"):
            opened(_changed(op, **{name: None}))


@pytest.mark.parametrize(
    ("level", "message"), [((9,), "as many numbers as x has channels: 8, got 9"), ((8, 1), "one axis")]
)
def test_a_malformed_level_of_a_sign_is_refused(level: tuple[int, ...], message: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("RSign", ["x", "level"], ["t"], "sign", domain="bnn_itrd")],
        "sign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info("t", TensorProto.UINT8, [None] * 4)],
        [numpy_helper.from_array(np.zeros(level, np.float32), "level")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bnn_itrd", 1)]
    with pytest.raises(Exception, match=f'RSign "sign": level must have .*{message}'):
        opened(helper.make_model(graph, opset_imports=opsets, ir_version=8)).run(
            None, {"x": np.zeros((1, 2, 2, 8), np.float32)}
        )


@pytest.mark.parametrize(
    ("x", "residual", "message"),
    [
        ((1, 9, 12, 63), (1, 9, 12, 32), "input signs must have shape \\(batch, 9, 12, 64\\), got \\(1, 9, 12, 63\\)"),
        ((1, 9, 11, 64), (1, 9, 11, 32), "input signs must have shape"),
        ((2, 9, 12, 64), (1, 9, 12, 32), "input residual must have the shape of the output, \\(2, 9, 12, 32\\)"),
    ],
)
def test_malformed_inputs_are_refused(x: tuple[int, ...], residual: tuple[int, ...], message: str) -> None:
    session = opened(_changed())
    with pytest.raises(Exception, match=message):
        session.run(None, {"x": np.zeros(x, np.float32), "residual": np.zeros(residual, np.float32)})
    assert session.run(
        None, {"x": np.zeros((0, 9, 12, 64), np.float32), "residual": np.zeros((0, 9, 12, 32), np.float32)}
    )


def test_malformed_models_do_not_crash(tmp_path: Path) -> None:
    model = one_node("BinaryConvAddClipSign", CASE, np.random.default_rng(0))[0]
    for source, channels in zip(model.graph.input, (64, 32), strict=True):
        for dim, size in zip(source.type.tensor_type.shape.dim[1:], (*CASE["sides"], channels), strict=True):
            dim.dim_value = size
    (tmp_path / "good.onnx").write_bytes(model.SerializeToString())
    ran, refused = open_operators(library_path(), [tmp_path / "good.onnx"], 1000)
    assert ran > 50 and refused > 300
