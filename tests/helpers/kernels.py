"""Random binary convolutions for the tests of the native library: in NumPy and torch, and as an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from einops import rearrange
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.runtime.format import CONVOLUTIONS
from bnn_itrd.export.runtime.native import kernel, library_path
from bnn_itrd.export.runtime.native.direct import KERNELS
from helpers.chains import opened


def kernels() -> list[str]:
    """Returns the names of the kernels that this processor can run."""
    if library_path() and kernel() == "neon":
        return ["portable", "neon"]
    best = KERNELS.index(kernel()) if library_path() else -1
    return list(KERNELS[: best + 1])


def packed(values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """Packs values +1 and -1 into bytes along an axis, the lowest bit first; unused bits are 0."""
    return np.packbits(values > 0, axis=axis, bitorder="little")


def signs_of(shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 2, shape) * 2 - 1


def sums(x: np.ndarray, weights: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """Computes a binary convolution by torch in float64; x (n, h, w, c), weights (kh, kw, i, o), both +1 and -1.

    Returns int32 (n, h', w', o). attributes: those of the ONNX operation.
    """
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


SUFFIXES = tuple(name.removeprefix("BinaryConv") for name in CONVOLUTIONS if name.startswith("BinaryConv"))


def one_node(
    op: str, case: dict[str, Any], generator: np.random.Generator
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Returns an ONNX model of the operations Sign and `op`, and its random constants.

    case: sizes, as in `CASE`. The weights among the constants are +1 and -1, not packed.
    """
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
    """Asserts that `op` in the native library gives exactly the bits of the same computation in NumPy and torch."""
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
        if result.dtype == np.uint8:  # packed signs: the bits are at the front of the buffer
            bits = packed(value).reshape(-1)
            np.testing.assert_array_equal(result.reshape(-1)[: bits.size], bits)
        else:
            np.testing.assert_array_equal(result.view(np.int32), value.view(np.int32))
