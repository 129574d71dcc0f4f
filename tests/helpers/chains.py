"""Sessions of onnxruntime with and without the native library, and ONNX models with one float convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.runtime.format import DOMAIN
from bnn_itrd.export.runtime.native import library_path


def opened(model: onnx.ModelProto | bytes, *, native: bool = True, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if native:
        options.register_custom_ops_library(str(library_path()))
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def bits(signs: np.ndarray) -> np.ndarray:
    """Returns the bytes of a tensor of packed signs that carry them; the rest of its buffer has no meaning."""
    n, h, w, c = signs.shape
    return signs.reshape(-1)[: n * h * w * -(-c // 8)]


def assert_same(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if ours.dtype == np.uint8:
            np.testing.assert_array_equal(bits(ours), bits(theirs))
        else:
            np.testing.assert_array_equal(ours.view(np.int32), theirs.view(np.int32))


def stem_constants(op: str, outputs: int) -> dict[str, np.ndarray]:
    """Returns the constants that an operation with RPReLU or RSign in its name takes, name -> (outputs,)."""
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
