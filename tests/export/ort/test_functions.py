"""The model-local functions of the format against a NumPy loop: every operation, every attribute."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from einops import rearrange
from helpers.loops import sums
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.format import CONVOLUTIONS, DOMAIN, POOLINGS, SIGNS

GEOMETRY: dict[str, Any] = {
    "channels": 5,
    "kernel_shape": [3, 2],
    "strides": [2, 1],
    "pads": [1, 0, 2, 1],
    "dilations": [1, 2],
    "group": 1,
    "padding_value": 0,
}


def model_of(name: str, arrays: dict[str, np.ndarray], attributes: dict[str, Any], constants: set[str]) -> bytes:
    """Returns a model of one operation. arrays: its inputs by name, in order; constants: those stored in the file."""
    alone = name.endswith("Threshold") or name in SIGNS
    outputs = {"t": TensorProto.UINT8} if alone else {"y": TensorProto.FLOAT}
    if name.endswith("Sign") and not alone:
        outputs["t"] = TensorProto.UINT8
    node = helper.make_node(name, list(arrays), list(outputs), domain=DOMAIN, **attributes)
    inputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), ["n", *a.shape[1:]])
        for k, a in arrays.items()
        if k not in constants
    ]
    graph = helper.make_graph(
        [node],
        "one",
        inputs,
        [helper.make_tensor_value_info(k, t, ["n", "h", "w", "c"]) for k, t in outputs.items()],
        [numpy_helper.from_array(arrays[k], k) for k in constants],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        functions=function_bodies([name]),
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def run(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return list(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds))


def pack_by_hand(weights: np.ndarray) -> np.ndarray:
    """Packs weights of +-1 bit by bit: (o, i, kh, kw) -> uint8 (kh, kw, ceil(i / 8), o)."""
    o, i, kh, kw = weights.shape
    packed = np.zeros((kh, kw, -(-i // 8), o), np.uint8)
    for a, b, y, x in itertools.product(range(o), range(i), range(kh), range(kw)):
        if weights[a, b, y, x] > 0:
            packed[y, x, b // 8, a] |= 1 << (b % 8)
    return packed


def case(
    name: str, *, seed: int = 0, batch: int = 2, size: tuple[int, int] = (6, 5), outputs: int = 4, **changes: Any
) -> None:
    """Compares an operation with the NumPy loop on random numbers, bit for bit."""
    how = {**GEOMETRY, **changes}
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1, 1], (batch, *size, how["channels"]))
    weights = rng.choice([-1, 1], (outputs, how["channels"] // how["group"], *how["kernel_shape"]))
    acc = sums(signs, weights, how)
    arrays = {"s": (signs + 1).astype(np.uint8), "w": pack_by_hand(weights)}
    attributes = {"input_size": list(size), **how}
    if name.endswith("Threshold"):
        arrays["threshold"] = rng.integers(-6, 7, outputs).astype(np.int32)
        expected = [np.where(acc >= arrays["threshold"], 2, 0).astype(np.uint8)]
    else:
        arrays["scale"] = rng.standard_normal(outputs).astype(np.float32)
        arrays["bias"] = rng.standard_normal(outputs).astype(np.float32)
        y = acc.astype(np.float32) * arrays["scale"] + arrays["bias"]
        if "Add" in name:
            arrays["residual"] = rng.standard_normal(acc.shape).astype(np.float32)
            y = y + arrays["residual"]
        if "Clip" in name:
            attributes |= {"low": -1.0, "high": 0.75}
            y = np.clip(y, np.float32(-1), np.float32(0.75))
        if "RPReLU" in name:
            numbers = rng.standard_normal((3, outputs)).astype(np.float32)
            arrays |= dict(zip(("before", "slope", "after"), numbers, strict=True))
            moved = y + numbers[0]
            y = np.where(moved > 0, moved, moved * numbers[1]) + numbers[2]
        level = np.zeros(outputs, np.float32)
        if name.endswith("RSign"):
            # Some of the values that there are, so that ties are met.
            level = arrays["level"] = np.sort(y.reshape(-1, outputs), axis=0)[len(y.reshape(-1, outputs)) // 2]
        expected = [y, np.where(y >= level, 2, 0).astype(np.uint8)][: 2 if name.endswith("Sign") else 1]
    constants = {k for k in arrays if k not in ("s", "residual")}
    model = model_of(name, arrays, attributes, constants)
    got = run(model, {k: a for k, a in arrays.items() if k not in constants})
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_operation(name: str) -> None:
    case(name, **({"channels": 6, "group": 2} if name.startswith("Grouped") else {}))


@pytest.mark.parametrize("form", ["BinaryConv", "BinaryConvThreshold"])
@pytest.mark.parametrize("padding_value", [-1, 0, 1])
@pytest.mark.parametrize("group", [1, 3])
def test_borders_hold_the_padding_value(form: str, padding_value: int, group: int) -> None:
    name = f"Grouped{form}" if group > 1 else form
    case(name, channels=9, outputs=6, group=group, padding_value=padding_value, pads=[2, 1, 1, 2])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_geometry(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kernel, dilations = [draw(1, 5), draw(1, 5)], [draw(1, 2), draw(1, 2)]
    pads = [draw(0, 2) for _ in range(4)]
    size = tuple(max(1, dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + 2]) + draw(0, 4) for i in range(2))
    group = data.draw(st.sampled_from([1, 1, 2, 3]))
    form = data.draw(
        st.sampled_from(["BinaryConv", "BinaryConvThreshold", "BinaryConvAddClipSign", "BinaryConvAddRPReLURSign"])
    )
    case(
        f"Grouped{form}" if group > 1 else form,
        seed=draw(0, 99),
        batch=draw(1, 3),
        size=(size[0], size[1]),
        outputs=group * draw(1, 5),
        channels=group * draw(1, 19),
        kernel_shape=kernel,
        dilations=dilations,
        strides=[draw(1, 3), draw(1, 3)],
        pads=pads,
        group=group,
        padding_value=draw(-1, 1),
    )


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (2, 1)])
def test_poolings(name: str, kernel: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 8, 5)).astype(np.float32)
    windows = rearrange(x, "n (h a) (w b) c -> n h w a b c", a=kernel[0], b=kernel[1])
    expected = windows.mean((3, 4)) if name.startswith("Average") else windows.max((3, 4))
    attributes: dict[str, Any] = {"input_size": [4, 8], "channels": 5, "kernel_shape": kernel}
    if name.endswith("Pad"):
        attributes["zeros"] = [2, 1]
        expected = np.pad(expected, ((0, 0), (0, 0), (0, 0), (2, 1)))
    (y,) = run(model_of(name, {"x": x}, attributes, set()), {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)


def test_sign_is_plus_one_at_both_zeros() -> None:
    x = np.array([0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0, np.inf, -np.inf], np.float32).reshape(1, 2, 2, 2)
    (signs,) = run(model_of("Sign", {"x": x}, {}, set()), {"x": x})
    assert signs.reshape(-1).tolist() == [2, 2, 2, 0, 2, 0, 2, 0]


def test_rsign_is_plus_one_from_the_level_of_its_channel_on() -> None:
    level = np.array([0.5, -0.0, -2.0], np.float32)
    above, below = np.nextafter(level, np.float32(9)), np.nextafter(level, np.float32(-9))
    x = np.stack([level, above, below, np.full(3, np.inf, np.float32), np.full(3, np.nan, np.float32)])
    x = np.ascontiguousarray(x.reshape(1, 5, 1, 3))
    (signs,) = run(model_of("RSign", {"x": x, "level": level}, {}, {"level"}), {"x": x})
    assert signs.reshape(5, 3).tolist() == [[2] * 3, [2] * 3, [0] * 3, [2] * 3, [0] * 3]


@pytest.mark.parametrize("level", [-(2**30), 2**30])
def test_a_threshold_out_of_reach_gives_one_sign(level: int) -> None:
    arrays = {
        "s": np.full((1, 4, 4, 8), 2, np.uint8),
        "w": pack_by_hand(np.ones((3, 8, 3, 3))),
        "threshold": np.full(3, level, np.int32),
    }
    how = {**GEOMETRY, "channels": 8, "kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}
    model = model_of("BinaryConvThreshold", arrays, {"input_size": [4, 4], **how}, {"w", "threshold"})
    (signs,) = run(model, {"s": arrays["s"]})
    assert np.unique(signs).tolist() == [0 if level > 0 else 2]


def origins(body: onnx.FunctionProto, value: str) -> set[str]:
    """Returns the operations that compute a value, beyond those that only move or reshape it."""
    made = {output: node for node in body.node for output in node.output}
    if value not in made:
        return set()
    node = made[value]
    return origins(body, node.input[0]) if node.op_type in ("Transpose", "Reshape", "Identity") else {node.op_type}


@pytest.mark.parametrize("body", function_bodies(CONVOLUTIONS), ids=lambda body: body.name)
def test_no_scale_reads_a_float_sum_itself(body: onnx.FunctionProto) -> None:
    """An optimiser may move such a scale into the weights, and then every term of a sum rounds, not the sum."""
    read = [origins(body, value) for node in body.node if node.op_type in ("Mul", "Div") for value in node.input]
    assert not set.union(*read) & {"Conv", "MatMul", "Gemm"}


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(ValueError, match="no operation BinaryConvBias"):
        function_bodies(["Sign", "BinaryConvBias"])
