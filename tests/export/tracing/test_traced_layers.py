"""Every form of binary layer is one node of the canonical graph and computes the same, before and after the passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exported import images, randomised, run_graph, with_parts
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical, portable
from bnn_itrd.export.graph import attribute, nodes_of
from bnn_itrd.quant import ActivationBinarizer, BinaryConv2d, BinaryLinear, BinaryWeight, WeightBinarizer, sign

LAYERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: BinaryConv2d(4, 6, 3, padding=1),
    "grouped": lambda: BinaryConv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": lambda: BinaryConv2d(4, 8, 3, groups=4, padding=1, padding_value=1),
    "dilated": lambda: BinaryConv2d(4, 6, 3, dilation=2, padding=2, padding_value=-1),
    "strided": lambda: BinaryConv2d(4, 6, 3, stride=2, padding=1, padding_value=-1),
    "uneven": lambda: BinaryConv2d(4, 6, (3, 1), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
    "uneven_plus_one": lambda: BinaryConv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 2), padding_value=1),
    "biased": lambda: BinaryConv2d(4, 6, 1, bias=True),
    "offset": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1, bias=True), offset=True),
    "offset_grouped": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1, groups=2, padding_value=-1), offset=True),
    "threshold": lambda: with_parts(BinaryConv2d(4, 6, 3, padding=1), threshold=True),
    "xnor": lambda: BinaryConv2d(4, 6, 3, scheme="xnor"),
    "linear": lambda: nn.Sequential(nn.Flatten(), BinaryLinear(4 * 7 * 9, 5, bias=True)),
    "linear_offset": lambda: nn.Sequential(
        nn.Flatten(2), with_parts(BinaryLinear(63, 5), offset=True, threshold=False)
    ),
}


@pytest.mark.compiles
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    """The graph computes the same after passes that fold BatchNorm, drop clips and pack bits, also at 0 and -0."""
    torch.manual_seed(4)
    layer: Any = LAYERS[name]()
    norm = nn.Identity() if "linear" in name else nn.BatchNorm2d(layer.weight.shape[0])
    model = randomised(nn.Sequential(nn.Hardtanh(), layer, norm))
    x = (images(3, (4, 7, 9)) * 3).round() / 3
    x[0, :, ::2] = -0.0
    graph = canonical(model, input_shape=(4, 7, 9))
    node = (nodes_of(graph, "BinaryConv2d", "bnn_itrd") + nodes_of(graph, "BinaryLinear", "bnn_itrd"))[0]
    assert attribute(node, "path", "").split(".")[0] == "1"
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(run_graph(graph, x), expected, rtol=1e-5, atol=1e-5)
    portable(graph)
    # The Hardtanh goes where the sign reads it, and stays in front of a threshold or a reshape.
    clips = 1 if name in ("threshold", "linear", "linear_offset") else 0
    assert not nodes_of(graph, "BatchNormalization") and len(nodes_of(graph, "Clip")) == clips
    np.testing.assert_allclose(run_graph(graph, x), expected, rtol=1e-5, atol=1e-5)


class MeanSubtracted(ActivationBinarizer):
    """A binariser that subtracts its input's mean, so that its threshold depends on the input, without declaring it."""

    def forward(self, x: Tensor) -> Tensor:
        return sign(x - x.mean())


class ZeroAtZero(ActivationBinarizer):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class Sized(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(0.5 * sign(weight), torch.ones(len(weight)))


class Scaled(BinaryConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _with_activation(binarizer: type[ActivationBinarizer]) -> nn.Module:
    layer = BinaryConv2d(3, 4, 3)
    layer.activation_binarizer = binarizer(3)
    return layer


def _with_weight(binarizer: type[WeightBinarizer]) -> nn.Module:
    layer = BinaryConv2d(3, 4, 3)
    layer.weight_binarizer = binarizer(4)
    return layer


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _with_activation(MeanSubtracted), r"^1: MeanSubtracted does not return sign\(presign\(x\)\)"),
        (lambda: _with_activation(ZeroAtZero), r"^1: ZeroAtZero does not return sign"),
        (lambda: _with_weight(Sized), r"^1: Sized gives weights other than -1 and \+1"),
        (lambda: Scaled(3, 4, 3), r"^1: Scaled computes something other"),
    ],
)
def test_layers_that_break_the_contract(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        canonical(nn.Sequential(nn.Identity(), build()), input_shape=(3, 8, 8))
