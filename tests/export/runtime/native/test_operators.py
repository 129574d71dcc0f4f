"""The native library's operators inside onnxruntime: their numbers, shapes and threads, and which kernel they take."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from einops import rearrange
from helpers.chains import opened
from helpers.kernels import CASE, SUFFIXES, check_node, kernels, one_node
from onnx import TensorProto, helper

import bnn_itrd.export.runtime.native as native_module
from bnn_itrd.export.runtime.native import kernel, library_path, why_unavailable
from bnn_itrd.export.runtime.native.direct import KERNELS, load_library

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


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
    expected = (
        "was built from other sources than this bnn-itrd (its format version is 0, not 3): install bnn-itrd again"
    )
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
