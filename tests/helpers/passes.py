"""The test of a pass over the canonical graph: the graph computes the same before it and after it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from bnn_itrd.export import canonical
from bnn_itrd.export.graph import nodes_of
from bnn_itrd.export.passes.batchnorm import fold_batchnorm, fold_batchnorm_into_next
from bnn_itrd.quant import BinaryConv2d
from helpers.exported import images, randomised, run_graph

# (a function that builds the network, the pass, how many changes it makes, the operation that is gone afterwards).
PassCase = tuple[Callable[[], nn.Module], Callable[[ir.Model], int], int, str]


class Fork(nn.Module):
    """A network in which two operations read the same value, so that it must not be changed for only one of them."""

    def __init__(self, clip: bool = False) -> None:
        super().__init__()
        self.first = nn.Hardtanh() if clip else nn.Conv2d(3, 3, 3, padding=1)
        self.second = BinaryConv2d(3, 3, 3, padding=1) if clip else nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(x)


def check_pass(case: PassCase) -> None:
    """Asserts that a pass makes the expected number of changes, and does not change what the graph computes.

    Only passes that fold a BatchNorm may change rounding.
    """
    build, apply, count, gone = case
    torch.manual_seed(9)
    model = randomised(build())
    x = images(4, (3, 6, 6)) * 2
    x[:, :, 0] = 0.0
    x[:, :, 1] = -0.0
    graph = canonical(model, input_shape=(3, 6, 6))
    before = run_graph(graph, x)
    with torch.no_grad():
        np.testing.assert_allclose(before, model(x).numpy(), rtol=1e-5, atol=1e-5)
    assert apply(graph) == count
    after = run_graph(graph, x)
    if gone:
        assert not nodes_of(graph, gone)
    if apply in (fold_batchnorm, fold_batchnorm_into_next) and count:
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(after, before)
