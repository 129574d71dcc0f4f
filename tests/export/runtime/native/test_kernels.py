"""The native library: every kernel against torch and NumPy, inside onnxruntime, and with input that is malformed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from faults.native import open_operators, run_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import bnn_itrd.export.runtime.native as native_module
from bnn_itrd.export.runtime.format import CONVOLUTIONS
from bnn_itrd.export.runtime.native import kernel, library_path, why_unavailable
from bnn_itrd.export.runtime.native.direct import KERNELS, DirectConvolution, direct_signs, load_library

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ROOT / "export" / "runtime" / "native" / "src"

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


def kernels() -> list[str]:
    """Those this processor can run."""
    if library_path() and kernel() == "neon":
        return ["portable", "neon"]
    best = KERNELS.index(kernel()) if library_path() else -1
    return list(KERNELS[: best + 1])


def packed(values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """+-1 -> bits, the lowest first; unused ones 0."""
    return np.packbits(values > 0, axis=axis, bitorder="little")


def signs_of(shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 2, shape) * 2 - 1


def sums(x: np.ndarray, weights: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """torch.conv2d in float64: x (n, h, w, c), weights (kh, kw, i, o) of +-1 -> int32 (n, h', w', o)."""
    images = torch.from_numpy(rearrange(x, "n h w c -> n c h w")).double()
    filters = torch.from_numpy(np.ascontiguousarray(rearrange(weights, "y x i o -> o i y x"))).double()
    top, left, bottom, right = attributes["pads"]
    border = float(attributes["padding_value"])
    images = F.pad(images, (left, right, top, bottom), value=border)
    result = F.conv2d(
        images, filters, stride=attributes["strides"], dilation=attributes["dilations"], groups=attributes["group"]
    )
    return rearrange(result, "n o h w -> n h w o").numpy().astype(np.int32)


def rprelu(y: np.ndarray, before: np.ndarray, slope: np.ndarray, after: np.ndarray) -> np.ndarray:
    moved = y + before
    bent: np.ndarray = np.where(moved <= 0, moved * slope, moved) + after
    return bent


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes and attributes of a convolution, odd ones included."""
    group = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    kernel_shape = draw(st.one_of(st.sampled_from([(1, 1), (3, 3)]), st.tuples(st.integers(1, 7), st.integers(1, 7))))
    pads = draw(st.one_of(st.just((1, 1, 1, 1)), st.tuples(*[st.integers(0, 4)] * 4)))
    dilations = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    spans = [dilations[i] * (kernel_shape[i] - 1) + 1 - pads[i] - pads[i + 2] for i in range(2)]
    return {
        "group": group,
        "group_channels": draw(st.one_of(st.integers(1, 70), st.sampled_from([32, 64, 128]))),
        "group_outputs": draw(st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64]))),
        "kernel_shape": kernel_shape,
        "strides": draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 4), st.integers(1, 4)))),
        "dilations": dilations,
        "pads": pads,
        "padding_value": draw(st.sampled_from([0, 0, 1, -1])),
        "images": draw(st.integers(1, 2)),
        "sides": tuple(max(1, spans[i]) + draw(st.integers(0, 10)) for i in range(2)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def tensors(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, dict[str, Any], np.random.Generator]:
    """Signs, weights, the attributes of a convolution, the generator."""
    generator = np.random.default_rng(case["seed"])
    channels = case["group"] * case["group_channels"]
    x = signs_of((case["images"], *case["sides"], channels), generator)
    weights = signs_of(
        (*case["kernel_shape"], case["group_channels"], case["group"] * case["group_outputs"]), generator
    )
    names = ("group", "padding_value", "strides", "dilations", "pads")
    return x, weights, {name: case[name] for name in names}, generator


@settings(max_examples=2500, deadline=None)
@given(convolutions())
def test_raw_sums_are_those_of_conv2d(case: dict[str, Any]) -> None:
    x, weights, attributes, _ = tensors(case)
    expected = sums(x, weights, attributes)
    for name in kernels():
        convolution = DirectConvolution(
            load_library(), name, packed(weights, axis=2), channels=x.shape[-1], **attributes
        )
        outputs, _ = convolution(packed(x))
        np.testing.assert_array_equal(outputs["raw"], expected, err_msg=name)


@settings(max_examples=600, deadline=None)
@given(convolutions(), st.booleans(), st.sampled_from(["", "Clip", "RPReLU"]), st.booleans())
def test_epilogues_are_those_of_numpy_bit_for_bit(case: dict[str, Any], add: bool, bend: str, rsign: bool) -> None:
    x, weights, attributes, generator = tensors(case)
    expected = sums(x, weights, attributes)
    outputs = weights.shape[-1]
    threshold = generator.integers(-20, 21, outputs, np.int32)
    threshold[int(generator.integers(outputs))] = generator.choice([-(2**30), 2**30, -(2**31), 2**31 - 1])
    scale, bias = generator.standard_normal((2, outputs), np.float32)
    residual = generator.standard_normal(expected.shape, np.float32) if add else None
    y = expected.astype(np.float32) * scale + bias
    y = y + residual if residual is not None else y
    y = np.clip(y, np.float32(-0.7), np.float32(0.9)) if bend == "Clip" else y
    numbers = generator.standard_normal((3, outputs), np.float32) if bend == "RPReLU" else None
    y = y if numbers is None else rprelu(y, *numbers)
    # One of the values that there are: ties are met.
    level = np.ascontiguousarray(y.reshape(-1, outputs)[len(y) // 2]) if rsign else None
    for name in kernels():
        common = {"channels": x.shape[-1], **attributes}
        bits = packed(weights, axis=2)
        thresholded, _ = DirectConvolution(load_library(), name, bits, threshold=threshold, **common)(packed(x))
        signs = np.where(expected.astype(np.int64) >= threshold, 1, -1)
        np.testing.assert_array_equal(thresholded["signs"], packed(signs), err_msg=name)
        limits = (-0.7, 0.9) if bend == "Clip" else None
        bends: dict[str, Any] = {"limits": limits, "rprelu": numbers, "level": level}
        scaled = DirectConvolution(load_library(), name, bits, scale=scale, bias=bias, add=add, **bends, **common)
        results, _ = scaled(packed(x), residual)
        np.testing.assert_array_equal(results["y"].view(np.int32), y.view(np.int32), err_msg=name)
        signs = np.where(y >= (0 if level is None else level), 1, -1)
        np.testing.assert_array_equal(results["signs"], packed(signs), err_msg=name)


def test_a_window_too_large_for_the_stack_and_images_too_many_for_the_cache() -> None:
    generator = np.random.default_rng(0)
    for kernel_shape, channels, images, side in (((7, 7), 900, 2, 9), ((3, 3), 64, 40, 64)):
        x, weights = (
            signs_of((images, side, side, channels), generator),
            signs_of((*kernel_shape, channels, 16), generator),
        )
        attributes = {"group": 1, "padding_value": 0, "strides": (1, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
        expected = sums(x, weights, attributes)
        for name in kernels()[1:]:
            convolution = DirectConvolution(
                load_library(), name, packed(weights, axis=2), channels=channels, **attributes
            )
            np.testing.assert_array_equal(convolution(packed(x))[0]["raw"], expected, err_msg=name)


def test_one_convolution_takes_images_of_changing_size() -> None:
    generator = np.random.default_rng(0)
    weights = signs_of((3, 3, 40, 20), generator)
    attributes = {"group": 1, "padding_value": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
    for name in kernels():
        convolution = DirectConvolution(load_library(), name, packed(weights, axis=2), channels=40, **attributes)
        for shape in ((1, 8, 8), (3, 8, 8), (2, 5, 17), (1, 8, 8), (1, 1, 1)):
            x = signs_of((*shape, 40), generator)
            expected = sums(x, weights, attributes)
            np.testing.assert_array_equal(convolution(packed(x))[0]["raw"], expected, err_msg=name)


def test_signs_of_special_floats() -> None:
    values = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, -np.nan, 3, -3, -0.0], np.float32)
    for channels in (1, 7, 8, 11, 16, 24, 64, 100):
        x = np.resize(values, (3, 5, channels))
        for name in kernels():
            np.testing.assert_array_equal(
                direct_signs(load_library(), name, x), packed(np.where(x >= 0, 1, -1)), err_msg=name
            )
            level = np.resize(np.array([0.0, 3, -1e-45, np.inf, -3], np.float32), channels)
            expected = packed(np.where(x >= level, 1, -1))
            np.testing.assert_array_equal(direct_signs(load_library(), name, x, level), expected, err_msg=name)


@pytest.mark.parametrize("form", [{}, {"limits": (-1, 1)}, {"rprelu"}])
def test_special_constants_give_the_same_bits_but_those_of_a_nan(form: Any) -> None:
    generator = np.random.default_rng(0)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 1e-45, 3e38, 0], np.float32)
    special.view(np.uint32)[-1] = 0xFFC12345  # a NaN with a sign and a payload
    for add in [False, True] * 20:
        weights, x = signs_of((1, 1, 8, 24), generator), packed(signs_of((1, 4, 5, 8), generator))
        scale, bias, level, *bent = generator.choice(special, (6, 24))
        residual = generator.choice(special, (1, 4, 5, 24))
        arguments: dict[str, Any] = {"rprelu": bent} if "rprelu" in form else form
        arguments = {"scale": scale, "bias": bias, "level": level, "add": add, **arguments}
        results = [
            DirectConvolution(load_library(), name, packed(weights, axis=2), channels=8, **arguments)(x, residual)[0]
            for name in kernels()
        ]
        for result in results[1:]:
            np.testing.assert_array_equal(result["signs"], results[0]["signs"])
            nan = np.isnan(results[0]["y"])
            np.testing.assert_array_equal(np.isnan(result["y"]), nan)
            ours, theirs = (np.where(nan, 0, y["y"].view(np.int32)) for y in (result, results[0]))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be in"),
        ({"channels": 2**40}, "channels must be in"),
        ({"channels": 65}, "weights must have shape \\(3, 3, 9, outputs\\)"),
        ({"group": 3}, "channels must be a multiple of group"),
        ({"group": 64}, "weights must have shape \\(3, 3, 1, outputs\\)"),
        ({"padding_value": 2}, "padding_value must be -1, 0 or 1, got 2"),
        ({"strides": (0, 1)}, "strides must be in"),
        ({"dilations": (1, -1)}, "dilations must be in"),
        ({"pads": (0, 0, -1, 0)}, "pads must be in"),
    ],
)
def test_impossible_attributes_are_named(change: dict[str, Any], message: str) -> None:
    weights = np.zeros((3, 3, 8, 16), np.uint8)
    with pytest.raises(ValueError, match=message):
        DirectConvolution(load_library(), "portable", weights, **{"channels": 64, **change})


