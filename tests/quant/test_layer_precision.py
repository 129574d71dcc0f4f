"""Binary layers compiled, without a wait for the device, in other precisions and under autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.layers import SignsScaleOffset
from helpers.numbers import rand
from torch import Tensor, nn

from bnn_itrd.quant import SCHEMES, BinaryConv2d, BinaryLinear, set_progress


def forward_and_gradients(f: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = f(x)
    (y * rand(*y.shape, seed=7)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.compiles
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_layers_compile_to_one_graph(scheme: str, training: bool) -> None:
    torch._dynamo.reset()
    layer = BinaryConv2d(3, 4, 3, padding=1, padding_value=-1, bias=True, scheme=scheme).train(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for p in (0.0, 0.5):
        set_progress(layer, p)
        got = forward_and_gradients(compiled, layer, rand(2, 3, 5, 5))
        want = forward_and_gradients(layer, layer, rand(2, 3, 5, 5))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.compiles
def test_layer_compiles_with_the_default_backend() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = BinaryConv2d(3, 4, 3, padding=1)
    got = forward_and_gradients(torch.compile(layer, fullgraph=True), layer, rand(2, 3, 5, 5))
    want = forward_and_gradients(layer, layer, rand(2, 3, 5, 5))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_nothing_syncs_with_the_host(scheme: str) -> None:
    """A meta tensor has no values: .item(), a branch on a value or a copy to the host would raise."""
    net = nn.Sequential(
        BinaryConv2d(3, 4, 3, scheme=scheme), nn.Flatten(), BinaryLinear(36, 2, bias=True, scheme=scheme)
    ).to("meta")
    set_progress(net, 0.5)
    y = net.train()(torch.empty(2, 3, 5, 5, device="meta"))
    y.sum().backward()
    assert y.shape == (2, 2) and y.device.type == "meta"
    assert all(p.grad is not None for p in net.parameters())
    assert net.eval()(torch.empty(2, 3, 5, 5, device="meta")).shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_layers_in_other_precisions(dtype: torch.dtype) -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(36, 2)).to(dtype)
    y = net(rand(2, 3, 5, 5, dtype=dtype))
    y.sum().backward()
    assert y.dtype == dtype and y.isfinite().all()


def test_layers_under_autocast_keep_exact_signs() -> None:
    layer, x = BinaryConv2d(3, 4, 3), rand(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        a = layer.activation_binarizer(x.bfloat16())
    y.sum().backward()
    # 27 taps of +-1: their sum is exact in bfloat16, the scale is float32's.
    torch.testing.assert_close(y.float(), layer(x), rtol=1e-2, atol=1e-2)
    assert torch.equal(a.float().abs(), torch.ones_like(x))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("offset", [False, True], ids=["scale", "offset"])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_layers_under_autocast_stay_in_half_precision(kind: str, offset: bool, bias: bool) -> None:
    layer = BinaryConv2d(3, 4, 3, bias=bias) if kind == "conv" else BinaryLinear(5, 4, bias=bias)
    if offset:
        layer.weight_binarizer = SignsScaleOffset(4)
    x = rand(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    # Rounded once, at the end.
    torch.testing.assert_close(y, layer(x).bfloat16(), rtol=0, atol=0)
