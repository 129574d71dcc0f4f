"""Chains, float convolutions and poolings inside onnxruntime: against each other bit for bit, and with malformed input.

Three forms of a random network of our operations must agree: the operations by themselves with the native library, the
chain of them, and (floats only) the stock runtime, which knows neither.
"""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from faults.native import open_operators, operator_files
from faults.networks import Network, good_chain, network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.chain_program import check_chains
from bnn_itrd.export.runtime.format import DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.export.runtime.onnx_file import read_model

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ROOT / "export" / "runtime" / "native" / "src"

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


def opened(model: onnx.ModelProto | bytes, *, native: bool = True, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if native:
        options.register_custom_ops_library(str(library_path()))
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def bits(signs: np.ndarray) -> np.ndarray:
    """What counts of opaque signs: the first bytes."""
    n, h, w, c = signs.shape
    return signs.reshape(-1)[: n * h * w * -(-c // 8)]


def assert_same(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if ours.dtype == np.uint8:
            np.testing.assert_array_equal(bits(ours), bits(theirs))
        else:
            np.testing.assert_array_equal(ours.view(np.int32), theirs.view(np.int32))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_a_chain_gives_the_bits_of_its_operations(seed: int, batch: int) -> None:
    net = network(seed)
    model, chained = net.model(chained=False), net.model(chained=True)
    feeds = net.feeds(batch)
    check_chains(read_model(chained.SerializeToString()), where="the file")
    expected = opened(model).run(None, feeds)
    assert_same(opened(chained).run(None, feeds), expected)
    assert_same(opened(chained, threads=2).run(None, feeds), expected)
    # The stock runtime holds signs in another form, so only floats are compared.
    stock = opened(chained, native=False).run([chained.graph.output[0].name], feeds)
    assert_same(stock, expected[:1])


def stem_constants(op: str, outputs: int) -> dict[str, np.ndarray]:
    """Those of RPReLU and RSign."""
    names = (["before", "slope", "after"] if "RPReLU" in op else []) + (["level"] if op.endswith("RSign") else [])
    return dict(
        zip(names, np.random.default_rng(outputs).standard_normal((len(names), outputs), np.float32), strict=True)
    )


def stem_model(
    op: str, weights: np.ndarray, bias: np.ndarray, size: tuple[int, int], **changes: Any
) -> onnx.ModelProto:
    attributes: dict[str, Any] = {"input_size": size, "channels": weights.shape[2], "kernel_shape": weights.shape[:2]}
    attributes |= {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1]} | changes
    attributes |= {"low": -0.5, "high": 2.0} if "Clip" in op and "low" not in changes else {}
    names = ["y", "t"] if op.endswith("Sign") else ["y"]
    further = stem_constants(op, len(bias))
    node = helper.make_node(op, ["images", "w", "b", *further], names, "stem", domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "stem",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT if n == "y" else TensorProto.UINT8, None) for n in names],
        [numpy_helper.from_array(a, name) for name, a in ({"w": weights, "b": bias} | further).items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=function_bodies([op]), ir_version=8)


@pytest.mark.parametrize("kernel", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("op", FLOAT_CONVOLUTIONS)
def test_a_float_convolution_is_that_of_torch_and_of_the_stock_runtime(
    op: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNN_ITRD_KERNEL", kernel)
    if library_path() is None:
        pytest.skip("this processor cannot run it")
    rng = np.random.default_rng(0)
    cases: list[tuple[tuple[int, ...], tuple[int, int], int]] = [
        ((3, 3, 3, 64), (32, 32), 1),
        ((5, 5, 1, 6), (28, 27), 2),
        ((7, 7, 2, 33), (33, 20), 2),
        ((1, 1, 128, 80), (9, 8), 1),
        ((3, 3, 14, 17), (11, 7), 1),
    ]
    for shape, size, stride in cases:
        weights, bias = rng.standard_normal(shape, np.float32), rng.standard_normal(shape[3], np.float32)
        model = stem_model(op, weights, bias, size, strides=[stride, stride])
        for threads, batch in itertools.product((1, 2), (1, 3, 9)):
            x = rng.standard_normal((batch, shape[2], *size), np.float32)
            last = np.ascontiguousarray(rearrange(x, "n c h w -> n h w c"))
            feeds = {"images": last if op.startswith("Inner") else x}
            results = opened(model, threads=threads).run(None, feeds)
            assert_same(results[:1], opened(model, native=False, threads=threads).run(["y"], feeds))
            oihw = rearrange(weights, "y x i o -> o i y x")
            arrays = [torch.from_numpy(np.ascontiguousarray(a)).double() for a in (x, oihw, bias)]
            y = rearrange(F.conv2d(*arrays, stride=stride, padding=1), "n o h w -> n h w o").numpy()
            expected, further = np.clip(y, -0.5, 2.0) if "Clip" in op else y, stem_constants(op, shape[3])
            if "RPReLU" in op:
                moved = y + further["before"]
                expected = np.where(moved > 0, moved, moved * further["slope"]) + further["after"]
            np.testing.assert_allclose(results[0], expected, atol=1e-4)
            if op.endswith("Sign"):
                positive = results[0] >= further.get("level", np.float32(0))
                packed = np.packbits(positive, axis=-1, bitorder="little").reshape(-1)
                np.testing.assert_array_equal(bits(results[1]), packed)


@pytest.mark.parametrize("kernel", ["portable", "avx2", "avx512"])
def test_an_rprelu_has_the_stock_runtime_s_bits_at_zeros_and_nan(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_ITRD_KERNEL", kernel)
    if library_path() is None:
        pytest.skip("this processor cannot run it")
    values = np.array([0.0, 1e-45, -1e-45, 1, -1, np.inf, -np.inf, np.nan], np.float32)
    images = np.resize(values, (1, 1, 8, 16))
    numbers = {"slope": [0.0, -0.0, 0.25, -0.25, 3.0], "before": [-0.0] * 5, "after": [-0.0] * 5}
    # The weight is 1, so the stem's sums are the images themselves.
    ones, none = np.ones((1, 1, 1, 5), np.float32), np.zeros(5, np.float32)
    model = stem_model("FloatConvRPReLU", ones, none, (8, 16), pads=[0] * 4)
    for tensor in model.graph.initializer:
        if tensor.name in numbers:
            tensor.CopyFrom(numpy_helper.from_array(np.array(numbers[tensor.name], np.float32), tensor.name))
    (ours,), (stock,) = (opened(model, native=native).run(None, {"images": images}) for native in (True, False))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(stock))
    there = ~np.isnan(stock)
    np.testing.assert_array_equal(ours.view(np.int32)[there], stock.view(np.int32)[there])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 4}, r"weights must have shape \(3, 3, 4, outputs\), got \(3, 3, 3, 8\)"),
        ({"kernel_shape": [3, 2]}, r"weights must have shape \(3, 2, 3, outputs\)"),
        ({"strides": [0, 1]}, "strides must be in"),
        ({"pads": [2**30] * 4}, "too large"),
        ({"dilations": [9, 1]}, "the window is larger than the padded image"),
        ({"input_size": [8, 9]}, r"input x must have shape \(batch, 3, 8, 9\), got \(2, 3, 8, 8\)"),
        ({"low": 3.0, "high": 1.0}, "low must not be above high"),
    ],
)
def test_malformed_float_convolutions_are_refused(change: dict[str, Any], message: str) -> None:
    weights, bias = np.zeros((3, 3, 3, 8), np.float32), np.zeros(8, np.float32)
    with pytest.raises(Exception, match=f'FloatConvClip "stem": .*{message}'):
        model = stem_model("FloatConvClip", weights, bias, (8, 8), **change)
        opened(model).run(None, {"images": np.zeros((2, 3, 8, 8), np.float32)})
    if "input_size" in change:
        message = r"input x must have shape \(batch, 8, 9, 3\), got \(2, 8, 8, 3\)"
    with pytest.raises(Exception, match=f'InnerFloatConvClip "stem": .*{message}'):
        model = stem_model("InnerFloatConvClip", weights, bias, (8, 8), **change)
        opened(model).run(None, {"images": np.zeros((2, 8, 8, 3), np.float32)})