def test_impossible_images_are_named() -> None:
    convolution = DirectConvolution(load_library(), kernel(), np.zeros((5, 5, 8, 16), np.uint8), channels=64)
    with pytest.raises(ValueError, match="the window is larger than the padded image: 5 against 4 pixels along axis 1"):
        convolution(np.zeros((1, 4, 9, 8), np.uint8))
    huge = DirectConvolution(
        load_library(), kernel(), np.zeros((1, 1, 8, 16), np.uint8), channels=64, pads=(2**30,) * 4
    )
    with pytest.raises(ValueError, match="the image is too large"):
        _run_blind(huge)


def _run_blind(convolution: DirectConvolution) -> None:
    """A run whose outputs are never reached, so there is no need to allocate them."""
    shape, x = np.array([1, 1, 1], np.int64), np.zeros((1, 1, 1, 8), np.uint8)
    message = ctypes.create_string_buffer(256)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, shape)]
    arguments = [*pointers, None, None, None, None, ctypes.c_int64(1), None, message, ctypes.c_int64(256)]
    assert convolution._library.bnn_itrd_run(convolution._handle, *arguments)
    raise ValueError(message.value.decode())


# Inside onnxruntime.

SUFFIXES = tuple(name.removeprefix("BinaryConv") for name in CONVOLUTIONS if name.startswith("BinaryConv"))


