"""`pack_signs`: weights of one bit each, which unpack to the same signs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.passes import PassCase, check_pass
from torch import nn

from bnn_itrd.export import canonical, portable
from bnn_itrd.export.graph import constant, nodes_of
from bnn_itrd.export.passes.lower_binary import lower_binary
from bnn_itrd.export.passes.pack_bits import pack_signs, packed_bits
from bnn_itrd.quant import BinaryConv2d, BinaryLinear

PASS_CASES: dict[str, PassCase] = {
    "packing": (
        lambda: nn.Sequential(BinaryConv2d(3, 25, 3), nn.Flatten(), BinaryLinear(400, 9)),
        lambda model: (lower_binary(model), pack_signs(model))[1],
        2,
        "",
    ),
}


@pytest.mark.parametrize("name", PASS_CASES)
def test_pass(name: str) -> None:
    check_pass(PASS_CASES[name])


@pytest.mark.parametrize("outputs", [57, 64])
def test_packed_bits_in_the_file(outputs: int) -> None:
    """27 weights for each of 57 outputs do not fill whole bytes. The bits are those of numpy.packbits."""
    torch.manual_seed(10)
    model: Any = nn.Sequential(BinaryConv2d(3, outputs, 3)).eval()
    graph = canonical(model, input_shape=(3, 6, 6))
    portable(graph)
    assert packed_bits(graph) == -(-outputs * 27 // 8) * 8
    table, rows = (value for value in nodes_of(graph, "Gather")[0].inputs)
    assert rows is not None and rows.producer() is not None
    stored, row = constant(rows.producer().inputs[0]), constant(table)
    assert stored is not None and stored.dtype == np.uint8
    assert row is not None and row[0b10000011].tolist() == [1, -1, -1, -1, -1, -1, 1, 1]
    signs = model[0].binary_weight().signs.detach().numpy()
    np.testing.assert_array_equal(stored.reshape(-1), np.packbits(signs.reshape(-1) > 0))
    assert bool(nodes_of(graph, "Slice")) == (outputs * 27 % 8 != 0)
    # A sum of bytes no float initializer hides in.
    arrays = [constant(value) for value in graph.graph.initializers.values()]
    assert all(array is not None and array.nbytes < signs.nbytes for array in arrays)
