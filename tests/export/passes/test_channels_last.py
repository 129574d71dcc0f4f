"""`channels_last`: the graph computes the same with its images as NHWC, and few transposes are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers.channels_last import CASES, SHAPE, case_graph, conv, kinds_of, run
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical
from bnn_itrd.export.ort.file import native
from bnn_itrd.export.passes.batchnorm import fold_batchnorm
from bnn_itrd.export.passes.channels_last.nhwc import channels_last
from bnn_itrd.export.passes.clips import drop_clips
from bnn_itrd.export.passes.fuse import fuse
from bnn_itrd.quant import BinaryLinear


class Tokens(nn.Module):
    """A network with a linear layer on (n, tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BinaryLinear(8, 12), BinaryLinear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flatten(1, 2)))


@pytest.mark.parametrize("name", CASES)
def test_before_is_after(name: str) -> None:
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5))
    x[:, :, 0] = 0.0
    x[:, :, 1] = -0.0
    graph = case_graph(name)
    before = run(graph, x)
    channels_last(graph)
    moved = run(graph, x)
    np.testing.assert_allclose(moved, before, rtol=1e-5, atol=1e-5)
    fuse(graph)
    # Fusion changes no arithmetic.
    np.testing.assert_array_equal(run(graph, x), moved)
    # And with BatchNorm folded first: signs of values within rounding of 0 are no matter of these small networks.
    folded = case_graph(name)
    fold_batchnorm(folded)
    drop_clips(folded)
    middle = run(folded, x)
    channels_last(folded)
    fuse(folded)
    np.testing.assert_allclose(run(folded, x), middle, rtol=1e-5, atol=1e-5)


def test_tokens() -> None:
    torch.manual_seed(4)
    graph = canonical(Tokens(), input_shape=SHAPE)
    x = torch.randn(2, *SHAPE)
    before = run(graph, x)
    channels_last(graph)
    fuse(graph)
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-6)


@pytest.mark.parametrize("kernel", [(8, 8), (8, 1), (2, 8), (4, 4)])
def test_a_mean_of_eight_is_two_poolings(kernel: tuple[int, int]) -> None:
    torch.manual_seed(4)
    model, x = nn.Sequential(conv(), nn.AvgPool2d(kernel)), torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    channels_last(graph)
    sides = [list(node.attributes["kernel_shape"].as_ints()) for node in graph.graph if node.op_type == "AveragePool"]
    assert len(sides) == (2 if 8 in kernel else 1) and all(max(side) <= 4 for side in sides)
    assert tuple(np.prod(sides, axis=0)) == kernel
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-5, atol=1e-6)


class TwoWays(nn.Module):
    """A network whose first layer feeds two binary layers, through other operations; and an addition if `third`."""

    def __init__(self, left: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor], third: bool) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.stem = nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = conv(), conv()
        self.row = nn.Parameter(torch.arange(8.0)) if third else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.first(self.left(x)) + self.second(self.right(x))
        # A constant along the width of (n, c, h, w) has no place of its own in NHWC.
        return y if self.row is None else y + (x + self.row)


@pytest.mark.parametrize("third", [False, True])
def test_a_value_goes_several_ways_to_channels_last(third: bool) -> None:
    """The nodes stay in order, and the value is transposed to NHWC once for all its readers."""
    torch.manual_seed(4)
    model = TwoWays(lambda x: 2 * x - 0.1, lambda x: torch.sigmoid(x) - 0.5, third).eval()
    x = torch.randn(3, *SHAPE)
    graph = canonical(model, input_shape=SHAPE)
    before = run(graph, x)
    native(graph)
    # onnxruntime puts a graph in order itself; onnx's checker refuses one that is not.
    made: set[int] = set()
    for node in graph.graph:
        assert all(v is None or v.producer() is None or id(v.producer()) in made for v in node.inputs), node.op_type
        made.add(id(node))
    np.testing.assert_allclose(run(graph, x), before, rtol=1e-5, atol=1e-5)
    kinds = Counter(node.op_type for node in graph.graph)
    # Back at the end; with the third way also of the stem's value, once, and of the sum with the row.
    assert kinds["FloatConv"] == (not third) and kinds["Transpose"] == (3 if third else 1)


@pytest.mark.parametrize(
    "name", ["avg_pool", "max_pool", "pad_channels", "slices", "concat", "concat_rows", "activations"]
)
def test_nothing_goes_back_to_channels_first_inside(name: str) -> None:
    assert kinds_of(name)["Transpose"] == 2


def test_the_layer_is_named_where_its_images_have_no_fixed_size() -> None:
    graph = canonical(nn.Sequential(conv()), input_shape=SHAPE)
    sign = next(node for node in graph.graph if node.op_type == "Sign")
    assert sign.inputs[0] is not None
    sign.inputs[0].shape = ir.Shape(["batch", 6, None, 8])
    with pytest.raises(ExportError, match="0: the height and width of its input depend on the images"):
        channels_last(graph)
