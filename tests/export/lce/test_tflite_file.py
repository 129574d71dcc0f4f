"""What is in a .tflite file for LCE, bit by bit: filters, constants, shapes, alignment, metadata."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.lce import operations, stored

from bnn_itrd.export.lce import read_lce_metadata
from bnn_itrd.export.lce.binary import pack_filter
from bnn_itrd.export.lce.reader import read_lce_model
from bnn_itrd.export.lce.schema import load_schema

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


def test_filter_bits() -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 31, 32, 33, 70):
        signs = rng.choice(np.array([-1, 1], np.int8), (5, 2, 3, channels))
        words = pack_filter(signs)
        assert words.dtype == np.int32 and words.shape == (5, 2, 3, -(-channels // 32))
        unsigned = words.astype(np.int64) & 0xFFFFFFFF
        for c in range(words.shape[-1] * 32):
            bit = unsigned[..., c // 32] >> (c % 32) & 1
            np.testing.assert_array_equal(bit, signs[..., c] < 0 if c < channels else 0)


def test_operations_and_constants(tiny: Any, tiny_file: Path) -> None:
    """Turned by 180 degrees, hardtanh dropped, BatchNorm folded: every number against NumPy."""
    found = operations(tiny_file)
    assert [name for name, _ in found] == [
        "REVERSE_V2",
        "CONV_2D",
        "LceQuantize",
        "LceBconv2d",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]
    with torch.no_grad():
        factors = [(n.weight.double() / (n.running_var.double() + n.eps).sqrt()).numpy() for n in (tiny[1], tiny[4])]
        shifts = [
            n.bias.double().numpy() - n.running_mean.double().numpy() * f
            for n, f in zip((tiny[1], tiny[4]), factors, strict=True)
        ]
        weight = tiny[0].weight.double().numpy() * factors[0].reshape(-1, 1, 1, 1)
        binary = tiny[3].binary_weight()
        signs, scale = binary.signs.numpy(), binary.scale.double().numpy()
        bias = tiny[3].bias.double().numpy()
    conv, bconv, linear = found[1][1], found[3][1], found[5][1]
    turned = weight.transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    np.testing.assert_allclose(stored(tiny_file, conv, 1), turned, rtol=1e-6, atol=1e-7)
    bits = stored(tiny_file, bconv, 1, np.int32)
    np.testing.assert_array_equal(bits, pack_filter(signs.transpose(0, 2, 3, 1)[:, ::-1, ::-1]))
    np.testing.assert_allclose(stored(tiny_file, bconv, 2), scale * factors[1], rtol=1e-6)
    np.testing.assert_allclose(stored(tiny_file, bconv, 3), bias * factors[1] + shifts[1], rtol=1e-5, atol=1e-6)
    assert bconv.inputs[4] == -1
    # The features lie as (h, w, c), reversed: the columns of the linear layer follow them.
    columns = tiny[6].weight.detach().numpy().reshape(3, 8, 4, 4).transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    np.testing.assert_array_equal(stored(tiny_file, linear, 1), columns.reshape(3, -1))
    from flatbuffers import flexbuffers

    assert flexbuffers.Loads(bytes(bconv.customOptions)) == {
        "channels_in": 40,
        "dilation_height_factor": 1,
        "dilation_width_factor": 1,
        "fused_activation_function": 0,
        "pad_values": 0,
        "padding": 0,
        "stride_height": 2,
        "stride_width": 2,
    }


def test_shapes_and_alignment(tiny_file: Path) -> None:
    model, _ = read_lce_model(tiny_file)
    graph = model.subgraphs[0]
    source, result = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    assert (list(source.shape), list(source.shapeSignature)) == ([1, 8, 8, 3], [-1, 8, 8, 3])
    assert (list(result.shape), list(result.shapeSignature)) == ([1, 3], [-1, 3])
    assert (source.name, result.name) == (b"images", b"logits")
    data = tiny_file.read_bytes()
    schema = load_schema()
    raw = schema.Model.GetRootAs(data, 0)
    for i in range(raw.BuffersLength()):
        buffer = raw.Buffers(i)
        if not buffer.DataIsNone():
            start = np.asarray(buffer.DataAsNumpy()).__array_interface__["data"][0]
            base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            assert (start - base) % 16 == 0


def test_metadata(tiny_file: Path) -> None:
    metadata = read_lce_metadata(tiny_file)
    assert metadata["classes"] == ["cat", "dog", "änderung"]
    assert metadata["mean"] == [0.5, 0.4, 0.3] and metadata["std"] == [0.2, 0.25, 0.3]
    assert (metadata["input_shape"], metadata["format_version"]) == ([3, 8, 8], 1)
    assert (metadata["binary_layers"], metadata["source_sha256"], metadata["runs"]) == (1, "0123", [1, 2])
    assert metadata["torch_version"] == torch.__version__ and metadata["bnn_itrd_version"]
    # Nothing of the machine it was made on.
    assert str(Path(__file__).parents[3]).encode() not in tiny_file.read_bytes()
    assert b"site-packages" not in tiny_file.read_bytes()