def one_node(
    op: str, case: dict[str, Any], generator: np.random.Generator
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of Sign and `op`, and its constants (weights unpacked, of +-1)."""
    thresholds, outputs = "Threshold" in op, case["group"] * case["group_outputs"]
    channels = case["group"] * case["group_channels"]
    weights = signs_of((*case["kernel_shape"], case["group_channels"], outputs), generator)
    constants = {"weights": packed(weights, axis=2)}
    if thresholds:
        constants["threshold"] = generator.integers(-9, 10, outputs).astype(np.int32)
    else:
        constants["scale"], constants["bias"] = generator.standard_normal((2, outputs), np.float32)
    inputs = ["signs", *constants] + (["residual"] if "Add" in op else [])
    further = {}
    if "RPReLU" in op:
        further |= dict(
            zip(("before", "slope", "after"), generator.standard_normal((3, outputs), np.float32), strict=True)
        )
    if op.endswith("RSign"):
        further["level"] = generator.standard_normal(outputs, np.float32)
    inputs, constants = inputs + list(further), constants | further
    results = ["result_signs"] if thresholds else ["y", "result_signs"] if op.endswith("Sign") else ["y"]
    attributes: dict[str, Any] = {"low": -0.7, "high": 0.9} if "Clip" in op else {}
    names = ("kernel_shape", "strides", "pads", "dilations", "group", "padding_value")
    attributes |= {"input_size": case["sides"], "channels": channels} | {name: case[name] for name in names}
    graph = helper.make_graph(
        [
            helper.make_node("Sign", ["x"], ["signs"], "sign", domain="bnn_itrd"),
            helper.make_node(op, inputs, results, "layer1.0.conv2", domain="bnn_itrd", **attributes),
        ],
        "one_node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, None, None])]
        + ([helper.make_tensor_value_info("residual", TensorProto.FLOAT, [None] * 4)] if "Add" in op else []),
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT if name == "y" else TensorProto.UINT8, [None] * 4)
            for name in results
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bnn_itrd", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), {**constants, "weights": weights}


def opened(model: onnx.ModelProto, *, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library_path()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


CASE: dict[str, Any] = {
    "group": 1,
    "group_channels": 64,
    "group_outputs": 32,
    "kernel_shape": (3, 3),
    "strides": (1, 1),
    "dilations": (1, 1),
    "pads": (1, 1, 1, 1),
    "padding_value": 0,
    "sides": (9, 12),
}


def check_node(op: str, case: dict[str, Any], *, threads: int, batch: int, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    model, constants = one_node(op, case, generator)
    session = opened(model, threads=threads)
    x = generator.standard_normal((batch, *case["sides"], case["group"] * case["group_channels"]), np.float32)
    total = sums(np.where(x >= 0, 1, -1), constants["weights"], case)
    feeds = {"x": x}
    if "Threshold" in op:
        expected = [np.where(total >= constants["threshold"], 1, -1)]
    else:
        y = total.astype(np.float32) * constants["scale"] + constants["bias"]
        if "Add" in op:
            feeds["residual"] = generator.standard_normal(total.shape, np.float32)
            y = y + feeds["residual"]
        y = np.clip(y, np.float32(-0.7), np.float32(0.9)) if "Clip" in op else y
        y = rprelu(y, *(constants[name] for name in ("before", "slope", "after"))) if "RPReLU" in op else y
        expected = [y, np.where(y >= constants.get("level", 0), 1, -1)] if op.endswith("Sign") else [y]
    for result, value in zip(session.run(None, feeds), expected, strict=True):
        assert result.shape == value.shape
        if result.dtype == np.uint8:  # opaque: the bits are at the front of the buffer
            bits = packed(value).reshape(-1)
            np.testing.assert_array_equal(result.reshape(-1)[: bits.size], bits)
        else:
            np.testing.assert_array_equal(result.view(np.int32), value.view(np.int32))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_operator_in_a_session(suffix: str, threads: int) -> None:
    grouped = {"group": 3, "group_channels": 20, "group_outputs": 7, "padding_value": -1, "strides": (2, 1)}
    for batch in (1, 2, 5):
        check_node("BinaryConv" + suffix, CASE, threads=threads, batch=batch)
        check_node("GroupedBinaryConv" + suffix, {**CASE, **grouped}, threads=threads, batch=batch)


@pytest.mark.parametrize("threads", [1, 2])
def test_layers_of_a_resnet_in_a_session(threads: int) -> None:
    for channels, outputs, side, stride in ((64, 64, 32, 1), (64, 128, 32, 2), (256, 256, 8, 1), (512, 512, 4, 1)):
        shape = {
            "group_channels": channels,
            "group_outputs": outputs,
            "sides": (side, side),
            "strides": (stride, stride),
        }
        for suffix in ("Threshold", "AddClipSign", "AddRPReLURSign"):
            check_node("BinaryConv" + suffix, {**CASE, **shape}, threads=threads, batch=2)


@pytest.mark.parametrize("name", KERNELS)
def test_the_environment_names_a_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_ITRD_KERNEL", name)
    if name not in kernels_without_environment():
        with pytest.raises(ValueError, match="cannot run the kernel"):
            kernel()
        return
    assert kernel() == name
    check_node("BinaryConvAddClipSign", CASE, threads=1, batch=1)


def kernels_without_environment() -> list[str]:
    best = os.environ.pop("BNN_ITRD_KERNEL")
    try:
        return kernels()
    finally:
        os.environ["BNN_ITRD_KERNEL"] = best


def test_an_unknown_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_ITRD_KERNEL", "sse2")
    with pytest.raises(ValueError, match='unknown kernel "sse2".*BNN_ITRD_KERNEL'):
        kernel()
    assert library_path() is None
    options = onnxruntime.SessionOptions()
    path = Path(load_library.__globals__["__file__"]).with_name("libbnn_itrd.so.1")
    with pytest.raises(Exception, match='unknown kernel "sse2"'):
        options.register_custom_ops_library(str(path))


def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, library = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text('const char* bnn_itrd_kernel(char* message, long size) { return "avx2"; }')
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(native_module, "_FILE", library)
    expected = "was built from other sources than this bnn-itrd (its format is 0, not 3): install bnn-itrd again"
    assert why_unavailable() == f"the native library {library} {expected}"
    assert library_path() is None


def test_concurrent_runs_of_one_session() -> None:
    case = {**CASE, "group_channels": 96, "group_outputs": 48}
    generator = np.random.default_rng(0)
    model, _ = one_node("BinaryConvAddClipSign", case, generator)
    session = opened(model, threads=2)
    feeds = [
        {
            "x": generator.standard_normal((batch, 9, 12, 96), np.float32),
            "residual": generator.standard_normal((batch, 9, 12, 48), np.float32),
        }
        for batch in (1, 2, 3, 4)
    ]
    expected = [session.run(["y"], feed)[0] for feed in feeds]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(100) if not np.array_equal(session.run(["y"], feeds[i])[0], expected[i]))

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_shapes_are_known_before_the_run_and_the_sum_may_take_the_residual_s_place() -> None:
    """A residual that is computed in the graph and wanted by nobody else; the same with one that is also an output."""
    model, _ = one_node("BinaryConvAddClipSign", CASE, np.random.default_rng(0))
    for name in ("x", "residual"):  # a name for the batch, so that both sides are known to be the same
        value = next(value for value in model.graph.input if value.name == name)
        model.graph.input.remove(value)
        shape: list[str | int | None] = ["batch", 9, 12, 64 if name == "x" else 32]
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    plain = opened(model)
    model.graph.node[1].input[-1] = "doubled"
    model.graph.node.insert(0, helper.make_node("Add", ["residual", "residual"], ["doubled"]))
    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    shared.graph.output.append(helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["batch", 9, 12, 32]))
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 9, 12, 64), np.float32)
    residual = generator.standard_normal((2, 9, 12, 32), np.float32)
    expected = plain.run(["y"], {"x": x, "residual": residual + residual})[0]
    for changed in (model, shared):
        np.testing.assert_array_equal(opened(changed).run(["y"], {"x": x, "residual": residual})[0], expected)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    assert [output.shape for output in opened(model).get_outputs()] == [["batch", 9, 12, 32]] * 2


def _changed(op: str = "BinaryConvAddClip", /, **changes: Any) -> onnx.ModelProto:
    """A good model with attributes or constants replaced (None: taken away)."""
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
        ({"group": 2}, "a plain operator has one group, got group 2"),
        ({"padding_value": 3}, "padding_value must be -1, 0 or 1, got 3"),
        ({"low": None}, "attribute low is missing or not a float"),
        ({"low": 2.0}, "low must not be above high"),
        ({"low": float("nan")}, "low must not be above high"),
        ({"weights": None}, "input weights must be a constant of the file"),
        ({"weights": np.zeros((3, 3, 8), np.uint8)}, "must have shape"),
        ({"weights": np.zeros((3, 3, 8, 0), np.uint8)}, "must"),
        ({"scale": np.zeros(31, np.float32)}, "scale must have shape \\(32\\), the outputs of weights, got \\(31\\)"),
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
            Exception, match=f"{op} .*{name} must have shape \\(32\\), the outputs of weights, got \\(31\\)"
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


def test_poolings_in_a_session() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 8, 12, 10), np.float32)
    for op in ("AveragePool", "AveragePoolPad", "MaxPool", "MaxPoolPad"):
        for shape in ((2, 2), (4, 2), (1, 4), (8, 1)):
            attributes: dict[str, Any] = {"input_size": [8, 12], "channels": 10, "kernel_shape": shape}
            zeros = (3, 5) if op.endswith("Pad") else (0, 0)
            if op.endswith("Pad"):
                attributes["zeros"] = zeros
            values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", "y")]
            node = helper.make_node(op, ["x"], ["y"], "pool", domain="bnn_itrd", **attributes)
            graph = helper.make_graph([node], "pool", values[:1], values[1:])
            opsets = [helper.make_opsetid("", 18), helper.make_opsetid("bnn_itrd", 1)]
            session = opened(helper.make_model(graph, opset_imports=opsets, ir_version=8))
            windows = rearrange(x, "n (h i) (w j) c -> i j n h w c", i=shape[0], j=shape[1])
            reduce = np.max if op.startswith("Max") else np.mean
            expected = np.pad(reduce(reduce(windows, axis=0), axis=0), [(0, 0)] * 3 + [zeros])
            np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6, atol=1e-7)
            with pytest.raises(Exception, match="input x must have shape"):
                session.run(None, {"x": x[:, :6]})


def test_malformed_models_do_not_crash(tmp_path: Path) -> None:
    model = one_node("BinaryConvAddClipSign", CASE, np.random.default_rng(0))[0]
    for source, channels in zip(model.graph.input, (64, 32), strict=True):
        for dim, size in zip(source.type.tensor_type.shape.dim[1:], (*CASE["sides"], channels), strict=True):
            dim.dim_value = size
    (tmp_path / "good.onnx").write_bytes(model.SerializeToString())
    ran, refused = open_operators(library_path(), [tmp_path / "good.onnx"], 1000)
    assert ran > 50 and refused > 300


@pytest.mark.exhaustive
def test_kernels_under_address_and_undefined_behaviour_sanitizers(sanitized: Path) -> None:
    """The same kernels compiled with the sanitizers; what they find ends the process with an error."""
    assert run_kernels(sanitized, kernels(), 200) == 200
