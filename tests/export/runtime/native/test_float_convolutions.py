"""The native library's float convolutions agree with torch, and bit for bit with onnxruntime; bad ones are refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from helpers.chains import assert_same, bits, opened, stem_constants, stem_model
from onnx import numpy_helper

from bnn_itrd.export.runtime.format import FLOAT_CONVOLUTIONS
from bnn_itrd.export.runtime.native import library_path, why_unavailable

pytestmark = pytest.mark.skipif(library_path() is None, reason=f"no native library: {why_unavailable()}")


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
    with pytest.raises(Exception, match=r"bias must have shape \(8\), a number for each output of weights, got \(7\)"):
        opened(short)