def test_constants_of_a_float_convolution_are_checked() -> None:
    deep = stem_model("FloatConv", np.zeros((7, 7, 3, 8), np.float32), np.zeros(8, np.float32), (8, 8))
    with pytest.raises(Exception, match="at most 128 values"):
        opened(deep)
    short = stem_model("FloatConv", np.zeros((3, 3, 3, 8), np.float32), np.zeros(7, np.float32), (8, 8))
    with pytest.raises(Exception, match=r"bias must have shape \(8\), the outputs of weights, got \(7\)"):
        opened(short)


@pytest.mark.parametrize("op", POOLINGS)
def test_poolings_have_the_bits_of_the_stock_runtime(op: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 16, 70), np.float32)
    sides = (1, 2, 4) if op.startswith("Average") else (1, 2, 4, 8)
    for kernel in itertools.product(sides, sides):
        net = Network(0)
        net.inputs["x"], net.floats["x"] = [8, 16, 70], (8, 16, 70)
        zeros: dict[str, Any] = {"zeros": [3, 5]} if op.endswith("Pad") else {}
        (y,) = net.add(op, ["x"], 1, input_size=[8, 16], channels=70, kernel_shape=kernel, **zeros)
        net.floats[y] = (8 // kernel[0], 16 // kernel[1], 78 if zeros else 70)
        model = net.model(chained=False)
        (native,), (stock,) = opened(model).run(None, {"x": x}), opened(model, native=False).run(None, {"x": x})
        assert_same([native], [stock])
        windows = rearrange(x.astype(np.float64), "n (h i) (w j) c -> n h w i j c", i=kernel[0], j=kernel[1])
        expected = windows.max((3, 4)) if op.startswith("Max") else windows.mean((3, 4))
        inner = native[..., 3:-5] if zeros else native
        np.testing.assert_allclose(inner, expected, rtol=1e-5, atol=1e-6)
        assert not zeros or not (native[..., :3].any() or native[..., -5:].any())


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("chained", [True, False])
def test_a_batch_of_none(native: bool, chained: bool) -> None:
    for seed in range(20):
        net = Network(seed)
        net.stem("FloatConvRPReLURSign" if seed % 2 else "FloatConvSign")
        for step in (net.convolve, net.convolve, net.pool):
            step()
        net.convolve(last=True)
        model = net.model(chained=chained)
        (y, *_) = opened(model, native=native).run(None, net.feeds(0))
        assert y.shape == (0, *net.floats[net.nodes[-1].output[0]])


def test_several_threads_run_one_chain() -> None:
    nets = [network(seed) for seed in range(400)]
    net = next(n for n in nets if "images" in n.inputs and "outside" not in n.inputs and len(n.nodes) > 5)
    session = opened(net.model(chained=True), threads=2)
    feeds = [net.feeds(batch) for batch in (1, 2, 8, 9)]
    expected = [session.run(None, feed)[0] for feed in feeds]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(50) if not np.array_equal(session.run(None, feeds[i])[0], expected[i]))

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_windows_that_do_not_fit_on_the_stack() -> None:
    """A wide window, alone and with few pixels and many outputs; several threads of the session at once."""
    for sides, channels, outputs in (((20, 20), 1100, 16), ((2, 4), 1100, 256)):
        net = Network(1)
        net.inputs["x"], net.floats["x"] = [*sides, channels], (*sides, channels)
        net.sign()
        x = next(iter(net.signs))
        packed = net.rng.integers(0, 256, (3, 3, -(-channels // 8), outputs)).astype(np.uint8)
        packed[:, :, -1] &= (1 << (channels % 8 or 8)) - 1
        scale, bias = net.rng.standard_normal((2, outputs), np.float32)
        attributes: dict[str, Any] = {"input_size": sides, "channels": channels, "kernel_shape": [3, 3], "group": 1}
        attributes |= {"strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "padding_value": 0}
        inputs = [x, net.constant(packed), net.constant(scale), net.constant(bias)]
        (y,) = net.add("BinaryConv", inputs, 1, **attributes)
        net.floats[y] = (*sides, outputs)
        feeds = net.feeds(2)
        expected = opened(net.model(chained=False), native=False).run(None, feeds)
        for threads, chained in itertools.product((1, 2), (False, True)):
            assert_same(opened(net.model(chained=chained), threads=threads).run(None, feeds), expected)


# A chain of five steps whose program is then spoilt.


# Places in the program: the input; FloatConv at 5, the threshold at 19, the addition at 36, the pooling at 53.
PROGRAM = [1, 2, 8, 8, 3]
WINDOW = [3, 3, 1, 1, 1, 1, 1, 1, 1, 1]


def test_the_program_is_as_documented() -> None:
    model = good_chain().model(chained=True)
    (node,) = model.graph.node
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert found["program"] == [
        *PROGRAM,
        *(3, 0, 9, 1, *WINDOW),
        *(2, 2, -1, 0, 3, *WINDOW, 1, 0),
        *(2, 3, 1, 15, 5, *WINDOW, 1, 0),
        *(1, 4, 1, 2, 2, 0, 0),
    ]
    assert found["limits"] == [-1.0, 1.0] and found["output_size"] == [4, 4, 16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: 0}, "attribute program tells of inputs that are not there"),
        ({0: 100}, "an input of an unknown form 3"),
        ({1: 3}, "an input of an unknown form 3"),
        ({1: 0}, "step 0: value 0 is not planes of floats"),
        ({2: 0}, r"a value of shape \(0, 8, 3\) is impossible or too large"),
        ({2: 2**62}, r"a value of shape \(4611686018427387904, 8, 3\) is impossible or too large"),
        ({4: 4}, r"step 0: weights must have shape \(3, 3, 4, outputs\)"),
        ({5: 7}, "step 0: an unknown step 7"),
        ({6: 5}, "step 0: value 5 is read before it is there"),
        ({6: -1}, "step 0: value -1 is read before it is there"),
        ({7: 3}, "step 0: an unknown form"),
        ({7: 0}, "step 0: an unknown form"),
        ({8: 0}, "step 0: constants that are not there"),
        ({8: 7}, "step 0: constants that are not there|element type"),
        ({11: 0}, "step 0: strides must be in"),
        ({20: 1}, "step 1: value 1 is not signs"),
        ({20: 3}, "step 1: value 3 is read before it is there"),
        ({21: 1}, "step 1: a residual, and no convolution that adds it"),
        ({22: 16}, "step 1: an unknown form"),
        ({22: 2}, "step 1: an unknown form"),
        ({22: 64}, "step 1: an unknown form"),
        ({5: 5}, "step 0: value 0 is not floats"),
        ({1: 0, 5: 5, 6: 1}, "step 0: value 1 is read before it is there"),
        ({7: 1 + 2}, "step 0: an unknown form"),
        ({7: 1 + 4 + 16}, "step 0: an unknown form"),
        ({7: 1 + 32}, "step 0: an unknown form"),
        ({7: 1 + 16}, "step 0: (before must have shape|input before has element type)"),
        ({39: 15 + 32}, "step 2: constants that are not there"),
        ({53: 4}, "step 3: constants that are not there|step 3: level"),
        ({23: -5}, "step 1: constants that are not there"),
        ({23: 2**40}, "step 1: constants that are not there"),
        ({34: 2}, "step 1: weights must have shape"),
        ({35: 2}, "step 1: padding_value must be -1, 0 or 1, got 2"),
        ({38: 2}, "step 2: value 2 is not floats"),
        ({38: -1}, "step 2: value -1 is read before it is there"),
        ({43: 2}, "step 2: the residual must have the shape of the output"),
        ({54: 3}, "step 3: value 3 is not floats"),
        ({55: 0, 56: 3}, "step 3: the windows of a pooling must tile the image"),
        ({56: 16}, "step 3: attribute kernel_shape of a mean must be 1, 2, 4 or 8, got 16"),
        ({56: 0}, "step 3: attribute kernel_shape must be at least 1"),
        ({58: -1}, "step 3: attribute zeros must not be negative"),
        ({58: 1}, r"output_size must be \(4, 4, 17\), got \(4, 4, 16\)"),
    ],
)
def test_malformed_programs_are_refused(changes: dict[int, int], message: str) -> None:
    model = good_chain().model(chained=True)
    program = next(a for a in model.graph.node[0].attribute if a.name == "program")
    for place, number in changes.items():
        program.ints[place] = number
    with pytest.raises(Exception, match=f'Chain0 ".*": ({message})'):
        opened(model)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("program", slice(0, 20), "step 1: attribute program ends within a step"),
        ("program", slice(0, 5), "a chain without steps"),
        ("program", slice(0, 19), "the last step gives other outputs than the operator has"),
        ("program", slice(0, 0), "attribute program is missing, empty or too long"),
        ("limits", slice(0, 1), "step 2: attribute limits has too few numbers"),
        ("limits", slice(0, 0), "attribute limits is missing, empty or too long"),
        ("output_size", slice(0, 2), "attribute output_size must be 3 integers, got 2"),
    ],
)
def test_attributes_of_a_chain_that_end_too_early(name: str, numbers: slice, message: str) -> None:
    model = good_chain().model(chained=True)
    attribute = next(a for a in model.graph.node[0].attribute if a.name == name)
    values = attribute.floats if name == "limits" else attribute.ints
    kept = list(values)[numbers]
    del values[:]
    values.extend(kept)
    with pytest.raises(Exception, match=message):
        opened(model)


def test_inputs_of_a_chain_are_checked() -> None:
    net = good_chain()
    model = net.model(chained=True)
    del model.graph.input[0].type.tensor_type.shape.dim[1:]
    for _ in range(3):
        model.graph.input[0].type.tensor_type.shape.dim.add()
    with pytest.raises(Exception, match=r"input 0 must have shape \(batch, 3, 8, 8\), got \(1, 8, 8, 3\)"):
        opened(model).run(None, {"images": np.zeros((1, 8, 8, 3), np.float32)})


# Every operator with attributes, constants and bytes spoilt. What is wrong is refused; nothing may crash.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return operator_files(tmp_path_factory.mktemp("models"))


def test_malformed_operators_do_not_crash(models: list[Path]) -> None:
    ran, refused = open_operators(library_path(), models, 1200)
    assert ran > 200 and refused > 300


@pytest.mark.exhaustive
def test_operators_under_address_and_undefined_behaviour_sanitizers(models: list[Path], sanitized: Path) -> None:
    """Inside onnxruntime, with the library compiled with the sanitizers; what they find ends the process."""
    ran, refused = open_operators(sanitized, models, 400, sanitized=True)
    assert ran > 50 and refused > 80
